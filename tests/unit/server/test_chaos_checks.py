"""The checks of a chaos run can fail: for each, a history or a journal that is wrong in one thing.

The journal is that of one shop, decided by the real core; what its callers were told is written
down beside it, by a clock that goes two seconds for each call.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.core import records as r
from actors.core.codec import pack_entry, unpack_entry
from actors.core.identity import public_id, request_key, slot_of
from actors.core.outcomes import Outcome
from actors.core.state import REFUSAL_WINDOW_MS
from actors.core.tables import Refusals
from persistence.open import open_journal
from persistence.ports import Entry
from server.chaos.books import Books
from server.chaos.checks import Checks, check_history, doubts_of, last_acked, new_checks
from server.chaos.history import (
    FAIL,
    OK,
    UNKNOWN,
    Operation,
    payment_mark,
    release_mark,
    request_mark,
)
from server.chaos.tail import Tail
from tests.model.shop import Shop, line

SLOT = slot_of("sale")
OF_THE_HISTORY = {
    "lost_acks",
    "phantom_refusals",
    "changed_answers",
    "once",
    "asked",
    "order",
    "refusals",
    "reads",
    "oversold",
    "arithmetic",
}
OF_TEAMS = {"seated", "formed", "owed"}


class Story:
    """One shop, its journal, and the calls of its callers."""

    def __init__(self, units: int = 3) -> None:
        self.shop = Shop()
        self.shop.open_sale(units, line("tea", limit=2))
        self.operations: list[Operation] = []
        self.now_s = 100.0

    def tell(
        self,
        verb: str,
        status: str,
        *,
        mark: str = "",
        buyer: str = "ann",
        quantity: int = 1,
        reservation_id: str = "",
        answer: tuple[Any, ...] = (),
        outcome: str = "",
    ) -> Operation:
        """Somebody was told something just now."""
        done = status in ("RESERVED", "CONFIRMED", "RELEASED", "FOUND")
        operation = Operation(
            len(self.operations) + 1,
            verb,
            0,
            "sale",
            "tea",
            buyer,
            quantity,
            mark,
            reservation_id,
            self.now_s,
            self.now_s + 1,
            outcome or (OK if done else FAIL),
            status,
            answer,
        )
        self.now_s += 2
        self.operations.append(operation)
        return operation

    def reserve(self, request: str, quantity: int = 1, buyer: str = "ann") -> str:
        """Answers the reservation id, '' when refused."""
        answer = self.shop.reserve(request, quantity, buyer, sale="sale", caller="default")
        status = Outcome(answer[0]).name
        name = public_id(SLOT, answer[1]) if status == "RESERVED" else ""
        self.tell(
            "grab",
            status,
            mark=request_mark(SLOT, request),
            buyer=buyer,
            quantity=quantity,
            reservation_id=name,
            answer=(name, answer[4]) if name else (),
        )
        return name

    def pay(self, name: str, payment: str = "p1") -> None:
        """Confirm in full."""
        status = Outcome(self.shop.pay(name, payment, 80)[0]).name
        self.tell("confirm", status, mark=payment_mark(SLOT, payment), reservation_id=name)

    def release(self, name: str) -> None:
        """Give up."""
        status = Outcome(self.shop.release(name)[0]).name
        self.tell("release", status, mark=release_mark(name), reservation_id=name)

    def read(self) -> Operation:
        """The pool as it stands."""
        pool = self.shop.pool("sale")
        stood = (pool.total, pool.available, pool.reserved, pool.sold, pool.in_transit)
        return self.tell("get_stock", "FOUND", answer=stood)

    def entries(self) -> list[Entry]:
        """The journal."""
        return [Entry(seq, 1, "", data) for seq, data in enumerate(self.shop.journal, 1)]

    def books(self) -> Books:
        """The journal's order."""
        books = Books(1)
        for entry in self.entries():
            books.take(0, entry)
        return books

    def checks(self) -> Checks:
        """All of them."""
        checks = new_checks()
        check_history(self.operations, self.books(), checks)
        return checks

    def violated(self) -> set[str]:
        """Names of the checks that failed."""
        return {name for name, found in self.checks().items() if found.violations}

    def change(self, number: int, **fields: Any) -> None:
        """Another truth about one call."""
        self.operations[number] = self.operations[number]._replace(**fields)

    def rewrite(self, change: Callable[[Any], Any]) -> None:
        """Another truth about records and balances; `change` answers what stands instead."""
        for index, data in enumerate(self.shop.journal):
            content = unpack_entry(data)
            self.shop.journal[index] = pack_entry(
                epoch=1,
                now_ms=content.now_ms,
                records=[change(record) for record in content.records],
                balances=[change(balance) for balance in content.balances],
            )


def good_story() -> Story:
    """Every kind of answer once, and all of them true."""
    story = Story()
    first = story.reserve("r1")
    story.reserve("r1")
    story.reserve("r2", 2)  # over the limit of 2
    second = story.reserve("r3", 2, "bob")
    story.reserve("r4", 1, "cid")  # sold out
    story.read()
    story.pay(first)
    story.release(second)
    story.release(first)  # paid already
    story.read()
    story.tell("get_reservation", "FOUND", reservation_id=first, answer=("CONFIRMED", 0))
    return story


def test_nothing_is_wrong_with_a_good_story_and_every_check_looked_at_it() -> None:
    checks = good_story().checks()
    assert {name: found.examples for name, found in checks.items() if found.violations} == {}
    assert {name for name, found in checks.items() if found.checked} == OF_THE_HISTORY


def test_an_acknowledged_sale_that_is_not_in_the_journal_is_a_lost_ack() -> None:
    story = good_story()
    story.tell("grab", "RESERVED", mark=request_mark(SLOT, "nowhere"))
    assert story.violated() == {"lost_acks"}


def test_a_payment_that_was_kept_and_told_as_a_refund_is_a_lost_ack() -> None:
    story = good_story()
    paid = next(i for i, o in enumerate(story.operations) if o.verb == "confirm")
    story.change(paid, status="REFUND_DUE")
    assert story.violated() == {"lost_acks"}


def test_a_refusal_that_took_effect_is_a_phantom() -> None:
    story = good_story()
    story.change(3, status="SOLD_OUT", outcome=FAIL, answer=())
    assert "phantom_refusals" in story.violated()


@pytest.mark.parametrize("status", ["RETRY", "Unavailable"])
def test_what_was_told_as_not_applied_and_is_there_is_a_phantom(status: str) -> None:
    story = good_story()
    story.change(3, status=status, outcome=FAIL, answer=())
    assert story.violated() == {"phantom_refusals"}


def test_what_nobody_knows_may_be_there_or_not() -> None:
    story = good_story()
    story.change(3, status="UNKNOWN", outcome=UNKNOWN, answer=())
    story.tell("grab", "UNKNOWN", mark=request_mark(SLOT, "nowhere"), outcome=UNKNOWN)
    assert story.violated() == set()
    assert doubts_of(story.operations, story.books()) == {"took_effect": 1, "did_not": 1}


def test_another_answer_to_the_same_id_is_found() -> None:
    story = good_story()
    story.change(1, answer=(story.operations[1].reservation_id, 79))
    assert story.violated() == {"changed_answers"}


def test_a_second_effect_of_one_id_is_found() -> None:
    story = good_story()
    content = unpack_entry(story.shop.journal[-1])
    again = next(
        record
        for data in story.shop.journal
        for record in unpack_entry(data).records
        if record.kind == r.STOCK_RESERVED
    )
    story.shop.journal.append(
        pack_entry(epoch=1, now_ms=content.now_ms, records=[again], balances=[])
    )
    assert "once" in story.violated()


def refused_then_granted(pause_ms: int) -> Story:
    """A shop that forgets what it refused, and is asked again after a pause."""
    story = good_story()
    story.shop.state.slots[SLOT].refusals = Refusals(REFUSAL_WINDOW_MS)
    story.shop.wait(pause_ms)
    story.shop.reserve("r4", 1, "cid", sale="sale", caller="default")
    return story


def test_a_refused_id_that_is_granted_within_its_window_is_found() -> None:
    assert refused_then_granted(1_000).violated() >= {"once", "phantom_refusals"}


def test_a_refused_id_is_a_new_request_past_its_window() -> None:
    """Unless its caller was told of the refusal: then it is never granted."""
    story = refused_then_granted(REFUSAL_WINDOW_MS)
    assert story.violated() == {"phantom_refusals"}
    story.change(4, status="UNKNOWN", outcome=UNKNOWN)
    assert story.violated() == set()


def test_an_effect_that_nobody_asked_for_is_found() -> None:
    story = good_story()
    del story.operations[3]
    assert "asked" in story.violated()


def test_units_that_went_to_another_buyer_are_found() -> None:
    story = good_story()
    story.change(3, buyer_id="eve")
    assert "asked" in story.violated()


def test_an_order_of_the_journal_against_real_time_is_found() -> None:
    """Bob's units were acknowledged before Ann asked for hers, by the callers' clock."""
    story = good_story()
    story.change(3, began_s=1.0, ended_s=2.0)
    assert "order" in story.violated()


def test_an_effect_before_it_was_asked_for_is_out_of_order_even_if_nobody_was_told() -> None:
    story = good_story()
    story.change(0, began_s=900.0, ended_s=901.0, outcome=UNKNOWN, status="UNKNOWN")
    story.change(1, began_s=902.0, ended_s=903.0, outcome=UNKNOWN, status="UNKNOWN")
    assert "order" in story.violated()


def test_sold_out_with_units_on_the_shelf_is_found() -> None:
    story = Story(3)
    story.reserve("r1", 2, "ann")
    story.reserve("r2", 2, "bob")
    assert story.violated() == set()
    story.change(1, quantity=1)
    assert story.violated() == {"refusals"}


def test_over_the_limit_below_it_is_found() -> None:
    story = good_story()
    story.change(2, quantity=1)
    assert story.violated() == {"refusals"}


def test_an_answer_about_a_state_that_never_was_is_found() -> None:
    story = good_story()
    released = next(i for i, o in enumerate(story.operations) if o.status == "ALREADY_CONFIRMED")
    story.change(released, status="EXPIRED")
    assert story.violated() == {"refusals"}


def test_an_acknowledged_reservation_that_is_not_found_is_named() -> None:
    story = good_story()
    story.tell("get_reservation", "NOT_FOUND", reservation_id=story.operations[0].reservation_id)
    assert story.violated() == {"reads"}


def test_a_read_of_what_was_before_an_acknowledged_sale_is_stale() -> None:
    story = good_story()
    before = story.operations[5].answer
    story.tell("get_stock", "FOUND", answer=before)
    assert story.violated() == {"reads"}


def test_a_read_of_what_was_asked_for_later_is_found() -> None:
    story = good_story()
    after = story.operations[9].answer
    story.change(5, answer=after)
    assert story.violated() == {"reads"}


def test_a_read_of_units_that_never_were_is_found() -> None:
    story = good_story()
    story.change(5, answer=(3, 3, 3, 3, 3))
    assert story.violated() == {"reads"}


def test_reads_never_go_back_even_while_a_sale_is_in_flight() -> None:
    """A sale that takes long may be seen or not; once it was seen it stays."""
    story = Story()
    before = story.read().answer
    story.reserve("r1")
    after = story.read().answer
    story.change(1, began_s=100.0, ended_s=1_000.0)
    story.change(2, answer=before)
    assert story.violated() == set()
    story.tell("get_stock", "FOUND", answer=after)
    assert story.violated() == set()
    story.tell("get_stock", "FOUND", answer=before)
    assert story.violated() == {"reads"}


def test_more_units_than_there_are_is_oversold() -> None:
    story = good_story()
    story.rewrite(lambda it: it._replace(quantity=3) if isinstance(it, r.StockReserved) else it)
    assert story.violated() >= {"oversold", "arithmetic"}
    assert story.books().units_oversold > 0


def test_a_buyer_over_the_limit_is_found() -> None:
    story = good_story()
    story.rewrite(lambda it: it._replace(buyer_id="ann") if isinstance(it, r.StockReserved) else it)
    assert "oversold" in story.violated()


def test_a_balance_that_its_records_do_not_add_up_to_is_found() -> None:
    story = good_story()
    story.rewrite(
        lambda it: it._replace(sold=it.sold + 1) if isinstance(it, r.Balance) and it.sold else it
    )
    assert story.violated() == {"arithmetic"}


def test_a_gap_in_the_journal_cannot_be_read_over() -> None:
    books = Books(1)
    entries = good_story().entries()
    books.take(0, entries[0])
    with pytest.raises(ValueError, match="entry 3 follows 1"):
        books.take(0, entries[2])


def test_the_last_acknowledged_entry_is_known() -> None:
    """Write-behind must have come so far; what came after it, nobody was told."""
    story = good_story()
    assert last_acked(story.operations, story.books()) == [len(story.shop.journal)]
    paid_first = [o for o in story.operations if o.verb == "grab"]
    assert last_acked(paid_first, story.books())[0] < len(story.shop.journal)


def test_a_return_is_an_effect_of_its_own_request() -> None:
    story = good_story()
    name = story.operations[0].reservation_id
    story.shop.bring_back(name, 1, "b1")
    mark = f"request:{public_id(SLOT, request_key('web', 'b1'))}"
    story.tell("return", "RETURNED", mark=mark, reservation_id=name, outcome=OK)
    story.read()
    assert story.violated() == set()


def stored(directory: Path, story: Story, *, incarnation: str = "first") -> str:
    """The journal in a store; answers its URL."""
    url = f"sqlite:{directory}"
    journal = open_journal(url)
    journal.create(0, incarnation=incarnation)
    journal.acquire(0, incarnation=incarnation, seen_epoch=0, token="one")
    for entry in story.entries():
        journal.append(
            0,
            incarnation=incarnation,
            epoch=1,
            seq=entry.seq,
            batch_id=f"b{entry.seq}",
            entry=entry.data,
        )
    journal.close()
    return url


def test_an_entry_that_cannot_be_read_leaves_the_checks_without_ground(tmp_path: Path) -> None:
    story = good_story()
    story.shop.journal[3] = b"no entry"
    tail = Tail(stored(tmp_path, story), 1)
    tail.catch_up()
    tail.close()
    assert "not an entry" in tail.missed


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda journal: None, ""),
        (lambda journal: journal.pop(), "was seen"),
        (lambda journal: journal.__setitem__(-1, journal[0]), "is not what it was"),
    ],
)
def test_entries_that_change_or_vanish_after_they_were_read_are_found(
    tmp_path: Path, change: Callable[[list[bytes]], object], what: str
) -> None:
    story = good_story()
    tail = Tail(stored(tmp_path / "as-it-was", story), 1)
    tail.catch_up()
    tail.close()
    assert tail.books.seqs == [len(story.shop.journal)]
    change(story.shop.journal)
    found = Tail.unchanged(_at(tail, stored(tmp_path / "as-it-is", story)))
    assert found.checked > 0
    assert bool(found.violations) is bool(what)
    assert all(what in example for example in found.examples)


def _at(tail: Tail, url: str) -> Tail:
    """What a tail has seen, and another store to compare it with."""
    other = Tail(url, 1)
    other.books = tail.books
    return other


def test_another_owner_of_a_journal_is_a_promotion(tmp_path: Path) -> None:
    tail = Tail(stored(tmp_path, good_story()), 1)
    tail.catch_up()
    assert tail.promotions == []
    journal = open_journal(f"sqlite:{tmp_path}")
    journal.acquire(0, incarnation="first", seen_epoch=1, token="two")
    journal.close()
    tail.catch_up()
    tail.close()
    assert [(one.shard, one.epoch) for one in tail.promotions] == [(0, 2)]

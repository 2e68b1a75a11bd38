"""Finished reservations leave memory, and no answer tells."""

import pytest

from actors.core import commands as c
from actors.core import records as r
from actors.core import state as s
from actors.core.codec import unpack_entry
from actors.core.evolve import evolve, fold
from actors.core.identity import public_id, slot_of
from actors.core.outcomes import Outcome, Undecided
from actors.core.snapshot import Loader, chunks, digest
from tests.model.shop import MINUTE_MS, Shop, line

DAY_MS = 86_400_000
SLOT = slot_of("tea")


@pytest.fixture
def shop() -> Shop:
    """20 units of tea."""
    shop = Shop()
    shop.sku()
    shop.receive(20)
    return shop


def forget(shop: Shop, after_ms: int = DAY_MS) -> int:
    """How many left when SQL had everything."""
    records = shop.forget(after_ms, len(shop.journal))
    return sum(len(record.keys) for record in records)


def in_memory(shop: Shop) -> int:
    return sum(len(slot.reservations) for slot in shop.state.slots.values())


def sold(shop: Shop, request: str = "r1", quantity: int = 1) -> str:
    """An order, a day ago."""
    held = shop.hold(request, quantity)
    shop.pay(held, f"paid {request}", 100 * quantity)
    shop.wait(DAY_MS)
    return held


def test_what_is_finished_old_and_in_sql_leaves_memory(shop: Shop) -> None:
    held = [shop.hold(f"r{number}") for number in range(6)]
    shop.pay(held[0], "p0")
    shop.release(held[1])
    shop.wait(DAY_MS)
    assert forget(shop) == 2
    assert in_memory(shop) == 4
    assert shop.stock() == {"available": 14 + 1, "reserved": 4, "sold": 1}
    assert forget(shop) == 0


def test_what_is_held_stays_however_old(shop: Shop) -> None:
    shop.hold()
    shop.wait(2 * DAY_MS)
    assert forget(shop) == 0


def test_what_was_touched_lately_stays(shop: Shop) -> None:
    held = sold(shop)
    shop.ship(held)
    shop.wait(DAY_MS - 1)
    assert forget(shop) == 0
    shop.wait(1)
    assert forget(shop) == 1


def test_nothing_is_forgotten_before_sql_has_it(shop: Shop) -> None:
    sold(shop)
    last = len(shop.journal)
    assert shop.forget(DAY_MS, last - 1) == []
    assert shop.forget(DAY_MS, last) != []


def test_an_order_that_a_limit_counts_stays_until_the_campaign_ends() -> None:
    shop = Shop()
    shop.open_sale(10, line("tea", limit=1), ends_ms=shop.now_ms + 3 * DAY_MS)
    held = shop.hold(sale="sale")
    assert shop.pay(held, paid=80)[0] == Outcome.CONFIRMED
    shop.wait(DAY_MS)
    assert forget(shop) == 0
    assert shop.reserve("r2", sale="sale")[0] == Outcome.LIMIT_EXCEEDED
    shop.turn(s.CAMPAIGN_ENDED)
    assert forget(shop) == 1


def test_a_retry_of_a_forgotten_winner_gets_the_same_answer(shop: Shop) -> None:
    before = shop.reserve("r1", 2)
    held = public_id(SLOT, before[1])
    shop.begin(held, "p1")
    shop.pay(held, "p1", 200)
    shop.wait(DAY_MS)
    assert forget(shop) == 1
    assert shop.reserve("r1", 2)[:7] == before[:7]
    assert shop.stock() == {"available": 18, "sold": 2}


def test_another_request_with_a_forgotten_id_is_still_told_so(shop: Shop) -> None:
    sold(shop)
    forget(shop)
    assert shop.reserve("r1", 5)[0] == Outcome.ID_REUSED


def test_a_late_payment_finds_its_forgotten_reservation(shop: Shop) -> None:
    held = shop.hold()
    shop.wait(16 * MINUTE_MS)
    shop.expire()
    shop.wait(DAY_MS)
    assert forget(shop) == 1
    assert shop.pay(held)[:2] == (Outcome.CONFIRMED, s.CONFIRMED)
    assert shop.stock() == {"available": 19, "sold": 1}


def test_a_forgotten_order_comes_back_in_parts_to_the_cent(shop: Shop) -> None:
    held = shop.hold("r1", 3, payable_minor=100)
    shop.pay(held, "p1", 100)
    first = shop.bring_back(held, 1, "b1")[3]
    amounts = [first[4]]
    for part in ("b2", "b3"):
        shop.wait(DAY_MS)
        assert forget(shop) == 1
        amounts.append(shop.bring_back(held, 1, part)[3][4])
    assert amounts == [33, 33, 34]
    assert shop.pool().forgotten_sold == 0
    assert shop.stock() == {"available": 20}


def test_units_of_forgotten_orders_are_kept_apart(shop: Shop) -> None:
    sold(shop, "r1", 3)
    forget(shop)
    assert (shop.pool().sold, shop.pool().forgotten_sold) == (3, 3)


def test_a_refund_says_its_currency_when_its_reservation_is_forgotten(shop: Shop) -> None:
    held = sold(shop)
    refund = shop.bring_back(held, 1)[3]
    shop.wait(DAY_MS)
    assert forget(shop) == 1
    answer = shop.refunded(public_id(SLOT, refund[0]))
    assert (answer[0], answer[1][9]) == (Outcome.APPLIED, "CNY")


def test_a_read_of_a_forgotten_one_shows_it_and_brings_nothing_back(shop: Shop) -> None:
    held = sold(shop)
    before = shop.read(held)
    forget(shop)
    entries = len(shop.journal)
    assert shop.read(held) == before
    assert (in_memory(shop), len(shop.journal)) == (0, entries)


def test_without_its_row_nothing_is_decided_or_journalled(shop: Shop) -> None:
    held = sold(shop)
    forget(shop)
    entries, before = len(shop.journal), digest(shop.state)
    head = (c.CONFIRM, SLOT, 0, "web", held, "another", 100)
    assert shop.ask(c.Confirm(*head)) == (Outcome.RECALL,)
    assert (len(shop.journal), digest(shop.state)) == (entries, before)


def test_an_id_that_only_looks_forgotten_is_decided_as_ever(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    sold(shop)
    forget(shop)
    monkeypatch.setattr("actors.core.bloom.Forgotten.may_contain", lambda *_: True)
    assert shop.reserve("never seen")[0] == Outcome.RESERVED
    assert shop.release(public_id(SLOT, bytes(16)))[0] == Outcome.NOT_FOUND


def test_a_row_that_came_meanwhile_with_another_command_is_not_brought_twice(shop: Shop) -> None:
    held = sold(shop)
    forget(shop)
    head = (c.REPORT_FULFILMENT, SLOT, 0, "web", held)
    again = shop.with_row(c.ReportFulfilment(*head, 1, shop.now_ms))
    assert shop.ask(again)[:2] == (Outcome.NOTED, 1)
    later = c.Recalled(*again[:5], c.ReportFulfilment(*head, 2, shop.now_ms))
    assert shop.ask(later)[:2] == (Outcome.NOTED, 2)
    assert shop.held(held).stage == 2


def test_a_snapshot_remembers_what_was_forgotten(shop: Shop) -> None:
    held = sold(shop)
    sold(shop, "r2")
    forget(shop)
    for other in (shop.from_snapshot(), shop.replica()):
        assert digest(other) == digest(shop.state)
        slot = other.slot(SLOT)
        assert slot.forgotten is not None
        assert slot.forgotten.may_contain(bytes.fromhex(held[3:]))
        assert other.forgets
        assert len(slot.reservations) == 0


def test_a_row_changed_and_forgotten_while_a_snapshot_is_written_is_no_riddle(shop: Shop) -> None:
    """Its row is in no chunk, but an entry after the snapshot's beginning is about it."""
    held = sold(shop)
    began = len(shop.journal)
    shop.ship(held)
    forget(shop, 0)
    loader = Loader(s.ShardState(), began)
    loader.read(list(chunks(shop.state)))
    shop.pay(held, "second")
    for seq, entry in enumerate(shop.journal[began:], began + 1):
        if seq > loader.end_seq and loader.state.fuzzy is not None:
            loader.finish()
        fold_entry(loader.state, seq, entry)
    assert digest(loader.state) == digest(shop.state)


def fold_entry(state: s.ShardState, seq: int, entry: bytes) -> None:
    """Fold one entry."""
    content = unpack_entry(entry)
    fold(state, seq, content.now_ms, content.records, content.balances)


def test_only_what_is_finished_can_be_forgotten(shop: Shop) -> None:
    held = shop.hold()
    record = r.ReservationsForgotten(r.RESERVATIONS_FORGOTTEN, SLOT, (bytes.fromhex(held[3:]),))
    with pytest.raises(s.Impossible):
        evolve(shop.state, record)


@pytest.mark.parametrize("state", [0, s.RESERVED, 9])
def test_a_row_in_no_finished_state_is_refused(shop: Shop, state: int) -> None:
    held = sold(shop)
    forget(shop)
    again = shop.with_row(c.Release(c.RELEASE, SLOT, 0, "web", held))
    row = c.RecalledRow._make(again.row)._replace(state=state)
    with pytest.raises(Undecided) as failed:
        shop.ask(again._replace(row=row))
    assert failed.value.answer == (Outcome.INTERNAL,)
    assert "state" in str(failed.value.__cause__)


def test_the_walk_takes_slices_and_comes_round_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.core.forgetting.SCAN_SLICE", 3)
    for number in range(9):
        shop.release(shop.hold(f"r{number}"))
    assert forget(shop) == 0
    shop.wait(DAY_MS)
    counts = [forget(shop) for _ in range(8)]
    assert sum(counts) == 9
    assert max(counts) <= 3

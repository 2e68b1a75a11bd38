"""Orders and withdrawals of the programme leave memory, and no answer and no cent tells."""

from collections.abc import Iterator
from typing import Any

import pytest

from actors.core import commission_commands as d
from actors.core import commission_records as cr
from actors.core import commission_state as cs
from actors.core import facts as f
from actors.core import snapshot
from actors.core import state as s
from actors.core.evolve import evolve, open_entry
from actors.core.forgetting import recall
from actors.core.outcomes import Outcome
from actors.core.snapshot import digest
from tests.model.bureau import DAY_MS, FREEZE_MS, SLOT, Bureau, order_id
from tests.unit.core.test_programme_replicas import Copy

KEY = cs.order_key(order_id("r1")) or b""


@pytest.fixture
def bureau() -> Bureau:
    """See `made`."""
    return made()


def made() -> Bureau:
    """Two levels, and an order of three units whose commission of 1,000 and 500 is available."""
    bureau = Bureau()
    bureau.open("bob", "cid")
    bureau.bind("bob", "cid")
    bureau.bind("ann", "bob")
    bureau.earned("r1", "ann", quantity=3)
    bureau.wait(FREEZE_MS + DAY_MS)
    return bureau


def paid(bureau: Bureau, request: str = "w1", amount: int = 300) -> bytes:
    """A withdrawal that was paid a day ago."""
    key: bytes = bureau.withdraw("bob", amount, request)[1]
    bureau.review(key, d.WITHDRAWAL_APPROVE)
    bureau.review(key, d.WITHDRAWAL_PAID)
    bureau.wait(DAY_MS)
    return key


def test_an_order_leaves_memory_when_all_of_it_was_available_for_long(bureau: Bureau) -> None:
    bureau.earned("r2", "ann")
    assert bureau.forget() == 1
    assert KEY not in bureau.programme.orders
    assert len(bureau.programme.orders) == 1, "what is frozen stays"
    bureau.wait(FREEZE_MS)
    assert bureau.forget() == 0, "its freeze was over just now"
    bureau.wait(DAY_MS)
    assert bureau.forget() == 1
    assert bureau.forget() == 0


def test_an_order_that_earned_nothing_leaves_memory_too(bureau: Bureau) -> None:
    bureau.earned("r2", "ann", base=1)
    bureau.wait(FREEZE_MS + DAY_MS)
    assert bureau.forget() == 2


def test_nothing_is_forgotten_before_sql_has_it_as_it_is(bureau: Bureau) -> None:
    seq = len(bureau.journal)
    bureau.returned("r1", 1, of=3)
    assert bureau.forget(sink_seq=seq) == 0
    assert bureau.forget(sink_seq=seq + 1) == 1


def test_what_waits_for_a_held_distributor_stays_however_old(bureau: Bureau) -> None:
    bureau.hold("bob", 90 * DAY_MS)
    bureau.earned("r2", "ann")
    bureau.wait(FREEZE_MS + 30 * DAY_MS)
    assert bureau.forget() == 1, "only the order of before"
    bureau.hold("bob", 0)
    bureau.wait(1_000)
    assert bureau.forget() == 1


def test_a_return_of_a_forgotten_order_is_reversed_to_the_cent(bureau: Bureau) -> None:
    other = made()
    for total in (1, 2, 3):
        assert bureau.forget() == 1
        (record,) = bureau.returned("r1", total, of=3)
        assert other.returned("r1", total, of=3) == (record,)
        assert bureau.money("bob") == other.money("bob")
        assert bureau.money("cid") == other.money("cid")
    assert bureau.recalls == 3
    assert bureau.money("bob") == (0, 0, 0, 0, 0)
    assert bureau.distributor("bob").sales_minor == 0


def test_a_return_that_was_booked_before_is_not_booked_on_a_forgotten_order(
    bureau: Bureau,
) -> None:
    bureau.returned("r1", 2, of=3)
    money = bureau.money("bob")
    assert bureau.forget() == 1
    assert bureau.returned("r1", 2, of=3) == ()
    assert bureau.money("bob") == money


def test_a_forgotten_order_does_not_earn_twice(bureau: Bureau) -> None:
    first = next(x for x in bureau.records if x.kind == cr.ORDER_ACCRUED)
    assert bureau.forget() == 1
    told = f.OrderEarned(
        f.ORDER_EARNED,
        first.earned_ms,
        first.reservation_id,
        *("ann", "", "tea", 3, 10_000, "CNY", first.reserved_ms, 10_000),
    )
    assert bureau.tell(told) == ()
    assert bureau.recalls == 1


def test_an_order_younger_than_all_that_are_forgotten_asks_nobody(bureau: Bureau) -> None:
    bureau.forget()
    slot = bureau.state.slot(SLOT)
    assert slot.forgotten is not None
    slot.forgotten.add((cs.order_key(order_id("r2")) or b"")[: cs.KEY_BYTES])
    bureau.sql.rows.clear()
    bureau.now_ms += 1
    assert len(bureau.earned("r2", "ann")) == 1


def test_a_delivery_of_a_forgotten_order_recalls_nothing(bureau: Bureau) -> None:
    bureau.forget()
    assert bureau.delivered("r1") == ()
    assert bureau.recalls == 0


def test_a_row_that_was_fetched_before_another_return_was_booked_does_not_come_back(
    bureau: Bureau,
) -> None:
    """The relay was killed after it had sent one, and the line comes late."""
    bureau.forget()
    fact = f.OrderReduced(f.ORDER_REDUCED, bureau.now_ms, order_id("r1"), 1, 3)
    late = bureau.sql.with_row(bureau.fact_line(fact))
    bureau.returned("r1", 1, of=3)
    assert bureau.forget() == 1
    money = bureau.money("bob")
    assert recall(bureau.state, late) == ()
    journalled = len(bureau.journal)
    assert bureau.shard_says(late)[:2] == (Outcome.NOTED, 0)
    assert len(bureau.journal) == journalled
    assert bureau.money("bob") == money


def test_an_order_that_only_looks_forgotten_is_decided_as_ever(bureau: Bureau) -> None:
    bureau.forget()
    slot = bureau.state.slot(SLOT)
    assert slot.forgotten is not None
    slot.forgotten.add((cs.order_key(order_id("nobody's")) or b"")[: cs.KEY_BYTES])
    assert bureau.returned("nobody's", 1) == ()
    assert bureau.recalls == 0


@pytest.mark.parametrize(
    "change",
    [
        {"quantity": 0, "returned": 0},
        {"returned": 4},
        {"shares": ((1, "bob", 1_000, 1_000, cs.FROZEN),)},
        {"shares": (5,)},
    ],
)
def test_a_row_that_is_no_order_of_which_all_is_available_is_refused(
    bureau: Bureau, change: dict[str, Any]
) -> None:
    bureau.forget()
    fact = f.OrderReduced(f.ORDER_REDUCED, bureau.now_ms, order_id("r1"), 1, 3)
    line = bureau.sql.with_row(bureau.fact_line(fact))
    assert isinstance(line.row, d.RecalledOrder)
    with pytest.raises((ValueError, TypeError)):
        recall(bureau.state, line._replace(row=line.row._replace(**change)))


def test_a_finished_withdrawal_leaves_memory_and_is_not_paid_again(bureau: Bureau) -> None:
    key = paid(bureau)
    open_one = bureau.withdraw("bob", 100, "w2")[1]
    told = bureau.withdraw("bob", 300, "w1")
    assert bureau.forget(0) == 2, "the order and the one that is paid"
    assert list(dict(bureau.programme.withdrawals.items())) == [open_one]
    money = bureau.money("bob")
    assert bureau.withdraw("bob", 300, "w1") == told
    assert told[0] == Outcome.FOUND
    assert told[3][0] == key
    assert bureau.money("bob") == money
    assert bureau.recalls == 1


def test_another_request_with_a_forgotten_id_is_told_so(bureau: Bureau) -> None:
    paid(bureau)
    bureau.forget()
    assert bureau.withdraw("bob", 301, "w1")[0] == Outcome.ID_REUSED
    assert bureau.withdraw("cid", 300, "w1")[0] == Outcome.ID_REUSED


def test_a_review_of_a_forgotten_withdrawal_is_answered_as_before(bureau: Bureau) -> None:
    key = paid(bureau)
    before = [bureau.review(key, act) for act in (1, 2, 3, 4)]
    assert [answer[0].name for answer in before] == [
        *("WITHDRAWAL_CONFLICT", "WITHDRAWAL_CONFLICT", "APPLIED", "WITHDRAWAL_CONFLICT")
    ]
    for act, answer in zip((1, 2, 3, 4), before, strict=True):
        bureau.forget()
        assert key not in bureau.programme.withdrawals
        assert bureau.review(key, act) == answer


def test_a_withdrawal_row_that_is_not_finished_is_refused(bureau: Bureau) -> None:
    key = paid(bureau)
    bureau.forget()
    line = bureau.sql.with_row(d.ReviewWithdrawal(d.REVIEW_WITHDRAWAL, SLOT, 0, "web", key, 3))
    assert isinstance(line.row, d.RecalledWithdrawal)
    with pytest.raises(ValueError, match="in state 2"):
        recall(bureau.state, line._replace(row=line.row._replace(state=cs.APPROVED)))


@pytest.mark.parametrize("what", ["order", "withdrawal"])
def test_only_what_is_finished_can_be_forgotten(bureau: Bureau, what: str) -> None:
    bureau.earned("r2", "ann")
    open_key = bureau.withdraw("bob", 100, "w2")[1]
    key = cs.order_key(order_id("r2")) or b""
    record = (
        cr.OrdersForgotten(cr.ORDERS_FORGOTTEN, SLOT, (key,), 0)
        if what == "order"
        else cr.WithdrawalsForgotten(cr.WITHDRAWALS_FORGOTTEN, SLOT, (open_key,))
    )
    open_entry(bureau.state, 99, bureau.now_ms)
    with pytest.raises(s.Impossible, match="is not"):
        evolve(bureau.state, record)


def test_a_snapshot_and_the_journal_know_what_was_forgotten(bureau: Bureau) -> None:
    paid(bureau)
    bureau.forget()
    for state in (bureau.from_snapshot(), bureau.replica()):
        assert digest(state) == digest(bureau.state)
        assert state.forgets
        assert state.programmes[SLOT].forgotten_ms == bureau.programme.forgotten_ms > 0


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One row a chunk."""
    monkeypatch.setattr(snapshot, "ROWS_A_CHUNK", 1)
    return


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("steps", range(0, 14, 2))
def test_a_row_changed_forgotten_and_back_while_a_snapshot_is_written_is_no_riddle(
    bureau: Bureau, steps: int
) -> None:
    key = paid(bureau)
    copy = Copy(bureau)
    for _ in range(steps):
        copy.step()
    bureau.returned("r1", 1, of=3)
    bureau.forget(0)
    copy.step()
    bureau.returned("r1", 2, of=3)
    bureau.review(key, d.WITHDRAWAL_PAID)
    copy.step()
    bureau.forget(0)
    loaded = copy.load()
    assert digest(loaded) == digest(bureau.state)

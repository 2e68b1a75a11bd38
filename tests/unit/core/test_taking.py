"""Taking the facts of a line: one after the other, all or those before the first that fails."""

from typing import Any

import pytest

from actors.core import commission_records as cr
from actors.core import facts as f
from actors.core import relay_commands as y
from actors.core import taking
from actors.core.identity import account_slot
from actors.core.outcomes import Outcome, Undecided
from actors.core.relay_records import FACT_TAKEN
from actors.core.risk_records import SIGNAL_NOTED
from actors.core.snapshot import digest
from tests.model.bureau import SLOT, Bureau, order_id


@pytest.fixture
def bureau() -> Bureau:
    made = Bureau()
    made.open("bob")
    return made


def bound(bureau: Bureau, name: str, buyer: str) -> f.OrderBound:
    at_ms = bureau.now_ms
    return f.OrderBound(f.ORDER_BOUND, at_ms, order_id(name), buyer, bureau.code("bob"), at_ms)


def earned(bureau: Bureau, name: str, buyer: str) -> f.OrderEarned:
    what = (order_id(name), buyer, "", "tea", 1, 10_000, "CNY", bureau.now_ms, 10_000)
    return f.OrderEarned(f.ORDER_EARNED, bureau.now_ms, *what)


def returned(bureau: Bureau, name: str) -> f.OrderReduced:
    return f.OrderReduced(f.ORDER_REDUCED, bureau.now_ms, order_id(name), 1, 1)


def taken(bureau: Bureau, *facts: Any) -> tuple[Any, list[int]]:
    """The answer to a line of these facts, and the kinds of the records that it made."""
    before = len(bureau.records)
    answer = bureau.shard_says(bureau.fact_line(*facts))
    assert digest(bureau.replica()) == digest(bureau.state)
    return answer, [record.kind for record in bureau.records[before:]]


def mark(bureau: Bureau) -> tuple[int, ...]:
    return tuple(bureau.state.sources.get(0, (0, 0, 0))[1:])


def test_each_fact_is_decided_when_those_before_it_are_folded(bureau: Bureau) -> None:
    """An order earns by the binding before it in the line, and is reversed by what follows."""
    line = (bound(bureau, "r1", "ann"), earned(bureau, "r1", "ann"), returned(bureau, "r1"))
    answer, kinds = taken(bureau, *line)
    assert answer == (Outcome.APPLIED, 3)
    assert kinds == [FACT_TAKEN, cr.BUYER_BOUND, cr.ORDER_ACCRUED, cr.ORDER_REVERSED]
    assert mark(bureau) == (3, 0)
    assert bureau.money("bob")[0] == 0


def test_facts_of_a_line_may_concern_different_accounts(bureau: Bureau) -> None:
    failed = f.PaymentFailed(f.PAYMENT_FAILED, bureau.now_ms, order_id("r1"), "ann", "tea")
    line = bureau.fact_line(bound(bureau, "r1", "ann"), failed)
    (first, (*place, _, fact)) = line.facts
    line = line._replace(facts=(first, (*place, account_slot("ann"), fact)))
    assert bureau.shard_says(line) == (Outcome.APPLIED, 2)
    slots = {record.kind: record.slot for record in bureau.records[-2:]}
    assert slots == {cr.BUYER_BOUND: SLOT, SIGNAL_NOTED: account_slot("ann")}


@pytest.mark.parametrize(
    "poison",
    [
        (f.ORDER_EARNED, 1),
        (99, 1, "r"),
        5,
        f.OrderEarned(f.ORDER_EARNED, 1, "r", "ann", "", "tea", 1, 100, "CNY", "soon", 100),
    ],
    ids=["fields are missing", "no kind of fact", "no fact", "a wrong type"],
)
def test_what_comes_before_a_fact_that_fails_is_taken_and_nothing_behind_it(
    bureau: Bureau, poison: Any
) -> None:
    line = bureau.fact_line(bound(bureau, "r1", "ann"), poison, earned(bureau, "r1", "ann"))
    with pytest.raises(Undecided) as failed:
        bureau.shard_says(line)
    assert failed.value.answer == (Outcome.INTERNAL, 1)
    assert mark(bureau) == (1, 0)
    assert bureau.programme.bonds.get("ann") is not None
    assert len(bureau.programme.orders) == 0


def test_a_line_ends_before_an_order_that_left_memory_and_goes_on_with_its_row(
    bureau: Bureau,
) -> None:
    bureau.bind("ann", "bob")
    bureau.earned("r1", "ann")
    bureau.wait(30 * 86_400_000)
    assert bureau.forget() == 1
    behind = (earned(bureau, "r2", "ann"), returned(bureau, "r1"), earned(bureau, "r3", "ann"))
    answer, kinds = taken(bureau, *behind)
    assert (answer, kinds) == ((Outcome.RECALL, 1), [FACT_TAKEN, cr.ORDER_ACCRUED])
    again = bureau.sql.with_row(bureau.fact_line(*behind[1:]))
    assert bureau.shard_says(again) == (Outcome.APPLIED, 2)
    assert [record.kind for record in bureau.records[-4:]] == [
        *(cr.ORDER_RECALLED, FACT_TAKEN, cr.ORDER_REVERSED, cr.ORDER_ACCRUED)
    ]
    assert digest(bureau.replica()) == digest(bureau.state)


def test_the_mark_moves_over_what_has_no_effect(bureau: Bureau) -> None:
    answer, kinds = taken(bureau, earned(bureau, "r1", "nobody's"), ())
    assert (answer, kinds) == ((Outcome.APPLIED, 2), [FACT_TAKEN])
    assert mark(bureau) == (2, 0)


def test_a_place_that_does_not_rise_is_not_taken(bureau: Bureau) -> None:
    line = bureau.fact_line(earned(bureau, "r1", "ann"), (), ())
    line = line._replace(facts=(*line.facts[:2], line.facts[1], line.facts[2]))
    with pytest.raises(Undecided) as failed:
        bureau.shard_says(line)
    assert failed.value.answer == (Outcome.INTERNAL, 2)


@pytest.mark.parametrize("facts", [(), 7, ((1,),), ("abc",), (None,)])
def test_a_line_that_is_none_is_refused(bureau: Bureau, facts: Any) -> None:
    before = digest(bureau.state)
    line = bureau.fact_line(())._replace(facts=facts)
    with pytest.raises(Undecided) as failed:
        taking.take_facts(bureau.state, line, bureau.now_ms, [])
    assert failed.value.answer == (Outcome.INTERNAL, 0)
    assert digest(bureau.state) == before


def test_a_line_travels(bureau: Bureau) -> None:
    line = bureau.fact_line(bound(bureau, "r1", "ann"), ())
    assert y.fact_slots(tuple(line)) == {SLOT}
    assert y.MAKE[y.TAKE_FACTS](tuple(line)) == line

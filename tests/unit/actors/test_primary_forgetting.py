"""A primary forgets what is finished, old and in SQL, by itself, and takes it back with its row."""

import asyncio
from typing import Any

from actors.core import commands as c
from actors.core import commission_commands as d
from actors.core import facts as f
from actors.core import relay_commands as y
from actors.core import state as s
from actors.core.commission_state import AVAILABLE, Programme
from actors.core.identity import PROGRAMME_SLOT, public_id, request_key
from actors.core.outcomes import Outcome
from actors.core.programme_config import ProgrammeConfig
from actors.core.snapshot import digest
from tests.helpers.shells import SLOT, Pair, limits, running
from tests.helpers.virtual_time import in_virtual_time

HELD = public_id(SLOT, request_key("web", "r1"))
RECALL_AFTER_MS = 60_000


def rows(pair: Pair, name: str) -> int:
    """How many reservations a replica has in memory."""
    state = pair[name].shard.state
    assert state is not None
    return len(state.slot(SLOT).reservations)


def confirm(pair: Pair) -> c.Confirm:
    soon = pair.clock.now_ms() + 5_000
    return c.Confirm(c.CONFIRM, SLOT, soon, "web", HELD, "p1", 100, "alipay")


def ship(pair: Pair) -> c.ReportFulfilment:
    head = (c.REPORT_FULFILMENT, SLOT, pair.clock.now_ms() + 5_000, "web", HELD)
    return c.ReportFulfilment(*head, 1, 5)


def recalled(pair: Pair, command: Any, state: int = s.CONFIRMED) -> c.Recalled:
    """As a gateway sends it again with the row of SQL."""
    mark = 0
    row = c.RecalledRow(
        *("", "tea", "ann", 1, 0, state, 0, mark, 1, 2, 2, False, 100, 100, 100),
        *("p1", "alipay", 100),
    )
    head = (c.RECALLED, SLOT, command.deadline_ms, "web")
    return c.Recalled(*head, row, command)


async def sold(pair: Pair) -> None:
    """One order, and some time after it, with a round now and then as gateways send."""
    await pair.promote("a")
    await pair.stock_up("a")
    await pair.do("a", pair.reserve("r1"), confirm(pair))
    await pass_time(pair, RECALL_AFTER_MS)


async def pass_time(pair: Pair, length_ms: int) -> None:
    for _ in range(length_ms // 500 + 4):
        await asyncio.sleep(0.5)
        await pair.round("a")


@in_virtual_time
async def test_nothing_leaves_before_write_behind_has_it_and_then_it_leaves_both_replicas() -> None:
    async with running(Pair(limits(recall_after_ms=RECALL_AFTER_MS))) as pair:
        await sold(pair)
        assert rows(pair, "a") == 1
        pair.journal.set_position(0, "sink", pair.journal.read_meta(0).last_seq)
        await pass_time(pair, 3_000)
        await pair.caught_up("b")
        assert (rows(pair, "a"), rows(pair, "b")) == (0, 0)
        both = [pair[name].shard.state for name in ("a", "b")]
        assert both[0] is not None
        assert both[1] is not None
        assert digest(both[0]) == digest(both[1])


@in_virtual_time
async def test_a_command_is_decided_on_the_row_that_it_brings_after_a_failover_too() -> None:
    async with running(Pair(limits(recall_after_ms=RECALL_AFTER_MS))) as pair:
        await sold(pair)
        pair.journal.set_position(0, "sink", pair.journal.read_meta(0).last_seq)
        await pass_time(pair, 3_000)
        pair["a"].kill()
        await pair.promote("b")
        entries = len(pair.entries())
        assert await pair.do("b", ship(pair)) == ((Outcome.RECALL,),)
        assert len(pair.entries()) == entries
        again = recalled(pair, ship(pair))
        assert await pair.do("b", again, again) == ((Outcome.NOTED, 1),) * 2
        assert rows(pair, "b") == 1


@in_virtual_time
async def test_a_row_that_is_none_is_internal_and_harms_nothing() -> None:
    async with running(Pair(limits(recall_after_ms=RECALL_AFTER_MS)), "a") as pair:
        await sold(pair)
        pair.journal.set_position(0, "sink", pair.journal.read_meta(0).last_seq)
        await pass_time(pair, 3_000)
        bad = recalled(pair, ship(pair), state=s.RESERVED)
        strange = recalled(pair, ship(pair))._replace(row=("no", "row"))
        assert await pair.do("a", bad, strange) == ((Outcome.INTERNAL,),) * 2
        assert rows(pair, "a") == 0
        assert (await pair.do("a", recalled(pair, ship(pair))))[0][0] == Outcome.NOTED


def line(pair: Pair, seq: int, fact: Any) -> y.TakeFacts:
    """The one fact of an entry of the one stock shard there is, as the relay sends it."""
    soon = pair.clock.now_ms() + 5_000
    after = (seq - 1, 0)
    head = (y.TAKE_FACTS, PROGRAMME_SLOT, soon, "relay", 9, "i")
    return y.TakeFacts(*head, *after, [(seq, 0, PROGRAMME_SLOT, fact)])


def returned(pair: Pair) -> y.TakeFacts:
    return line(pair, 2, f.OrderReduced(f.ORDER_REDUCED, 1, HELD, 1, 2))


def programme(pair: Pair, name: str) -> Programme:
    state = pair[name].shard.state
    assert state is not None
    return state.programmes[PROGRAMME_SLOT]


async def earned(pair: Pair) -> int:
    """An order whose commission of 10 is available at once; answers when it earned."""
    await pair.promote("a")
    now_ms = pair.clock.now_ms()
    head = (PROGRAMME_SLOT, now_ms + 5_000, "web")
    config = ProgrammeConfig("CNY", "UTC", 1_000, 0, freeze_ms=0, approve_at_once=True)
    put, applies = (d.PUT_RATES, *head, config), (d.APPLY_DISTRIBUTOR, *head, "bob")
    await pair.do("a", d.PutRates(*put), d.ApplyDistributor(*applies))
    (code,) = programme(pair, "a").codes
    await pair.do("a", d.BindReferrer(d.BIND_REFERRER, *head, "ann", code))
    at_ms = pair.clock.now_ms()
    what = (HELD, "ann", "", "tea", 2, 100, "CNY", at_ms, 100)
    taken = await pair.do("a", line(pair, 1, f.OrderEarned(f.ORDER_EARNED, at_ms, *what)))
    assert taken == ((Outcome.APPLIED, 1),)
    await pass_time(pair, RECALL_AFTER_MS)
    return at_ms


@in_virtual_time
async def test_an_order_that_earned_leaves_both_replicas_and_its_return_brings_it_back() -> None:
    account_slots = frozenset({PROGRAMME_SLOT})
    made = Pair(limits(recall_after_ms=RECALL_AFTER_MS), owned_slots=account_slots)
    async with running(made) as pair:
        at_ms = await earned(pair)
        assert len(programme(pair, "a").orders) == 1, "SQL has not come as far"
        pair.journal.set_position(0, "sink", pair.journal.read_meta(0).last_seq)
        await pass_time(pair, 3_000)
        await pair.caught_up("b")
        assert [len(programme(pair, name).orders) for name in ("a", "b")] == [0, 0]
        pair["a"].kill()
        await pair.promote("b")
        assert await pair.do("b", returned(pair)) == ((Outcome.RECALL, 0),)
        row = d.RecalledOrder(
            *("bob", 2, 0, 100, 1, 197001, at_ms, at_ms, False), ((1, "bob", 1_000, 10, AVAILABLE),)
        )
        told = returned(pair)
        again = c.Recalled(c.RECALLED, PROGRAMME_SLOT, told.deadline_ms, "relay", row, told)
        frozen = again._replace(row=row._replace(shares=((1, "bob", 1_000, 10, 1),)))
        answers = await pair.do("b", frozen, again, again)
        assert [answer[0] for answer in answers] == [
            *(Outcome.INTERNAL, Outcome.APPLIED, Outcome.NOTED)
        ]
        assert programme(pair, "b").sums == [-5, 0, 5, 0, 0, 0]

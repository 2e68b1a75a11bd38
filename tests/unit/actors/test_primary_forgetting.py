"""A primary forgets what is finished, old and in SQL, by itself, and takes it back with its row."""

import asyncio
from typing import Any

from actors.core import commands as c
from actors.core import state as s
from actors.core.identity import public_id, request_key
from actors.core.outcomes import Outcome
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

"""Each part of a running service is killed or paused, alone and under load.

After each fault the sale goes on by itself, the part comes back, and journal, memory, SQL and every
answer that buyers ever got agree.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from typing import Literal

import pytest
from stockray import AsyncClient, ReplicaRole
from stockray.testing import NotOffered
from stockray.testing.processes import alive

from tests.helpers.sale import BackgroundSale
from tests.helpers.stack import KINDS, Stack, ended, name_of, pid_of, stop_process

on_sqlite = pytest.mark.parametrize("shared_stack", ["sqlite"], indirect=True)
# Rounds on TCP are also the subject of test_nodes.py; on Ray, the fallback, one of these is enough.
OVER_TCP = pytest.param("sqlite-tcp", marks=pytest.mark.extended)
OVER_RAY = pytest.param("sqlite-ray", marks=pytest.mark.extended)
with_ray_calls = pytest.mark.parametrize(
    "shared_stack", [*KINDS, "sqlite-ray", OVER_TCP], indirect=True, ids=str
)
on_every_link = pytest.mark.parametrize(
    "shared_stack", [*KINDS, OVER_RAY, OVER_TCP], indirect=True, ids=str
)
on_redis = pytest.mark.parametrize("shared_stack", ["redis"], indirect=True)

GAP_MAX_S = 5.0
"""What a failover may take on a busy machine of two cores; a gateway's restart takes longer."""
OUTAGE_S = 1.5
ON_THEIR_WAY_S = 0.75
"""Answers whose entries were durable before the store went away."""
LATE_ROUNDS = 4
"""How often they may come later still: on a busy machine they do."""
PAUSE_S = 10.0


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[AsyncClient]:
    async with stack.client() as client:
        await stack.pairs(client)
        yield client


@with_ray_calls
async def test_a_killed_primary_is_replaced_by_its_standby(
    stack: Stack, client: AsyncClient
) -> None:
    async with BackgroundSale(stack, client, "kill-primary") as sale:
        before = await stack.pairs(client)
        victim = pid_of(before, 0, ReplicaRole.PRIMARY)
        heir = pid_of(before, 0, ReplicaRole.STANDBY)
        assert await stack.aio.kill_primary(sale.campaigns[0]) == victim
        await sale.goes_on()
        after = await stack.pairs(client)
        await sale.goes_on()
    assert pid_of(after, 0, ReplicaRole.PRIMARY) == heir
    assert after.shards[0].epoch == before.shards[0].epoch + 1
    assert after.shards[1].epoch == before.shards[1].epoch, "the other shard is not concerned"
    assert after.gateways[0].pid == before.gateways[0].pid, "a primary takes no gateway along"
    assert max(sale.longest_gap_s.values()) < GAP_MAX_S
    await sale.check()
    await stack.check(client)


@on_every_link
async def test_a_killed_standby_comes_back_and_nobody_notices(
    stack: Stack, client: AsyncClient
) -> None:
    async with BackgroundSale(stack, client, "kill-standby") as sale:
        before = await stack.pairs(client)
        victim = await stack.aio.kill_standby(sale.campaigns[1])
        after = await stack.pairs(client)
        await sale.goes_on()
    assert pid_of(after, 1, ReplicaRole.STANDBY) != victim
    assert [shard.epoch for shard in after.shards] == [shard.epoch for shard in before.shards]
    assert sale.statuses.keys() == {"RESERVED", "SOLD_OUT"}, "nobody was told to come again"
    await sale.check()
    await stack.check(client)


@on_every_link
async def test_a_killed_gateway_comes_back_on_its_port(stack: Stack, client: AsyncClient) -> None:
    async with BackgroundSale(stack, client, "kill-gateway") as sale:
        before = await stack.pairs(client)
        victim = await stack.aio.kill_gateway()
        await sale.goes_on()
        after = await stack.pairs(client)
    assert after.gateways[0].pid != victim
    assert [shard.epoch for shard in after.shards] == [shard.epoch for shard in before.shards]
    await sale.check()
    await stack.check(client)


async def test_killed_write_behind_goes_on_where_sql_stands(
    stack: Stack, client: AsyncClient
) -> None:
    await stack.settled(client)  # It starts last.
    async with BackgroundSale(stack, client, "kill-projector") as sale:
        victim = await stack.aio.kill_projector()
        await sale.goes_on()
    assert sale.statuses.keys() == {"RESERVED", "SOLD_OUT"}, "no buyer waits for SQL"
    await stack.settled(client)
    assert await stack.aio.pid_of("projector") != victim
    await sale.check()
    await stack.check(client)


@on_every_link
async def test_a_paused_primary_is_fenced_when_it_wakes_up(
    stack: Stack, client: AsyncClient
) -> None:
    async with BackgroundSale(stack, client, "pause-primary") as sale:
        before = await stack.pairs(client)
        zombie = pid_of(before, 0, ReplicaRole.PRIMARY)
        name = name_of(before, zombie)
        await stop_process(stack, zombie, holding_lock=False)
        paused_at = time.monotonic()
        try:
            await sale.goes_on()
            await asyncio.sleep(max(0.0, paused_at + PAUSE_S - time.monotonic()))
        finally:
            os.kill(zombie, signal.SIGCONT)
        assert await ended(zombie), "the zombie must see that it was fenced, and end"
        after = await stack.pairs(client)
        await sale.goes_on()
    assert after.shards[0].epoch == before.shards[0].epoch + 1
    assert "fenced: the journal belongs to epoch" in stack.log_of(name)
    assert after.gateways[0].pid == before.gateways[0].pid
    await sale.check()
    await stack.check(client)


@on_sqlite
async def test_a_primary_paused_with_the_journal_locked_is_killed(
    stack: Stack, client: AsyncClient
) -> None:
    """A stopped process keeps SQLite's write lock: nobody could ever take over from it."""
    async with BackgroundSale(stack, client, "pause-lock") as sale:
        before = await stack.pairs(client)
        zombie = pid_of(before, 0, ReplicaRole.PRIMARY)
        await stop_process(stack, zombie, holding_lock=True)
        assert await ended(zombie), "it holds the write lock, so the take-over ends it"
        await sale.goes_on()
        after = await stack.pairs(client)
    assert after.shards[0].epoch == before.shards[0].epoch + 1
    assert '"killed": true' in stack.log_of(name_of(after, pid_of(after, 0, ReplicaRole.PRIMARY)))
    await sale.check()
    await stack.check(client)


@on_redis
async def test_a_killed_redis_acks_nothing_until_it_is_back(
    stack: Stack, client: AsyncClient
) -> None:
    async with BackgroundSale(stack, client, "kill-redis") as sale:
        before = await stack.pairs(client)
        await stack.aio.kill("journal")
        try:
            await nothing_is_acked(sale)
        finally:
            await stack.aio.start()
        await sale.goes_on()
        after = await stack.pairs(client)
    assert [s.epoch for s in after.shards] == [s.epoch for s in before.shards], (
        "a primary whose journal is away is alive: nobody is promoted"
    )
    await sale.check()
    await stack.check(client)


@on_redis
async def test_a_paused_redis_promotes_nobody(stack: Stack, client: AsyncClient) -> None:
    async with BackgroundSale(stack, client, "pause-redis") as sale:
        before = await stack.pairs(client)
        async with stack.aio.pause("journal"):
            await nothing_is_acked(sale)
        await sale.goes_on()
        after = await stack.pairs(client)
    assert [s.epoch for s in after.shards] == [s.epoch for s in before.shards]
    await sale.check()
    await stack.check(client)


@pytest.mark.parametrize("direction", ["both", "answers"])
async def test_a_journal_behind_a_partition_promotes_nobody(
    stack: Stack, client: AsyncClient, direction: Literal["both", "answers"]
) -> None:
    """Redis: bytes are held back, and in one direction alone appends are durable that nobody is
    told of. SQLite: somebody else holds the write locks."""
    if stack.kind == "sqlite" and direction != "both":
        with pytest.raises(NotOffered, match="journal='redis'"):
            await stack.aio.partition_journal(direction=direction)
        return
    async with BackgroundSale(stack, client, f"partition-{direction}") as sale:
        before = await stack.pairs(client)
        async with stack.aio.partition_journal(direction=direction):
            await nothing_is_acked(sale)
        await sale.goes_on()
        after = await stack.pairs(client)
    assert [s.epoch for s in after.shards] == [s.epoch for s in before.shards]
    await sale.check()
    await stack.check(client)


@on_redis
async def test_a_slow_journal_makes_slow_answers_and_no_failover(
    stack: Stack, client: AsyncClient
) -> None:
    async with BackgroundSale(stack, client, "slow-redis") as sale:
        before = await stack.pairs(client)
        async with stack.aio.slow_journal(50):
            began_s = time.monotonic()
            await sale.goes_on()
            assert time.monotonic() - began_s >= 0.1
        after = await stack.pairs(client)
    assert [s.epoch for s in after.shards] == [s.epoch for s in before.shards]
    await sale.check()
    await stack.check(client)


@on_redis
async def test_the_sale_goes_on_while_mysql_is_dead(stack: Stack, client: AsyncClient) -> None:
    async with BackgroundSale(stack, client, "kill-mysql") as sale:
        await stack.aio.stop_database()
        await sale.goes_on()
        await asyncio.sleep(OUTAGE_S)
        await sale.goes_on()
        await stack.aio.start_database()
        await sale.goes_on()
    assert sale.statuses.keys() == {"RESERVED", "SOLD_OUT"}, "no buyer waits for SQL"
    await sale.check()
    await stack.check(client)


async def test_everything_killed_at_once_and_started_again_has_every_sale(
    stack: Stack, client: AsyncClient
) -> None:
    async with BackgroundSale(stack, client, "kill-all") as sale:
        family = await stack.aio.pids()
        await stack.aio.kill_all()
        assert len([pid for pid in family if alive(pid)]) == 1, "who would start it again lives"
        acked = sale.acks
        await stack.aio.start()
        await stack.pairs(client)
        await sale.goes_on()
        assert sale.acks > acked
    await sale.check()
    await stack.check(client)


async def nothing_is_acked(sale: BackgroundSale) -> None:
    """For a while, as soon as answers that were on their way have come."""
    await asyncio.sleep(ON_THEIR_WAY_S)
    for _ in range(LATE_ROUNDS):
        acked = sale.acks
        await asyncio.sleep(OUTAGE_S)
        if sale.acks == acked:
            return
    pytest.fail("something is acknowledged that no journal holds")


def process_named(stack: Stack, word: str) -> int:
    """The living process of the service whose title has the word: Ray names its workers."""
    for pid in stack.cluster.pids():
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as title:
                if word.encode() in title.read() and alive(pid):
                    return pid
        except OSError:
            continue
    raise AssertionError(f"no process {word} runs")

"""Nobody is promoted in the place of a primary that lives: a busy machine and a slow journal make a
sale slower, and that is all.

A false alarm would be safe, for the one who was replaced is fenced; but each costs a pause, and a
machine that is short of time is the last that should spend it on take-overs. Epochs tell: each
promotion raises one.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
from stockray import AsyncClient, ClusterStatus

from actors.specs import REPLICAS, replica_name
from tests.helpers.sale import BackgroundSale
from tests.helpers.stack import FIRST_KIND, Stack, ended

pytestmark = pytest.mark.parametrize("shared_stack", FIRST_KIND, indirect=True)
BUSY_PROCESSES = 4
START_S = 90.0
"""A gateway imports for two seconds of CPU, of which it gets a third of a core, or less."""
BUSY_S = 4.0
SLOW_S = (0.3, 0.7, 2.0)
"""How long appends are kept waiting, one after the other."""
BETWEEN_S = 0.4


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[AsyncClient]:
    async with stack.client() as client:
        await stack.pairs(client)
        yield client


@contextmanager
def busy_machine() -> Iterator[None]:
    """More processes that want a core than there are cores, at normal priority."""
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(BUSY_PROCESSES)
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


async def slow_journal(stack: Stack, seconds: float) -> None:
    """Appends wait for so long: Redis is cut off, or another holds the files' write lock."""
    async with stack.aio.partition_journal():
        await asyncio.sleep(seconds)


def epochs(status: ClusterStatus) -> list[int]:
    return [shard.epoch for shard in status.shards]


async def test_a_busy_machine_topples_nobody(stack: Stack, client: AsyncClient) -> None:
    before = await stack.pairs(client)
    async with BackgroundSale(stack, client, "busy") as sale:
        with busy_machine():
            await asyncio.sleep(BUSY_S)
            await sale.goes_on()
    assert epochs(await stack.pairs(client)) == epochs(before)
    await sale.check()
    await stack.check(client)


@pytest.mark.parametrize("machine", [nullcontext, busy_machine], ids=["calm", "busy"])
async def test_a_slow_journal_topples_nobody(
    stack: Stack, client: AsyncClient, machine: Callable[[], AbstractContextManager[None]]
) -> None:
    before = await stack.pairs(client)
    async with BackgroundSale(stack, client, f"slow-{machine.__name__}") as sale:
        with machine():
            for seconds in SLOW_S:
                await slow_journal(stack, seconds)
                await asyncio.sleep(BETWEEN_S)
            await sale.goes_on()
    assert any("journal_slow" in stack.log_of(replica_name(0, name)) for name in REPLICAS)
    assert epochs(await stack.pairs(client)) == epochs(before)
    await sale.check()
    await stack.check(client)


async def test_a_gateway_that_starts_on_a_busy_machine_topples_nobody(
    stack: Stack, client: AsyncClient
) -> None:
    """It has met nobody yet, and everybody is slow to answer."""
    before = await stack.pairs(client)
    async with BackgroundSale(stack, client, "late") as sale:
        with busy_machine():
            victim = before.gateways[0].pid
            os.kill(victim, signal.SIGKILL)
            assert await ended(victim)
            await sale.goes_on(timeout_s=START_S)
    assert epochs(await stack.pairs(client)) == epochs(before)
    await sale.check()
    await stack.check(client)

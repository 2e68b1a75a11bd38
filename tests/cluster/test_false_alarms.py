"""Nobody is promoted in the place of a primary that lives: a busy machine and a slow journal make a
sale slower, and that is all.

A false alarm would be safe, for the one who was replaced is fenced; but each costs a pause, and a
machine that is short of time is the last that should spend it on take-overs. Epochs tell: each
promotion raises one.
"""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager

import pytest
from stockray import AsyncClient, ClusterStatus

from tests.helpers.sale import BackgroundSale
from tests.helpers.stack import Stack, ended

BUSY_PROCESSES = 4
BUSY_S = 8.0
SLOW_S = (0.3, 0.3, 0.7, 1.2, 2.0)
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
    """Appends wait for so long: Redis stands still, or another holds the files' write lock."""
    if stack.redis is not None:
        stack.redis.sigstop()
        try:
            await asyncio.sleep(seconds)
        finally:
            stack.redis.sigcont()
        return
    for path in sorted((stack.settings.data_dir / "journal").glob("*00*.db")):
        with closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as rival:
            rival.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(seconds)
            rival.execute("ROLLBACK")


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


async def test_a_slow_journal_topples_nobody(stack: Stack, client: AsyncClient) -> None:
    before = await stack.pairs(client)
    async with BackgroundSale(stack, client, "slow") as sale:
        for seconds in SLOW_S:
            await slow_journal(stack, seconds)
            await asyncio.sleep(BETWEEN_S)
        await sale.goes_on()
    assert epochs(await stack.pairs(client)) == epochs(before)
    await sale.check()
    await stack.check(client)


async def test_a_slow_journal_on_a_busy_machine_topples_nobody(
    stack: Stack, client: AsyncClient
) -> None:
    before = await stack.pairs(client)
    async with BackgroundSale(stack, client, "both") as sale:
        with busy_machine():
            for seconds in SLOW_S:
                await slow_journal(stack, seconds)
                await asyncio.sleep(BETWEEN_S)
            await sale.goes_on()
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
            await sale.goes_on()
    assert epochs(await stack.pairs(client)) == epochs(before)
    await sale.check()
    await stack.check(client)

"""How long a sale pauses when its primary is killed under load."""

import asyncio
import os
import signal
import statistics
import time
from collections.abc import Iterator

from stockray import AsyncClient, Status

from server.bench.result import CAMPAIGN, SKU, Say
from server.demo import primary_pid, until_settled

LOAD_S = 3.0
BEFORE_KILL_S = 0.5


async def measure_kills(
    client: AsyncClient, *, kills: int, callers: int, numbers: Iterator[int], say: Say
) -> dict[str, float]:
    """From kill -9 of the primary to the next sale that was asked for after it, in milliseconds."""
    gaps: list[float] = []
    for number in range(kills):
        await until_settled(client)
        say(f"kill {number + 1} of {kills}")
        gaps.append(await _kill_once(client, callers, numbers))
    return {
        "kills": len(gaps),
        "median": round(statistics.median(gaps), 1),
        "worst": round(max(gaps), 1),
    }


async def _kill_once(client: AsyncClient, callers: int, numbers: Iterator[int]) -> float:
    killed_at = 0.0
    gap = 0.0

    async def caller(until: float) -> None:
        nonlocal gap
        while time.perf_counter() < until:
            asked_at = time.perf_counter()
            answer = await client.grab(CAMPAIGN, SKU, buyer_id=f"b-{next(numbers)}")
            answered_at = time.perf_counter()
            # Asked after the kill, so decided after it: the first of these ends the gap.
            fresh = killed_at and asked_at >= killed_at
            if fresh and not gap and answer.status is Status.RESERVED:
                gap = answered_at - killed_at

    pid = await primary_pid(client, CAMPAIGN)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(callers):
            tasks.create_task(caller(time.perf_counter() + LOAD_S))
        await asyncio.sleep(BEFORE_KILL_S)
        killed_at = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
    return gap * 1000

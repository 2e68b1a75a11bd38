"""How long a sale pauses when its primary is killed under load, and where the time goes.

A kill counts once its standby had caught up; one that comes before is a row of its own: then the
shard waits for a process that starts, loads its state and follows. Times of the parts come from the
service's own logs, by the clock that this process reads as well.
"""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from stockray import AsyncClient, ReplicaRole, ShardStatus, Status, StockrayError

from actors.core.identity import slot_of
from server.bench.log_times import LogTimes
from server.bench.result import CAMPAIGN, SKU, CannotMeasure, Say

BEFORE_KILL_S = 0.5
AFTER_S = 0.5
"""The load goes on for so long after the first sale."""
SALE_WITHIN_S = 60.0
PAIRED_WITHIN_S = 120.0
PAUSE_S = 0.005
"""Of a caller whose call failed."""


class Sale:
    """Callers that buy without a pause, and note the first sale that was asked for after a kill."""

    def __init__(self, client: AsyncClient, numbers: Iterator[int]) -> None:
        self._client = client
        self._numbers = numbers
        self._killed_at = 0.0
        self._sold = asyncio.Event()
        self._sold_at = 0.0
        self._open = True

    async def first_after(self, pid: int) -> tuple[float, float]:
        """kill -9 a primary. Answers when (wall time), and the seconds to the first sale that was
        asked for afterwards, and so decided afterwards."""
        self._sold.clear()
        wall = time.time()
        self._killed_at = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        try:
            async with asyncio.timeout(SALE_WITHIN_S):
                await self._sold.wait()
        except TimeoutError:
            raise CannotMeasure(f"no sale in {SALE_WITHIN_S:.0f} s after a kill") from None
        return wall, self._sold_at - self._killed_at

    async def call(self) -> None:
        """One caller."""
        while self._open:
            asked_at = time.perf_counter()
            try:
                answer = await self._client.grab(CAMPAIGN, SKU, buyer_id=f"b-{next(self._numbers)}")
            except StockrayError as error:
                if not error.retriable:
                    raise
                await asyncio.sleep(PAUSE_S)
                continue
            fresh = bool(self._killed_at) and asked_at >= self._killed_at
            if fresh and answer.status is Status.RESERVED and not self._sold.is_set():
                self._sold_at = time.perf_counter()
                self._sold.set()

    def close(self) -> None:
        """Callers end with the answer that they wait for."""
        self._open = False


async def measure_kills(
    client: AsyncClient,
    *,
    kills: int,
    callers: int,
    numbers: Iterator[int],
    logs: Path,
    say: Say,
) -> dict[str, float]:
    """From kill -9 of the primary to the next sale that was asked for after it, in milliseconds:
    median and worst, and the median of each part; last, a second kill before the standby of the
    first was back."""
    parts: dict[str, list[float]] = {}
    for number in range(kills):
        shard = await until_paired(client)
        say(f"kill {number + 1} of {kills}")
        sale = Sale(client, numbers)
        async with asyncio.TaskGroup() as tasks:
            _start(tasks, sale, callers)
            await asyncio.sleep(BEFORE_KILL_S)
            wall, gap_s = await sale.first_after(pid_of(shard, ReplicaRole.PRIMARY))
            await asyncio.sleep(AFTER_S)
            sale.close()
        found = {"gap": gap_s * 1000, **_parts(LogTimes(logs, wall), gap_s * 1000)}
        for name, ms in found.items():
            parts.setdefault(name, []).append(ms)
    second = await _second_kill(client, callers, numbers, logs, say)
    await until_paired(client)
    gaps = parts.pop("gap")
    return {
        "kills": len(gaps),
        "median": round(median(gaps), 1),
        "worst": round(max(gaps), 1),
        **{name: round(median(values), 1) for name, values in parts.items()},
        **{f"second_{name}": round(ms, 1) for name, ms in second.items()},
    }


def _start(tasks: asyncio.TaskGroup, sale: Sale, callers: int) -> None:
    for _ in range(callers):
        tasks.create_task(sale.call())


def _parts(times: LogTimes, gap_ms: float) -> dict[str, float]:
    """Of one gap: until the gateway knew, until the standby had taken over (of that, the raising of
    the epoch and the reading of the rest), until the first sale."""
    gone, promoted = times.first("primary_gone"), times.first("promoted")
    if gone is None or promoted is None:
        return {}
    return {
        "detect": gone.after_ms,
        "promote": promoted.after_ms - gone.after_ms,
        "of_that_acquire": promoted.fields["acquire_ms"],
        "of_that_read": promoted.fields["read_ms"],
        "first_sale": gap_ms - promoted.after_ms,
    }


async def _second_kill(
    client: AsyncClient, callers: int, numbers: Iterator[int], logs: Path, say: Say
) -> dict[str, float]:
    """Kill the primary, and its heir as soon as that sells."""
    shard = await until_paired(client)
    say("a second kill before the standby is back")
    sale = Sale(client, numbers)
    async with asyncio.TaskGroup() as tasks:
        _start(tasks, sale, callers)
        await asyncio.sleep(BEFORE_KILL_S)
        await sale.first_after(pid_of(shard, ReplicaRole.PRIMARY))
        wall, gap_s = await sale.first_after(pid_of(shard, ReplicaRole.STANDBY))
        await asyncio.sleep(AFTER_S)
        sale.close()
    found = {"kill": gap_s * 1000}
    times = LogTimes(logs, wall)
    ready, promoted = times.first("caught_up"), times.first("promoted")
    if ready is not None and promoted is not None:
        load_ms, tail_ms = ready.fields["load_ms"], ready.fields["tail_ms"]
        found["kill_process"] = ready.after_ms - load_ms - tail_ms
        found |= {"kill_load": load_ms, "kill_tail": tail_ms}
        found["kill_promote"] = promoted.after_ms - ready.after_ms
    return found


async def until_paired(client: AsyncClient, *, shard: int | None = None) -> ShardStatus:
    """Until the shard of the benchmark's campaign has a primary and a standby that has caught up;
    answers it. SQL may be behind."""
    deadline = time.monotonic() + PAIRED_WITHIN_S
    while time.monotonic() < deadline:
        try:
            status = await client.cluster_status()
        except StockrayError as error:
            if not error.retriable:
                raise
        else:
            found = status.stock_shards[slot_of(CAMPAIGN) % len(status.stock_shards)]
            roles = sorted(replica.role for replica in found.replicas)
            level = all(replica.seq >= found.seq for replica in found.replicas)
            if level and roles == [ReplicaRole.PRIMARY, ReplicaRole.STANDBY]:
                return found
        await asyncio.sleep(0.1)
    raise CannotMeasure(f"no standby had caught up within {PAIRED_WITHIN_S:.0f} s")


def pid_of(shard: ShardStatus, role: ReplicaRole) -> int:
    """Process id of the replica in a role."""
    return next(replica.pid for replica in shard.replicas if replica.role is role)

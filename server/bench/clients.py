"""Rows made by Python clients in this process: what users of them get, and pay in CPU themselves.

A closed loop of asyncio tasks. grpc.aio's client costs more than the servers that it calls, so
these rows stand beside the generator's and are no measure of the service.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import cycle

import grpc.aio
from hdrh.histogram import HdrHistogram
from stockray import AsyncClient, GrabLine, JoinTeamLine, Status
from stockray_proto.v1 import common_pb2, seckill_service_pb2
from stockray_proto.v1.seckill_service_pb2_grpc import SeckillServiceStub

from server.bench.processes import Roles, Watch
from server.bench.result import CAMPAIGN, SKU, Measured

MANY_CALLERS = 4
Once = Callable[[], Awaitable[int]]
"""One call; answers how many lines were sold."""


async def loop(name: str, once: Once, *, callers: int, seconds: float, roles: Roles) -> Measured:
    """Callers that each call again as soon as they are answered."""
    histogram = HdrHistogram(1, 60_000_000, 3)
    errors: Counter[str] = Counter()
    lines = 0

    async def caller(until: float) -> None:
        nonlocal lines
        while (started := time.perf_counter()) < until:
            # Apart: `lines += await ...` reads before it waits, and loses what others add.
            try:
                done = await once()
            except grpc.aio.AioRpcError as error:
                done = 0
                errors[str(error.code().value[0])] += 1
            lines += done
            histogram.record_value(max(1, int((time.perf_counter() - started) * 1e6)))

    await once()
    watch = Watch({"client": [os.getpid()], **roles})
    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(callers):
            tasks.create_task(caller(began + seconds))
    took = time.perf_counter() - began
    shares = watch.shares()
    return Measured(
        name=name,
        rate_per_s=round(lines / took, 1),
        p50_ms=histogram.get_value_at_percentile(50) / 1000,
        p99_ms=histogram.get_value_at_percentile(99) / 1000,
        p99_9_ms=histogram.get_value_at_percentile(99.9) / 1000,
        cpu_us_per_line={
            role: round(used * 1e6 / max(1, lines), 2) for role, used in shares.cpu_s.items()
        },
        cores=shares.cores,
        wanted=shares.wanted,
        limit=shares.limit,
        errors=dict(errors),
    )


def aio_grab(channel: grpc.aio.Channel, numbers: Iterator[int]) -> Once:
    """One `Grab` by grpc.aio's own stub."""
    stub = SeckillServiceStub(channel)

    async def once() -> int:
        number = next(numbers)
        line = seckill_service_pb2.GrabLine(
            request_id=f"unary-{number}",
            campaign_id=CAMPAIGN,
            sku_id=SKU,
            quantity=1,
            buyer=common_pb2.BuyerContext(buyer_id=f"u-{number}"),
        )
        answer = await stub.Grab(seckill_service_pb2.GrabRequest(line=line), timeout=10)
        return int(answer.result.status == common_pb2.LINE_STATUS_RESERVED)

    return once


def grab_many(client: AsyncClient, numbers: Iterator[int], lines: int) -> Once:
    """One `grab_many` of so many lines."""

    async def once() -> int:
        found = await client.grab_many(grab_lines(numbers, lines))
        return sum(1 for answer in found if answer.status is Status.RESERVED)

    return once


def join_many(
    client: AsyncClient, numbers: Iterator[int], lines: int, team_ids: Sequence[str]
) -> Once:
    """One `join_team_many` of so many lines, into one team after the other."""
    places = cycle(team_ids)

    async def once() -> int:
        found = await client.join_team_many(
            JoinTeamLine(next(places), f"b-{next(numbers)}") for _ in range(lines)
        )
        return sum(1 for answer in found if answer.status is Status.RESERVED)

    return once


def gathered_grab(client: AsyncClient, numbers: Iterator[int]) -> Once:
    """One `grab` of the client library, which gathers those of other callers into one RPC."""

    async def once() -> int:
        answer = await client.grab(CAMPAIGN, SKU, buyer_id=f"b-{next(numbers)}")
        return int(answer.status is Status.RESERVED)

    return once


def grab_lines(numbers: Iterator[int], lines: int) -> list[GrabLine]:
    """Lines of one unit, each of a buyer of its own."""
    return [GrabLine(CAMPAIGN, SKU, f"b-{next(numbers)}") for _ in range(lines)]

"""`stockray bench`: how fast, against a bare grpc.aio echo measured in the same run.

Closed loops: so many callers, each with one call in flight, every request id and buyer unique, and
the invariants verified at the end. CPU per line is read from the kernel for each process. Numbers
of different runs say little on a shared machine; the ratios of one run are what counts.
"""

import asyncio
import os
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import grpc.aio
from hdrh.histogram import HdrHistogram
from stockray import (
    AsyncClient,
    Campaign,
    CampaignLine,
    ClusterStatus,
    GrabLine,
    ReplicaRole,
    Sku,
    Status,
)
from stockray_proto.v1 import common_pb2, seckill_service_pb2
from stockray_proto.v1.seckill_service_pb2_grpc import SeckillServiceStub

from actors.core.identity import slot_of
from actors.hosting import set_aside
from server.children import ServeChild
from server.demo import primary_pid, private_stores, until_settled, upgrade_database
from server.echo import METHOD, EchoChild
from server.live import replica_claims
from server.peers import measure_mysql, measure_redis_lua
from server.settings import Settings, load
from server.verifying import verify_stores

SKU, CAMPAIGN = "bench-sku", "bench"
UNITS = 1_000_000_000
TICKS = os.sysconf("SC_CLK_TCK")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What is measured, and for how long."""

    seconds: float = 5.0
    callers: int = 64
    many_lines: int = 1_000
    kills: int = 0
    open_reservations: int = 0
    private_services: bool = False
    against: tuple[str, ...] = ()
    """Peers to measure in the same run beside the echo: "redis-lua", "mysql"."""


PEERS = ("redis-lua", "mysql")


@dataclass(slots=True, kw_only=True)
class Measured:
    """One row of the result."""

    name: str
    rate_per_s: float
    p50_ms: float
    p99_ms: float
    p99_9_ms: float
    cpu_us_per_line: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class BenchResult:
    """Everything that a run measured."""

    results: list[Measured] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    failover_gap_ms: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    invariants: dict[str, Any] = field(default_factory=dict)
    ok: bool = False

    def as_data(self) -> dict[str, Any]:
        """For `-o json`."""
        return asdict(self)


def run_bench(options: BenchOptions, say: Say) -> BenchResult:
    """The whole run, on a temporary directory."""
    directory = Path(tempfile.mkdtemp(prefix="stockray-bench-"))
    try:
        with _flags(options, directory) as flags:
            return _run(options, directory, flags, say)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _flags(options: BenchOptions, directory: Path) -> Iterator[dict[str, str]]:
    if not options.private_services:
        yield {}
        return
    with private_stores(directory) as (journal, database):
        yield {"journal": journal, "database": database}


def _run(options: BenchOptions, directory: Path, flags: dict[str, str], say: Say) -> BenchResult:
    settings = load({"data_dir": directory / "data", **flags}, environment={}).settings
    if flags:
        upgrade_database(settings)
    arguments = ["--data-dir", str(settings.data_dir), "--listen", "127.0.0.1:0", "--shards", "1"]
    for name, value in flags.items():
        arguments += [f"--{name}", value]
    with EchoChild() as echo, ServeChild(arguments, log=directory / "serve.log") as child:
        say("starting the service")
        child.wait_ready()
        result = asyncio.run(Bench(options, settings, child.listen, echo, say).run())
        child.terminate()
    _measure_peers(options, directory, result, say)
    report = verify_stores(settings)
    result.invariants = report.as_data()["invariants"]
    result.ok &= report.ok
    return result


def _measure_peers(options: BenchOptions, directory: Path, result: BenchResult, say: Say) -> None:
    """What people do today, alone on the machine as the service was."""
    ours = {row.name: row.rate_per_s for row in result.results}
    for peer in options.against:
        say(f"{peer}: {options.seconds:.0f} s")
        if peer == "redis-lua":
            found = measure_redis_lua(directory, callers=options.callers, seconds=options.seconds)
        else:
            found = measure_mysql(directory, seconds=options.seconds)
        rate = round(found.sold / found.seconds, 1)
        result.results.append(
            Measured(
                name=peer,
                rate_per_s=rate,
                p50_ms=found.latency_us.get_value_at_percentile(50) / 1000,
                p99_ms=found.latency_us.get_value_at_percentile(99) / 1000,
                p99_9_ms=found.latency_us.get_value_at_percentile(99.9) / 1000,
            )
        )
        name = peer.replace("-", "_")
        result.ratios[f"client_to_{name}"] = round(ours["client_gathered"] / rate, 2)
        result.ratios[f"grab_many_to_{name}"] = round(ours["grab_many"] / rate, 2)


class Bench:
    """One run against one service."""

    def __init__(
        self,
        options: BenchOptions,
        settings: Settings,
        listen: str,
        echo: EchoChild,
        say: Say,
    ) -> None:
        self._options = options
        self._settings = settings
        self._listen = listen
        self._echo = echo
        self._say = say
        self._numbers = count()
        self._result = BenchResult(ok=True)

    async def run(self) -> BenchResult:
        """All measurements, one after the other, so that none disturbs another."""
        options, result = self._options, self._result
        # Full collections of this process would stand in every row as latency of the service.
        set_aside()
        async with AsyncClient(self._listen) as client:
            await _prepare(client)
            floor = await self._measure_echo(options.callers)
            one = await self._measure_grab(client, 1)
            grab = await self._measure_grab(client, options.callers)
            many = await self._measure_many(client)
            gathered = await self._measure_client(client, 8 * options.callers)
            result.results = [floor, one, grab, many, gathered]
            base = floor.rate_per_s
            result.ratios = {
                "grab_to_echo": round(grab.rate_per_s / base, 2),
                "grab_many_to_echo": round(many.rate_per_s / base, 2),
                "client_to_echo": round(gathered.rate_per_s / base, 2),
            }
            if options.open_reservations:
                await self._measure_memory(client)
            if options.kills:
                await self._measure_kills(client)
            await until_settled(client)
            claims = await replica_claims(client)
        report = await asyncio.to_thread(verify_stores, self._settings, claims=claims)
        result.ok = report.ok
        return result

    async def _measure_echo(self, callers: int) -> Measured:
        payload = self._grab_request().SerializeToString()
        async with grpc.aio.insecure_channel(self._echo.target) as channel:
            call = channel.unary_unary(METHOD, request_serializer=None, response_deserializer=None)

            async def once() -> int:
                await call(payload)
                return 1

            return await self._loop(
                "echo", once, callers, {"client": os.getpid(), "server": self._echo.pid}
            )

    async def _measure_grab(self, client: AsyncClient, callers: int) -> Measured:
        async with grpc.aio.insecure_channel(self._listen) as channel:
            stub = SeckillServiceStub(channel)

            async def once() -> int:
                answer = await stub.Grab(self._grab_request(), timeout=10)
                return _require(answer.result.status, 1)

            name = f"grab_unary_{callers}"
            return await self._loop(name, once, callers, await self._pids(client))

    async def _measure_many(self, client: AsyncClient) -> Measured:
        lines = self._options.many_lines

        async def once() -> int:
            found = await client.grab_many([self._line() for _ in range(lines)])
            return sum(1 for answer in found if answer.status is Status.RESERVED)

        return await self._loop("grab_many", once, 4, await self._pids(client))

    async def _measure_client(self, client: AsyncClient, callers: int) -> Measured:
        async def once() -> int:
            number = next(self._numbers)
            answer = await client.grab(CAMPAIGN, SKU, buyer_id=f"b-{number}")
            return int(answer.status is Status.RESERVED)

        return await self._loop("client_gathered", once, callers, await self._pids(client))

    async def _loop(
        self,
        name: str,
        once: Callable[[], Awaitable[int]],
        callers: int,
        pids: dict[str, int],
    ) -> Measured:
        """Callers that each call again as soon as they are answered."""
        self._say(f"{name}: {callers} callers, {self._options.seconds:.0f} s")
        histogram = HdrHistogram(1, 60_000_000, 3)
        lines = 0

        async def caller(until: float) -> None:
            nonlocal lines
            while (started := time.perf_counter()) < until:
                # Apart: `lines += await ...` reads before it waits, and loses what others add.
                done = await once()
                lines += done
                histogram.record_value(max(1, int((time.perf_counter() - started) * 1e6)))

        await once()
        before = {role: cpu_seconds(pid) for role, pid in pids.items()}
        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(callers):
                tasks.create_task(caller(began + self._options.seconds))
        took = time.perf_counter() - began
        return Measured(
            name=name,
            rate_per_s=round(lines / took, 1),
            p50_ms=histogram.get_value_at_percentile(50) / 1000,
            p99_ms=histogram.get_value_at_percentile(99) / 1000,
            p99_9_ms=histogram.get_value_at_percentile(99.9) / 1000,
            cpu_us_per_line={
                role: round((cpu_seconds(pid) - before[role]) * 1e6 / max(1, lines), 2)
                for role, pid in pids.items()
            },
        )

    async def _measure_memory(self, client: AsyncClient) -> None:
        """Resident memory of both replicas per open reservation."""
        wanted = self._options.open_reservations
        self._say(f"memory: {wanted:,} open reservations")
        await until_settled(client)
        before = _memory(await client.cluster_status())
        for start in range(0, wanted, 4_000):
            size = min(4_000, wanted - start)
            await client.grab_many([self._line() for _ in range(size)])
        await until_settled(client)
        after = _memory(await client.cluster_status())
        self._result.memory = {
            "open_reservations": wanted,
            **{
                f"{role}_bytes_each": round((after[role] - before[role]) / wanted) for role in after
            },
        }

    async def _measure_kills(self, client: AsyncClient) -> None:
        """From kill -9 of the primary under load to the next acknowledged sale."""
        gaps: list[float] = []
        for number in range(self._options.kills):
            await until_settled(client)
            self._say(f"kill {number + 1} of {self._options.kills}")
            gaps.append(await self._kill_once(client))
        self._result.failover_gap_ms = {
            "kills": len(gaps),
            "median": round(statistics.median(gaps), 1),
            "worst": round(max(gaps), 1),
        }

    async def _kill_once(self, client: AsyncClient) -> float:
        killed_at = 0.0
        gap = 0.0

        async def caller(until: float) -> None:
            nonlocal gap
            while time.perf_counter() < until:
                asked_at = time.perf_counter()
                number = next(self._numbers)
                answer = await client.grab(CAMPAIGN, SKU, buyer_id=f"b-{number}")
                answered_at = time.perf_counter()
                # Asked after the kill, so decided after it: the first of these ends the gap.
                fresh = killed_at and asked_at >= killed_at
                if fresh and not gap and answer.status is Status.RESERVED:
                    gap = answered_at - killed_at

        pid = await primary_pid(client, CAMPAIGN)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._options.callers):
                tasks.create_task(caller(time.perf_counter() + 3))
            await asyncio.sleep(0.5)
            killed_at = time.perf_counter()
            os.kill(pid, signal.SIGKILL)
        return gap * 1000

    async def _pids(self, client: AsyncClient) -> dict[str, int]:
        status = await client.cluster_status()
        shard = status.shards[slot_of(CAMPAIGN) % len(status.shards)]
        roles = {ReplicaRole.PRIMARY: "shard", ReplicaRole.STANDBY: "standby"}
        pids = {"client": os.getpid(), "gateway": status.gateways[0].pid}
        return pids | {roles[r.role]: r.pid for r in shard.replicas if r.role in roles}

    def _line(self) -> GrabLine:
        number = next(self._numbers)
        return GrabLine(CAMPAIGN, SKU, f"b-{number}")

    def _grab_request(self) -> seckill_service_pb2.GrabRequest:
        number = next(self._numbers)
        return seckill_service_pb2.GrabRequest(
            line=seckill_service_pb2.GrabLine(
                request_id=f"unary-{number}",
                campaign_id=CAMPAIGN,
                sku_id=SKU,
                quantity=1,
                buyer=common_pb2.BuyerContext(buyer_id=f"u-{number}"),
            )
        )


async def _prepare(client: AsyncClient) -> None:
    now = datetime.now(UTC)
    sku = Sku(sku_id=SKU, buffer_bps=0, list_price_minor=9_900, currency_code="CNY")
    (await client.put_sku(sku)).raise_for_status()
    (await client.receive_stock(SKU, quantity=UNITS)).raise_for_status()
    line = CampaignLine(
        sku_id=SKU,
        allocation_count=UNITS,
        list_price_minor=9_900,
        unit_price_minor=4_900,
        limit_per_buyer=2,
    )
    campaign = Campaign(
        campaign_id=CAMPAIGN,
        currency_code="CNY",
        start_time=now - timedelta(seconds=1),
        end_time=now + timedelta(hours=5),
        payment_window=timedelta(hours=1),
        lines=(line,),
    )
    (await client.put_campaign(campaign)).raise_for_status()


def _require(status: int, lines: int) -> int:
    """A rate counts sales, not refusals."""
    return lines if status == common_pb2.LINE_STATUS_RESERVED else 0


def _memory(status: ClusterStatus) -> dict[str, int]:
    shard = status.shards[slot_of(CAMPAIGN) % len(status.shards)]
    return {replica.role.name.lower(): replica.memory_bytes for replica in shard.replicas}


def cpu_seconds(pid: int) -> float:
    """CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS

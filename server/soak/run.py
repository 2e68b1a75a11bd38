"""A whole soak: a service of its own, the sale, the looks at it, the drain, and the verdict."""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Protocol

from stockray import AsyncClient, ReplicaRole, Status, StockrayError

from actors.hosting import process_identity
from server.children import ServeChild, descendants
from server.demo import until_settled
from server.live import replica_claims
from server.settings import Settings, load
from server.soak.bounds import bounds_of
from server.soak.goods import Goods
from server.soak.judge import Sample, judge
from server.soak.market import TIMEOUT_MS, Market
from server.soak.result import SoakError, SoakOptions, SoakResult
from server.soak.sampler import Sampler, control_address, rows_in_memory, stood
from server.verifying import verify_stores

SHARDS = 2
ACCOUNT_SHARDS = 1
PROMOTED = 0
"""The shard whose primary changes; the other one's processes live through the whole run."""
GRACE_MS = 2_000
RECALL_AFTER_MS = 60_000
SNAPSHOT_EVERY_MS, SNAPSHOT_ENTRIES = 10_000, 2_000
LOOKS = 300
LOOK_EVERY_MIN_S = 0.5
DEAR_EVERY = 10
"""One look of so many counts rows, which takes the database and a standby some time."""
PROMOTIONS = 8
PROMOTE_EVERY_MIN_S = 20.0
SETTLE_TIMEOUT_S = 120.0
GONE_TIMEOUT_S = 15.0
SAMPLES = "samples.jsonl"
"""Every look, as a line of JSON in the run's directory."""


class Watcher(Protocol):
    """Who is told how it goes."""

    def say(self, text: str) -> None:
        """A step begins."""

    def look(self, sample: Sample) -> None:
        """How it stands."""


def run_soak(options: SoakOptions, watcher: Watcher) -> SoakResult:
    """The whole run; what it started has ended when it returns. Raises ChildFailed, CannotStart,
    StorageError or SoakError when it cannot be made at all."""
    settings = load(
        {"data_dir": options.directory / "data", "shards": SHARDS}, environment={}
    ).settings
    arguments = [
        *("--data-dir", str(settings.data_dir), "--listen", "127.0.0.1:0"),
        *("--shards", str(SHARDS), "--expiry-grace-ms", str(GRACE_MS)),
    ]
    environment = {
        "STOCKRAY_RECALL_AFTER_MS": str(RECALL_AFTER_MS),
        "STOCKRAY_SNAPSHOT_EVERY_MS": str(SNAPSHOT_EVERY_MS),
        "STOCKRAY_SNAPSHOT_ENTRIES": str(SNAPSHOT_ENTRIES),
    }
    result = SoakResult(options=options)
    log = options.directory / "serve.log"
    with ServeChild(arguments, log=log, environment=environment) as child:
        watcher.say("starting the service")
        child.wait_ready()
        with census(control_address(child.pid)) as count_gcs:
            soak = Soak(
                options,
                settings=settings,
                child=child,
                count_gcs=count_gcs,
                result=result,
                watcher=watcher,
            )
            acks = asyncio.run(soak.play())
        family = {pid: process_identity(pid) for pid in [child.pid, *descendants(child.pid)]}
        watcher.say("draining the service (SIGTERM)")
        result.drained = child.terminate() == 0
    result.left = _left_of(family)
    result.verdicts = judge(result.samples, bounds_of(SHARDS + ACCOUNT_SHARDS))
    watcher.say("verifying what is left on disk")
    result.report = verify_stores(settings, claims=result.claims, acks=acks)
    return result


def _left_of(family: dict[int, str]) -> list[int]:
    deadline = time.monotonic() + GONE_TIMEOUT_S
    left = list(family)
    while left and time.monotonic() < deadline:
        left = [pid for pid in left if family[pid] and process_identity(pid) == family[pid]]
        if left:
            time.sleep(0.1)
    return left


class Census:
    """Asks a process beside us what Ray's control service has in its tables."""

    def __init__(self, process: "subprocess.Popen[str] | None") -> None:
        self._process = process

    def count(self) -> dict[str, float]:
        """By table; nothing where there is no control service. SoakError when it has ended."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return {}
        try:
            process.stdin.write("\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError as error:
            raise SoakError(f"the census of Ray's tables ended: {error}") from error
        if not line:
            raise SoakError("the census of Ray's tables ended")
        return {f"GCS {table}": float(count) for table, count in json.loads(line).items()}


@contextlib.contextmanager
def census(address: str) -> Iterator[Census]:
    """Counts at the control service of this address; '' for none."""
    if not address:
        yield Census(None)
        return
    with subprocess.Popen(
        [sys.executable, "-m", "actors.census", address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Census(process)
        finally:
            process.kill()


class Soak:
    """The sale of one run, and the looks at it."""

    def __init__(
        self,
        options: SoakOptions,
        *,
        settings: Settings,
        child: ServeChild,
        count_gcs: Census,
        result: SoakResult,
        watcher: Watcher,
    ) -> None:
        self._options = options
        self._child = child
        self._census = count_gcs
        self._result = result
        self._watcher = watcher
        self._sampler = Sampler(settings, child.pid, shards=SHARDS + ACCOUNT_SHARDS)
        self._promotions = 0

    async def play(self) -> list[Any]:
        """Sell for the planned time; answers what buyers were told, to be verified."""
        options, address = self._options, self._child.listen
        async with AsyncClient(address, timeout_ms=TIMEOUT_MS, connections=2) as client:
            goods = Goods(client, address, rate=options.rate, seed=options.seed)
            market = Market(client, goods, rate=options.rate, seed=options.seed)
            await goods.prepare()
            self._watcher.say(
                f"selling for {options.minutes:g} min at {options.rate:,.0f} calls a second"
            )
            async with asyncio.TaskGroup() as tasks:
                keepers = [
                    tasks.create_task(goods.run()),
                    tasks.create_task(self._promote_again(client)),
                ]
                selling = tasks.create_task(market.run())
                await self._look_on(client, market, goods)
                market.stopping = True
                await selling
                for keeper in keepers:
                    keeper.cancel()
            self._watcher.say("the sale is over; what is unpaid expires")
            await until_settled(client, timeout_s=SETTLE_TIMEOUT_S)
            self._result.claims = await replica_claims(client)
        self._result.statuses = dict(sorted(market.statuses.items()))
        self._result.wrong = market.wrong
        return market.acks

    async def _promote_again(self, client: AsyncClient) -> None:
        every_s = max(PROMOTE_EVERY_MIN_S, self._options.seconds / PROMOTIONS)
        while True:
            await asyncio.sleep(every_s)
            with contextlib.suppress(StockrayError):
                told = await client.promote(PROMOTED, reason="soak")
                self._promotions += int(told.status is Status.APPLIED)

    async def _look_on(self, client: AsyncClient, market: Market, goods: Goods) -> None:
        every_s = max(LOOK_EVERY_MIN_S, self._options.seconds / LOOKS)
        began_s = time.monotonic()
        number = 0
        while (since_s := time.monotonic() - began_s) < self._options.seconds:
            values = await self._look(client, dear=number % DEAR_EVERY == 0)
            done = {**market.done, "promotions": self._promotions, "seconds": int(since_s)}
            for kind, count in goods.done.items():
                done[kind] = done.get(kind, 0) + count
            sample = Sample(since_s, values, done)
            self._result.samples.append(sample)
            await asyncio.to_thread(self._keep, sample)
            self._watcher.look(sample)
            number += 1
            await asyncio.sleep(max(0.0, began_s + number * every_s - time.monotonic()))

    def _keep(self, sample: Sample) -> None:
        with (self._options.directory / SAMPLES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(sample._asdict()) + "\n")

    async def _look(self, client: AsyncClient, *, dear: bool) -> dict[str, float]:
        """Everything that can be seen now. What does not answer is missing."""
        sampler, values = self._sampler, dict[str, float]()
        with contextlib.suppress(StockrayError):
            status = await client.cluster_status()
            values |= stood(status)
            if _whole(status):
                values |= await asyncio.to_thread(sampler.processes, status)
        values |= await asyncio.to_thread(sampler.files)
        if dear:
            with contextlib.suppress(StockrayError):
                values |= rows_in_memory(await client.verify())
            values |= await asyncio.to_thread(sampler.sql_rows)
            values |= await asyncio.to_thread(self._census.count)
        return values


def _whole(status: Any) -> bool:
    """Whether no replica is missing: a sum without one would show a fall that is none."""
    pair = {ReplicaRole.PRIMARY, ReplicaRole.STANDBY}
    return all({replica.role for replica in shard.replicas} == pair for shard in status.shards)

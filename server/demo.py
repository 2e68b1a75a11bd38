"""The main job, alone and from nothing: a flash sale through a kill, then the books.

It runs `stockray serve` as anybody would, on a temporary directory, sells through the real gRPC
port, kills the primary of the hot campaign's shard with -9 in the middle of the rush, waits for the
unpaid to expire, verifies journal against memory against SQL against what buyers were told, drains
the service, and verifies once more what is left on disk. With teams, a group-buy follows the sale,
through a kill of its own, into the same books.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from stockray import AsyncClient, ReplicaRole, Status, TeamState

from actors.core.identity import slot_of
from actors.core.records import Balance
from persistence.open import open_sink
from persistence.private import PrivateMariaDB, PrivateRedis
from server.children import ServeChild
from server.group_books import GroupBooks, judge, until_ended
from server.group_sale import CAMPAIGN_ID, GroupPlan, GroupRush, prepare_group, shoppers_of
from server.live import replica_claims
from server.sale import GapMeter, Line, Plan, Rush, Tally, buyers_of, lines_of, prepare
from server.settings import Settings, load
from server.verify import Report
from server.verifying import verify_stores

EXPIRY_TIMEOUT_S = 60.0
SETTLE_TIMEOUT_S = 60.0
BUYERS_A_SHOPPER, SHOPPERS_MIN = 50, 200
"""The group-buy's size, by the sale's."""
GRACE_MS = 3_000
"""The demo's `expiry_grace_ms`: a minute of it would outlast the demo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What a demo runs on."""

    plan: Plan
    journal: str = ""
    database: str = ""
    private_services: bool = False
    """Start a Redis and a MariaDB of its own, and run on them."""
    with_teams: bool = False
    """A group-buy after the flash sale."""
    keep: bool = False
    """Leave the directory for a look."""


@dataclass(slots=True, kw_only=True)
class Books:
    """What a demo found."""

    plan: Plan
    lines: list[Line]
    tally: Tally
    kills: int
    gaps_ms: list[float]
    live: Report
    stopped: Report
    journal: str
    database: str
    drained: bool
    seconds: float
    teams: GroupBooks | None = None
    """Of the group-buy, if there was one."""

    @property
    def all_lines(self) -> list[Line]:
        """What was on sale, with and without teams."""
        return [*self.lines, *(self.teams.lines if self.teams else ())]

    @property
    def receipts(self) -> Counter[tuple[str, str]]:
        """Units that buyers own by what they were told, by campaign and SKU."""
        return self.tally.confirmed + (self.teams.sold if self.teams else Counter())

    @property
    def oversold(self) -> int:
        """Units sold beyond what there was: by the buyers' own receipts, and by the pools."""
        receipts = self.receipts
        by_receipts = sum(
            max(0, receipts[line.campaign_id, line.sku_id] - line.units) for line in self.all_lines
        )
        by_pools = sum(max(0, p.sold + p.reserved - p.total) for p in self.stopped.pools)
        return by_receipts + by_pools

    @property
    def receipts_differ(self) -> list[str]:
        """Pools whose sold units are not what buyers were told."""
        sold = {(p.campaign_id, p.sku_id): p.sold for p in self.stopped.pools}
        receipts = self.receipts
        return [
            f"{line.campaign_id}/{line.sku_id}: buyers hold {told}, the pool sold {found}"
            for line in self.all_lines
            if (told := receipts[line.campaign_id, line.sku_id])
            != (found := sold.get((line.campaign_id, line.sku_id), 0))
        ]

    @property
    def balanced(self) -> bool:
        """Whether everything adds up."""
        return (
            self.live.ok
            and self.stopped.ok
            and self.oversold == 0
            and not self.receipts_differ
            and not self.tally.changed_answers
            and not self.tally.unexpected
            and self.drained
            and self.kills > 0
            and (self.teams is None or self.teams.balanced)
        )

    def as_data(self) -> dict[str, Any]:
        """For `-o json`; the names are fixed by the contract."""
        tally = self.tally
        refused = sum(
            count
            for status, count in tally.statuses.items()
            if status in Status.__members__ and status not in ("RESERVED", "RETRY", "UNKNOWN")
        )
        lost = self.live.invariants["I2"].violations + self.stopped.invariants["I2"].violations
        twice = self.live.invariants["I4"].violations + self.stopped.invariants["I4"].violations
        data = {
            "requests": tally.requests,
            "reserved": tally.statuses["RESERVED"],
            "sold": sum(tally.confirmed.values()),
            "refused": refused,
            "retried": tally.retried,
            "released": tally.released,
            "left_to_expire": tally.left_to_expire,
            "undecided": tally.statuses["RETRY"] + tally.statuses["UNKNOWN"],
            "statuses": dict(tally.statuses),
            "oversold": self.oversold,
            "acked_lost": lost,
            "applied_twice": twice + len(tally.changed_answers),
            "balanced": self.balanced,
            "kills": self.kills,
            "failover_gap_ms": round(max(self.gaps_ms, default=0.0), 1),
            "rate_per_s": round(tally.rate_per_s, 1),
            "p50_ms": tally.latency_ms(50),
            "p99_ms": tally.latency_ms(99),
            "p99_9_ms": tally.latency_ms(99.9),
            "drained": self.drained,
            "journal": self.journal,
            "database": self.database,
            "seconds": round(self.seconds, 1),
            "receipts_differ": self.receipts_differ,
            "changed_answers": tally.changed_answers[:10],
            "unexpected": dict(tally.unexpected),
            "live": self.live.as_data(),
            "stopped": self.stopped.as_data(),
        }
        if self.teams is not None:
            data |= {
                "teams_formed": self.teams.count(TeamState.FORMED),
                "teams_failed": self.teams.count(TeamState.FAILED),
                "stranded_minor": self.teams.stranded_minor,
                "group_buy": self.teams.as_data(),
            }
        return data


class Watcher(Protocol):
    """Who is told how the demo goes."""

    def say(self, text: str) -> None:
        """A step begins."""

    def sold(self, done: int, reserved: int, total: int) -> None:
        """So many of the buyers were served, so many requests reserved."""


def run_demo(options: DemoOptions, watcher: Watcher) -> Books:
    """The whole demo. Raises CannotStart, ChildFailed or StorageError when it cannot run at all."""
    began = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="stockray-demo-"))
    try:
        with _stores(options, directory, watcher) as (journal, database):
            books = _run(options, directory, journal, database, watcher)
    finally:
        if not options.keep:
            shutil.rmtree(directory, ignore_errors=True)
    books.seconds = time.monotonic() - began
    return books


@contextlib.contextmanager
def _stores(options: DemoOptions, directory: Path, watcher: Watcher) -> Iterator[tuple[str, str]]:
    if not options.private_services:
        yield options.journal, options.database
        return
    watcher.say("starting a private Redis and MariaDB")
    with private_stores(directory) as (journal, database):
        yield journal, database


@contextlib.contextmanager
def private_stores(directory: Path) -> Iterator[tuple[str, str]]:
    """A Redis and a MariaDB of one's own below `directory`: (journal, database) URLs."""
    redis = PrivateRedis(directory / "redis")
    maria = PrivateMariaDB(directory / "mariadb")
    try:
        redis.start()
        maria.start()
        yield redis.url, maria.url
    finally:
        maria.stop()
        redis.stop()


def _run(
    options: DemoOptions, directory: Path, journal: str, database: str, watcher: Watcher
) -> Books:
    flags: dict[str, Any] = {"data_dir": directory / "data"}
    if journal:
        flags["journal"] = journal
    if database:
        flags["database"] = database
    settings = load(flags, environment={}).settings
    if database:
        upgrade_database(settings)
    arguments = [
        *("--data-dir", str(settings.data_dir), "--listen", "127.0.0.1:0"),
        *("--expiry-grace-ms", str(GRACE_MS)),
        *(("--journal", journal) if journal else ()),
        *(("--database", database) if database else ()),
    ]
    with ServeChild(arguments, log=directory / "serve.log") as child:
        watcher.say(
            "starting the service: a local Ray, shards in pairs, write-behind, a gRPC gateway"
        )
        child.wait_ready()
        watcher.say(f"serving on {child.listen}")
        books = asyncio.run(_sell(options, settings, child.listen, watcher))
        watcher.say("draining the service (SIGTERM)")
        books.drained = child.terminate() == 0
    watcher.say("verifying what is left on disk")
    books.stopped = verify_stores(settings, acks=books.tally.acks)
    return books


def upgrade_database(settings: Settings) -> None:
    """Bring the schema of a database that the run has for itself to what is needed."""
    sink = open_sink(settings.database_url)
    sink.upgrade()
    sink.close()


async def _sell(options: DemoOptions, settings: Settings, listen: str, watcher: Watcher) -> Books:
    plan = options.plan
    lines = lines_of(plan)
    buyers = buyers_of(plan, lines)
    gap = GapMeter()
    async with AsyncClient(listen) as client:
        watcher.say(f"stocking {plan.units:,} units of {len(lines)} SKUs, opening two campaigns")
        await prepare(client, plan, lines)
        watcher.say(f"{plan.buyers:,} buyers come")
        rush = Rush(
            client,
            plan,
            buyers,
            gap=gap,
            watched_campaign=lines[0].campaign_id,
            on_progress=lambda done, reserved: watcher.sold(done, reserved, plan.buyers),
        )
        kills = await _rush_through_a_kill(client, rush, lines[0].campaign_id, watcher)
        watcher.say(
            f"the rush is over; unpaid reservations expire ({plan.payment_window_ms / 1000:.0f} s)"
        )
        await _until_expired(client, lines)
        await until_settled(client)
        teams = await _buy_together(client, plan, watcher) if options.with_teams else None
        watcher.say("verifying: journal, memory, SQL and the buyers' receipts")
        claims = await replica_claims(client)
    acks = rush.tally.acks
    acks += teams.tally.acks if teams else ()
    live = await asyncio.to_thread(verify_stores, settings, claims=claims, acks=acks)
    return Books(
        plan=plan,
        lines=lines,
        tally=rush.tally,
        kills=kills,
        gaps_ms=gap.gaps_ms,
        live=live,
        stopped=live,
        journal="SQLite files" if settings.embedded_journal else "Redis",
        database="SQLite" if settings.embedded_database else "MySQL / MariaDB",
        drained=False,
        seconds=0,
        teams=teams,
    )


async def _rush_through_a_kill(
    client: AsyncClient, rush: Rush, campaign_id: str, watcher: Watcher
) -> int:
    """The rush, with the hot shard's primary killed while the hot units are still going."""
    kills = 0
    # Asked before the crowd is there: a small rush is over in less than a busy gateway takes.
    pid = await primary_pid(client, campaign_id)
    selling = asyncio.create_task(rush.run())
    while not selling.done() and not kills:
        if rush.done >= rush.plan.buyers // 20:
            rush.gap.fault()
            os.kill(pid, signal.SIGKILL)
            kills += 1
            watcher.say(f"kill -9 {pid}: the primary of {campaign_id}'s shard")
        await asyncio.sleep(0.002)
    await selling
    return kills


async def _buy_together(client: AsyncClient, sale: Plan, watcher: Watcher) -> GroupBooks:
    """The group-buy, with its primary killed in the middle, until all its teams have ended."""
    plan = GroupPlan(shoppers=max(SHOPPERS_MIN, sale.buyers // BUYERS_A_SHOPPER), seed=sale.seed)
    watcher.say(f"group-buy: {plan.shoppers:,} shoppers team up for tea and teapots")
    await prepare_group(client, plan)
    rush = GroupRush(client, plan, shoppers_of(plan), gap=GapMeter())
    kills = await _group_rush_through_a_kill(client, rush, watcher)
    watcher.say("unpaid seats expire; late payers come; the campaign is ended before its time")
    await _until_expired(client, plan.lines())
    await rush.pay_late("pay late")
    await rush.open_last()
    (await client.end_campaign(CAMPAIGN_ID, reason="demo")).raise_for_status()
    teams = await until_ended(client, rush.tally.team_ids)
    await rush.pay_late("pay after the end")
    await rush.send_back(list(teams.values()))
    await until_settled(client)
    books = GroupBooks(
        lines=plan.lines(),
        tally=rush.tally,
        kills=kills,
        gap_ms=max(rush.gap.gaps_ms, default=0.0),
        teams=list(teams.values()),
    )
    await judge(client, books)
    return books


async def _group_rush_through_a_kill(client: AsyncClient, rush: GroupRush, watcher: Watcher) -> int:
    pid = await primary_pid(client, CAMPAIGN_ID)
    buying = asyncio.create_task(rush.run())
    while not buying.done():
        if rush.served >= rush.plan.shoppers // 3:
            rush.gap.fault()
            os.kill(pid, signal.SIGKILL)
            watcher.say(f"kill -9 {pid}: the primary of {CAMPAIGN_ID}'s shard")
            await buying
            return 1
        await asyncio.sleep(0.002)
    await buying
    return 0


async def primary_pid(client: AsyncClient, campaign_id: str) -> int:
    """Process id of the primary that decides on a campaign."""
    status = await client.cluster_status()
    shard = slot_of(campaign_id) % len(status.stock_shards)
    for replica in status.shards[shard].replicas:
        if replica.role is ReplicaRole.PRIMARY:
            return replica.pid
    raise RuntimeError(f"shard {shard} has no primary")


async def _until_expired(client: AsyncClient, lines: list[Line]) -> None:
    deadline = time.monotonic() + EXPIRY_TIMEOUT_S
    while time.monotonic() < deadline:
        reserved = 0
        for line in lines:
            stock = (await client.get_stock(line.sku_id, campaign_id=line.campaign_id)).stock
            reserved += stock.reserved_count if stock else 0
        if not reserved:
            return
        await asyncio.sleep(0.2)
    raise RuntimeError(f"{reserved} units are still reserved after {EXPIRY_TIMEOUT_S:.0f} s")


async def until_settled(client: AsyncClient, *, timeout_s: float = SETTLE_TIMEOUT_S) -> None:
    """Until every standby is back and has caught up, and so has SQL."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        status = await client.cluster_status()
        behind = [
            shard
            for shard in status.shards
            if shard.sink_seq < shard.seq
            or {r.role for r in shard.replicas} != {ReplicaRole.PRIMARY, ReplicaRole.STANDBY}
            or any(replica.seq < shard.seq for replica in shard.replicas)
        ]
        if not behind:
            return
        await asyncio.sleep(0.2)
    raise RuntimeError(f"not settled after {timeout_s:.0f} s: {behind}")


def balances_of(report: Report) -> list[Balance]:
    """The pools of a report, campaigns first."""
    return sorted(report.pools, key=lambda p: (not p.campaign_id, p.campaign_id, p.sku_id))

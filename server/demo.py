"""The main job, alone and from nothing: a flash sale through a kill, then the books.

It runs `stockray serve` as anybody would, on a temporary directory, sells through the real gRPC
port, kills the primary of the hot campaign's shard with -9 in the middle of the rush, waits for the
unpaid to expire, verifies journal against memory against SQL against what buyers were told, drains
the service, and verifies once more what is left on disk. With teams, a group-buy follows the sale,
through a kill of its own, into the same books. Integrated, distributors bring the buyers of both,
and their commission is followed to the cent (`integrated.py`).
"""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from stockray import AsyncClient, ReplicaRole

from actors.core.identity import slot_of
from persistence.open import open_sink
from persistence.private import PrivateMariaDB, PrivateRedis
from server import integrated
from server.children import ServeChild
from server.commission_books import CatchUp
from server.demo_books import Books
from server.group_books import GroupBooks, judge, until_ended
from server.group_sale import (
    CAMPAIGN_ID,
    GroupPlan,
    GroupRush,
    Shopper,
    prepare_group,
    shoppers_of,
)
from server.live import replica_claims
from server.outreach import outreach_of
from server.sale import Buyer, GapMeter, Line, Plan, Rush, Tally, buyers_of, lines_of, prepare
from server.settings import Settings, load
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
    integrated: bool = False
    """Distributors before both, and their commission after."""
    keep: bool = False
    """Leave the directory for a look."""

    @property
    def group_plan(self) -> GroupPlan | None:
        """The group-buy, its size by the sale's, if there is one."""
        if not (self.with_teams or self.integrated):
            return None
        shoppers = max(SHOPPERS_MIN, self.plan.buyers // BUYERS_A_SHOPPER)
        return GroupPlan(shoppers=shoppers, seed=self.plan.seed)


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
        books = asyncio.run(_sell(options, settings, child, watcher))
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


async def _sell(
    options: DemoOptions, settings: Settings, child: ServeChild, watcher: Watcher
) -> Books:
    plan, group = options.plan, options.group_plan
    lines = lines_of(plan)
    buyers, shoppers = buyers_of(plan, lines), shoppers_of(group) if group else []
    outreach, commission, teams = None, None, None
    async with AsyncClient(child.listen) as client:
        if options.integrated:
            outreach = outreach_of(buyers, shoppers, plan.seed)
            await integrated.until_accounts(client)
            watcher.say(f"{len(outreach.distributors):,} distributors apply and are approved")
            bound = await integrated.warm_up_all(client, outreach)
            watcher.say(f"they warm up: {bound:,} buyers met a share code")
            buyers, shoppers = outreach.send(buyers), outreach.send(shoppers)
        rush, killed = await _rush(client, plan, buyers, child if outreach else None, watcher)
        caught_up = await _catch_up(client, rush.tally, watcher) if outreach else None
        watcher.say(
            f"the rush is over; unpaid reservations expire ({plan.payment_window_ms / 1000:.0f} s)"
        )
        await _until_expired(client, lines)
        if outreach and caught_up:
            watcher.say("commission is thawed and paid out; some orders come back; new rates")
            commission = await integrated.between(client, outreach, rush.tally, caught_up)
        await until_settled(client)
        if group:
            teams = await _buy_together(client, group, shoppers, watcher)
        if commission and teams:
            watcher.say("reading the ledger: entries, months, accounts and the funnel")
            await integrated.until_told(client)
            await until_settled(client)
            await integrated.close(
                client,
                commission,
                rush.tally,
                teams,
                lines=lines,
                database_url=settings.database_url,
            )
        watcher.say("verifying: journal, memory, SQL and the buyers' receipts")
        claims = await replica_claims(client)
    acks = rush.tally.acks
    acks += teams.tally.acks if teams else ()
    live = await asyncio.to_thread(verify_stores, settings, claims=claims, acks=acks)
    return Books(
        plan=plan,
        lines=lines,
        tally=rush.tally,
        killed=killed,
        gaps_ms=rush.gap.gaps_ms,
        live=live,
        stopped=live,
        journal="SQLite files" if settings.embedded_journal else "Redis",
        database="SQLite" if settings.embedded_database else "MySQL / MariaDB",
        drained=False,
        seconds=0,
        teams=teams,
        commission=commission,
    )


async def _rush(
    client: AsyncClient,
    plan: Plan,
    buyers: Sequence[Buyer],
    keeper: ServeChild | None,
    watcher: Watcher,
) -> tuple[Rush, list[str]]:
    """The sale, and whose processes were killed in it; of a `keeper` of accounts theirs too."""
    lines = lines_of(plan)
    watcher.say(f"stocking {plan.units:,} units of {len(lines)} SKUs, opening two campaigns")
    await prepare(client, plan, lines)
    watcher.say(f"{plan.buyers:,} buyers come")
    rush = Rush(
        client,
        plan,
        buyers,
        gap=GapMeter(),
        watched_campaign=lines[0].campaign_id,
        on_progress=lambda done, reserved: watcher.sold(done, reserved, plan.buyers),
    )
    # Asked before the crowd is there: a small rush is over in less than a busy gateway takes.
    faults = await _faults(client, lines[0].campaign_id, keeper)
    return rush, await _rush_through_kills(client, rush, faults, watcher)


class Fault(NamedTuple):
    """A process that is killed while the sale goes on."""

    after: float
    """So much of all buyers."""
    pid: int
    whose: str
    of_stock: bool = True


async def _faults(client: AsyncClient, campaign_id: str, keeper: ServeChild | None) -> list[Fault]:
    """The hot shard's primary while its units are still going; of a keeper also the accounts' and
    the relay."""
    faults = [
        Fault(0.05, await primary_pid(client, campaign_id), f"the primary of {campaign_id}'s shard")
    ]
    if keeper is not None:
        accounts = integrated.accounts_pid(await client.cluster_status())
        faults.append(Fault(0.3, accounts, "the primary of the accounts", False))
        faults.append(Fault(0.6, integrated.relay_pid(keeper.pid), "the relay", False))
    return faults


async def _rush_through_kills(
    client: AsyncClient, rush: Rush, faults: Sequence[Fault], watcher: Watcher
) -> list[str]:
    """The rush, with processes killed in it. Answers whose they were."""
    left = list(faults)
    killed: list[str] = []

    async def kill() -> None:
        fault = left.pop(0)
        if fault.of_stock:
            rush.gap.fault()
        else:
            # The gateway keeps how far the relay was, for the time in which it does not answer.
            await client.cluster_status()
        os.kill(fault.pid, signal.SIGKILL)
        killed.append(fault.whose)
        watcher.say(f"kill -9 {fault.pid}: {fault.whose}")

    selling = asyncio.create_task(rush.run())
    while not selling.done() and left:
        if rush.done >= left[0].after * rush.plan.buyers:
            await kill()
        await asyncio.sleep(0.002)
    await selling
    while left and not left[0].of_stock:
        await kill()  # The sale was short; its facts are still on their way.
    return killed


async def _catch_up(client: AsyncClient, tally: Tally, watcher: Watcher) -> CatchUp:
    found = await integrated.catch_up(client, tally)
    watcher.say(
        f"the ledger has all {found.confirmed:,} confirmed orders {found.took_s:.1f} s after the"
        " sale"
    )
    return found


async def _buy_together(
    client: AsyncClient, plan: GroupPlan, shoppers: Sequence[Shopper], watcher: Watcher
) -> GroupBooks:
    """The group-buy, with its primary killed in the middle, until all its teams have ended."""
    watcher.say(f"group-buy: {plan.shoppers:,} shoppers team up for tea and teapots")
    await prepare_group(client, plan)
    rush = GroupRush(client, plan, shoppers, gap=GapMeter())
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

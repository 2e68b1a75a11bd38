"""One chaos run: load, faults, calm, and the reckoning.

The load runs from before the first fault until every shard sells again after the last. Then the
system settles, the journal is read to its end, and everything that callers were told is held
against it. What cannot be reckoned (a system that does not settle, a journal that was trimmed
before it was read) is a failure of the run and is told as such.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from stockray import AsyncClient, ClusterStatus, ReplicaRole, StockrayError

from actors.core.identity import parse_public_id
from persistence.errors import StorageError
from server.bootstrap import CannotStart
from server.chaos.account_checks import Told, check_accounts, read_accounts
from server.chaos.checks import Checks, check_history, doubts_of, last_acked, new_checks
from server.chaos.gaps import (
    PROGRESS_S,
    Span,
    calm_gap_s,
    check_progress,
    commission_gaps_of,
    explained_by,
    gaps_of,
)
from server.chaos.goods import Line, lines_of, prepare
from server.chaos.history import HOLDING, OK, History
from server.chaos.load import Load, LoadPlan, groups_of
from server.chaos.referrals import Referrals
from server.chaos.result import ChaosResult, Judged
from server.chaos.tail import Tail
from server.chaos.team_goods import GroupGoods
from server.integrated import until_accounts
from server.live import replica_claims
from server.settings import Settings
from server.verify import Ack, Invariant, ReplicaClaim, Report
from server.verifying import verify_stores

READY_S = 60.0
WARM_SALES = 20
"""Sales on every shard before the first fault."""
REST_S = 5.0
"""Load after the last fault, at least: the end of every timeline is calm."""
OVERTIME_S = 180.0
"""How much longer than planned the faults may take altogether."""
SETTLE_S = 120.0
LOOK_S = 0.25


class CannotRun(Exception):
    """The run cannot begin: nothing was proved, and nothing was broken."""


class Theatre(Protocol):
    """What a run plays on: a service and its stores."""

    @property
    def address(self) -> str:
        """host:port of the service, the same for the whole run."""

    @property
    def settings(self) -> Settings:
        """With the stores' own addresses."""


SpanLike = tuple[str, str, float, float, int | None]
"""The fields of `Span`, in its order."""


class Trouble(Protocol):
    """Who makes the faults."""

    @property
    def spans(self) -> Sequence[SpanLike]:
        """Carried out so far."""

    @property
    def skipped(self) -> Sequence[tuple[str, str]]:
        """(kind, reason) of what this machine cannot do."""

    @property
    def failed(self) -> Sequence[object]:
        """What should have been possible and was not."""

    async def run(self) -> None:
        """All faults, to their ends."""


class Progress(NamedTuple):
    """How far a run is."""

    seconds: float
    operations: int
    sales: int
    unknown: int
    faults: int
    planned: int


class Watcher(Protocol):
    """Who is told how the run goes."""

    def say(self, text: str) -> None:
        """A step begins."""

    def look(self, progress: Progress) -> None:
        """Several times a second."""


class Run:
    """One run on a theatre that stands."""

    def __init__(self, theatre: Theatre, plan: LoadPlan, *, planned: int, watcher: Watcher) -> None:
        self._theatre = theatre
        self._plan = plan
        self._planned = planned
        self._watcher = watcher
        self._began_s = self._ended_s = 0.0
        self._failed: list[str] = []
        self._notes: list[str] = []
        self._shards = 0
        self._referrals = Referrals()
        self._relayed = Invariant()

    async def play(self, make_trouble: Callable[[], Trouble]) -> ChaosResult:
        """Everything. Raises CannotRun when the load cannot even begin."""
        async with AsyncClient(self._theatre.address, timeout_ms=30_000) as client:
            lines, groups = await self._prepare(client)
            tail = Tail(self._theatre.settings.journal_url, self._shards)
            following = asyncio.create_task(tail.run())
            try:
                load = Load(self._theatre.address, self._plan, lines, groups, self._referrals)
                async with load:
                    await self._warm_up(load)
                    trouble = make_trouble()
                    await self._suffer(load, trouble)
                    self._ended_s = time.monotonic()
                await self._end_teams(client, groups, tail)
                settled_s = await self._settle(client)
                told = await read_accounts(client, self._referrals, load.frozen)
                claims = await _claims(client, self._shards)
            finally:
                tail.stop()
                await following
        return await asyncio.to_thread(
            self._reckon, load.history, trouble, tail, settled_s, claims, told
        )

    async def _prepare(self, client: AsyncClient) -> tuple[list[list[Line]], list[GroupGoods]]:
        status = await _status(client, lambda s: all(shard.replicas for shard in s.shards))
        if status is None:
            raise CannotRun(f"{self._theatre.address} does not answer")
        self._shards = len(status.shards)
        lines = lines_of(len(status.stock_shards))
        groups = groups_of(len(lines), self._plan)
        self._watcher.say(
            f"stocking {len(lines)} shards, opening a campaign on each and "
            f"{len(groups[0].lines)} for teams"
        )
        for of_shard, goods in zip(lines, groups, strict=True):
            await prepare(client, of_shard, seconds=self._plan.seconds)
            await goods.prepare(client, seconds=self._plan.seconds)
        self._watcher.say(f"{len(self._referrals.names)} distributors apply and are approved")
        await until_accounts(client)
        await self._referrals.prepare(client, [line for of_shard in lines for line in of_shard])
        return lines, groups

    async def _warm_up(self, load: Load) -> None:
        deadline = time.monotonic() + READY_S
        while not all(len(times) >= WARM_SALES for times in load.history.sales):
            load.check_callers()
            if time.monotonic() > deadline:
                raise CannotRun(f"no sale before the first fault: {load.history.outcomes}")
            await asyncio.sleep(LOOK_S)

    async def _suffer(self, load: Load, trouble: Trouble) -> None:
        """Until the faults are over and every shard sold again, or had its time for it."""
        self._watcher.say("the load runs; faults begin")
        self._began_s = began_s = time.monotonic()
        making = asyncio.create_task(trouble.run())
        try:
            while not self._over(load.history, making, trouble):
                load.check_callers()
                if time.monotonic() > began_s + self._plan.seconds + OVERTIME_S:
                    self._failed.append("the faults did not come to their end in time")
                    break
                if load.history.full:
                    self._notes.append("the history is full: the load stopped early")
                    break
                self._look(load.history, trouble)
                await asyncio.sleep(LOOK_S)
        finally:
            if not making.done():
                making.cancel()
            ended = await asyncio.gather(making, return_exceptions=True)
        if isinstance(ended[0], Exception):
            self._failed.append(f"the faults broke off: {type(ended[0]).__name__}: {ended[0]}")

    def _over(self, history: History, making: "asyncio.Task[None]", trouble: Trouble) -> bool:
        now = time.monotonic()
        if not making.done() or now < self._began_s + self._plan.seconds:
            return False
        last_s = max((Span(*span).ended_s for span in trouble.spans), default=self._began_s)
        if now < last_s + REST_S:
            return False
        sold = all(times and times[-1] >= last_s for times in history.asked)
        return sold or now > last_s + PROGRESS_S

    def _look(self, history: History, trouble: Trouble) -> None:
        self._watcher.look(
            Progress(
                time.monotonic() - self._began_s,
                len(history.operations),
                sum(len(times) for times in history.sales),
                history.outcomes["unknown"],
                len(trouble.spans),
                self._planned,
            )
        )

    async def _end_teams(
        self, client: AsyncClient, groups: Sequence[GroupGoods], tail: Tail
    ) -> None:
        """End the group campaigns that are left, and wait until the journal has their teams' ends;
        notes a failure if it never has."""
        self._watcher.say("ending the group campaigns")
        deadline = time.monotonic() + SETTLE_S
        try:
            for goods in groups:
                await goods.end_all(client)
        except TimeoutError:
            self._failed.append("the group campaigns cannot be ended")
            return
        while tail.books.teams.forming and not tail.missed:
            if time.monotonic() > deadline:
                self._failed.append(f"teams are still forming after {SETTLE_S:.0f} s")
                return
            await asyncio.sleep(LOOK_S)

    async def _settle(self, client: AsyncClient) -> float:
        """How long it took until pairs and SQL had all that the load did; notes a failure if they
        never had. What it reserved goes on expiring, so the journal need not stand still."""
        self._watcher.say("waiting for standbys and SQL")
        began_s = time.monotonic()
        status = await _status(client, lambda s: all(shard.seq for shard in s.shards))
        sold = [shard.seq for shard in status.shards] if status else []
        if not status or not await _status(client, lambda s: have_all(s, sold), SETTLE_S):
            self._failed.append(f"standbys and SQL have not caught up after {SETTLE_S:.0f} s")
        await self._until_told(client)
        return time.monotonic() - began_s

    async def _until_told(self, client: AsyncClient) -> None:
        """Until accounts know of all that was sold, or had their time for it."""
        status = await _status(client, lambda s: all(shard.seq for shard in s.stock_shards))
        sold = [shard.seq for shard in status.stock_shards] if status else []
        await _status(client, lambda s: told_all(s, sold), SETTLE_S)
        status = await _status(client, lambda s: True)
        shards = status.stock_shards if status else ()
        self._relayed.check(bool(shards), "nobody says how far accounts are")
        for shard, seq in zip(shards, sold, strict=False):
            self._relayed.check(
                shard.relay_seq >= seq,
                f"shard {shard.shard}: accounts are at {shard.relay_seq} of {seq} after "
                f"{SETTLE_S:.0f} s",
            )
            aside = shard.set_aside_count
            self._relayed.check(not aside, f"shard {shard.shard}: {aside} facts are set aside")

    def _check(
        self,
        history: History,
        tail: Tail,
        claims: list[ReplicaClaim],
        told: Told,
        checks: Checks,
    ) -> Report | None:
        """Hold everything to the journal; None if the stores cannot be read."""
        self._watcher.say("verifying: journal, memory, SQL, and every answer that was given")
        report = None
        try:
            tail.catch_up()
            checks["journal"] = tail.unchanged()
            report = verify_stores(self._theatre.settings, claims=claims, acks=acks_of(history))
        except (StorageError, CannotStart) as error:
            self._failed.append(f"the stores cannot be read: {error}")
        finally:
            tail.close()
        if tail.missed:
            self._failed.append(f"not checked: {tail.missed}")
        elif report is not None:
            check_history(history.operations, tail.books, checks)
            check_accounts(history.operations, tail.books.accounts, told, checks)
            acked = last_acked(history.operations, tail.books)
            _check_settled(report, acked, checks["settled"])
        return report

    def _reckon(  # noqa: PLR0917
        self,
        history: History,
        trouble: Trouble,
        tail: Tail,
        settle_s: float,
        claims: list[ReplicaClaim],
        told: Told,
    ) -> ChaosResult:
        spans = [Span(*span) for span in trouble.spans]
        checks = new_checks()
        report = self._check(history, tail, claims, told, checks)
        check_progress(
            spans, history.sales, history.asked, ended_s=self._ended_s, found=checks["progress"]
        )
        checks["relayed"] = self._relayed
        if tail.failed_reads:
            self._notes.append(f"the journal could not be read {tail.failed_reads} times meanwhile")
        settings = self._theatre.settings
        return ChaosResult(
            seed=self._plan.seed,
            began_s=self._began_s,
            ended_s=self._ended_s,
            history=history,
            planned=self._planned,
            spans=spans,
            skipped=[(kind, reason) for kind, reason in trouble.skipped],
            failed=[*self._failed, *(str(one) for one in trouble.failed)],
            gaps=gaps_of(spans, history.sales, ended_s=self._ended_s),
            commission_gaps=commission_gaps_of(spans, tail.taken_s, ended_s=self._ended_s),
            calm_gap_ms=1000
            * calm_gap_s(spans, history.sales, began_s=self._began_s, ended_s=self._ended_s),
            doubts=doubts_of(history.operations, tail.books),
            promotions=_judged(tail, spans, history),
            checks=checks,
            report=report,
            units_oversold=tail.books.units_oversold,
            settle_s=settle_s,
            journal="SQLite files" if settings.embedded_journal else "Redis",
            database="SQLite" if settings.embedded_database else "MySQL / MariaDB",
            notes=self._notes,
        )


def _judged(tail: Tail, spans: Sequence[Span], history: History) -> list[Judged]:
    """Each promotion with the fault that it is laid to."""
    found = []
    for one in tail.promotions:
        times = history.sales[one.shard] if one.shard < len(history.sales) else ()
        span = explained_by(one.seen_s, one.shard, spans, times)
        found.append(Judged(one, "" if span is None else span.kind))
    return found


def acks_of(history: History) -> list[Ack]:
    """The definite answers to requests, once for each, as `verify` takes them."""
    found: dict[str, Ack] = {}
    for operation in history.operations:
        if operation.verb not in HOLDING or not operation.definite:
            continue
        parsed = parse_public_id(operation.mark.removeprefix("request:"))
        if parsed is not None:
            found[operation.mark] = Ack(
                parsed[0], parsed[1], operation.outcome == OK, f"#{operation.number}"
            )
    return list(found.values())


def have_all(status: ClusterStatus, seqs: Sequence[int]) -> bool:
    """Whether every shard has its pair, and both of it and SQL have come this far."""
    return all(
        shard.sink_seq >= seq
        and {r.role for r in shard.replicas} == {ReplicaRole.PRIMARY, ReplicaRole.STANDBY}
        and all(replica.seq >= seq for replica in shard.replicas)
        for shard, seq in zip(status.shards, seqs, strict=True)
    )


def told_all(status: ClusterStatus, seqs: Sequence[int]) -> bool:
    """Whether accounts have all facts of stock shards' entries so far."""
    shards = status.stock_shards
    return all(shard.relay_seq >= seq for shard, seq in zip(shards, seqs, strict=True))


def _check_settled(report: Report, acked: Sequence[int], settled: Invariant) -> None:
    for name, found in report.invariants.items():
        settled.check(not found.violations, f"{name}: {'; '.join(found.examples)}")
    for shard, seq in zip(report.shards[: len(acked)], acked, strict=True):
        settled.check(
            shard["sink_seq"] >= seq,
            f"shard {shard['shard']}: SQL stands at {shard['sink_seq']}, {seq} was acknowledged",
        )


async def _status(
    client: AsyncClient, holds: Callable[[ClusterStatus], bool], timeout_s: float = READY_S
) -> ClusterStatus | None:
    """The cluster's status as soon as it holds; None if it does not in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            status = await client.cluster_status(timeout_ms=5_000)
        except StockrayError:
            status = None
        if status is not None and status.shards and holds(status):
            return status
        await asyncio.sleep(LOOK_S)
    return None


async def _claims(client: AsyncClient, shards: int) -> list[ReplicaClaim]:
    """What replicas say of their memory; a primary says its digest only after a moment of rest."""
    claims: list[ReplicaClaim] = []
    for _ in range(40):
        try:
            claims = await replica_claims(client)
        except StockrayError:
            claims = []
        if {claim.shard for claim in claims if claim.digest} >= set(range(shards)):
            break
        await asyncio.sleep(LOOK_S)
    return claims

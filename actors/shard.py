"""A shard's replica: recovers, follows the journal as standby, and may become its primary.

How it works
------------
Every instance starts as standby, also when both of a pair start at once. It becomes primary only
through `promote(seen_epoch)`: a compare-and-raise in the journal store with this instance's token,
sent again unchanged until the answer is definite. First the epoch is raised (from then on nobody
else can append), then the rest of the journal is read, then rounds are taken. An instance acquires
once in its life; fenced, it ends and comes back as a new standby.

It knows neither Ray nor a clock nor threads: those are given to it, so the same code runs in an
actor and on a simulated network. Recovery runs in `run`, never in a constructor: a recovering
replica answers, and says that it is not ready.
"""

import asyncio
from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple

import structlog

from actors.clock import Clock, ShardTime
from actors.core.snapshot import digest
from actors.core.state import ShardState
from actors.core.stock import pool_view
from actors.core.totals import totals
from actors.limits import Readers, ShardLimits
from actors.primary import Identity, Primary
from actors.recovery import CannotRecover, Recovery, fold_entries
from actors.rounds import (
    Answers,
    MalformedRound,
    RoundStatus,
    pack_answers,
    unpack_round,
)
from actors.snapshotting import Looked, SnapshotTaker
from actors.threads import AsyncJournal, AsyncSnapshots
from persistence.errors import Locked, NoJournal, StorageError, Trimmed
from persistence.ports import Meta, Ownership, SnapshotInfo

log = structlog.get_logger()


DIGEST_IDLE_MS = 100


class Role(StrEnum):
    """What a replica is doing."""

    RECOVERING = "recovering"
    STANDBY = "standby"
    PROMOTING = "promoting"
    PRIMARY = "primary"
    HALTED = "halted"
    """Something stored is missing; an operator must decide. Answers nothing, loses nothing."""


class PromoteStatus(StrEnum):
    """What became of a promote request."""

    OK = "ok"
    """This replica is primary."""
    NOT_READY = "not_ready"
    """It cannot take over now; nothing changed."""
    OTHER_EPOCH = "other_epoch"
    """The epoch was not the one the gateway had seen; nothing changed."""


class Promotion(NamedTuple):
    """Answer to a promote request, with who owns the journal as far as this replica knows."""

    status: PromoteStatus
    epoch: int
    owner: str


class Stores(NamedTuple):
    """A replica's stores: the writer's journal, another connection for readers, snapshots."""

    journal: AsyncJournal
    reader: AsyncJournal
    snapshots: AsyncSnapshots


class Shard:
    """One replica of one shard."""

    def __init__(
        self,
        *,
        shard: int,
        token: str,
        owner_info: str,
        stores: Stores,
        clock: Clock,
        limits: ShardLimits,
        owned_slots: frozenset[int],
        readers: Readers,
        kill_owner: Callable[[str], bool],
    ) -> None:
        self.shard = shard
        self.token = token
        self.role = Role.RECOVERING
        self.halt_reason = ""
        self.state: ShardState | None = None
        self._required_seq = 0
        """Of a halted one: where the journal must reach before it goes on."""
        self.meta: Meta | None = None
        self._owner_info = owner_info
        self._stores = stores
        self._time = ShardTime(clock)
        self._limits = limits
        self._owned = owned_slots
        self._readers = readers
        self._kill_owner = kill_owner
        self._primary: Primary | None = None
        self._folding = asyncio.Lock()
        self._promotion: asyncio.Task[Promotion] | None = None
        self._promoted = asyncio.Event()
        self._behind = 0
        self._began_at = self._loaded_at = 0.0
        self._snapshots = SnapshotTaker(
            shard=shard,
            reader=stores.reader,
            store=stores.snapshots,
            limits=limits,
            look=lambda: Looked(self.role is Role.STANDBY, self.state),
        )

    async def run(self) -> None:
        """Recover, follow, and once promoted serve. Returns never; raises when this instance must
        end (fenced, or its fold contradicts the journal)."""
        self._began_at = _now()
        await self._recover()
        try:
            async with asyncio.TaskGroup() as tasks:
                snapshots = tasks.create_task(self._snapshots.run())
                await self._follow()
                snapshots.cancel()
                self._snapshots.refuse()
        except* CannotRecover as group:
            await self._halt(str(group.exceptions[0]))
        if self._promotion is not None and self._primary is None:
            await self._promotion
        if self._primary is None:
            raise AssertionError("promoted without a primary")
        await self._primary.run()

    async def round(self, payload: bytes) -> bytes:
        """A gateway's round. Never raises for what is in it."""
        answer: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()

        def settle(found: Answers) -> None:
            if not answer.done():
                answer.set_result(found)

        self.take_round(payload, settle)
        return pack_answers(await answer)

    def take_round(self, payload: bytes, done: Callable[[Answers], None]) -> None:
        """The same, answered by a call, perhaps before this one returns; `done` must not raise."""
        try:
            round_ = unpack_round(payload)
        except MalformedRound as error:
            log.warning("malformed_round", shard=self.shard, error=str(error))
            done(self._refusal(RoundStatus.MALFORMED))
            return
        if self._primary is None or self.role is not Role.PRIMARY:
            halted = self.role is Role.HALTED
            done(self._refusal(RoundStatus.HALTED if halted else RoundStatus.NOT_PRIMARY))
        else:
            self._primary.submit_then(round_, done)

    async def promote(self, seen_epoch: int, seen_seq: int = 0) -> Promotion:
        """Become primary if the journal's epoch is still `seen_epoch`. Halts when the journal ends
        before entry `seen_seq`, which answers have carried: acknowledged entries are gone. Safe to
        ask for again, and by several gateways at once."""
        if self._promotion is None or (self._promotion.done() and self.role is Role.STANDBY):
            self._promotion = asyncio.ensure_future(self._promote(seen_epoch, seen_seq))
        return await asyncio.shield(self._promotion)

    async def take_snapshot(self) -> SnapshotInfo:
        """Have this standby write a snapshot now. Raises RuntimeError on any other role."""
        if self.role is not Role.STANDBY:
            raise RuntimeError(f"a {self.role} takes no snapshots; ask the standby")
        return await self._snapshots.take()

    def status(self) -> dict[str, Any]:
        """What operators see of this replica."""
        primary = self._primary
        state = self.state
        return {
            "shard": self.shard,
            "role": str(self.role),
            "token": self.token,
            "epoch": self.meta.epoch if self.meta else 0,
            "owner": self.meta.owner if self.meta else "",
            "seq": 0 if state is None else (primary.last_seq if primary else state.seq),
            "lag_entries": self._behind,
            "queue_rounds": primary.queue_length if primary else 0,
            "stalled": bool(primary and primary.stalled),
            "first_seq": max(
                self.meta.first_seq if self.meta else 0, primary.first_seq if primary else 0
            ),
            "journal_bytes": primary.journal_bytes if primary else 0,
            "journal_full_percent": primary.full_percent if primary else 0,
            "snapshot_seq": self._snapshots.last_seq,
            "reservations": 0
            if state is None
            else sum(len(slot.reservations) for slot in state.slots.values()),
            "refusals": 0 if state is None else state.refusal_count,
            "halt_reason": self.halt_reason,
            "counters": dict(primary.counters) if primary else {},
        }

    async def fingerprint(self, with_pools: bool) -> dict[str, Any]:
        """State digest, sums and balances as of one entry, for `verify`. A digest takes about 3 us
        a row, so a primary that sells leaves it and the sums out."""
        async with self._folding:
            state, primary = self.state, self._primary
            if state is None:
                return {"shard": self.shard, "role": str(self.role), "seq": 0}
            if primary is not None:
                return await primary.look(lambda: self._fingerprint(state, with_pools))
            return self._fingerprint(state, with_pools)

    def _fingerprint(self, state: ShardState, with_pools: bool) -> dict[str, Any]:
        primary = self._primary
        busy = primary is not None and primary.idle_ms() < DIGEST_IDLE_MS
        return {
            "shard": self.shard,
            "role": str(self.role),
            "epoch": self.meta.epoch if self.meta else 0,
            "seq": primary.last_seq if primary else state.seq,
            "digest": "" if busy else f"{digest(state):016x}",
            "totals": None if busy else totals(state)._asdict(),
            "pools": [
                pool_view(slot, pool) for slot in state.slots.values() for pool in slot.pools()
            ]
            if with_pools
            else [],
        }

    async def settle(self) -> None:
        """Returns when no round of this primary waits or flies; at once on any other role."""
        if self._primary is not None:
            await self._primary.quiesce()

    async def _recover(self) -> None:
        """Try until there is a state. What is missing may be put back by an operator."""
        recovered = False
        while not recovered:
            recovered = await self._recovered()
            if not recovered:
                await asyncio.sleep(0.2)

    async def _halt(self, reason: str) -> None:
        """Stay, answer nothing, and say why: a restart could come back with less."""
        self._say_halted(reason)
        self.role = Role.HALTED
        await asyncio.Event().wait()

    def _say_halted(self, reason: str) -> None:
        """`seq` tells a recovery how far this replica had come."""
        seq = 0 if self.state is None else self.state.seq
        log.error("shard_halted", shard=self.shard, seq=seq, reason=reason)
        self.halt_reason = reason

    async def _recovered(self) -> bool:
        """One attempt to recover. False: try again."""
        try:
            meta = await self._stores.reader.read_meta()
            recovery = Recovery(
                journal=self._stores.reader,
                snapshots=self._stores.snapshots,
                limits=self._limits,
            )
            self.state = await recovery.run(meta)
            self.meta = meta
            self._snapshots.last_seq = self.state.seq
            self._loaded_at = _now()
        except (CannotRecover, NoJournal) as error:
            if self.halt_reason != str(error):
                self._say_halted(str(error))
            self.role = Role.HALTED
            return False
        except StorageError as error:
            log.warning("recovery_waits", shard=self.shard, error=str(error))
            return False
        self.role, self.halt_reason = Role.RECOVERING, ""
        return True

    async def _follow(self) -> None:
        """Fold the journal as it grows, until this replica is promoted."""
        while not self._promoted.is_set():
            found = False
            try:
                async with self._folding:
                    if self.role in (Role.RECOVERING, Role.STANDBY):
                        found = await self._fold_on()
                        if not found and self.role is Role.RECOVERING:
                            self._stand_by()
                if self.role is Role.HALTED:
                    await self._until_mended()
            except Trimmed:
                if self.role is Role.PROMOTING:
                    raise  # The epoch may be ours already: end, and come back as a new standby.
                log.warning("follower_reloads", shard=self.shard)
                self.role, self.state = Role.RECOVERING, None
                await self._recover()
            except NoJournal as error:
                await self._without_journal(str(error))
            except StorageError as error:
                log.warning("follower_waits", shard=self.shard, error=str(error))
                await asyncio.sleep(0.1)
            if not found:
                await self._pause()

    def _stand_by(self) -> None:
        """The journal's end was reached."""
        self.role, self.halt_reason = Role.STANDBY, ""
        log.info(
            "caught_up",
            shard=self.shard,
            seq=self._held_state().seq,
            snapshot_seq=self._snapshots.last_seq,
            load_ms=_ms(self._loaded_at - self._began_at),
            tail_ms=_ms(_now() - self._loaded_at),
            tail_records=self._snapshots.new_records,
        )

    async def _without_journal(self, reason: str) -> None:
        """The journal is gone from under a standby. It says so and keeps its state, until an
        operator has put the journal back."""
        if self.role is not Role.STANDBY and self.role is not Role.RECOVERING:
            return
        self._say_halted(reason)
        self.role = Role.HALTED
        await self._until_mended()

    async def _until_mended(self) -> None:
        """Wait until the journal is there and reaches as far as it must."""
        while self.role is Role.HALTED:
            await asyncio.sleep(0.2)
            try:
                meta = await self._stores.reader.read_meta()
            except StorageError:
                continue
            self._require_same_journal(meta)
            if meta.last_seq >= max(self._required_seq, self._held_state().seq):
                self.role = Role.RECOVERING

    def _require_same_journal(self, meta: Meta) -> None:
        if self.meta is not None and meta.incarnation != self.meta.incarnation:
            raise CannotRecover(
                f"the journal is of incarnation {meta.incarnation}, this replica's state of "
                f"{self.meta.incarnation}"
            )

    def _stands_by(self) -> bool:
        return self.role is Role.STANDBY

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._limits.follow_pause_ms / 1000):
                await self._promoted.wait()
        except TimeoutError:
            return

    async def _fold_on(self) -> bool:
        """Fold what comes next, if there is anything."""
        state = self._held_state()
        entries = await self._stores.reader.read(
            after_seq=state.seq, max_bytes=self._limits.follow_bytes
        )
        self._behind = len(entries)
        self._snapshots.new_records += await fold_entries(state, entries)
        return bool(entries)

    async def _promote(self, seen_epoch: int, seen_seq: int) -> Promotion:
        if self.role is Role.PRIMARY or self.role is not Role.STANDBY:
            return self._promotion_answer(
                PromoteStatus.OK if self.role is Role.PRIMARY else PromoteStatus.NOT_READY
            )
        # Known before the journal is read: what is folded while it answers may be newer.
        required_seq = max(seen_seq, self._held_state().seq)
        try:
            async with asyncio.timeout(self._limits.promote_patience_ms / 1000):
                meta = await self._stores.journal.read_meta()
        except (TimeoutError, StorageError) as error:
            log.warning("promotion_not_ready", shard=self.shard, error=str(error))
            return self._promotion_answer(PromoteStatus.NOT_READY)
        try:
            self._require_same_journal(meta)
            if meta.last_seq < required_seq:
                raise CannotRecover(
                    f"the journal ends at {meta.last_seq}, answers rest on entry {required_seq}"
                )
        except CannotRecover as error:
            self._say_halted(str(error))
            self.role, self._required_seq = Role.HALTED, required_seq
            return self._promotion_answer(PromoteStatus.NOT_READY)
        if not self._stands_by():
            # While this asked, the follower found its journal gone, or trimmed past its state.
            return self._promotion_answer(PromoteStatus.NOT_READY)
        self.meta = meta
        if meta.epoch != seen_epoch:
            return self._promotion_answer(PromoteStatus.OTHER_EPOCH)
        if meta.last_seq - self._held_state().seq > self._limits.promote_lag_entries:
            return self._promotion_answer(PromoteStatus.NOT_READY)
        self.role = Role.PROMOTING
        try:
            return await self._take_over(meta)
        except CannotRecover as error:
            await self._halt(str(error))
            raise
        except Exception:
            # `run` awaits the promotion, meets the same error, and this process ends.
            self._promoted.set()
            raise

    async def _take_over(self, meta: Meta) -> Promotion:
        """Raise the epoch first, read second."""
        began_at, began_seq = _now(), self._held_state().seq
        ownership = await self._acquire(meta)
        acquired_at = _now()
        self.meta = meta._replace(epoch=ownership.epoch, owner=ownership.owner)
        if ownership.owner != self.token:
            self.role = Role.STANDBY
            return self._promotion_answer(PromoteStatus.OTHER_EPOCH)
        async with self._folding:
            await self._read_to_the_end()
        identity = Identity(self.shard, meta.incarnation, ownership.epoch, self.token)
        self._primary = Primary(
            identity=identity,
            state=self._held_state(),
            journal=self._stores.journal,
            reader=self._stores.reader,
            snapshots=self._stores.snapshots,
            time=self._time,
            limits=self._limits,
            owned_slots=self._owned,
            readers=self._readers,
        )
        self.role = Role.PRIMARY
        self._promoted.set()
        log.info(
            "promoted",
            shard=self.shard,
            epoch=ownership.epoch,
            seq=self._primary.last_seq,
            acquire_ms=_ms(acquired_at - began_at),
            read_ms=_ms(_now() - acquired_at),
            read_entries=self._primary.last_seq - began_seq,
        )
        return self._promotion_answer(PromoteStatus.OK)

    async def _acquire(self, meta: Meta) -> Ownership:
        while True:
            try:
                return await self._stores.journal.acquire(
                    incarnation=meta.incarnation,
                    seen_epoch=meta.epoch,
                    token=self.token,
                    owner_info=self._owner_info,
                )
            except Locked as error:
                # A stopped process keeps SQLite's write lock and can never give it back.
                killed = self._kill_owner(error.owner)
                log.warning("journal_locked", shard=self.shard, owner=error.owner, killed=killed)
            except StorageError as error:
                if not error.retriable:
                    raise
                log.warning("acquire_again", shard=self.shard, error=str(error))
            await asyncio.sleep(self._limits.resend_pause_ms / 1000)

    async def _read_to_the_end(self) -> None:
        """Fold the rest. The epoch is ours, so the end stands still; a state beyond it would mean
        that acknowledged entries are gone."""
        while True:
            try:
                meta = await self._stores.reader.read_meta()
                state = self._held_state()
                if state.seq > meta.last_seq:
                    raise CannotRecover(
                        f"the journal ends at {meta.last_seq}, this replica folded {state.seq}"
                    )
                if state.seq == meta.last_seq:
                    return
                await self._fold_on()
            except StorageError as error:
                if not error.retriable:
                    raise
                await asyncio.sleep(self._limits.resend_pause_ms / 1000)

    def _held_state(self) -> ShardState:
        if self.state is None:
            raise AssertionError("no state before recovery")
        return self.state

    def _refusal(self, status: RoundStatus) -> Answers:
        meta = self.meta
        epoch, owner = (meta.epoch, meta.owner) if meta else (0, "")
        return Answers(status, epoch, owner, self.token, (), ())

    def _promotion_answer(self, status: PromoteStatus) -> Promotion:
        meta = self.meta
        return Promotion(status, meta.epoch if meta else 0, meta.owner if meta else "")


def _now() -> float:
    return asyncio.get_running_loop().time()


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)

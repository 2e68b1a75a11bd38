"""A standby's snapshots: when the next one is due, and writing it while the folding goes on.

Rules
-----
* One is due after so many entries, after so many records (an entry may hold one or thousands, and
  it is records that a recovery spends its time on), or after so long if there is anything that the
  older of two does not cover: that one says how far the journal may be trimmed. So a standby that
  comes back to a full journal, into which nothing new can come, takes two.
* For a journal that is nearly full a tenth of that time is long enough.
* Only a standby writes. A promotion ends what is being written, and tells who waited for it.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import structlog

from actors.core.snapshot import chunks
from actors.core.state import ShardState
from actors.limits import ShardLimits
from actors.threads import AsyncJournal, AsyncSnapshots
from persistence.errors import StorageError, Trimmed
from persistence.ports import SnapshotInfo

log = structlog.get_logger()

LOOK_EVERY_S = 0.2
FAILED_PAUSE_S = 1.0
MEASURE_EVERY_S = 2.0
"""How often the journal is measured."""
NEARLY_FULL_PERCENT = 90


class Looked(NamedTuple):
    """What the replica is at this moment."""

    is_standby: bool
    state: ShardState | None


class SnapshotTaker:
    """Takes the snapshots of one replica."""

    def __init__(
        self,
        *,
        shard: int,
        reader: AsyncJournal,
        store: AsyncSnapshots,
        limits: ShardLimits,
        look: Callable[[], Looked],
    ) -> None:
        self.last_seq = 0
        """Where the latest one that this replica knows ends."""
        self.new_records = 0
        """Folded since it was begun."""
        self._older_seq = 0
        """Where the older of two begins, as far as this replica knows."""
        self._measured_at = 0.0
        self._shard = shard
        self._reader = reader
        self._store = store
        self._limits = limits
        self._look = look
        self._wanted = asyncio.Event()
        self._waiting: list[asyncio.Future[SnapshotInfo]] = []

    async def take(self) -> SnapshotInfo:
        """Have one written now. Raises StorageError, or RuntimeError after a promotion."""
        done: asyncio.Future[SnapshotInfo] = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        self._wanted.set()
        return await done

    def refuse(self) -> None:
        """This replica was promoted: tell who still waits."""
        _fail(self._waiting, _promoted())
        self._waiting.clear()

    async def run(self) -> None:
        """Write one whenever one is due or asked for, until cancelled."""
        last_at = asyncio.get_running_loop().time()
        while True:
            await self._due(last_at)
            self._wanted.clear()
            waiting, self._waiting = self._waiting, []
            last_at = asyncio.get_running_loop().time()
            covered = self.new_records
            try:
                info = await self._write()
            except StorageError as error:
                log.warning("snapshot_failed", shard=self._shard, error=str(error))
                _fail(waiting, error)
                await asyncio.sleep(FAILED_PAUSE_S)
                continue
            except asyncio.CancelledError:
                _fail(waiting, _promoted())
                raise
            self.last_seq = info.end_seq
            self.new_records -= covered
            for future in waiting:
                if not future.done():
                    future.set_result(info)

    async def _due(self, last_at: float) -> None:
        limits = self._limits
        while not self._wanted.is_set():
            is_standby, state = self._look()
            if state is not None and is_standby:
                new = state.seq - self.last_seq
                age_ms = (asyncio.get_running_loop().time() - last_at) * 1000
                if new >= limits.snapshot_entries or self.new_records >= limits.snapshot_records:
                    return
                if state.seq > self._older_seq and await self._is_long(age_ms):
                    return
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._wanted.wait()
            except TimeoutError:
                continue

    async def _is_long(self, age_ms: float) -> bool:
        """Whether so long after the last one it is time for the next."""
        every_ms, now = self._limits.snapshot_every_ms, asyncio.get_running_loop().time()
        if age_ms >= every_ms:
            return True
        if age_ms < every_ms / 10 or now - self._measured_at < MEASURE_EVERY_S:
            return False
        self._measured_at = now
        try:
            used = await self._reader.bytes_used()
        except StorageError:
            return False
        return used * 100 >= self._limits.journal_bytes_max * NEARLY_FULL_PERCENT

    async def _see_the_older(self, incarnation: str) -> None:
        try:
            known = await self._store.list()
        except StorageError:
            return  # The one that was written stands; the next look is after the next one.
        begins = [one.begin_seq for one in known if one.incarnation == incarnation]
        self._older_seq = min(begins) if len(begins) > 1 else 0

    async def _write(self) -> SnapshotInfo:
        is_standby, state = self._look()
        if state is None or not is_standby:
            raise StorageError("only a standby takes snapshots")
        meta = await self._reader.read_meta()
        store = self._store
        handle = await store.begin(incarnation=meta.incarnation, begin_seq=state.seq)
        end_seq = state.seq
        for index, chunk in enumerate(chunks(state)):
            end_seq = state.seq
            await store.write(handle, index, chunk)
            await asyncio.sleep(self._limits.snapshot_pause_ms / 1000)
            if self._look().state is not state:
                raise Trimmed(first_seq=0)
        info = await store.publish(handle, end_seq=end_seq)
        await self._see_the_older(info.incarnation)
        log.info("snapshot_published", shard=self._shard, begin=info.begin_seq, end=info.end_seq)
        return info


def _promoted() -> RuntimeError:
    return RuntimeError("this replica was promoted; ask the standby")


def _fail(waiting: list["asyncio.Future[SnapshotInfo]"], error: Exception) -> None:
    for future in waiting:
        if not future.done():
            future.set_exception(error)

"""Stores as the shell sees them: the ports of `persistence/`, awaited.

Each store object gets one thread of its own, so its calls are made one at a time and in order, and
a caller that gives up waiting tears nothing: the call goes on and its answer is dropped. The
simulator implements the same protocols without threads.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from persistence.ports import Entry, Journal, Meta, Ownership, SnapshotInfo, Snapshots

T = TypeVar("T")


class AsyncJournal(Protocol):
    """`persistence.ports.Journal` of one shard, awaited."""

    async def read_meta(self) -> Meta:
        """The head."""

    async def acquire(
        self, *, incarnation: str, seen_epoch: int, token: str, owner_info: str
    ) -> Ownership:
        """Compare-and-raise."""

    async def append(
        self, *, incarnation: str, epoch: int, seq: int, batch_id: str, entry: bytes
    ) -> None:
        """Durable when it returns."""

    async def check(self, *, incarnation: str, epoch: int) -> None:
        """Still the owner, or Fenced."""

    async def read(self, *, after_seq: int, max_bytes: int) -> Sequence[Entry]:
        """Entries after `after_seq`."""

    async def positions(self) -> Mapping[str, int]:
        """What readers no longer need."""

    async def set_position(self, reader: str, seq: int) -> None:
        """Raise a reader's position."""

    async def trim(self, *, before_seq: int, max_entries: int) -> int:
        """Remove a slice of old entries."""

    async def bytes_used(self) -> int:
        """About how much the journal holds."""


class AsyncSnapshots(Protocol):
    """`persistence.ports.Snapshots` of one shard, awaited."""

    async def begin(self, *, incarnation: str, begin_seq: int) -> str:
        """Start one."""

    async def write(self, handle: str, index: int, chunk: bytes) -> None:
        """Store a chunk."""

    async def publish(self, handle: str, *, end_seq: int) -> SnapshotInfo:
        """Make it the latest."""

    async def list(self) -> Sequence[SnapshotInfo]:
        """Published ones, newest first."""

    async def read(self, info: SnapshotInfo) -> Sequence[bytes]:
        """All chunks."""


class _Thread:
    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    def close(self) -> None:
        """Take no more calls; one that runs is not waited for."""
        self._executor.shutdown(wait=False, cancel_futures=True)


class JournalThread(_Thread):
    """A shard's journal on a thread of its own."""

    def __init__(self, journal: Journal, shard: int) -> None:
        super().__init__(f"journal-{shard}")
        self._journal = journal
        self._shard = shard

    async def read_meta(self) -> Meta:
        """See the port."""
        return await self._run(lambda: self._journal.read_meta(self._shard))

    async def acquire(
        self, *, incarnation: str, seen_epoch: int, token: str, owner_info: str
    ) -> Ownership:
        """See the port."""
        return await self._run(
            lambda: self._journal.acquire(
                self._shard,
                incarnation=incarnation,
                seen_epoch=seen_epoch,
                token=token,
                owner_info=owner_info,
            )
        )

    async def append(
        self, *, incarnation: str, epoch: int, seq: int, batch_id: str, entry: bytes
    ) -> None:
        """See the port."""
        await self._run(
            lambda: self._journal.append(
                self._shard,
                incarnation=incarnation,
                epoch=epoch,
                seq=seq,
                batch_id=batch_id,
                entry=entry,
            )
        )

    async def check(self, *, incarnation: str, epoch: int) -> None:
        """See the port."""
        await self._run(
            lambda: self._journal.check(self._shard, incarnation=incarnation, epoch=epoch)
        )

    async def read(self, *, after_seq: int, max_bytes: int) -> Sequence[Entry]:
        """See the port."""
        return await self._run(
            lambda: self._journal.read(self._shard, after_seq=after_seq, max_bytes=max_bytes)
        )

    async def positions(self) -> Mapping[str, int]:
        """See the port."""
        return await self._run(lambda: self._journal.positions(self._shard))

    async def set_position(self, reader: str, seq: int) -> None:
        """See the port."""
        await self._run(lambda: self._journal.set_position(self._shard, reader, seq))

    async def trim(self, *, before_seq: int, max_entries: int) -> int:
        """See the port."""
        return await self._run(
            lambda: self._journal.trim(self._shard, before_seq=before_seq, max_entries=max_entries)
        )

    async def bytes_used(self) -> int:
        """See the port."""
        return await self._run(lambda: self._journal.bytes_used(self._shard))


class SnapshotsThread(_Thread):
    """A shard's snapshots on a thread of their own."""

    def __init__(self, snapshots: Snapshots, shard: int) -> None:
        super().__init__(f"snapshots-{shard}")
        self._snapshots = snapshots
        self._shard = shard

    async def begin(self, *, incarnation: str, begin_seq: int) -> str:
        """See the port."""
        return await self._run(
            lambda: self._snapshots.begin(self._shard, incarnation=incarnation, begin_seq=begin_seq)
        )

    async def write(self, handle: str, index: int, chunk: bytes) -> None:
        """See the port."""
        await self._run(lambda: self._snapshots.write(self._shard, handle, index, chunk))

    async def publish(self, handle: str, *, end_seq: int) -> SnapshotInfo:
        """See the port."""
        return await self._run(
            lambda: self._snapshots.publish(self._shard, handle, end_seq=end_seq)
        )

    async def list(self) -> Sequence[SnapshotInfo]:
        """See the port."""
        return await self._run(lambda: self._snapshots.list(self._shard))

    async def read(self, info: SnapshotInfo) -> Sequence[bytes]:
        """See the port."""
        return await self._run(lambda: list(self._snapshots.read(self._shard, info)))

"""Stores as the shell sees them: the ports of `persistence/`, awaited.

Each store object gets one thread of its own, so its calls are made one at a time and in order, and
a caller that gives up waiting tears nothing: the call goes on and its answer is dropped. The
simulator implements the same protocols without threads.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Protocol, TypeVar

from persistence.errors import NotApplied
from persistence.ports import Entry, Journal, Meta, Ownership, SnapshotInfo, Snapshots

T = TypeVar("T")

CALLS_WAITING_MAX = 64
"""Calls that may wait for a store's thread; beyond, one is refused and was not made."""


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


class _Call(NamedTuple):
    make: Callable[[], Any]
    answer: "asyncio.Future[Any]"
    loop: asyncio.AbstractEventLoop


class _Thread:
    """A thread and a queue: one hop there and one back. `run_in_executor` takes twice the time,
    for the two futures and their callbacks."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._closed = False
        # A daemon: a store that hangs must not keep a process from ending.
        self._thread = threading.Thread(target=self._turn, name=name, daemon=True)
        self._thread.start()

    async def _run(self, make: Callable[[], T]) -> T:
        if self._closed:
            raise RuntimeError(f"{self._thread.name} is closed")
        if self._calls.qsize() >= CALLS_WAITING_MAX:
            raise NotApplied(f"{CALLS_WAITING_MAX} calls wait for {self._thread.name}")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._calls.put(_Call(make, answer, loop))
        return await answer

    def close(self) -> None:
        """Take no more calls and cancel those that wait; one that runs is not waited for."""
        self._closed = True
        while True:
            try:
                call = self._calls.get_nowait()
            except Empty:
                break
            if call is not None:
                _tell(call.loop, call.answer.cancel)
        self._calls.put(None)

    def _turn(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                answer = call.make()
            except BaseException as error:  # noqa: BLE001 - whatever it is, the caller is told
                _tell(call.loop, _fail, call.answer, error)
            else:
                _tell(call.loop, _settle, call.answer, answer)
            # The next call may be long in coming: hold nothing of this one until then.
            call = answer = None


def _tell(loop: asyncio.AbstractEventLoop, callback: Callable[..., Any], *arguments: Any) -> None:
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError:
        # The loop is closed: nobody waits any more.
        return


def _settle(future: "asyncio.Future[Any]", answer: Any) -> None:
    if not future.done():
        future.set_result(answer)


def _fail(future: "asyncio.Future[Any]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


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

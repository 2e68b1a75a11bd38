"""The journal and the snapshots in memory: for tests, examples and a first look. Nothing survives.

Rules
-----
* One object is the store. Rivals in one process share the object; `close` gives nothing up.
* Every call is atomic (one lock), so it may be used from several threads at once.
* `fail_next` makes a call fail as a real store would, with its effect (`applied`) or without it:
  that is how the shell is shown an outcome that it cannot know.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from persistence.errors import (
    Conflict,
    Fenced,
    JournalExists,
    NoJournal,
    OutcomeUnknown,
    StorageError,
    Trimmed,
)
from persistence.ports import Entry, Meta, Ownership, SnapshotInfo
from persistence.snapshots import (
    Published,
    find,
    newest,
    seal,
    stored_byte_count,
    superseded,
    unseal,
)


@dataclass(slots=True, kw_only=True)
class _Log:
    """One shard's journal. Entries are contiguous, so the first one tells where each one is."""

    incarnation: str
    epoch: int = 0
    owner: str = ""
    owner_info: str = ""
    last_seq: int = 0
    last_batch_id: str = ""
    bytes_used: int = 0
    entries: deque[Entry] = field(default_factory=deque)
    positions: dict[str, int] = field(default_factory=dict)

    @property
    def first_seq(self) -> int:
        return self.last_seq + 1 - len(self.entries)


@dataclass(slots=True, kw_only=True)
class _Fault:
    applied: bool
    error: StorageError


class MemoryJournal:
    """The `Journal` port in a dict, with hooks that inject faults."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._logs: dict[int, _Log] = {}
        self._map = (0, b"")
        self._faults: dict[str, deque[_Fault]] = {}

    def fail_next(
        self, kind: str, *, applied: bool, error: StorageError | None = None, count: int = 1
    ) -> None:
        """The next `count` calls of the method named `kind` raise `error` (OutcomeUnknown when
        none is given), after they took effect (`applied`) or instead of it. Faults of one method
        queue up; a call that the journal itself refuses uses none of them up."""
        if not callable(getattr(self, kind, None)):
            raise ValueError(f"the journal has no method {kind!r}")
        fault = _Fault(applied=applied, error=error or OutcomeUnknown(f"injected into {kind}"))
        with self._lock:
            self._faults.setdefault(kind, deque()).extend([fault] * count)

    def wipe(self, shard: int) -> None:
        """Lose a shard's journal, as a store does whose disk was replaced."""
        with self._lock:
            self._logs.pop(shard, None)

    def create(self, shard: int, *, incarnation: str) -> None:
        with self._lock:
            log = self._logs.get(shard)
            if log is not None and log.incarnation != incarnation:
                raise JournalExists(f"shard {shard} has a journal of {log.incarnation!r}")
            if log is None:
                self._perform(
                    "create", lambda: self._logs.update({shard: _Log(incarnation=incarnation)})
                )

    def start_over(
        self, shard: int, *, incarnation: str, replaces: str, last_seq: int, epoch: int = 0
    ) -> None:
        with self._lock:
            log = self._logs.get(shard)
            if log is not None and log.incarnation not in {incarnation, replaces}:
                raise JournalExists(f"shard {shard} has a journal of {log.incarnation!r}")
            if log is None or log.incarnation != incarnation:
                made = _Log(incarnation=incarnation, epoch=epoch, last_seq=last_seq)
                self._perform("start_over", lambda: self._logs.update({shard: made}))

    def read_meta(self, shard: int) -> Meta:
        with self._lock:
            log = self._log(shard)
            self._perform("read_meta")
            return Meta(log.incarnation, log.epoch, log.owner, log.last_seq, log.first_seq)

    def acquire(
        self, shard: int, *, incarnation: str, seen_epoch: int, token: str, owner_info: str = ""
    ) -> Ownership:
        def take() -> None:
            log.epoch, log.owner, log.owner_info = seen_epoch + 1, token, owner_info

        with self._lock:
            log = self._log(shard, incarnation)
            self._perform("acquire", take if log.epoch == seen_epoch else None)
            return Ownership(log.epoch, log.owner)

    def append(
        self, shard: int, *, incarnation: str, epoch: int, seq: int, batch_id: str, entry: bytes
    ) -> None:
        def add() -> None:
            log.entries.append(Entry(seq, epoch, batch_id, bytes(entry)))
            log.last_seq, log.last_batch_id = seq, batch_id
            log.bytes_used += len(entry)

        with self._lock:
            log = self._owned(shard, incarnation, epoch)
            resent = seq == log.last_seq > 0 and batch_id == log.last_batch_id
            if seq != log.last_seq + 1 and not resent:
                raise Conflict(last_seq=log.last_seq)
            self._perform("append", None if resent else add)

    def check(self, shard: int, *, incarnation: str, epoch: int) -> None:
        with self._lock:
            self._owned(shard, incarnation, epoch)
            self._perform("check")

    def read(self, shard: int, *, after_seq: int, max_bytes: int) -> Sequence[Entry]:
        with self._lock:
            log = self._log(shard)
            self._perform("read")
            if after_seq < log.last_seq and after_seq + 1 < log.first_seq:
                raise Trimmed(first_seq=log.first_seq)
            found: list[Entry] = []
            byte_count = 0
            for index in range(after_seq + 1 - log.first_seq, len(log.entries)):
                entry = log.entries[index]
                byte_count += len(entry.data)
                if found and byte_count > max_bytes:
                    break
                found.append(entry)
            return found

    def positions(self, shard: int) -> Mapping[str, int]:
        with self._lock:
            log = self._log(shard)
            self._perform("positions")
            return dict(log.positions)

    def set_position(self, shard: int, reader: str, seq: int) -> None:
        with self._lock:
            log = self._log(shard)
            raised = max(seq, log.positions.get(reader, 0))
            self._perform("set_position", lambda: log.positions.update({reader: raised}))

    def trim(self, shard: int, *, before_seq: int, max_entries: int) -> int:
        def remove() -> None:
            for _ in range(count):
                log.bytes_used -= len(log.entries.popleft().data)

        with self._lock:
            log = self._log(shard)
            count = max(0, min(before_seq - log.first_seq, max_entries, len(log.entries)))
            self._perform("trim", remove)
            return count

    def bytes_used(self, shard: int) -> int:
        with self._lock:
            log = self._log(shard)
            self._perform("bytes_used")
            return log.bytes_used

    def read_map(self) -> tuple[int, bytes]:
        with self._lock:
            self._perform("read_map")
            return self._map

    def swap_map(self, *, expected_version: int, data: bytes) -> bool:
        def swap() -> None:
            self._map = (expected_version + 1, bytes(data))

        with self._lock:
            if self._map[0] != expected_version:
                return False
            self._perform("swap_map", swap)
            return True

    def verify_settings(self) -> Sequence[str]:
        return ["the journal is in memory: nothing survives the end of this process"]

    def close(self) -> None:
        """Nothing to give up: other holders of this object go on."""

    def _log(self, shard: int, incarnation: str | None = None) -> _Log:
        log = self._logs.get(shard)
        if log is None:
            raise NoJournal(f"shard {shard} has no journal")
        if incarnation is not None and log.incarnation != incarnation:
            raise NoJournal(f"the journal of shard {shard} is of {log.incarnation!r}")
        return log

    def _owned(self, shard: int, incarnation: str, epoch: int) -> _Log:
        log = self._log(shard, incarnation)
        if log.epoch != epoch:
            raise Fenced(epoch=log.epoch, owner=log.owner)
        return log

    def _perform(self, kind: str, effect: Callable[[], None] | None = None) -> None:
        """All checks have passed: take effect, unless a fault was ordered."""
        faults = self._faults.get(kind)
        fault = faults.popleft() if faults else None
        if effect is not None and (fault is None or fault.applied):
            effect()
        if fault is not None:
            raise fault.error


@dataclass(slots=True, kw_only=True)
class _Snapshot:
    ordinal: int
    incarnation: str
    begin_seq: int
    chunks: dict[int, bytes] = field(default_factory=dict)
    info: SnapshotInfo | None = None


class MemorySnapshots:
    """The `Snapshots` port in a dict."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shards: dict[int, dict[str, _Snapshot]] = {}
        self._last_ordinal = 0

    def begin(self, shard: int, *, incarnation: str, begin_seq: int) -> str:
        with self._lock:
            known = self._shards.get(shard, {})
            self._last_ordinal += 1
            handle = f"{self._last_ordinal:08d}"
            self._shards[shard] = {k: v for k, v in known.items() if v.info is not None} | {
                handle: _Snapshot(
                    ordinal=self._last_ordinal, incarnation=incarnation, begin_seq=begin_seq
                )
            }
            return handle

    def write(self, shard: int, handle: str, index: int, chunk: bytes) -> None:
        sealed = seal(handle, index, chunk)
        with self._lock:
            snapshot = self._known(shard, handle)
            if snapshot.info is not None:
                raise StorageError(f"snapshot {handle} of shard {shard} is published already")
            snapshot.chunks[index] = sealed

    def publish(self, shard: int, handle: str, *, end_seq: int) -> SnapshotInfo:
        with self._lock:
            snapshot = self._known(shard, handle)
            if snapshot.info is not None:
                return snapshot.info
            chunks = snapshot.chunks
            if set(chunks) != set(range(len(chunks))):
                raise StorageError(f"snapshot {handle} of shard {shard} lacks a chunk")
            snapshot.info = SnapshotInfo(
                incarnation=snapshot.incarnation,
                begin_seq=snapshot.begin_seq,
                end_seq=end_seq,
                chunk_count=len(chunks),
                byte_count=stored_byte_count(sum(map(len, chunks.values())), len(chunks)),
                handle=handle,
            )
            for gone in superseded(self._published(shard)):
                del self._shards[shard][gone.handle]
            return snapshot.info

    def list(self, shard: int) -> Sequence[SnapshotInfo]:
        with self._lock:
            return [one.info for one in newest(self._published(shard))]

    def read(self, shard: int, info: SnapshotInfo) -> Iterable[bytes]:
        with self._lock:
            handle = find(self._published(shard), info, shard).handle
            chunks = dict(self._shards[shard][handle].chunks)
        where = f"memory, shard {shard}"
        return (unseal(handle, i, chunks.get(i), where) for i in range(info.chunk_count))

    def damage(self, shard: int, index: int) -> None:
        """Flip a bit in chunk `index` of every published snapshot of a shard, for tests."""
        with self._lock:
            for one in self._published(shard):
                chunks = self._shards[shard][one.handle].chunks
                chunks[index] = chunks[index][:-1] + bytes([chunks[index][-1] ^ 1])

    def lose(self, shard: int, index: int) -> None:
        """Remove chunk `index` of every published snapshot of a shard, for tests."""
        with self._lock:
            for one in self._published(shard):
                self._shards[shard][one.handle].chunks.pop(index)

    def close(self) -> None:
        """Nothing to give up: other holders of this object go on."""

    def _known(self, shard: int, handle: str) -> _Snapshot:
        snapshot = self._shards.get(shard, {}).get(handle)
        if snapshot is None:
            raise StorageError(f"snapshot {handle} of shard {shard} was discarded")
        return snapshot

    def _published(self, shard: int) -> Sequence[Published]:
        return [
            Published(snapshot.ordinal, handle, snapshot.info)
            for handle, snapshot in self._shards.get(shard, {}).items()
            if snapshot.info is not None
        ]

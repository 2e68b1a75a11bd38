"""The ports: all that the shell knows of storage. One adapter per technology stands beside this.

Rules
-----
* All calls block and are made by one thread at a time; `actors/` gives each object its own thread.
* The journal stores opaque bytes. What is in an entry is the business of `actors/core/codec.py`.
* `append`, `check` and `acquire` do all their checks before the first write, in one atomic step.
* An adapter never retries by itself: a resend is the shell's decision (see `errors.py`).
* Every call is bounded in time by the adapter (`timeout_ms` of its constructor).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Meta(NamedTuple):
    """A journal's head. `epoch` 0 and `owner` '' mean that nobody ever acquired it."""

    incarnation: str
    epoch: int
    owner: str
    last_seq: int
    first_seq: int
    """Lowest sequence still stored; `last_seq + 1` when the journal holds no entry."""


class Entry(NamedTuple):
    """One appended round. Sequences start at 1 and have no gaps."""

    seq: int
    epoch: int
    batch_id: str
    data: bytes


class Ownership(NamedTuple):
    """Who owns a journal now. The caller won iff `owner` is the token it sent."""

    epoch: int
    owner: str


class Journal(Protocol):
    """Append-only, fenced, one per shard; durable (fsynced) when `append` returns."""

    def create(self, shard: int, *, incarnation: str) -> None:
        """Make an empty journal. The same incarnation again is a no-op; another: JournalExists."""

    def start_over(
        self, shard: int, *, incarnation: str, replaces: str, last_seq: int, epoch: int = 0
    ) -> None:
        """Make a journal that holds no entry and ends at `last_seq`, so that entry `last_seq + 1`
        comes next; nobody owns it, and `epoch + 1` is acquired next. It takes the place of one of
        incarnation `replaces`, whose entries and positions are gone with that, or of none. One
        of `incarnation` is left as it is; any other: JournalExists, and nothing changed. For
        recovery and restore only: whoever owned the old one meets NoJournal from then on."""

    def read_meta(self, shard: int) -> Meta:
        """The head. NoJournal if there is none. Never blocked by a writer's lock."""

    def acquire(
        self, shard: int, *, incarnation: str, seen_epoch: int, token: str, owner_info: str = ""
    ) -> Ownership:
        """Compare-and-raise: if the epoch is `seen_epoch`, it becomes `seen_epoch + 1`, owned by
        `token`. Otherwise nothing changes. Answers the ownership after the call, so a resend of a
        call that had won answers the same. `owner_info` says where the owner lives
        (`host:pid:start_time`), for rule 12. Raises NoJournal, Locked, OutcomeUnknown."""

    def append(
        self, shard: int, *, incarnation: str, epoch: int, seq: int, batch_id: str, entry: bytes
    ) -> None:
        """Durable when it returns. Checks incarnation (NoJournal), epoch (Fenced), then that `seq`
        is the next one. The same (seq, batch_id) as the last entry is a resend and is fine;
        anything else that does not follow is a Conflict."""

    def check(self, shard: int, *, incarnation: str, epoch: int) -> None:
        """Ownership check without a write: returns, or raises Fenced or NoJournal."""

    def read(self, shard: int, *, after_seq: int, max_bytes: int) -> Sequence[Entry]:
        """Entries after `after_seq` in order, at least one if there is one, else about `max_bytes`.
        Raises Trimmed when the next one is gone, NoJournal when the journal is."""

    def positions(self, shard: int) -> Mapping[str, int]:
        """Reader name -> last sequence that the reader no longer needs from the journal."""

    def set_position(self, shard: int, reader: str, seq: int) -> None:
        """Raise a reader's position; a lower value than the stored one changes nothing."""

    def trim(self, shard: int, *, before_seq: int, max_entries: int) -> int:
        """Remove at most `max_entries` entries with a sequence below `before_seq`, oldest first.
        `last_seq` is kept even if all are gone. Answers how many were removed."""

    def bytes_used(self, shard: int) -> int:
        """About how many bytes the stored entries take (for `journal_bytes_max`)."""

    def read_map(self) -> tuple[int, bytes]:
        """(version, shard map); (0, b"") when none was written."""

    def swap_map(self, *, expected_version: int, data: bytes) -> bool:
        """Compare-and-swap: store `data` as version `expected_version + 1`, or change nothing."""

    def verify_settings(self) -> Sequence[str]:
        """What the doctor should know (warnings). Raises Misconfigured when acks could be lost."""

    def close(self) -> None:
        """Give up connections and locks. Idempotent."""


class SnapshotInfo(NamedTuple):
    """A published snapshot: a fold of the journal, begun when it stood at `begin_seq`."""

    incarnation: str
    begin_seq: int
    end_seq: int
    chunk_count: int
    byte_count: int
    handle: str = ""
    """Which one it is: two of a journal that stood still are alike in all else."""


class Snapshots(Protocol):
    """Chunked snapshots of a shard. The newest two are kept; a half-written one never counts."""

    def begin(self, shard: int, *, incarnation: str, begin_seq: int) -> str:
        """Start one; answers its handle. Earlier unfinished ones of the shard are discarded."""

    def write(self, shard: int, handle: str, index: int, chunk: bytes) -> None:
        """Store chunk `index` (0, 1, 2 ...; at most 256 kB each)."""

    def publish(self, shard: int, handle: str, *, end_seq: int) -> SnapshotInfo:
        """Make it the latest, durably and atomically; all but the newest two are removed."""

    def list(self, shard: int) -> Sequence[SnapshotInfo]:
        """Published ones, newest first, at most two."""

    def read(self, shard: int, info: SnapshotInfo) -> Iterable[bytes]:
        """Its chunks in order. Raises Corrupt when a chunk is missing or fails its checksum."""

    def close(self) -> None:
        """Give up connections. Idempotent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows of one table, all with the same columns, every row keyed and carrying generation, seq.

    Applying them is an upsert guarded by (generation, seq): a row whose stored pair is not lower
    stays as it is, so replaying a batch changes nothing."""

    table: str
    columns: tuple[str, ...]
    values: Sequence[tuple[object, ...]]


class DeadLetter(NamedTuple):
    """A record that write-behind could not turn into rows, kept aside with its reason."""

    seq: int
    at: int
    """Index of the record in its entry, or another number unique within `seq`."""
    reason: str
    record: bytes


class FactRow(NamedTuple):
    """What the feed tells of one entry, kept for when the journal has it no more."""

    seq: int
    at_ms: int
    """When it was decided."""
    data: bytes
    """The entry, or what is told of it: the business of `actors/core/codec.py`."""


class Sink(Protocol):
    """The SQL view: rows and position move in one transaction."""

    def revision(self) -> tuple[str, str]:
        """(the schema's revision, the one this release needs); ('', needed) for an empty one."""

    def require_revision(self) -> None:
        """Raises WrongRevision, with the command that mends it, unless the schema is the needed
        one. Called once by whoever opens the sink."""

    def upgrade(self) -> None:
        """Migrate to the needed revision. Only ever called on purpose."""

    def position(self, shard: int) -> tuple[str, int]:
        """(incarnation, last applied seq) of a shard; ('', 0) when nothing was applied."""

    def apply(
        self,
        shard: int,
        *,
        incarnation: str,
        from_seq: int,
        to_seq: int,
        rows: Sequence[Rows],
        dead_letters: Sequence[DeadLetter] = (),
        facts: Sequence[FactRow] = (),
    ) -> None:
        """One transaction: compare-and-set the position `from_seq` -> `to_seq`, upsert the rows and
        keep the facts.
        PositionMoved when the stored position is another; NotApplied / OutcomeUnknown as usual
        (after an OutcomeUnknown re-read `position` and go on from there). A batch dates the
        position by its youngest row; one with no rows that goes nowhere dates it now."""

    def prune_facts(self, shard: int, *, before_ms: int, up_to_seq: int, rows_max: int) -> int:
        """Remove the oldest facts of a shard, at most `rows_max`, up to the first that was decided
        at `before_ms` or later or is of an entry after `up_to_seq`, and note up to where they are
        gone, in one transaction. Answers how many were removed. Raises as `apply`."""

    def close(self) -> None:
        """Give up connections. Idempotent."""

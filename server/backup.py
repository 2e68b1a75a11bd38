"""`stockray backup PLACE`: a copy of a cluster's stores, taken while it sells.

How it works
------------
1. Each shard's newest snapshot is copied, and its journal from where that snapshot, and the
   database, need it.
2. The database's tables are read in one transaction, as of one instant. Between two chunks of rows
   the journals are followed on, so that what is trimmed meanwhile is in the copy already.
3. The journals are followed to an end that fits together: no shard's copy has an arrival whose
   departure is not in the copy of its source, nor a departure that is booked off without its
   arrival. So every transfer counts once in what is restored.
4. The manifest is written. Without it, it is no backup.

All goes through the ports and as rows, so a backup of SQLite files may be restored to Redis and
MariaDB, and the other way round. Nothing in the stores is changed, and nobody is stopped: what is
restored is the cluster as of some moment near the end of the backup.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

from actors.core import records as r
from actors.core.codec import UnreadableEntry, unpack_entry
from actors.core.relay_records import FACT_TAKEN
from persistence.errors import Corrupt, Trimmed
from persistence.open import open_journal, open_sink, open_snapshots
from persistence.ports import Journal, SnapshotInfo, Snapshots
from persistence.sql.copying import COPIED, columns_of
from persistence.sql.dump import SqlDump, View, rows_at_once
from server.backup_files import (
    FORMAT,
    CannotBackUp,
    FileFacts,
    Writer,
    make_directory,
    publish,
)
from server.bootstrap import ShardMap, read_map
from server.settings import Settings

Progress = Callable[[str], None]

ATTEMPTS = 3
"""A snapshot may be replaced, and a journal trimmed, while it is read."""
JOURNAL_READ_BYTES = 2_000_000
ROWS_A_CHUNK = 2_000
CLOSING_ROUNDS = 50
"""So often the journals are followed on until transfers fit together: each takes a few ms, and
new ones must have begun in each of them for another to be needed."""


class Follower:
    """Copies one shard's journal as it grows, and notes the transfers in it."""

    def __init__(self, journal: Journal, shard: int, after_seq: int, writer: Writer) -> None:
        self.shard = shard
        self.first_seq = after_seq + 1
        self.seq = after_seq
        self.epoch = 0
        self.left: set[bytes] = set()
        self.arrived: set[bytes] = set()
        self.ended: set[bytes] = set()
        self.marks: dict[int, int] = {}
        """Stock shard -> the entry of its newest fact in here."""
        self._journal = journal
        self._writer = writer

    def pull(self) -> int:
        """Copy what is there now; answers how many entries that was. Trimmed, StorageError."""
        count = 0
        while True:
            entries = self._journal.read(
                self.shard, after_seq=self.seq, max_bytes=JOURNAL_READ_BYTES
            )
            for entry in entries:
                self._writer.put(tuple(entry))
                self._note(entry.data)
                self.seq, self.epoch = entry.seq, entry.epoch
            count += len(entries)
            if not entries:
                return count

    def _note(self, data: bytes) -> None:
        try:
            content = unpack_entry(data)
        except UnreadableEntry:
            return
        for record in content.records:
            if record.kind == r.TRANSFERRED_OUT:
                self.left.add(record.transfer_id)
            elif record.kind == FACT_TAKEN:
                self.marks[record.source] = record.source_seq
            elif record.kind == r.TRANSFERRED_IN:
                self.arrived.add(record.transfer_id)
            elif record.kind == r.TRANSFER_ENDED:
                self.ended.add(record.transfer_id)


class Backup:
    """One run. The place is new or empty."""

    def __init__(self, settings: Settings, place: Path, progress: Progress) -> None:
        self._settings = settings
        self._place = place
        self._progress = progress
        self._facts: list[FileFacts] = []

    def run(self) -> dict[str, Any]:
        """Take it; answers the manifest. CannotBackUp, CannotStart (no cluster), StorageError,
        OSError; then the place holds no backup."""
        began_ms = time.time_ns() // 1_000_000
        settings = self._settings
        with ExitStack() as stores:
            journal = stores.enter_context(closing(open_journal(settings.journal_url)))
            snapshots = stores.enter_context(closing(open_snapshots(settings.snapshots_url)))
            sink = stores.enter_context(closing(open_sink(settings.database_url)))
            dump = stores.enter_context(closing(SqlDump(settings.database_url)))
            sink.require_revision()
            shard_map = read_map(journal)
            make_directory(self._place)
            needed = [sink.position(shard)[1] for shard in range(shard_map.shards)]
            begun = [
                self._begin(stores, journal, snapshots, shard, seq)
                for shard, seq in enumerate(needed)
            ]
            followers = [follower for follower, _, _ in begun]
            with dump.open() as view:
                positions = view.positions()
                self._require_same(shard_map, positions)
                self._copy_tables(view, followers)
            self._close_transfers(followers)
            self._close_marks(followers)
            for follower, writer, _ in begun:
                self._require_whole(follower, positions.get(follower.shard, ("", 0))[1])
                self._facts.append(writer.finish())
            schema = sink.revision()[0]
        manifest = {
            "format": FORMAT,
            "release": version("stockray-server"),
            "schema": schema,
            "incarnation": shard_map.incarnation,
            "slots_of": list(shard_map.slots_of),
            "began_ms": began_ms,
            "ended_ms": time.time_ns() // 1_000_000,
            "shards": [
                {
                    "shard": follower.shard,
                    "epoch": follower.epoch,
                    "journal_first_seq": follower.first_seq,
                    "journal_last_seq": follower.seq,
                    "database_seq": positions.get(follower.shard, ("", 0))[1],
                    "snapshot": None if info is None else info._asdict(),
                }
                for follower, _, info in begun
            ],
            "files": [facts._asdict() for facts in self._facts],
        }
        publish(self._place, manifest)
        return manifest

    def _begin(
        self,
        stores: ExitStack,
        journal: Journal,
        snapshots: Snapshots,
        shard: int,
        needed_seq: int,
    ) -> tuple[Follower, Writer, SnapshotInfo | None]:
        """A shard's snapshot, and its journal from there on."""
        for _ in range(ATTEMPTS):
            writer = self._writer(stores, f"journal-{shard:04d}.bin")
            copied = self._writer(stores, f"snapshot-{shard:04d}.bin")
            try:
                info = _copy_snapshot(snapshots, shard, copied)
                after_seq = 0 if info is None else min(info.begin_seq, needed_seq)
                follower = Follower(journal, shard, after_seq, writer)
                follower.epoch = journal.read_meta(shard).epoch
                follower.pull()
            except (Corrupt, Trimmed) as error:
                self._progress(f"shard {shard}: again, its snapshot was replaced: {error}")
                writer.discard()
                copied.discard()
                continue
            self._facts.append(copied.finish())
            self._progress(f"shard {shard}: copied to entry {follower.seq}")
            return follower, writer, info
        raise CannotBackUp(
            f"shard {shard}: its snapshot and its journal do not join, or were replaced faster "
            "than they could be read; try again"
        )

    def _copy_tables(self, view: View, followers: Sequence[Follower]) -> None:
        for table in COPIED:
            with ExitStack() as files:
                writer = self._writer(files, f"table-{table}.bin")
                columns = columns_of(table)
                writer.put(columns)
                count = 0
                for rows in _chunked(view.rows(table, columns), rows_at_once(table)):
                    writer.put(rows)
                    count += len(rows)
                    self._pull(followers)
                    self._progress(f"{table}: {count:,} rows")
                self._facts.append(writer.finish())

    def _pull(self, followers: Sequence[Follower]) -> None:
        try:
            for follower in followers:
                follower.pull()
        except Trimmed as error:
            raise CannotBackUp(
                f"the journal was trimmed faster than it was copied ({error}); try again"
            ) from error

    def _close_transfers(self, followers: Sequence[Follower]) -> None:
        """Follow on until both ends of every transfer are in the copy, as far as they must be.

        An arrival is decided after its departure, so a departure that is not found by a pull that
        began after the arrival was read is older than the copy's journals: in their snapshots."""
        older: set[bytes] = set()
        for _ in range(CLOSING_ROUNDS):
            open_before = _unpaired(followers) - older
            self._pull(followers)
            still = _unpaired(followers) - older
            older |= open_before & still
            if not still - older:
                return
        raise CannotBackUp("transfers between shards never come to rest; try again")

    def _close_marks(self, followers: Sequence[Follower]) -> None:
        """Follow on until the copy has every entry whose facts an account shard has in it. Account
        shards follow no further than they have: what they know was journalled before that."""
        known: dict[int, int] = {}
        for follower in followers:
            for source, seq in follower.marks.items():
                known[source] = max(seq, known.get(source, 0))
        self._pull([follower for follower in followers if follower.shard in known])

    def _require_whole(self, follower: Follower, database_seq: int) -> None:
        if follower.seq < database_seq:
            raise CannotBackUp(
                f"shard {follower.shard}: the journal ends at {follower.seq}, the database has "
                f"{database_seq}: see `stockray doctor`"
            )

    def _require_same(self, shard_map: ShardMap, positions: Mapping[int, tuple[str, int]]) -> None:
        if any(incarnation != shard_map.incarnation for incarnation, _ in positions.values()):
            raise CannotBackUp("journal and database are of two clusters: see `stockray doctor`")

    def _writer(self, stores: ExitStack, name: str) -> Writer:
        writer = Writer(self._place, name)
        stores.callback(writer.close)
        return writer


def _copy_snapshot(snapshots: Snapshots, shard: int, writer: Writer) -> SnapshotInfo | None:
    """The newest one, if there is any. Corrupt if it is replaced meanwhile."""
    found = snapshots.list(shard)
    if not found:
        return None
    for chunk in snapshots.read(shard, found[0]):
        writer.put(chunk)
    return found[0]


def _unpaired(followers: Sequence[Follower]) -> set[bytes]:
    """Transfers with an end in the copy whose other end must be, and is not."""
    left = set[bytes]().union(*(follower.left for follower in followers))
    arrived = set[bytes]().union(*(follower.arrived for follower in followers))
    ended = set[bytes]().union(*(follower.ended for follower in followers))
    return (arrived - left) | (ended - arrived)


def _chunked(rows: Iterator[tuple[Any, ...]], at_once: int) -> Iterator[list[tuple[Any, ...]]]:
    chunk: list[tuple[Any, ...]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == min(ROWS_A_CHUNK, at_once):
            yield chunk
            chunk = []
    if chunk:
        yield chunk

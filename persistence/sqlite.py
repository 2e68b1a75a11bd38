"""The journal in SQLite: one file per shard in one directory, for the embedded mode.

Files
-----
`shard-0007.db` the head (`meta`) and the entries · `shard-0007.positions.db` how far its readers
are · `cluster.db` the shard map. All in WAL mode; `-wal` and `-shm` files belong to them.

Rules
-----
* A shard's file is written by its owner alone (and by whoever acquires or trims). Positions have a
  file of their own: a stopped reader must not hold the lock of the owner, nor be taken for it.
* A write is one transaction, durable when it returns: all checks come before the first change.
* Reading never waits for a writer (see `sqlite_files.py`).
"""

import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from persistence.errors import (
    Conflict,
    Corrupt,
    Fenced,
    JournalExists,
    Misconfigured,
    NoJournal,
    Trimmed,
)
from persistence.ports import Entry, Meta, Ownership
from persistence.sqlite_files import SqliteFiles

_SHARD_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (
    id INTEGER PRIMARY KEY CHECK (id = 1), inc TEXT NOT NULL, epoch INTEGER NOT NULL,
    owner TEXT NOT NULL, owner_info TEXT NOT NULL, last_seq INTEGER NOT NULL,
    last_batch_id TEXT NOT NULL, byte_count INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS entries (
    seq INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, batch_id TEXT NOT NULL,
    bytes_before INTEGER NOT NULL, data BLOB NOT NULL);
"""
_POSITIONS_SCHEMA = """
CREATE TABLE IF NOT EXISTS positions (
    inc TEXT NOT NULL, reader TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (inc, reader));
"""
_MAP_SCHEMA = """
CREATE TABLE IF NOT EXISTS map (
    id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL, data BLOB NOT NULL);
"""
_HEAD = "SELECT inc, epoch, owner, last_seq, (SELECT min(seq) FROM entries) FROM meta"
_TAIL = "SELECT inc, epoch, owner, last_seq, last_batch_id, byte_count FROM meta"

_OWNER = "SELECT owner_info FROM meta"

# The checks of an append stand in its first statement: it stores nothing unless all of them hold,
# and only then is it asked which one did not. A statement less, of five.
_APPEND = (
    "INSERT INTO entries SELECT ?, ?, ?, byte_count, ? FROM meta "
    "WHERE inc = ? AND epoch = ? AND last_seq = ?"
)
_ADVANCE = "UPDATE meta SET last_seq = ?, last_batch_id = ?, byte_count = byte_count + ?"

_NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs"}


class SqliteJournal:
    """The `Journal` port over a directory of SQLite files."""

    def __init__(
        self, directory: str | os.PathLike[str], *, timeout_ms: int = 100, durable: bool = True
    ) -> None:
        """`timeout_ms`: how long a call waits for a lock. `durable=False` skips the fsync of an
        append (a power cut may then lose acks; a killed process loses none): for tests only."""
        self._files = SqliteFiles(
            Path(directory).absolute(), timeout_ms=timeout_ms, durable=durable
        )

    def create(self, shard: int, *, incarnation: str) -> None:
        name = _shard_name(shard)
        with self._files.transaction(name, schema=_SHARD_SCHEMA) as db:
            found = db.execute(_TAIL).fetchone()
            if found is None:
                db.execute("INSERT INTO meta VALUES (1, ?, 0, '', '', 0, '', 0)", (incarnation,))
            elif found[0] != incarnation:
                raise JournalExists(f"{self._files.path(name)} has a journal of {found[0]!r}")
        self._files.sync_directory()

    def start_over(
        self, shard: int, *, incarnation: str, replaces: str, last_seq: int, epoch: int = 0
    ) -> None:
        name = _shard_name(shard)
        with self._files.transaction(name, schema=_SHARD_SCHEMA) as db:
            found = db.execute(_TAIL).fetchone()
            if found is not None and found[0] not in {incarnation, replaces}:
                raise JournalExists(f"{self._files.path(name)} has a journal of {found[0]!r}")
            if found is None or found[0] != incarnation:
                db.execute("DELETE FROM entries")
                db.execute(
                    "INSERT OR REPLACE INTO meta VALUES (1, ?, ?, '', '', ?, '', 0)",
                    (incarnation, epoch, last_seq),
                )
        self._files.sync_directory()

    def read_meta(self, shard: int) -> Meta:
        incarnation, epoch, owner, last_seq, first_seq = self._head(shard)
        return Meta(incarnation, epoch, owner, last_seq, first_seq or last_seq + 1)

    def acquire(
        self, shard: int, *, incarnation: str, seen_epoch: int, token: str, owner_info: str = ""
    ) -> Ownership:
        # Whoever lost, or won before, learns it without waiting for the lock.
        known = self.read_meta(shard)
        self._require(shard, known.incarnation, incarnation)
        if known.epoch != seen_epoch:
            return Ownership(known.epoch, known.owner)
        with self._writing(shard) as db:
            inc, epoch, owner, *_ = self._tail(db, shard)
            self._require(shard, inc, incarnation)
            if epoch != seen_epoch:
                return Ownership(epoch, owner)
            db.execute(
                "UPDATE meta SET epoch = ?, owner = ?, owner_info = ?",
                (seen_epoch + 1, token, owner_info),
            )
        return Ownership(seen_epoch + 1, token)

    def append(
        self, shard: int, *, incarnation: str, epoch: int, seq: int, batch_id: str, entry: bytes
    ) -> None:
        with self._writing(shard) as db:
            stored = db.execute(
                _APPEND, (seq, epoch, batch_id, entry, incarnation, epoch, seq - 1)
            ).rowcount
            if stored == 1:
                db.execute(_ADVANCE, (seq, batch_id, len(entry)))
                return
            inc, owned_epoch, owner, last_seq, last_batch_id, _ = self._tail(db, shard)
            self._require(shard, inc, incarnation)
            if owned_epoch != epoch:
                raise Fenced(epoch=owned_epoch, owner=owner)
            if not (seq == last_seq > 0 and batch_id == last_batch_id):
                raise Conflict(last_seq=last_seq)

    def check(self, shard: int, *, incarnation: str, epoch: int) -> None:
        inc, owned_epoch, owner, *_ = self._head(shard)
        self._require(shard, inc, incarnation)
        if owned_epoch != epoch:
            raise Fenced(epoch=owned_epoch, owner=owner)

    def read(self, shard: int, *, after_seq: int, max_bytes: int) -> Sequence[Entry]:
        # The head is read first: entries that appear later only make the answer longer, and one
        # that is missing although the head counted it was trimmed.
        last_seq, first_seq = self._head(shard)[3:]
        found: list[Entry] = []
        byte_count = 0
        with self._files.reading(_shard_name(shard)) as db:
            rows = db.execute(
                "SELECT seq, epoch, batch_id, data FROM entries WHERE seq > ? ORDER BY seq",
                (after_seq,),
            )
            for row in rows:
                byte_count += len(row[3])
                if found and byte_count > max_bytes:
                    break
                found.append(Entry._make(row))
            # An open cursor is an open read transaction, and would keep the WAL from shrinking.
            rows.close()
        if not found and after_seq < last_seq:
            raise Trimmed(first_seq=max(first_seq or 0, last_seq + 1))
        if found and found[0].seq != after_seq + 1:
            raise Trimmed(first_seq=found[0].seq)
        if found and found[-1].seq - found[0].seq != len(found) - 1:
            raise Corrupt(f"{self._files.path(_shard_name(shard))}: a gap after entry {after_seq}")
        return found

    def positions(self, shard: int) -> Mapping[str, int]:
        incarnation = self._head(shard)[0]
        if not self._files.path(_positions_name(shard)).exists():
            return {}
        with self._files.reading(_positions_name(shard)) as db:
            query = "SELECT reader, seq FROM positions WHERE inc = ?"
            return dict(db.execute(query, (incarnation,)).fetchall())

    def set_position(self, shard: int, reader: str, seq: int) -> None:
        incarnation = self._head(shard)[0]
        with self._files.transaction(_positions_name(shard), schema=_POSITIONS_SCHEMA) as db:
            db.execute(
                "INSERT INTO positions VALUES (?, ?, ?) ON CONFLICT (inc, reader) "
                "DO UPDATE SET seq = max(seq, excluded.seq)",
                (incarnation, reader, seq),
            )

    def trim(self, shard: int, *, before_seq: int, max_entries: int) -> int:
        with self._writing(shard) as db:
            self._tail(db, shard)
            (first_seq,) = db.execute("SELECT min(seq) FROM entries").fetchone()
            if first_seq is None or max_entries <= 0:
                return 0
            end_seq = min(before_seq, first_seq + max_entries)
            return db.execute("DELETE FROM entries WHERE seq < ?", (end_seq,)).rowcount

    def bytes_used(self, shard: int) -> int:
        # `bytes_before` counts up for ever, so that neither append nor trim has to add up.
        with self._files.reading(_shard_name(shard)) as db:
            found = db.execute(
                "SELECT byte_count - coalesce((SELECT bytes_before FROM entries ORDER BY seq "
                "LIMIT 1), byte_count) FROM meta"
            ).fetchone()
        if found is None:
            raise NoJournal(f"{self._files.path(_shard_name(shard))} has no journal")
        return int(found[0])

    def read_map(self) -> tuple[int, bytes]:
        if not self._files.path("cluster").exists():
            return (0, b"")
        with self._files.reading("cluster") as db:
            found = db.execute("SELECT version, data FROM map").fetchone()
        return (found[0], found[1]) if found else (0, b"")

    def swap_map(self, *, expected_version: int, data: bytes) -> bool:
        with self._files.transaction("cluster", schema=_MAP_SCHEMA) as db:
            found = db.execute("SELECT version FROM map").fetchone()
            if (found[0] if found else 0) != expected_version:
                return False
            db.execute("INSERT OR REPLACE INTO map VALUES (1, ?, ?)", (expected_version + 1, data))
        self._files.sync_directory()
        return True

    def verify_settings(self) -> Sequence[str]:
        directory = self._files.directory
        self._files.make_directory()
        if not os.access(directory, os.W_OK | os.X_OK):
            raise Misconfigured(f"the journal's directory {directory} cannot be written")
        file_system = _file_system_of(directory)
        if file_system in _NETWORK_FILE_SYSTEMS:
            raise Misconfigured(f"{directory} is on {file_system}: SQLite's WAL needs a local disk")
        warnings = []
        if file_system in {"tmpfs", "ramfs"}:
            warnings.append(f"{directory} is on {file_system}: a reboot loses the journal")
        if not self._files.durable:
            warnings.append("the journal was opened with durable=False: a power cut loses acks")
        return warnings

    def close(self) -> None:
        self._files.close()

    def _writing(self, shard: int) -> AbstractContextManager[sqlite3.Connection]:
        return self._files.transaction(_shard_name(shard), owner_query=_OWNER)

    def _head(self, shard: int) -> tuple[str, int, str, int, int | None]:
        with self._files.reading(_shard_name(shard)) as db:
            found: tuple[str, int, str, int, int | None] | None = db.execute(_HEAD).fetchone()
        if found is None:
            raise NoJournal(f"{self._files.path(_shard_name(shard))} has no journal")
        return found

    def _tail(self, db: sqlite3.Connection, shard: int) -> tuple[str, int, str, int, str, int]:
        found: tuple[str, int, str, int, str, int] | None = db.execute(_TAIL).fetchone()
        if found is None:
            raise NoJournal(f"{self._files.path(_shard_name(shard))} has no journal")
        return found

    def _require(self, shard: int, stored: str, incarnation: str) -> None:
        if stored != incarnation:
            raise NoJournal(f"the journal of shard {shard} is of {stored!r}, not {incarnation!r}")


def _shard_name(shard: int) -> str:
    return f"shard-{shard:04d}"


def _positions_name(shard: int) -> str:
    return f"shard-{shard:04d}.positions"


def _file_system_of(directory: Path) -> str:
    """The type of the file system that a directory is on; '' where the system does not say."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    best = ("", "")
    for line in mounts:
        _, mount_point, kind, *_ = line.split(" ")
        if directory.is_relative_to(mount_point) and len(mount_point) >= len(best[0]):
            best = (mount_point, kind)
    return best[1]

"""SQLite files for the journal: connections, one-shot write transactions, and errors translated.

Rules
-----
* Each file has two connections, opened when first used: one that writes, and one that never asks
  for the write lock. WAL keeps a writer, even a stopped one, from blocking the second.
* A write is one `BEGIN IMMEDIATE` transaction; its COMMIT returns after the fsync
  (`synchronous=FULL`). Waiting for a lock is bounded; how long a disk takes is not in our hands.
* An error before COMMIT is definite. At COMMIT a full disk is definite too (the frame that commits
  was not completed); any other I/O error there is not: that frame may be on disk, unsynced.
* A file that was removed or replaced while it was open is a missing journal: SQLite itself would go
  on writing to what no path leads to any more.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from persistence.errors import (
    Corrupt,
    Locked,
    Misconfigured,
    NoJournal,
    NotApplied,
    OutcomeUnknown,
    StorageError,
)

FORMAT_VERSION = 1

# About 4 MB of WAL. The commit that crosses it copies the WAL back and waits for the disk: measured
# with 6 kB entries, 1000 pages stall for 3 ms, 4000 for 9 ms and 16000 for 14 ms.
AUTOCHECKPOINT_PAGES = 1000

_LOCK_CODES = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_CORRUPT_CODES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}


class _Open(NamedTuple):
    db: sqlite3.Connection
    file_id: tuple[int, int]


class SqliteFiles:
    """The SQLite files of one directory. One thread at a time."""

    def __init__(self, directory: Path, *, timeout_ms: int, durable: bool) -> None:
        self.directory = directory
        self.durable = durable
        self._timeout_ms = timeout_ms
        self._open: dict[tuple[str, bool], _Open] = {}

    def path(self, name: str) -> Path:
        """Where the file `name` is, or would be."""
        return self.directory / f"{name}.db"

    @contextmanager
    def reading(self, name: str) -> Iterator[sqlite3.Connection]:
        """A connection to read from, never behind a writer's lock. NoJournal without the file."""
        try:
            yield self._connection(name, writing=False)
        except sqlite3.Error as error:
            self._drop(name)
            raise self._refusal(name, error) from error

    @contextmanager
    def transaction(
        self, name: str, *, schema: str = "", owner_query: str = ""
    ) -> Iterator[sqlite3.Connection]:
        """Take the write lock, and commit unless the body raises. With a `schema` a missing file is
        made. With an `owner_query` a lock held elsewhere is Locked with its answer."""
        try:
            db = self._connection(name, writing=True, schema=schema)
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise self._refusal(name, error, owner_query=owner_query) from error
        try:
            yield db
        except sqlite3.Error as error:
            self._roll_back(name, db)
            raise self._refusal(name, error) from error
        except BaseException:
            self._roll_back(name, db)
            raise
        try:
            db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back(name, db)
            raise self._refusal(name, error, committing=True) from error

    def make_directory(self) -> None:
        """Make the directory where it is missing; NotApplied when that is refused."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NotApplied(f"cannot make the directory {self.directory}: {error}") from error

    def sync_directory(self) -> None:
        """A new file counts only when its directory entry is on disk."""
        try:
            descriptor = os.open(self.directory, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise OutcomeUnknown(f"{self.directory}: {error}") from error

    def close(self) -> None:
        """Close every connection. The next use opens what it needs again."""
        for opened in self._open.values():
            opened.db.close()
        self._open.clear()

    def _connection(self, name: str, *, writing: bool, schema: str = "") -> sqlite3.Connection:
        opened = self._open.get((name, writing))
        file_id = self._file_id(name)
        if opened is not None and opened.file_id != file_id:
            self._drop(name)
            opened = None
        if opened is None:
            db = self._connect(name, writing=writing, schema=schema)
            opened = self._open[name, writing] = _Open(db, self._file_id(name))
        return opened.db

    def _file_id(self, name: str) -> tuple[int, int]:
        try:
            status = os.stat(f"{self.directory}/{name}.db")
        except FileNotFoundError:
            return (0, 0)
        return (status.st_dev, status.st_ino)

    def _connect(self, name: str, *, writing: bool, schema: str) -> sqlite3.Connection:
        path = self.path(name)
        if schema:
            self.make_directory()
        elif not path.exists():
            raise NoJournal(f"{path} does not exist")
        db = sqlite3.connect(
            f"file:{quote(str(path))}?mode={'rwc' if schema else 'rw'}",
            uri=True,
            timeout=self._timeout_ms / 1000,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            self._prepare(db, path, writing=writing, schema=schema)
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection, path: Path, *, writing: bool, schema: str) -> None:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > FORMAT_VERSION:
            raise Misconfigured(f"{path} was written by a newer release (format {version})")
        if version == 0 and not schema:
            raise NoJournal(f"{path} has no journal")
        if version == 0:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(
                f"BEGIN IMMEDIATE; {schema} PRAGMA user_version = {FORMAT_VERSION}; COMMIT;"
            )
        db.execute(f"PRAGMA synchronous = {'FULL' if self.durable else 'NORMAL'}")
        db.execute(f"PRAGMA wal_autocheckpoint = {AUTOCHECKPOINT_PAGES}")
        db.execute(f"PRAGMA query_only = {'OFF' if writing else 'ON'}")

    def _refusal(
        self, name: str, error: sqlite3.Error, *, owner_query: str = "", committing: bool = False
    ) -> StorageError:
        """The port's word for a driver's error."""
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        where = f"{self.path(name)}: {error}"
        if code in _LOCK_CODES and owner_query:
            owner = self._owner(name, owner_query)
            return Locked(f"locked by {owner or 'an unknown process'}: {where}", owner)
        if code in _LOCK_CODES:
            return NotApplied(where)
        if code in _CORRUPT_CODES:
            return Corrupt(
                f"{where}. Stop the shard, keep the file with its -wal and -shm, and restore it "
                "from a copy or rebuild the journal from the database"
            )
        if committing and code != sqlite3.SQLITE_FULL:
            self._drop(name)
            return OutcomeUnknown(where)
        if code == sqlite3.SQLITE_ERROR:
            return StorageError(where)
        return NotApplied(where)

    def _owner(self, name: str, owner_query: str) -> str:
        try:
            found = self._connection(name, writing=False).execute(owner_query).fetchone()
        except (sqlite3.Error, StorageError):
            return ""
        return str(found[0]) if found else ""

    def _roll_back(self, name: str, db: sqlite3.Connection) -> None:
        try:
            if db.in_transaction:
                db.execute("ROLLBACK")
        except sqlite3.Error:
            self._drop(name)

    def _drop(self, name: str) -> None:
        """Close a file's connections after an error that leaves them in doubt."""
        for writing in (False, True):
            opened = self._open.pop((name, writing), None)
            if opened is not None:
                opened.db.close()

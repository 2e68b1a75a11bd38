"""Opening a database, and saying in our own errors what went wrong with it.

Rules
-----
* Two kinds of URL: `sqlite:////absolute/path` and `mysql+pymysql://user:password@host/database`
  (MySQL 8.0.17 or newer, MariaDB 10.6 or newer). No password is ever put in a message.
* Every wait on a socket or a lock is bounded by `timeout_ms`. A call makes a few such waits one
  after the other (the pool's ping, a new connection, the statement), so a frozen server holds a
  call for a small multiple of it.
* Sessions are strict whatever the server's settings are: a value that does not fit is an error.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.pool import ConnectionPoolEntry

from persistence.errors import Corrupt, NotApplied, OutcomeUnknown, StorageError, WrongRevision

SQLITE_CACHE_KIB = 65_536
"""Of a writer. A batch's pages and the inner pages of every index stay in memory."""
SQLITE_CHECKPOINT_PAGES = 8_000
"""About 32 MB of WAL. Index entries of new rows fall anywhere: the longer a page waits to be copied
back, the more of them it takes along. Eight times SQLite's own number saves a quarter of the bytes
written and a seventh of the CPU."""

UPGRADE_ADVICE = "run `stockray db upgrade`"
DAMAGE_ADVICE = "the file is damaged: put a backup in its place"

_SCHEMA_ERRORS = frozenset({1054, 1146})
"""MySQL's unknown column and unknown table."""


def parse_url(url: str) -> URL:
    """The URL, checked. ValueError names the setting `database` and what it must be."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ValueError(
            "setting `database`: not a URL; it must be sqlite:////absolute/path or "
            "mysql+pymysql://user:password@host/database"
        ) from None
    shown = parsed.render_as_string(hide_password=True)
    if parsed.drivername == "sqlite":
        if not (parsed.database or "").startswith("/"):
            raise ValueError(f"setting `database`: {shown} must name an absolute path")
    elif parsed.drivername == "mysql+pymysql":
        if not parsed.database:
            raise ValueError(f"setting `database`: {shown} must name a database")
    else:
        raise ValueError(
            f"setting `database`: {shown} is neither sqlite:////absolute/path nor "
            "mysql+pymysql://user:password@host/database"
        )
    return parsed


def place_of(url: URL) -> str:
    """Where a database is, in words for a message."""
    if url.drivername == "sqlite":
        return f"the file {url.database}"
    where = url.query.get("unix_socket") or f"{url.host or 'localhost'}:{url.port or 3306}"
    return f"{url.database} at {where}"


def make_engine(
    url: URL, *, timeout_ms: int, pool_size: int, writes: bool, connect_timeout_ms: int = 0
) -> Engine:
    """An engine with bounded waits. Connects to nothing yet. `connect_timeout_ms` 0: as the others.

    With `writes` a SQLite transaction takes the write lock as it begins, so that a transaction
    that has read is never refused its first write."""
    timeout_s = timeout_ms / 1000
    if url.drivername == "sqlite":
        engine = create_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=timeout_s,
            connect_args={"timeout": timeout_s},
        )
        event.listen(engine, "connect", _prepare_sqlite)
        if writes:
            event.listen(engine, "connect", _prepare_sqlite_writer)
        event.listen(engine, "begin", _begin_immediate if writes else _begin_deferred)
        return engine
    # Shorter than the wait for its answer: else a lock held elsewhere looks like a lost connection.
    lock_wait_s = max(1, timeout_ms // 1000 - 1)
    return create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=timeout_s,
        pool_pre_ping=True,
        pool_recycle=1800,
        isolation_level="READ COMMITTED",
        # Statements are sent as text with tuples (`upsert.py`).
        paramstyle="format",
        connect_args={
            "charset": "utf8mb4",
            "connect_timeout": (connect_timeout_ms or timeout_ms) / 1000,
            "read_timeout": timeout_s,
            "write_timeout": timeout_s,
            "init_command": "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', "
            f"innodb_lock_wait_timeout = {lock_wait_s}, lock_wait_timeout = {lock_wait_s}",
        },
    )


@contextmanager
def connected(engine: Engine) -> Iterator[Connection]:
    """A connection, rolled back at the end unless it was committed.

    NotApplied when the database cannot be reached; errors inside are translated as `refusal`
    says, for nothing is applied before a commit."""
    try:
        connection = engine.connect()
    except (SQLAlchemyError, OSError, RuntimeError) as error:
        if _is_damage(error):
            raise _damaged(engine.url, error) from error
        raise NotApplied(
            f"cannot open {place_of(engine.url)} (setting `database`): {_reason(error)}"
        ) from error
    with connection:
        try:
            yield connection
        except SQLAlchemyError as error:
            raise refusal(error, place_of(engine.url)) from error


def commit(connection: Connection) -> None:
    """Commit. OutcomeUnknown on any error: it may have been committed all the same."""
    try:
        connection.commit()
    except (SQLAlchemyError, OSError) as error:
        place = place_of(connection.engine.url)
        raise OutcomeUnknown(f"{place}: error at COMMIT: {_reason(error)}") from error


@contextmanager
def sendable(connection: Connection) -> Iterator[None]:
    """Around sending values: those that no driver can send (a number beyond 64 bits, half a
    surrogate pair) are a plain StorageError, as those a database refuses.
    """
    try:
        yield
    except (TypeError, ValueError, OverflowError) as error:
        place = place_of(connection.engine.url)
        raise StorageError(f"{place}: {_reason(error)} (a value that cannot be sent)") from error


def refusal(error: SQLAlchemyError, place: str) -> StorageError:
    """What an error before the commit means. A plain StorageError is final: it is the data."""
    reason = f"{place}: {_reason(error)}"
    if _is_damage(error):
        return Corrupt(f"{reason}; {DAMAGE_ADVICE}")
    if _is_schema_error(error):
        return WrongRevision(f"{reason}; {UPGRADE_ADVICE}")
    if isinstance(error, DataError | IntegrityError | ProgrammingError):
        return StorageError(f"{reason} (a row that the database refuses)")
    return NotApplied(reason)


def _damaged(url: URL, error: BaseException) -> Corrupt:
    return Corrupt(f"{place_of(url)} (setting `database`): {_reason(error)}; {DAMAGE_ADVICE}")


def _is_damage(error: BaseException) -> bool:
    """SQLite raises its plain DatabaseError for a file that is no database or is torn, and for
    nothing else."""
    original = getattr(error, "orig", None) or error
    return type(original) is sqlite3.DatabaseError


def _is_schema_error(error: SQLAlchemyError) -> bool:
    if not isinstance(error, DBAPIError) or error.orig is None:
        return False
    if isinstance(error.orig, sqlite3.OperationalError):
        return str(error.orig).startswith(("no such table", "no such column", "table "))
    return bool(error.orig.args) and error.orig.args[0] in _SCHEMA_ERRORS


def _reason(error: BaseException) -> str:
    """The driver's own words: SQLAlchemy's would repeat the statement and its values."""
    original = getattr(error, "orig", None) or error
    return f"{type(original).__name__} {original}"


def _prepare_sqlite(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    # The driver begins transactions on its own otherwise, and late ones.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
    # The journal is trimmed up to the position stored here, so a commit must outlive power loss.
    connection.execute("PRAGMA synchronous = FULL")


def _prepare_sqlite_writer(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    connection.execute(f"PRAGMA cache_size = -{SQLITE_CACHE_KIB}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {SQLITE_CHECKPOINT_PAGES}")


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_deferred(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")

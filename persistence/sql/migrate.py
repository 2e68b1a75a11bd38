"""Bringing a database to the schema that this release needs, and saying whether it is there.

Rules
-----
* Only an operator's command migrates. Everything else calls `require_revision` once at open.
* An upgrade that was cut off may simply be run again; two at the same time take turns.
* Alembic is imported when it is needed: that takes a third of a second, which no process of a
  running service has at its start.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import URL, Connection, Engine, text

from persistence.errors import NotApplied, WrongRevision
from persistence.sql.engine import UPGRADE_ADVICE, commit, connected, make_engine, place_of

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

_SCRIPTS = Path(__file__).parent / "migrations"
_UPGRADE_TIMEOUT_MS = 600_000
"""A step on a full table may well take minutes."""
_CONNECT_TIMEOUT_MS = 10_000


def needed_revision() -> str:
    """The newest revision in this release."""
    return _scripts().get_current_head() or ""


def stored_revision(engine: Engine) -> str:
    """The revision the database is at, '' if it was never migrated. NotApplied if unreachable."""
    with connected(engine) as connection:
        return _read_revision(connection)


def require_revision(engine: Engine) -> None:
    """WrongRevision unless the database is at exactly the needed revision."""
    stored, needed = stored_revision(engine), needed_revision()
    if stored == needed:
        return
    _refuse_a_newer_one(engine, stored)
    state = f"is at revision {stored}" if stored else "has no tables yet"
    raise WrongRevision(
        f"{place_of(engine.url)} {state}; {UPGRADE_ADVICE} (this release needs {needed})"
    )


def upgrade(url: URL) -> None:
    """Run the missing revisions. Idempotent. NotApplied when the database cannot be reached, or
    when another upgrade holds the lock for 10 minutes; WrongRevision for a newer release's."""
    from alembic import command  # noqa: PLC0415 - see above
    from alembic.config import Config  # noqa: PLC0415

    engine = make_engine(
        url,
        timeout_ms=_UPGRADE_TIMEOUT_MS,
        connect_timeout_ms=_CONNECT_TIMEOUT_MS,
        pool_size=1,
        writes=True,
    )
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    try:
        with connected(engine) as connection:
            _take_turn(connection)
            _refuse_a_newer_one(engine, _read_revision(connection))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            commit(connection)
    finally:
        # Ends the session as well, and the named lock with it.
        engine.dispose()


def _take_turn(connection: Connection) -> None:
    """SQLite took the write lock with BEGIN. MySQL's DDL commits, so there it is a named lock."""
    if connection.dialect.name == "sqlite":
        return
    wait_s = _UPGRADE_TIMEOUT_MS // 1000 - 10
    name = f"stockray upgrade {connection.engine.url.database}"[:64]
    if not connection.scalar(text("SELECT GET_LOCK(:name, :wait)"), {"name": name, "wait": wait_s}):
        raise NotApplied(f"{place_of(connection.engine.url)}: another upgrade is running")


def _scripts() -> "ScriptDirectory":
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - see above

    return ScriptDirectory(str(_SCRIPTS))


def _read_revision(connection: Connection) -> str:
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415 - see above

    return MigrationContext.configure(connection).get_current_revision() or ""


def _refuse_a_newer_one(engine: Engine, stored: str) -> None:
    known = {script.revision for script in _scripts().walk_revisions()}
    if stored and stored not in known:
        raise WrongRevision(
            f"{place_of(engine.url)} is at revision {stored}, which this release "
            f"({needed_revision()}) does not know: a newer release migrated it; run that one"
        )

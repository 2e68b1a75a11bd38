"""The sink on SQLite, MySQL and MariaDB: rows, facts, dead letters and position in one transaction.

Rules
-----
* The position is compared and set first. It is the fence: of two consumers of one shard, the
  slower finds it moved and changes nothing.
* Any error before COMMIT rolls all back; MySQL itself would undo one statement only (1205).
* Any error at COMMIT is an OutcomeUnknown: the position, read again, says what became of it.
* `updated_ms` of a position says how old the view is: all that was decided up to then is in it.
  A batch says it by its rows (the youngest `updated_ms` among them is the time of its last entries,
  however late it is applied), so a view that lags is as old as what it holds. A consumer that has
  caught up says it by an empty batch from its position to the same one: then it is now.
* A row that the database refuses (too long, out of range) is a plain StorageError: sending it
  again cannot help, putting it among the dead letters does.
"""

import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import takewhile
from typing import Any

from sqlalchemy import Connection, Dialect, Table, case, delete, insert, select, update
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.exc import IntegrityError

from persistence.errors import PositionMoved
from persistence.ports import DeadLetter, FactRow, Rows
from persistence.sql import migrate
from persistence.sql.engine import commit, connected, make_engine, parse_url, sendable
from persistence.sql.tables import dead_letters as letters_table
from persistence.sql.tables import facts as facts_table
from persistence.sql.tables import positions
from persistence.sql.upsert import Prepared, prepare, upsert

_REASON_LENGTH = 1024


def wall_clock_ms() -> int:
    """Now, in milliseconds UTC."""
    return time.time_ns() // 1_000_000


class SqlSink:
    """`Sink` over SQLAlchemy Core. Opens nothing before its first call.

    `timeout_ms` bounds each wait on the server; on a frozen one a call makes up to four of them.
    `now_ms` dates positions and dead letters. ValueError for a URL of another kind."""

    def __init__(
        self, url: str, *, timeout_ms: int = 5_000, now_ms: Callable[[], int] = wall_clock_ms
    ) -> None:
        self._url = parse_url(url)
        self._engine = make_engine(self._url, timeout_ms=timeout_ms, pool_size=1, writes=True)
        self._now_ms = now_ms

    def revision(self) -> tuple[str, str]:
        """(stored, needed). NotApplied when the database cannot be reached."""
        return migrate.stored_revision(self._engine), migrate.needed_revision()

    def require_revision(self) -> None:
        """WrongRevision, with what to do, unless the schema is the needed one. Call it at open."""
        migrate.require_revision(self._engine)

    def upgrade(self) -> None:
        """Run the missing migrations; may take minutes on large tables. Idempotent."""
        migrate.upgrade(self._url)

    def position(self, shard: int) -> tuple[str, int]:
        """(incarnation, last applied seq), ('', 0) when nothing was applied."""
        with connected(self._engine) as connection:
            return _read_position(connection, shard)

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
        """All of it or nothing. ValueError, before anything is sent, for rows no table takes.

        An empty batch from a position to the same one says that the view holds all there is now;
        on the other hand rows without a move of the position say nothing of the view's age."""
        if not 0 <= from_seq <= to_seq:
            raise ValueError(f"a batch cannot go from {from_seq} to {to_seq}")
        prepared = prepare(rows)
        as_of_ms = 0
        if to_seq > from_seq:
            as_of_ms = _as_of(prepared)
        elif not rows and not dead_letters:
            as_of_ms = self._now_ms()
        with connected(self._engine) as connection:
            self._move(connection, shard, incarnation, (from_seq, to_seq), as_of_ms)
            for same_table in prepared:
                upsert(connection, same_table)
            if dead_letters:
                self._keep(connection, shard, dead_letters)
            if facts:
                told = [(shard, *fact) for fact in facts]
                with sendable(connection):
                    connection.exec_driver_sql(_facts_text(connection.dialect), told)
            commit(connection)

    def prune_facts(self, shard: int, *, before_ms: int, up_to_seq: int, rows_max: int) -> int:
        """See the port. Walks the primary key: a shard's facts are in the order of their times."""
        of_shard = facts_table.c.shard == shard
        with connected(self._engine) as connection:
            oldest = connection.execute(
                select(facts_table.c.seq, facts_table.c.at_ms)
                .where(of_shard, facts_table.c.seq <= up_to_seq)
                .order_by(facts_table.c.seq)
                .limit(rows_max)
            )
            gone = [row.seq for row in takewhile(lambda row: row.at_ms < before_ms, oldest)]
            oldest.close()
            if not gone:
                return 0
            connection.execute(delete(facts_table).where(of_shard, facts_table.c.seq <= gone[-1]))
            connection.execute(
                update(positions)
                .where(positions.c.shard == shard, positions.c.facts_after_seq < gone[-1])
                .values(facts_after_seq=gone[-1])
            )
            commit(connection)
        return len(gone)

    def close(self) -> None:
        """Give up the connection. Idempotent; a later call would open a new one."""
        self._engine.dispose()

    def _move(
        self,
        connection: Connection,
        shard: int,
        incarnation: str,
        step: tuple[int, int],
        as_of_ms: int,
    ) -> None:
        from_seq, to_seq = step
        moved = connection.execute(
            update(positions)
            .where(
                positions.c.shard == shard,
                positions.c.incarnation == incarnation,
                positions.c.seq == from_seq,
            )
            .values(
                seq=to_seq,
                updated_ms=case(
                    (positions.c.updated_ms < as_of_ms, as_of_ms), else_=positions.c.updated_ms
                ),
            )
        )
        if moved.rowcount == 1:
            return
        stored_incarnation, stored_seq = _read_position(connection, shard)
        if stored_incarnation or from_seq != 0:
            raise PositionMoved(position=stored_seq)
        try:
            connection.execute(
                insert(positions).values(
                    shard=shard, incarnation=incarnation, seq=to_seq, updated_ms=as_of_ms
                )
            )
        except IntegrityError as error:
            # Somebody inserted it since it was read: on MySQL that lock is taken here only.
            connection.rollback()
            _, stored_seq = _read_position(connection, shard)
            raise PositionMoved(position=stored_seq) from error

    def _keep(self, connection: Connection, shard: int, letters: Sequence[DeadLetter]) -> None:
        at_ms = self._now_ms()
        values = [
            {
                "shard": shard,
                "seq": letter.seq,
                "idx": letter.at,
                "reason": letter.reason[:_REASON_LENGTH],
                "record": letter.record,
                "at_ms": at_ms,
            }
            for letter in letters
        ]
        with sendable(connection):
            connection.execute(_replacing(connection.dialect, letters_table), values)


def _as_of(batch: Sequence[Prepared]) -> int:
    """The time of the youngest row that says its own; 0 if none does."""
    youngest_ms = 0
    for rows in batch:
        if "updated_ms" not in rows.columns:
            continue
        column = rows.columns.index("updated_ms")
        times = [at for row in rows.values if isinstance(at := row[column], int)]
        youngest_ms = max(youngest_ms, max(times, default=0))
    return youngest_ms


def _read_position(connection: Connection, shard: int) -> tuple[str, int]:
    row = connection.execute(
        select(positions.c.incarnation, positions.c.seq).where(positions.c.shard == shard)
    ).one_or_none()
    return (row.incarnation, row.seq) if row else ("", 0)


@lru_cache(maxsize=4)
def _facts_text(dialect: Dialect) -> str:
    """Sent with tuples of (shard, *FactRow): half the time of a dict for each through SQLAlchemy,
    which counts where an entry has one line."""
    columns = ["shard", *FactRow._fields]
    compiled: Any = _replacing(dialect, facts_table).compile(dialect=dialect, column_keys=columns)
    if list(compiled.positiontup) != columns:
        raise AssertionError(f"facts: the statement takes {compiled.positiontup}")
    return str(compiled)


def _replacing(dialect: Dialect, table: Table) -> sqlite.Insert | mysql.Insert:
    """Insert rows; one that stands in the same place is replaced: it is the same one, told anew."""
    changed = [column.name for column in table.c if not column.primary_key]
    if dialect.name == "sqlite":
        on_sqlite = sqlite.insert(table)
        return on_sqlite.on_conflict_do_update(
            index_elements=list(table.primary_key.columns),
            set_={name: on_sqlite.excluded[name] for name in changed},
        )
    on_mysql = mysql.insert(table)
    return on_mysql.on_duplicate_key_update([(name, on_mysql.inserted[name]) for name in changed])

"""Guarded upserts: one statement for many rows of one table, which never goes back in time.

Rules
-----
* A stored row with (generation, seq) not lower than the new one's stays as it is.
* Rows are sent in the order of their keys, so that two writers lock them in one order.
* In one batch a key may not come twice with the same (generation, seq): the guard would drop the
  second of the two without a word. Whoever makes the rows merges them first.
* MySQL assigns from left to right: what the guard reads is assigned last.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import islice, pairwise
from operator import itemgetter, lt
from typing import Any, NamedTuple

from sqlalchemy import Connection, Dialect, Table, and_, func, or_
from sqlalchemy.dialects import mysql, sqlite

from persistence.ports import Rows
from persistence.sql.engine import sendable
from persistence.sql.tables import fed_table, guarded_key

CHUNK_ROWS = 2_000
"""Rows a statement. PyMySQL cuts a statement again at 1 MB; it is one transaction all the same."""


class _Upsert(NamedTuple):
    text: str
    order: tuple[str, ...]
    """The columns in the order in which the statement takes their values."""


class Prepared(NamedTuple):
    """Rows that were checked, in the order of their keys."""

    table: Table
    columns: tuple[str, ...]
    values: Sequence[tuple[object, ...]]


def prepare(batch: Sequence[Rows]) -> list[Prepared]:
    """ValueError for rows that name an unknown table or column, lack a key, or collide."""
    tables = [rows.table for rows in batch]
    seen: dict[str, set[tuple[object, ...]]] = {}
    prepared = []
    for rows in batch:
        table = fed_table(rows.table)
        if unknown := [name for name in rows.columns if name not in table.c]:
            raise ValueError(f"table {rows.table} has no column {', '.join(unknown)}")
        if missing := [name for name in guarded_key(table) if name not in rows.columns]:
            raise ValueError(f"rows of {rows.table} lack {', '.join(missing)}")
        ordered, guards = _in_order(rows, guarded_key(table))
        if tables.count(rows.table) > 1:
            _check_overlap(rows.table, guards, seen.setdefault(rows.table, set()))
        if ordered:
            prepared.append(Prepared(table, rows.columns, ordered))
    return prepared


def upsert(connection: Connection, rows: Prepared) -> None:
    """Send the rows in chunks, in the transaction that is open. Driver errors pass through."""
    statement = _compiled(connection.dialect, rows.table, rows.columns)
    take = itemgetter(*(rows.columns.index(name) for name in statement.order))
    in_order = statement.order == rows.columns
    for start in range(0, len(rows.values), CHUNK_ROWS):
        chunk = rows.values[start : start + CHUNK_ROWS]
        if not in_order:
            chunk = [take(row) for row in chunk]
        with sendable(connection):
            connection.exec_driver_sql(statement.text, chunk)


def _in_order(
    rows: Rows, key: Sequence[str]
) -> tuple[Sequence[tuple[object, ...]], list[tuple[Any, ...]]]:
    """The rows in the order of their guards, and these. Rows that are numbered come in it."""
    guard = itemgetter(*(rows.columns.index(name) for name in key))
    ordered: Sequence[tuple[object, ...]] = rows.values
    guards = [guard(row) for row in ordered]
    if all(map(lt, guards, islice(guards, 1, None))):
        return ordered, guards
    ordered = sorted(ordered, key=guard)
    guards.sort()
    for earlier, later in pairwise(guards):
        if earlier == later:
            raise _collision(rows.table, later)
    return ordered, guards


def _check_overlap(
    table: str, guards: list[tuple[object, ...]], seen: set[tuple[object, ...]]
) -> None:
    """Of several `Rows` of one table (whole rows, then parts of rows, say)."""
    for guard in guards:
        if guard in seen:
            raise _collision(table, guard)
    seen.update(guards)


def _collision(table: str, guard: object) -> ValueError:
    return ValueError(f"two rows of {table} with one key, generation and seq: {guard!r}")


@lru_cache(maxsize=256)
def _compiled(dialect: Dialect, table: Table, columns: tuple[str, ...]) -> _Upsert:
    """The statement's text. Compiled once and sent with tuples: for rows of forty columns that is
    several times faster than a dict for each row through the statement object."""
    make = _sqlite_upsert if dialect.name == "sqlite" else _mysql_upsert
    compiled: Any = make(table, columns).compile(dialect=dialect, column_keys=list(columns))
    return _Upsert(str(compiled), tuple(compiled.positiontup))


def _free_columns(table: Table, columns: Iterable[str]) -> list[str]:
    guarded = guarded_key(table)
    return [name for name in columns if name not in guarded]


def _sqlite_upsert(table: Table, columns: tuple[str, ...]) -> sqlite.Insert:
    statement = sqlite.insert(table)
    new = statement.excluded
    changed = [*_free_columns(table, columns), "generation", "seq"]
    return statement.on_conflict_do_update(
        index_elements=list(table.primary_key.columns),
        set_={name: new[name] for name in changed},
        where=_newer(table, new),
    )


def _mysql_upsert(table: Table, columns: tuple[str, ...]) -> mysql.Insert:
    statement = mysql.insert(table)
    new = statement.inserted
    newer = _newer(table, new)
    changed = [
        (name, func.IF(newer, new[name], table.c[name]))
        for name in (*_free_columns(table, columns), "seq")
    ]
    # By now seq may be the new one; the greater generation is right in every case.
    changed.append(("generation", func.greatest(table.c.generation, new.generation)))
    return statement.on_duplicate_key_update(changed)


def _newer(table: Table, new: Any) -> Any:
    return or_(
        new.generation > table.c.generation,
        and_(new.generation == table.c.generation, new.seq > table.c.seq),
    )

"""Whole tables into an empty database, for `restore`: inserts, a transaction for each chunk."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import insert, inspect, select

from persistence.sql.engine import commit, connected, make_engine, parse_url, sendable
from persistence.sql.tables import cluster, metadata

COPIED = tuple(name for name in sorted(metadata.tables) if name != cluster.name)
"""Tables that a backup has; the map of the cluster is made anew."""


def columns_of(table: str) -> tuple[str, ...]:
    """A table's columns, in order."""
    return tuple(column.name for column in metadata.tables[table].columns)


class SqlCopy:
    """Fills one database. Opens nothing before its first call."""

    def __init__(self, url: str, *, timeout_ms: int = 60_000) -> None:
        self._engine = make_engine(parse_url(url), timeout_ms=timeout_ms, pool_size=1, writes=True)

    def filled_table(self) -> str:
        """The name of a table that has rows; '' if none has, or there are no tables."""
        with connected(self._engine) as connection:
            there = set(inspect(connection).get_table_names())
            for name, table in sorted(metadata.tables.items()):
                if name not in there:
                    continue
                first = next(iter(table.primary_key.columns))
                if connection.execute(select(first).limit(1)).first() is not None:
                    return name
        return ""

    def fill(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Insert rows, durably. StorageError for those that the database does not take."""
        target = metadata.tables[table]
        values: list[Mapping[str, Any]] = [dict(zip(columns, row, strict=True)) for row in rows]
        with connected(self._engine) as connection:
            with sendable(connection):
                connection.execute(insert(target), values)
            commit(connection)

    def close(self) -> None:
        """Give up the connection. Idempotent."""
        self._engine.dispose()

"""All rows of the view as of one instant, for `verify`: read in one transaction, row by row.

On MySQL the transaction is REPEATABLE READ with a consistent snapshot; on SQLite a deferred one is
a snapshot from its first read. Writers are never blocked.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, LargeBinary, func, select

from persistence.sql.engine import connected, make_engine, parse_url
from persistence.sql.tables import dead_letters, metadata, positions

ROWS_AT_ONCE = 5_000
LARGE_ROWS_AT_ONCE = 100
"""Of tables with bytes in them: a fact of the feed has some 200 kB when a whole round was sold."""


def rows_at_once(table: str) -> int:
    """How many rows of a table may be held at once."""
    large = any(isinstance(column.type, LargeBinary) for column in metadata.tables[table].columns)
    return LARGE_ROWS_AT_ONCE if large else ROWS_AT_ONCE


class SqlDump:
    """Opens snapshots of one database."""

    def __init__(self, url: str, *, timeout_ms: int = 30_000) -> None:
        self._engine = make_engine(parse_url(url), timeout_ms=timeout_ms, pool_size=1, writes=False)

    @contextmanager
    def open(self) -> Iterator["View"]:
        """The view as it is now, until the block ends. NotApplied if it cannot be reached."""
        with connected(self._engine) as connection:
            level = "REPEATABLE READ" if connection.dialect.name == "mysql" else None
            yield View(connection.execution_options(isolation_level=level) if level else connection)

    def close(self) -> None:
        """Give up the connection."""
        self._engine.dispose()


class View:
    """One snapshot."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def positions(self) -> Mapping[int, tuple[str, int]]:
        """Shard -> (incarnation, last applied seq). Ask first: it fixes the instant."""
        found = self._connection.execute(
            select(positions.c.shard, positions.c.incarnation, positions.c.seq)
        )
        return {row.shard: (row.incarnation, row.seq) for row in found}

    def dead_letters(self) -> int:
        """How many records were set aside."""
        count = self._connection.execute(select(func.count()).select_from(dead_letters))
        return int(count.scalar_one())

    def rows(self, table: str, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """All rows of a table, these columns of each."""
        source = metadata.tables[table]
        query = select(*[source.c[name] for name in columns])
        streamed = self._connection.execution_options(
            stream_results=True, yield_per=rows_at_once(table)
        )
        for row in streamed.execute(query):
            yield tuple(row)

"""What the database knows of the cluster whose view it is: its map, and which journal each position
is of. For starts and recoveries, never for the way of a sale.

Rules
-----
* The map is a copy: the journal's store has the one that counts. It is read only when that is lost.
* A position is handed to another incarnation by compare-and-set, its sequence unchanged: the rows
  stay what they are, and go on with the journal that was made from them.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from sqlalchemy import Connection, insert, select, update

from persistence.errors import PositionMoved
from persistence.sql import migrate
from persistence.sql.engine import commit, connected, make_engine, parse_url
from persistence.sql.sink import wall_clock_ms
from persistence.sql.tables import cluster, positions

_ID = 1


class Position(NamedTuple):
    """How far the view of a shard is."""

    incarnation: str
    seq: int
    as_of_ms: int
    """All that was decided up to then is in the view."""


class KeptMap(NamedTuple):
    """The cluster's map as it was copied."""

    version: int
    incarnation: str
    text: str


class SqlCluster:
    """The tables `cluster` and `positions`. Opens nothing before its first call."""

    def __init__(
        self, url: str, *, timeout_ms: int = 5_000, now_ms: Callable[[], int] = wall_clock_ms
    ) -> None:
        self._engine = make_engine(parse_url(url), timeout_ms=timeout_ms, pool_size=1, writes=True)
        self._now_ms = now_ms

    def require_revision(self) -> None:
        """WrongRevision unless the database has the tables of this release."""
        migrate.require_revision(self._engine)

    def positions(self) -> Mapping[int, Position]:
        """Of every shard that anything was applied of."""
        with connected(self._engine) as connection:
            found = connection.execute(
                select(
                    positions.c.shard,
                    positions.c.incarnation,
                    positions.c.seq,
                    positions.c.updated_ms,
                )
            )
            return {row.shard: Position(*row[1:]) for row in found}

    def kept_map(self) -> KeptMap | None:
        """The map; None if none was kept (a database of before, or a new one)."""
        with connected(self._engine) as connection:
            return _read_map(connection)

    def kept_since_ms(self) -> int:
        """When the map was kept: at the first start of its cluster, or after its recovery. 0 if
        there is none."""
        with connected(self._engine) as connection:
            query = select(cluster.c.updated_ms).where(cluster.c.id == _ID)
            return connection.execute(query).scalar() or 0

    def keep_map(self, kept: KeptMap) -> None:
        """Keep this map in the place of what was kept. Writes nothing if it is the same."""
        values = {
            "map_version": kept.version,
            "incarnation": kept.incarnation,
            "map_json": kept.text,
            "updated_ms": self._now_ms(),
        }
        with connected(self._engine) as connection:
            known = _read_map(connection)
            if known == kept:
                return
            if known is None:
                connection.execute(insert(cluster).values(id=_ID, **values))
            else:
                connection.execute(update(cluster).where(cluster.c.id == _ID).values(**values))
            commit(connection)

    def hand_over(self, shard: int, *, seq: int, before: str, after: str) -> None:
        """The position `seq` of incarnation `before` becomes that of `after`; again: nothing.
        PositionMoved if it is any other."""
        with connected(self._engine) as connection:
            moved = connection.execute(
                update(positions)
                .where(
                    positions.c.shard == shard,
                    positions.c.seq == seq,
                    positions.c.incarnation.in_((before, after)),
                )
                .values(incarnation=after)
            )
            if moved.rowcount != 1:
                stored = connection.execute(
                    select(positions.c.seq).where(positions.c.shard == shard)
                ).scalar()
                raise PositionMoved(position=stored or 0)
            commit(connection)

    def close(self) -> None:
        """Give up the connection. Idempotent."""
        self._engine.dispose()


def _read_map(connection: Connection) -> KeptMap | None:
    row = connection.execute(
        select(cluster.c.map_version, cluster.c.incarnation, cluster.c.map_json).where(
            cluster.c.id == _ID
        )
    ).one_or_none()
    return None if row is None else KeptMap(*row)

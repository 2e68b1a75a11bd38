"""SQL in memory: the `Sink` port with its compare-and-set position and its guarded upserts.

The tables and keys are those of `persistence/sql/tables.py`; a row that a real table would not take
is a ValueError here as well. `doubt` makes a commit's outcome unknown, applied or not.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Integer

from persistence.errors import OutcomeUnknown, PositionMoved
from persistence.ports import DeadLetter, FactRow, Rows
from persistence.sql.tables import fed_table

Row = dict[str, Any]

SEAT_COLUMNS = ("team_id", "new_buyer", "settled_minor", "joined_ms")
"""Of a seat, beside its reservation's: see `Views.find_reservation`."""


@lru_cache
def shape(table: str, columns: tuple[str, ...]) -> tuple[tuple[int, ...], int, int, Row]:
    """(where the key's columns are, generation's place, seq's place, a row of defaults)."""
    made = fed_table(table)
    unknown = [name for name in columns if name not in made.c]
    if unknown:
        raise ValueError(f"table {table} has no column {unknown}")
    defaults: Row = {
        column.name: 0 if isinstance(column.type, Integer) else "" for column in made.c
    }
    key = tuple([columns.index(column.name) for column in made.primary_key.columns])
    return key, columns.index("generation"), columns.index("seq"), defaults


class MemorySink:
    """One database for all shards."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[tuple[Any, ...], Row]] = {}
        self.places: dict[int, tuple[str, int]] = {}
        self.letters: list[DeadLetter] = []
        self.facts: dict[int, list[FactRow]] = {}
        """By shard, what the event feed tells when the journal has it no more."""
        self.by_id: dict[str, Row] = {}
        """Reservations by their id."""
        self.seats: dict[str, Row] = {}
        """What those of them that are seats have in `seats`."""
        self.on_commit: Callable[[int, int, int], None] = lambda _shard, _from, _to: None
        self.doubt: Callable[[], str] = lambda: ""
        """'' or what becomes of the next commit: 'before' or 'after' it the connection is lost."""

    def position(self, shard: int) -> tuple[str, int]:
        return self.places.get(shard, ("", 0))

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
        stored, seq = self.position(shard)
        if seq != from_seq or stored not in ("", incarnation):
            raise PositionMoved(position=seq)
        doubt = self.doubt()
        if doubt == "before":
            raise OutcomeUnknown("simulated: the connection was lost before the commit")
        self.places[shard] = (incarnation, to_seq)
        for same in rows:
            self._upsert(same)
        self._keep(self.facts.setdefault(shard, []), facts)
        self.letters += dead_letters
        self.on_commit(shard, from_seq, to_seq)
        if doubt:
            raise OutcomeUnknown("simulated: the connection was lost at the commit")

    def _keep(self, kept: list[FactRow], facts: Sequence[FactRow]) -> None:
        """ValueError for what the table's key refuses."""
        for fact in facts:
            if kept and fact.seq <= kept[-1].seq:
                raise ValueError(f"a fact of entry {fact.seq} after {kept[-1].seq}")
            kept.append(fact)

    def prune_facts(self, shard: int, *, before_ms: int, up_to_seq: int, rows_max: int) -> int:
        return 0  # A seed is over long before any is old enough.

    def _upsert(self, rows: Rows) -> None:
        key_at, generation_at, seq_at, defaults = shape(rows.table, tuple(rows.columns))
        table = self.tables.setdefault(rows.table, {})
        for values in rows.values:
            key = tuple([values[at] for at in key_at])
            row = table.get(key)
            if row is None:
                row = table[key] = defaults.copy()
                if rows.table == "reservations":
                    self.by_id[values[rows.columns.index("reservation_id")]] = row
                elif rows.table == "seats":
                    self.seats[values[rows.columns.index("reservation_id")]] = row
            elif (row["generation"], row["seq"]) >= (values[generation_at], values[seq_at]):
                continue
            row.update(zip(rows.columns, values, strict=True))

    def rows(self, table: str) -> Sequence[Row]:
        """All rows of a table."""
        return list(self.tables.get(table, {}).values())

    def reservation(self, reservation_id: str) -> Mapping[str, Any] | None:
        """What a gateway recalls (`server/recall.py`)."""
        row, seat = self.by_id.get(reservation_id), self.seats.get(reservation_id)
        if row is None or seat is None:
            return row
        return row | {name: seat[name] for name in SEAT_COLUMNS}

    # What nobody asks of it here.

    def revision(self) -> tuple[str, str]:
        return "memory", "memory"

    def require_revision(self) -> None:
        """Its tables are those of this release."""

    def upgrade(self) -> None:
        """Nothing to upgrade."""

    def close(self) -> None:
        """Nothing to give up."""

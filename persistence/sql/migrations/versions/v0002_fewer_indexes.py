"""Fewer index entries for a new reservation. Never edit: add a revision.

Each index whose keys fall anywhere costs a new row a page of its own: an id is found through the
primary key, part by part. On SQLite, orders are indexed only where a reservation has one; MySQL and
MariaDB have no such indexes, and keep the whole one. A cut-off upgrade is fit to run again.
"""

from alembic import op
from sqlalchemy import Index, MetaData, Table, text

from persistence.sql.columns import big, identifier, identifier_key

revision = "0002"
down_revision: str | None = "0001"

_reservations = Table(
    "reservations",
    MetaData(),
    identifier_key("reservation_id"),
    identifier("order_id"),
    big("reserved_ms"),
)
_BY_ID = Index("ix_reservations_id", _reservations.c.reservation_id)
_BY_ORDER = Index(
    "ix_reservations_order",
    _reservations.c.order_id,
    _reservations.c.reserved_ms,
    _reservations.c.reservation_id,
    sqlite_where=text("order_id <> ''"),
)


def upgrade() -> None:
    """Drop the index by id; on SQLite, make the index by order again, of those that have one."""
    connection = op.get_bind()
    _BY_ID.drop(connection, checkfirst=True)
    if connection.dialect.name == "sqlite":
        _BY_ORDER.drop(connection, checkfirst=True)
        _BY_ORDER.create(connection)

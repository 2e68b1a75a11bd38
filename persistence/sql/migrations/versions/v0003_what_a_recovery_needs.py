"""What a rebuilt journal needs and the view did not have. Never edit: add a revision.

The cluster's map; which report a refund's state is from; what a transfer's request was. Rows of
before have 0 and '', which readers take for unknown. A cut-off upgrade is fit to run again.
"""

from alembic import op
from sqlalchemy import Column, MetaData, Table, inspect

from persistence.sql.columns import (
    OPTIONS,
    big,
    identifier,
    long_document,
    number,
    small_key,
)

revision = "0003"
down_revision: str | None = "0002"

_cluster = Table(
    "cluster",
    MetaData(),
    small_key("id"),
    number("map_version"),
    identifier("incarnation"),
    long_document("map_json"),
    big("updated_ms"),
    **OPTIONS,
)


def _add(table: str, column: Column[object]) -> None:
    """MySQL commits each change: a part may be there already."""
    known = {found["name"] for found in inspect(op.get_bind()).get_columns(table)}
    if column.name not in known:
        op.add_column(table, column)


def upgrade() -> None:
    """One table and two columns."""
    _cluster.create(op.get_bind(), checkfirst=True)
    _add("transfers", big("fingerprint"))
    _add("refunds", identifier("last_report"))

"""Group-buys: teams, and what a seat is beyond its reservation. Never edit: add a revision.

Two new tables; what was there is untouched. A cut-off upgrade is fit to run again.
"""

from alembic import op
from sqlalchemy import Index, MetaData, Table

from persistence.sql.columns import (
    OPTIONS,
    big,
    identifier,
    identifier_key,
    number,
    origin,
    small,
    small_key,
    words,
)

revision = "0004"
down_revision: str | None = "0003"

_metadata = MetaData()
_teams = Table(
    "teams",
    _metadata,
    identifier_key("team_id"),
    *origin(),
    identifier("campaign_id"),
    identifier("sku_id"),
    small("state"),
    identifier("opener_id"),
    identifier("leader_id"),
    identifier("leader_reservation_id"),
    number("paid"),
    number("new_members"),
    number("virtual_seats"),
    number("tier_people"),
    big("unit_price_minor"),
    identifier("completed_by"),
    words("reason"),
    big("opened_ms"),
    big("deadline_ms"),
    big("ended_ms"),
    big("updated_ms"),
    Index("ix_teams_campaign", "campaign_id", "state", "opened_ms", "team_id"),
    **OPTIONS,
)
_seats = Table(
    "seats",
    _metadata,
    small_key("buyer_part"),
    identifier_key("reservation_id"),
    *origin(),
    identifier("team_id"),
    identifier("campaign_id"),
    identifier("buyer_id"),
    small("new_buyer"),
    small("closed"),
    big("final_minor"),
    big("settled_minor"),
    big("joined_ms"),
    big("settled_ms"),
    big("updated_ms"),
    Index("ix_seats_team", "team_id", "joined_ms", "reservation_id"),
    Index("ix_seats_buyer", "buyer_id", "joined_ms", "reservation_id"),
    **OPTIONS,
)


def _create(table: Table) -> None:
    """MySQL commits each statement: a table may be there without its indexes."""
    connection = op.get_bind()
    table.create(connection, checkfirst=True)
    for index in table.indexes:
        index.create(connection, checkfirst=True)


def upgrade() -> None:
    """Two tables."""
    for table in (_teams, _seats):
        _create(table)

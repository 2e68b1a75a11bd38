"""Account shards: commission, risk, and how far they have the facts of stock shards. Never edit:
add a revision.

New tables; what was there is untouched. A cut-off upgrade is fit to run again.
"""

from alembic import op
from sqlalchemy import Index, MetaData, Table

from persistence.sql.columns import (
    OPTIONS,
    big,
    big_key,
    identifier,
    identifier_key,
    long_document,
    number,
    number_key,
    origin,
    row_number_key,
    small,
    small_key,
    words,
)

revision = "0006"
down_revision: str | None = "0005"

_metadata = MetaData()
_distributors = Table(
    "distributors",
    _metadata,
    identifier_key("distributor_id"),
    *origin(),
    small("state"),
    identifier("share_code"),
    big("applied_ms"),
    big("changed_ms"),
    big("held_until_ms"),
    big("held_as_of_ms"),
    identifier("changed_by"),
    words("change_reason"),
    big("updated_ms"),
    Index("ix_distributors_state", "state", "distributor_id"),
    Index("ix_distributors_code", "share_code"),
    **OPTIONS,
)
_bonds = Table(
    "bonds",
    _metadata,
    identifier_key("buyer_id"),
    big_key("from_ms"),
    identifier_key("distributor_id"),
    *origin(),
    big("until_ms"),
    identifier("share_code"),
    small("invited"),
    number("month"),
    identifier("reservation_id"),
    identifier("caller"),
    big("bound_ms"),
    big("updated_ms"),
    **OPTIONS,
)
_commission_rates = Table(
    "commission_rates",
    _metadata,
    number_key("version"),
    *origin(),
    big("from_ms"),
    long_document("config_json"),
    identifier("caller"),
    words("reason"),
    big("updated_ms"),
    **OPTIONS,
)
_commission_orders = Table(
    "commission_orders",
    _metadata,
    identifier_key("reservation_id"),
    *origin(),
    identifier("buyer_id"),
    identifier("referrer_id"),
    identifier("campaign_id"),
    identifier("sku_id"),
    big("quantity"),
    big("returned_quantity"),
    big("base_minor"),
    number("version"),
    number("month"),
    identifier("level1_id"),
    number("level1_bps"),
    big("level1_minor"),
    small("level1_state"),
    identifier("level2_id"),
    number("level2_bps"),
    big("level2_minor"),
    small("level2_state"),
    big("commission_minor"),
    big("earned_ms"),
    big("matures_ms"),
    small("delivered"),
    big("updated_ms"),
    **OPTIONS,
)
_commission_entries = Table(
    "commission_entries",
    _metadata,
    row_number_key("entry_id"),
    *origin(),
    identifier("distributor_id"),
    small("event"),
    identifier("reservation_id"),
    identifier("withdrawal_id"),
    small("level"),
    number("version"),
    number("month"),
    big("expense_minor"),
    big("frozen_minor"),
    big("available_minor"),
    big("settled_minor"),
    big("withdrawing_minor"),
    big("paid_out_minor"),
    big("at_ms"),
    Index("ix_entries_distributor", "distributor_id", "month"),
    **OPTIONS,
)
_statements = Table(
    "statements",
    _metadata,
    identifier_key("distributor_id"),
    number_key("month"),
    *origin(),
    big("starts_ms"),
    big("ends_ms"),
    big("opening_minor"),
    big("available_minor"),
    big("reversed_minor"),
    big("withdrawn_minor"),
    big("restored_minor"),
    big("closing_minor"),
    big("moved_minor"),
    number("entry_count"),
    words("currency_code", 8),
    big("made_ms"),
    identifier("changed_by"),
    words("change_reason"),
    big("updated_ms"),
    **OPTIONS,
)
_withdrawals = Table(
    "withdrawals",
    _metadata,
    identifier_key("withdrawal_id"),
    *origin(),
    identifier("caller"),
    identifier("request_id"),
    big("fingerprint"),
    identifier("distributor_id"),
    big("amount_minor"),
    big("from_settled_minor"),
    words("currency_code", 8),
    small("state"),
    identifier("reference"),
    big("requested_ms"),
    big("changed_ms"),
    identifier("changed_by"),
    words("change_reason"),
    big("updated_ms"),
    Index("ix_withdrawals_state", "state", "requested_ms", "withdrawal_id"),
    Index("ix_withdrawals_distributor", "distributor_id", "state", "requested_ms", "withdrawal_id"),
    **OPTIONS,
)
_risk_profiles = Table(
    "risk_profiles",
    _metadata,
    identifier_key("buyer_id"),
    *origin(),
    small("rested"),
    big("whole_ms"),
    words("failures_json"),
    small("frozen"),
    big("frozen_until_ms"),
    big("frozen_as_of_ms"),
    small("cause"),
    identifier("caller"),
    words("reason"),
    big("told_as_of_ms"),
    identifier("changed_by"),
    words("change_reason"),
    big("updated_ms"),
    **OPTIONS,
)
_marks = Table(
    "marks",
    _metadata,
    small_key("shard"),
    small_key("source"),
    *origin(),
    identifier("incarnation"),
    big("source_seq"),
    big("source_index"),
    big("updated_ms"),
    **OPTIONS,
)


def _create(table: Table) -> None:
    """MySQL commits each statement: a table may be there without its indexes."""
    connection = op.get_bind()
    table.create(connection, checkfirst=True)
    for index in table.indexes:
        index.create(connection, checkfirst=True)


def upgrade() -> None:
    """Tables."""
    for table in _metadata.tables.values():
        _create(table)

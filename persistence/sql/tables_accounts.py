"""Tables of what account shards decide on commission and risk. Part of `tables.py`, whose rules
hold here. `bonds` are bindings of buyers; in `commission_orders` are orders that a distributor
brought.

An entry's amounts are those of the ledger: what the distributor got by it is what `expense_minor`
is below 0 (above 0: what was taken back). The commission of an order is the sum of it over the
entries of its events 1 and 2; the order's row has it, since an index of entries by their orders,
which fall anywhere, would cost each entry more than all else.

Each order that a distributor brought makes one row of `bonds`, one of `commission_orders` and two
of `commission_entries`, so these repeat nothing: what an entry's order was of is in the order's
row, when it was reserved in `reservations`, the share code of its referrer in `distributors`, and
its currency in its version of `commission_rates`.

`changed_by` and `change_reason` are the caller and the reason of the last act of somebody on what
the row is about: '' if there was none, such as of a statement that the shard made by itself.
"""

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

metadata = MetaData()
"""Of all tables: `tables.py` adds its own."""

distributors = Table(
    "distributors",
    metadata,
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

bonds = Table(
    "bonds",
    metadata,
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

commission_rates = Table(
    "commission_rates",
    metadata,
    number_key("version"),
    *origin(),
    big("from_ms"),
    long_document("config_json"),
    identifier("caller"),
    words("reason"),
    big("updated_ms"),
    **OPTIONS,
)

# What each level got at first, and whether it still waits; and what all levels have of it now.
commission_orders = Table(
    "commission_orders",
    metadata,
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

commission_entries = Table(
    "commission_entries",
    metadata,
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
    # In the order of a page within a month of a distributor, and within all of them: of two entries
    # the later is of no earlier month. Every index ends in the primary key by itself.
    Index("ix_entries_distributor", "distributor_id", "month"),
    **OPTIONS,
)

statements = Table(
    "statements",
    metadata,
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

withdrawals = Table(
    "withdrawals",
    metadata,
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
    # In the order of a page (requested_ms, withdrawal_id) within a state; every listing names one.
    Index("ix_withdrawals_state", "state", "requested_ms", "withdrawal_id"),
    Index("ix_withdrawals_distributor", "distributor_id", "state", "requested_ms", "withdrawal_id"),
    **OPTIONS,
)

# A row stays when its profile left memory (`rested`).
risk_profiles = Table(
    "risk_profiles",
    metadata,
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

# How far each account shard has the facts of each stock shard (`source`).
marks = Table(
    "marks",
    metadata,
    small_key("shard"),
    small_key("source"),
    *origin(),
    identifier("incarnation"),
    big("source_seq"),
    big("source_index"),
    big("updated_ms"),
    **OPTIONS,
)

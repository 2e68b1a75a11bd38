"""Tables of what account shards decide on commission. Part of `tables.py`, whose rules hold here.

An entry's amounts are those of the ledger, and `amount_minor` is what the distributor got by it
(below 0: what was taken back): the commission of an order is the sum of it over the entries of its
events 1 and 2.
"""

from sqlalchemy import Index, MetaData, Table

from persistence.sql.columns import (
    OPTIONS,
    big,
    big_key,
    identifier,
    identifier_key,
    number,
    number_key,
    origin,
    small,
    words,
)

metadata = MetaData()

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
    big("updated_ms"),
    Index("ix_distributors_state", "state", "distributor_id"),
    Index("ix_distributors_code", "share_code"),
    **OPTIONS,
)

commission_entries = Table(
    "commission_entries",
    metadata,
    big_key("entry_id"),
    *origin(),
    identifier("distributor_id"),
    small("event"),
    identifier("reservation_id"),
    identifier("withdrawal_id"),
    identifier("campaign_id"),
    identifier("sku_id"),
    identifier("share_code"),
    small("level"),
    number("version"),
    number("month"),
    small("state"),
    big("amount_minor"),
    big("expense_minor"),
    big("frozen_minor"),
    big("available_minor"),
    big("settled_minor"),
    big("withdrawing_minor"),
    big("paid_out_minor"),
    big("at_ms"),
    # In the order of a page within a distributor and within a month of it.
    Index("ix_entries_distributor", "distributor_id", "entry_id"),
    Index("ix_entries_month", "distributor_id", "month", "entry_id"),
    Index("ix_entries_reservation", "reservation_id", "event"),
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
    **OPTIONS,
)

withdrawals = Table(
    "withdrawals",
    metadata,
    identifier_key("withdrawal_id"),
    *origin(),
    identifier("caller"),
    identifier("request_id"),
    identifier("distributor_id"),
    big("amount_minor"),
    big("from_settled_minor"),
    words("currency_code", 8),
    small("state"),
    identifier("reference"),
    big("requested_ms"),
    big("changed_ms"),
    # In the order of a page (requested_ms, withdrawal_id) within a state; every listing names one.
    Index("ix_withdrawals_state", "state", "requested_ms", "withdrawal_id"),
    Index("ix_withdrawals_distributor", "distributor_id", "state", "requested_ms", "withdrawal_id"),
    **OPTIONS,
)

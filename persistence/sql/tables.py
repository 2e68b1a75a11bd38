"""The tables of the SQL view, as this release reads and writes them.

Rules
-----
* A view of the journal: nothing here is decided upon, and all of it can be made again from the
  journal as long as the journal holds it.
* `migrations/` makes the same tables step by step; a test compares the two on each database.
* Every table but `positions`, `dead_letters`, `facts` and `cluster` carries slot, generation, seq
  (`columns.origin`).
* `reservations` is the orders table: on MySQL it is partitioned by a hash of the buyer, so that a
  buyer's orders lie in one partition; `buyer_part` must therefore be in its primary key.
"""

from zlib import crc32

from sqlalchemy import Column, Index, Table, text

from persistence.sql.columns import (
    OPTIONS,
    big,
    big_key,
    blob,
    document,
    identifier,
    identifier_key,
    long_document,
    number,
    origin,
    small,
    small_key,
    words,
)
from persistence.sql.tables_accounts import metadata as metadata  # noqa: PLC0414 - its own, too

BUYER_PARTS = 64
"""Values of `buyer_part`: four for each of the 16 partitions, so that these can be split twice."""


def buyer_part(buyer_id: str) -> int:
    """The part of the buyers that a buyer belongs to: 0 to 63, the same for ever."""
    return crc32(buyer_id.encode()) % BUYER_PARTS


skus = Table(
    "skus",
    metadata,
    identifier_key("sku_id"),
    *origin(),
    words("name"),
    document("attributes_json"),
    number("buffer_bps"),
    big("list_price_minor"),
    words("currency_code", 8),
    big("payment_window_ms"),
    big("created_ms"),
    big("updated_ms"),
    **OPTIONS,
)

# The base pool of a SKU is the one whose campaign_id is empty.
pools = Table(
    "pools",
    metadata,
    identifier_key("campaign_id"),
    identifier_key("sku_id"),
    *origin(),
    big("total"),
    big("available"),
    big("reserved"),
    big("sold"),
    big("buffer"),
    big("scheduled"),
    big("in_transit"),
    big("owed"),
    big("granted"),
    big("list_price_minor"),
    big("unit_price_minor"),
    words("currency_code", 8),
    big("updated_ms"),
    Index("ix_pools_sku", "sku_id", "campaign_id"),
    **OPTIONS,
)

campaigns = Table(
    "campaigns",
    metadata,
    identifier_key("campaign_id"),
    *origin(),
    small("state"),
    long_document("config_json"),
    big("starts_ms"),
    big("ends_ms"),
    big("version"),
    big("created_ms"),
    big("updated_ms"),
    Index("ix_campaigns_state", "state", "campaign_id"),
    **OPTIONS,
)

reservations = Table(
    "reservations",
    metadata,
    small_key("buyer_part"),
    identifier_key("reservation_id"),
    *origin(),
    identifier("caller"),
    identifier("request_id"),
    big("fingerprint"),
    identifier("campaign_id"),
    identifier("sku_id"),
    identifier("buyer_id"),
    identifier("device_id"),
    words("ip", 64),
    document("claims_json"),
    identifier("share_code"),
    identifier("channel"),
    identifier("experiment"),
    identifier("order_id"),
    big("quantity"),
    big("returned_quantity"),
    small("state"),
    big("list_price_minor"),
    big("unit_price_minor"),
    big("payable_minor"),
    big("paid_minor"),
    words("currency_code", 8),
    identifier("payment_id"),
    identifier("payment_channel"),
    big("reserved_ms"),
    big("first_deadline_ms"),
    big("deadline_ms"),
    big("payment_begun_ms"),
    big("confirmed_ms"),
    big("ended_ms"),
    small("fulfilment"),
    big("fulfilled_ms"),
    big("updated_ms"),
    # Each index ends in the order of a page (reserved_ms, reservation_id), so that a page is read
    # from where the last one ended and never sorted.
    Index("ix_reservations_buyer", "buyer_id", "reserved_ms", "reservation_id"),
    Index("ix_reservations_campaign", "campaign_id", "reserved_ms", "reservation_id"),
    Index("ix_reservations_sku", "sku_id", "reserved_ms", "reservation_id"),
    Index(
        "ix_reservations_order",
        "order_id",
        "reserved_ms",
        "reservation_id",
        sqlite_where=text("order_id <> ''"),
    ),
    Index("ix_reservations_state", "state", "reserved_ms", "reservation_id"),
    # None by the id alone: it falls anywhere, and costs a new row a page. `BUYER_PARTS` look-ups
    # in the primary key find it, too.
    mysql_partition_by="HASH(buyer_part)",
    mysql_partitions="16",
    **OPTIONS,
)

payments = Table(
    "payments",
    metadata,
    small_key("slot"),
    identifier_key("payment_id"),
    number("generation"),
    big("seq"),
    identifier("reservation_id"),
    identifier("payment_channel"),
    big("amount_minor"),
    small("state"),
    big("at_ms"),
    number("attempts"),
    Index("ix_payments_reservation", "reservation_id"),
    **OPTIONS,
)

refunds = Table(
    "refunds",
    metadata,
    identifier_key("refund_id"),
    *origin(),
    identifier("reservation_id"),
    identifier("campaign_id"),
    identifier("buyer_id"),
    identifier("payment_id"),
    identifier("payment_channel"),
    big("amount_minor"),
    words("currency_code", 8),
    small("reason"),
    small("compensation"),
    small("state"),
    number("attempts"),
    identifier("reference"),
    big("due_ms"),
    big("closed_ms"),
    big("updated_ms"),
    identifier("last_report"),
    # In the order of a page (due_ms, refund_id) within a state, which every listing names.
    Index("ix_refunds_due", "state", "due_ms", "refund_id"),
    Index("ix_refunds_buyer", "buyer_id", "state", "due_ms", "refund_id"),
    Index("ix_refunds_campaign", "campaign_id", "state", "due_ms", "refund_id"),
    Index("ix_refunds_reservation", "reservation_id", "state", "due_ms", "refund_id"),
    Index("ix_refunds_payment", "payment_id", "state", "due_ms", "refund_id"),
    **OPTIONS,
)

# Receive, adjust, buffer, transfer, shortage: their request ids are kept for ever.
stock_documents = Table(
    "stock_documents",
    metadata,
    small_key("slot"),
    identifier_key("caller"),
    identifier_key("request_id"),
    number("generation"),
    big("seq"),
    small("kind"),
    identifier("sku_id"),
    identifier("campaign_id"),
    big("quantity"),
    big("available"),
    big("buffer"),
    big("scheduled"),
    big("owed"),
    big("from_reserved"),
    words("reason"),
    big("fingerprint"),
    small("status"),
    big("at_ms"),
    **OPTIONS,
)

transfers = Table(
    "transfers",
    metadata,
    identifier_key("transfer_id"),
    *origin(),
    identifier("sku_id"),
    identifier("from_campaign_id"),
    identifier("to_campaign_id"),
    big("quantity"),
    small("state"),
    big("at_ms"),
    big("fingerprint"),
    **OPTIONS,
)

teams = Table(
    "teams",
    metadata,
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
    # In the order of a page (opened_ms, team_id).
    Index("ix_teams_campaign", "campaign_id", "state", "opened_ms", "team_id"),
    **OPTIONS,
)

# What a seat is beyond its row in `reservations`. `closed` is why it ended without a formed team (a
# RefundReason); `settled_ms` when its team formed with it: 0 of all that are no members of one.
seats = Table(
    "seats",
    metadata,
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

# audit_id is shard-seq-index; each record carries the hash of the one before it.
audit = Table(
    "audit",
    metadata,
    identifier_key("audit_id"),
    *origin(),
    identifier("actor"),
    identifier("action"),
    words("subject"),
    long_document("before_json"),
    long_document("after_json"),
    words("reason"),
    big("at_ms"),
    words("hash", 128),
    words("previous_hash", 128),
    **OPTIONS,
)

positions = Table(
    "positions",
    metadata,
    small_key("shard"),
    identifier("incarnation"),
    big("seq"),
    big("updated_ms"),
    # Facts of the entries after this one are kept, up to `seq`; of those before, none or some.
    big("facts_after_seq"),
    **OPTIONS,
)

# What the feed tells of each entry that tells anything, for watchers whom the journal is too short.
facts = Table(
    "facts",
    metadata,
    small_key("shard"),
    big_key("seq"),
    big("at_ms"),
    blob("data"),
    **OPTIONS,
)

# The map of the cluster whose view this is, for when the journal's store, which has it, is lost.
cluster = Table(
    "cluster",
    metadata,
    small_key("id"),
    number("map_version"),
    identifier("incarnation"),
    long_document("map_json"),
    big("updated_ms"),
    **OPTIONS,
)

dead_letters = Table(
    "dead_letters",
    metadata,
    small_key("shard"),
    big_key("seq"),
    big_key("idx"),
    words("reason"),
    blob("record"),
    big("at_ms"),
    **OPTIONS,
)


def fed_table(name: str) -> Table:
    """The table of this name, if rows may be sent to it. ValueError names an unknown one."""
    table = metadata.tables.get(name)
    if table is None or "generation" not in table.c:
        raise ValueError(f"no table {name!r} takes rows")
    return table


def guarded_key(table: Table) -> tuple[str, ...]:
    """The columns that every row must carry: the primary key, generation and seq."""
    key: list[Column[object]] = list(table.primary_key.columns)
    return (*(column.name for column in key), "generation", "seq")

"""The rows of the SQL view that a shard's state is rebuilt from: their columns, and what of the
state they are. The other direction of `actors/rows.py`; `recover_audit.py` says what is not here.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from actors.core import records as r
from actors.core import state as s
from actors.core.campaign_config import CampaignConfig, CampaignLine, GroupRules, Tier
from actors.core.evolve_reservations import FAILED
from actors.core.evolve_stock import FIGURES, set_group
from actors.core.identity import fingerprint, request_key
from actors.core.outcomes import Outcome
from actors.core.pools import Pool
from actors.core.refunds import failed_key, payment_key
from actors.reservation_rows import PAYMENT_FAILED, PAYMENT_KEPT
from actors.stock_rows import DOCUMENT_ARRIVAL, DOCUMENT_FAILED_PAYMENT, DOCUMENT_RETURN
from persistence.sql.dump import View
from server.recover_accounts import TABLES as ACCOUNT_TABLES
from server.recover_marks import MarkRow
from server.recover_teams import SeatRow, TeamRow, packed_seat


class SkuRow(NamedTuple):
    """Of `skus`."""

    slot: int
    generation: int
    seq: int
    sku_id: str
    name: str
    attributes_json: str
    buffer_bps: int
    currency_code: str
    payment_window_ms: int
    created_ms: int
    updated_ms: int


class CampaignRow(NamedTuple):
    """Of `campaigns`."""

    slot: int
    generation: int
    seq: int
    campaign_id: str
    state: int
    config_json: str
    starts_ms: int
    ends_ms: int
    version: int
    created_ms: int
    updated_ms: int


class PoolRow(NamedTuple):
    """Of `pools`."""

    slot: int
    generation: int
    seq: int
    campaign_id: str
    sku_id: str
    total: int
    available: int
    reserved: int
    sold: int
    buffer: int
    scheduled: int
    in_transit: int
    owed: int
    granted: int
    list_price_minor: int
    unit_price_minor: int
    updated_ms: int


class DocumentRow(NamedTuple):
    """Of `stock_documents`."""

    slot: int
    generation: int
    seq: int
    caller: str
    request_id: str
    kind: int
    sku_id: str
    campaign_id: str
    quantity: int
    available: int
    buffer: int
    scheduled: int
    owed: int
    from_reserved: int
    reason: str
    fingerprint: int
    at_ms: int


class PaymentRow(NamedTuple):
    """Of `payments`."""

    slot: int
    generation: int
    seq: int
    payment_id: str
    reservation_id: str
    amount_minor: int
    state: int
    at_ms: int


class RefundRow(NamedTuple):
    """Of `refunds`."""

    slot: int
    generation: int
    seq: int
    refund_id: str
    reservation_id: str
    buyer_id: str
    payment_id: str
    payment_channel: str
    amount_minor: int
    currency_code: str
    reason: int
    compensation: int
    state: int
    attempts: int
    last_report: str
    updated_ms: int


class TransferRow(NamedTuple):
    """Of `transfers`."""

    slot: int
    generation: int
    seq: int
    transfer_id: str
    sku_id: str
    from_campaign_id: str
    to_campaign_id: str
    quantity: int
    state: int
    at_ms: int
    fingerprint: int


class ReservationRow(NamedTuple):
    """Of `reservations`."""

    slot: int
    generation: int
    seq: int
    reservation_id: str
    fingerprint: int
    campaign_id: str
    sku_id: str
    buyer_id: str
    quantity: int
    returned_quantity: int
    state: int
    list_price_minor: int
    unit_price_minor: int
    payable_minor: int
    paid_minor: int
    payment_id: str
    payment_channel: str
    reserved_ms: int
    first_deadline_ms: int
    deadline_ms: int
    payment_begun_ms: int
    fulfilment: int
    updated_ms: int


TABLES: dict[type[Any], str] = {
    SkuRow: "skus",
    CampaignRow: "campaigns",
    PoolRow: "pools",
    DocumentRow: "stock_documents",
    PaymentRow: "payments",
    RefundRow: "refunds",
    TransferRow: "transfers",
    SeatRow: "seats",
    TeamRow: "teams",
    ReservationRow: "reservations",
    MarkRow: "marks",
    **ACCOUNT_TABLES,
}


def rows_of(view: View, kind: type[Any]) -> Iterator[Any]:
    """All rows of a kind."""
    for row in view.rows(TABLES[kind], kind._fields):
        yield kind._make(row)


def time_of(row: Any) -> int:
    """When the row last changed, in journalled time."""
    found: int = row.at_ms if "at_ms" in row._fields else row.updated_ms
    return found


def put_sku(slot: s.SlotState, row: SkuRow) -> None:
    """A SKU and its base pool, which is empty still."""
    slot.generation = row.generation
    sku = slot.skus[row.sku_id] = s.Sku(Pool("", row.sku_id))
    sku.name = row.name
    sku.attributes = json.loads(row.attributes_json)
    sku.buffer_bps = row.buffer_bps
    sku.currency_code = row.currency_code
    sku.payment_window_ms = row.payment_window_ms
    sku.created_ms = row.created_ms


def put_campaign(slot: s.SlotState, row: CampaignRow) -> None:
    """A campaign and its pools, in the order of its lines, empty still."""
    slot.generation = row.generation
    told = json.loads(row.config_json)
    lines = tuple(
        CampaignLine(
            line["sku_id"],
            line["allocation"],
            line["list_price_minor"],
            line["unit_price_minor"],
            line["limit_per_buyer"],
            tuple(Tier(**tier) for tier in line.get("tiers", ())),
        )
        for line in told["lines"]
    )
    config = CampaignConfig(
        told["name"],
        told["currency_code"],
        row.starts_ms,
        row.ends_ms,
        told["payment_window_ms"],
        told["limit_per_buyer"],
        tuple(told["required_claims"]),
        lines,
        GroupRules(**told["group"]) if "group" in told else None,
        told.get("min_score", 0),
    )
    campaign = slot.campaigns[row.campaign_id] = s.Campaign(config)
    campaign.state = row.state
    campaign.version = row.version
    campaign.created_ms = row.created_ms
    campaign.updated_ms = row.updated_ms
    for line in lines:
        pool = campaign.pools[line.sku_id] = Pool(row.campaign_id, line.sku_id)
        pool.limit_per_buyer = line.limit_per_buyer
        set_group(pool, line, config)


def put_pool(pool: Pool, row: PoolRow) -> None:
    """What a pool counts, and its prices."""
    pool.total = row.total
    pool.available = row.available
    pool.reserved = row.reserved
    pool.sold = row.sold
    pool.buffer = row.buffer
    pool.scheduled = row.scheduled
    pool.in_transit = row.in_transit
    pool.owed = row.owed
    pool.granted = row.granted
    pool.list_price_minor = row.list_price_minor
    pool.unit_price_minor = row.unit_price_minor


def put_document(slot: s.SlotState, row: DocumentRow) -> None:
    """A request that is remembered for ever, with what it was answered at first."""
    slot.generation = row.generation
    if row.kind == DOCUMENT_ARRIVAL:
        slot.arrivals.put(bytes.fromhex(row.request_id), row.reason == "arrived")
        return
    if row.kind in (DOCUMENT_RETURN, DOCUMENT_FAILED_PAYMENT):
        key = bytes.fromhex(row.request_id)
    else:
        key = request_key(row.caller, row.request_id)
    slot.documents.put(key, row.fingerprint)
    if row.kind in FIGURES:
        slot.figures.put(key, FIGURES[row.kind](_record(row)))


def _record(row: DocumentRow) -> r.StockChanged:
    """The record that the row was made of."""
    return r.StockChanged(
        r.STOCK_CHANGED,
        row.slot,
        row.kind,
        row.caller,
        row.request_id,
        row.fingerprint,
        row.campaign_id,
        row.sku_id,
        row.quantity,
        row.available,
        row.buffer,
        row.scheduled,
        row.owed,
        row.reason,
        row.from_reserved,
    )


def put_payment(slot: s.SlotState, row: PaymentRow) -> None:
    """A payment's effect. One that was only begun has none; of one that failed, what a release
    before the documents of failed payments has of it."""
    if row.state >= PAYMENT_KEPT:
        outcome = Outcome.CONFIRMED if row.state == PAYMENT_KEPT else Outcome.REFUND_DUE
        effect = (row.reservation_id, row.amount_minor, int(outcome))
        slot.payments.put(payment_key(row.payment_id), effect)
    elif row.state == PAYMENT_FAILED:
        slot.documents.put(failed_key(row.reservation_id, row.payment_id), FAILED)


def packed_refund(row: RefundRow) -> tuple[Any, ...]:
    """A refund as a snapshot has it."""
    return (
        bytes.fromhex(row.refund_id[3:]),
        row.reservation_id,
        row.buyer_id,
        row.payment_id,
        row.payment_channel,
        row.amount_minor,
        row.reason,
        bool(row.compensation),
        row.state,
        row.attempts,
        bytes.fromhex(row.last_report),
        row.seq,
        row.currency_code,
    )


def put_transfer(slot: s.SlotState, row: TransferRow) -> None:
    """A transfer at its source."""
    slot.generation = row.generation
    key = bytes.fromhex(row.transfer_id)
    # Rows of before the column have 0.
    mark = row.fingerprint or fingerprint(
        row.sku_id, row.from_campaign_id, row.to_campaign_id, row.quantity
    )
    transfer = s.Transfer(
        sku_id=row.sku_id,
        from_campaign_id=row.from_campaign_id,
        to_campaign_id=row.to_campaign_id,
        quantity=row.quantity,
        fingerprint=mark,
    )
    transfer.state = row.state
    slot.transfers.put(key, transfer)
    if row.state == s.IN_TRANSIT:
        slot.open_transfers.add(key)


def packed_reservation(row: ReservationRow, seat: SeatRow | None) -> tuple[Any, ...]:
    """A reservation as a snapshot has it; `seat`: what it is beyond one."""
    payment: tuple[Any, ...] | None = None
    settled = 0 if seat is None else seat.settled_minor
    if row.payment_id:
        # Parts of a return are paid back from the total, and a revoked order is paid back whole.
        kept = row.paid_minor - settled
        refunded = settled + kept * row.returned_quantity // row.quantity
        if row.state == s.REVOKED:
            refunded = row.paid_minor
        payment = (row.payment_id, row.payment_channel, row.paid_minor, refunded)
    return (
        bytes.fromhex(row.reservation_id[3:]),
        row.campaign_id,
        row.sku_id,
        row.buyer_id,
        row.quantity,
        row.returned_quantity,
        row.state,
        row.fulfilment,
        row.fingerprint,
        row.reserved_ms,
        row.first_deadline_ms,
        row.deadline_ms,
        row.payment_begun_ms > 0,
        row.list_price_minor,
        row.unit_price_minor,
        row.payable_minor,
        row.seq if seat is None else max(row.seq, seat.seq),
        changed_ms(row, seat),
        payment if seat is None else (payment, *packed_seat(seat)),
    )


def changed_ms(row: ReservationRow, seat: SeatRow | None) -> int:
    """When a reservation last changed, or what it is as a seat."""
    return row.updated_ms if seat is None else max(row.updated_ms, seat.updated_ms)


def units_held(row: ReservationRow) -> int:
    """Units that a reservation holds or owns."""
    if row.state not in (s.RESERVED, s.CONFIRMED):
        return 0
    return row.quantity - row.returned_quantity

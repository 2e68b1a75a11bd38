"""Journal records to facts of the event feed.

Rules
-----
* A fact's index is twice its record's place in the entry; a refund that comes of the same record is
  the odd number after it. So a place says the same for ever, whatever kinds are added, and wherever
  it is read.
* A record that cannot be told is UNREADABLE at its place: the feed never goes past something in
  silence, and never stops for it.
"""

from collections.abc import Callable
from typing import Any

import structlog
from stockray_proto.v1 import event_service_pb2
from stockray_proto.v1.event_service_pb2 import Fact

from actors.core import commission_records as m
from actors.core import records as r
from actors.core import risk_records as k
from actors.core import state as s
from actors.core import team_records as t
from actors.core.codec import UnreadableEntry, unpack_told
from server.translate import fact_accounts as of_accounts
from server.translate import fact_reservations as of_reservations
from server.translate import fact_teams as of_teams
from server.translate.scalars import stamp

log = structlog.get_logger("server.events")

CAMPAIGN_STATES = {
    s.CAMPAIGN_ACTIVE: event_service_pb2.FACT_KIND_CAMPAIGN_RESUMED,
    s.CAMPAIGN_PAUSED: event_service_pb2.FACT_KIND_CAMPAIGN_PAUSED,
    s.CAMPAIGN_ENDED: event_service_pb2.FACT_KIND_CAMPAIGN_ENDED,
}
DOCUMENTS = {
    r.DOCUMENT_RECEIVE: event_service_pb2.FACT_KIND_STOCK_RECEIVED,
    r.DOCUMENT_ADJUST: event_service_pb2.FACT_KIND_STOCK_ADJUSTED,
    r.DOCUMENT_BUFFER: event_service_pb2.FACT_KIND_BUFFER_SET,
    r.DOCUMENT_SHORTAGE: event_service_pb2.FACT_KIND_SHORTAGE_DECLARED,
}


def facts_of(shard: int, seq: int, data: bytes) -> list[Fact]:
    """The facts of one entry, or of what the SQL view kept of it, in order."""
    try:
        now_ms, records = unpack_told(data)
    except UnreadableEntry as error:
        log.warning("entry_unreadable", shard=shard, seq=seq, error=str(error))
        return [Fact(shard=shard, seq=seq, kind=event_service_pb2.FACT_KIND_UNREADABLE)]
    at = stamp(now_ms)
    facts: list[Fact] = []
    for place, record in enumerate(records):
        if record is None or record[0] in r.UNTOLD:
            continue
        for index, fact in enumerate(_told(record), 2 * place):
            fact.shard, fact.seq, fact.index = shard, seq, index
            fact.time.CopyFrom(at)
            for booked in fact.entries:
                booked.entry_time.CopyFrom(at)
            facts.append(fact)
    return facts


def _told(record: Any) -> list[Fact]:
    try:
        return TOLD[record[0]](record)
    except Exception as error:  # noqa: BLE001 - one record must not stop the feed
        log.warning("record_unreadable", kind=record[0], error=repr(error))
        return [Fact(kind=event_service_pb2.FACT_KIND_UNREADABLE)]


def _sku_put(record: r.SkuPut) -> list[Fact]:
    fact = Fact(
        kind=event_service_pb2.FACT_KIND_SKU_PUT,
        sku_id=record.sku_id,
        list_price_minor=record.price_minor,
        currency_code=record.currency_code,
        caller=record.caller,
        reason=record.reason,
    )
    return [fact]


def _stock_changed(record: r.StockChanged) -> list[Fact]:
    fact = Fact(
        kind=DOCUMENTS[record.document],
        campaign_id=record.campaign_id,
        sku_id=record.sku_id,
        caller=record.caller,
        request_id=record.request_id,
        quantity=record.quantity,
        reason=record.reason,
        changes=event_service_pb2.StockChanges(
            available_count=record.available,
            buffer_count=record.buffer,
            scheduled_count=record.scheduled,
            owed_count=record.owed,
        ),
    )
    return [fact]


def _transferred_out(record: r.TransferredOut) -> list[Fact]:
    fact = Fact(
        kind=event_service_pb2.FACT_KIND_TRANSFER_SENT,
        transfer_id=record.transfer_id.hex(),
        caller=record.caller,
        request_id=record.request_id,
        sku_id=record.sku_id,
        campaign_id=record.from_campaign_id,
        from_campaign_id=record.from_campaign_id,
        to_campaign_id=record.to_campaign_id,
        quantity=record.quantity,
        reason=record.reason,
    )
    return [fact]


def _transferred_in(record: r.TransferredIn) -> list[Fact]:
    fact = Fact(
        kind=event_service_pb2.FACT_KIND_TRANSFER_ARRIVED,
        transfer_id=record.transfer_id.hex(),
        sku_id=record.sku_id,
        campaign_id=record.to_campaign_id,
        to_campaign_id=record.to_campaign_id,
        quantity=record.quantity,
        arrived=record.arrived,
    )
    return [fact]


def _transfer_ended(record: r.TransferEnded) -> list[Fact]:
    fact = Fact(
        kind=event_service_pb2.FACT_KIND_TRANSFER_ENDED,
        transfer_id=record.transfer_id.hex(),
        sku_id=record.sku_id,
        campaign_id=record.from_campaign_id,
        from_campaign_id=record.from_campaign_id,
        arrived=record.arrived,
    )
    return [fact]


def _campaign_put(record: r.CampaignPut) -> list[Fact]:
    fact = Fact(
        kind=event_service_pb2.FACT_KIND_CAMPAIGN_PUT,
        campaign_id=record.campaign_id,
        version=record.version,
        caller=record.caller,
        reason=record.reason,
    )
    return [fact]


def _campaign_state(record: r.CampaignStateSet) -> list[Fact]:
    fact = Fact(
        kind=CAMPAIGN_STATES[record.state],
        campaign_id=record.campaign_id,
        caller=record.caller,
        reason=record.reason,
    )
    return [fact]


TOLD: dict[int, Callable[[Any], list[Fact]]] = {
    r.SKU_PUT: _sku_put,
    r.STOCK_CHANGED: _stock_changed,
    r.TRANSFERRED_OUT: _transferred_out,
    r.TRANSFERRED_IN: _transferred_in,
    r.TRANSFER_ENDED: _transfer_ended,
    r.CAMPAIGN_PUT: _campaign_put,
    r.CAMPAIGN_STATE_SET: _campaign_state,
    r.STOCK_RESERVED: of_reservations.reserved,
    r.RESERVATION_CONFIRMED: of_reservations.confirmed,
    r.RESERVATION_RELEASED: of_reservations.released,
    r.RESERVATION_EXPIRED: of_reservations.expired,
    r.PAYMENT_BEGUN: of_reservations.payment_begun,
    r.PAYMENT_FAILED: of_reservations.payment_failed,
    r.REFUND_FELL_DUE: of_reservations.refund_fell_due,
    r.UNITS_RETURNED: of_reservations.units_returned,
    r.FULFILMENT_REPORTED: of_reservations.fulfilment,
    r.REFUND_REPORTED: of_reservations.refund_reported,
    r.RESERVATION_REVOKED: of_reservations.revoked,
    t.TEAM_OPENED: of_teams.team_opened,
    t.SEAT_TAKEN: of_teams.seat_taken,
    t.TEAM_LED: of_teams.team_led,
    t.SEAT_MOVED: of_teams.seat_moved,
    t.SEAT_CLOSED: of_teams.seat_closed,
    t.TEAM_NEARLY_FULL: of_teams.nearly_full,
    t.TEAM_FORMED: of_teams.team_formed,
    t.SEAT_SETTLED: of_teams.seat_settled,
    t.TEAM_CLOSED: of_teams.team_closed,
    m.DISTRIBUTOR_SET: of_accounts.distributor_set,
    m.BUYER_BOUND: of_accounts.buyer_bound,
    m.RATES_PUT: of_accounts.rates_put,
    m.ORDER_ACCRUED: of_accounts.order_accrued,
    m.ORDER_REVERSED: of_accounts.order_reversed,
    m.ORDER_MATURED: of_accounts.order_matured,
    m.MATURITY_MOVED: of_accounts.maturity_moved,
    m.DISTRIBUTOR_HELD: of_accounts.distributor_held,
    m.STATEMENT_MADE: of_accounts.statement_made,
    m.WITHDRAWAL_REQUESTED: of_accounts.withdrawal_requested,
    m.WITHDRAWAL_REVIEWED: of_accounts.withdrawal_reviewed,
    k.BUYER_FROZEN: of_accounts.buyer_frozen,
    k.BUYER_UNFROZEN: of_accounts.buyer_unfrozen,
}
"""Every kind but the untold ones."""

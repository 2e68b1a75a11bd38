"""Records of account shards as facts: commission and freezes. See `fact.py`, which sets the times.

What a record books is told whole, by the lines of the ledger that are in it: whoever adds up all
lines of the feed has every distributor's balances.
"""

from collections.abc import Sequence
from typing import Any

from stockray_proto.v1 import event_service_pb2
from stockray_proto.v1.commission_service_pb2 import CommissionEntry
from stockray_proto.v1.event_service_pb2 import Fact

from actors.core import commission_records as m
from actors.core import risk_records as k
from actors.core.commission_state import FOR_EVER_MS
from actors.core.identity import public_id
from server.translate.commission_views import entry_message
from server.translate.scalars import stamp, stamp_or_none


def distributor_set(record: m.DistributorSet) -> list[Fact]:
    fact = Fact(
        kind=event_service_pb2.FACT_KIND_DISTRIBUTOR_SET,
        distributor_id=record.distributor_id,
        distributor_state=record.state,  # type: ignore[arg-type]
        share_code=record.share_code,
        caller=record.caller,
        reason=record.reason,
    )
    return [fact]


def buyer_bound(record: m.BuyerBound) -> list[Fact]:
    fact = Fact(
        kind=event_service_pb2.FACT_KIND_BUYER_BOUND,
        buyer_id=record.buyer_id,
        distributor_id=record.distributor_id,
        share_code=record.share_code,
        reservation_id=record.reservation_id,
        deadline_time=None if record.until_ms >= FOR_EVER_MS else stamp(record.until_ms),
        caller=record.caller,
    )
    return [fact]


def rates_put(record: m.RatesPut) -> list[Fact]:
    fact = Fact(
        kind=event_service_pb2.FACT_KIND_RATES_PUT,
        version=record.version,
        caller=record.caller,
        reason=record.reason,
    )
    return [fact]


def order_accrued(record: m.OrderAccrued) -> list[Fact]:
    fact = Fact(
        kind=event_service_pb2.FACT_KIND_COMMISSION_ACCRUED,
        reservation_id=record.reservation_id,
        buyer_id=record.buyer_id,
        distributor_id=record.referrer_id,
        share_code=record.share_code,
        campaign_id=record.campaign_id,
        sku_id=record.sku_id,
        quantity=record.quantity,
        paid_minor=record.base_minor,
        currency_code=record.currency_code,
        version=record.version,
        deadline_time=stamp(record.matures_ms),
        entries=_booked(record.entries),
    )
    return [fact]


def order_reversed(record: m.OrderReversed) -> list[Fact]:
    fact = Fact(
        kind=event_service_pb2.FACT_KIND_COMMISSION_REVERSED,
        reservation_id=record.reservation_id,
        distributor_id=record.referrer_id,
        quantity=record.returned_total,
        entries=_booked(record.entries),
    )
    return [fact]


def order_matured(record: m.OrderMatured) -> list[Fact]:
    fact = Fact(
        kind=event_service_pb2.FACT_KIND_COMMISSION_AVAILABLE,
        reservation_id=record.reservation_id,
        entries=_booked(record.entries),
    )
    return [fact]


def maturity_moved(record: m.MaturityMoved) -> list[Fact]:
    fact = Fact(
        kind=event_service_pb2.FACT_KIND_COMMISSION_DUE_SET,
        reservation_id=record.reservation_id,
        deadline_time=stamp(record.matures_ms),
    )
    return [fact]


def distributor_held(record: m.DistributorHeld) -> list[Fact]:
    fact = Fact(
        kind=event_service_pb2.FACT_KIND_DISTRIBUTOR_HELD,
        distributor_id=record.distributor_id,
        deadline_time=stamp_or_none(record.until_ms),
        caller=record.caller,
        reason=record.reason,
    )
    return [fact]


def statement_made(record: m.StatementMade) -> list[Fact]:
    fact = Fact(
        kind=event_service_pb2.FACT_KIND_COMMISSION_SETTLED,
        distributor_id=record.distributor_id,
        month=record.month,
        amount_minor=record.closing_minor,
        currency_code=record.currency_code,
        caller=record.caller,
        reason=record.reason,
        entries=_booked(record.entries),
    )
    return [fact]


def withdrawal_requested(record: m.WithdrawalRequested) -> list[Fact]:
    fact = Fact(
        kind=event_service_pb2.FACT_KIND_WITHDRAWAL_REQUESTED,
        distributor_id=record.distributor_id,
        withdrawal_id=public_id(record.slot, record.key),
        request_id=record.request_id,
        amount_minor=record.amount_minor,
        currency_code=record.currency_code,
        caller=record.caller,
        reason=record.reason,
        entries=_booked(record.entries),
    )
    return [fact]


def withdrawal_reviewed(record: m.WithdrawalReviewed) -> list[Fact]:
    fact = Fact(
        kind=event_service_pb2.FACT_KIND_WITHDRAWAL_REVIEWED,
        distributor_id=record.distributor_id,
        withdrawal_id=public_id(record.slot, record.key),
        withdrawal_state=record.state,  # type: ignore[arg-type]
        reference=record.reference,
        caller=record.caller,
        reason=record.reason,
        entries=_booked(record.entries),
    )
    return [fact]


def buyer_frozen(record: k.BuyerFrozen) -> list[Fact]:
    fact = Fact(
        kind=event_service_pb2.FACT_KIND_BUYER_FROZEN,
        buyer_id=record.buyer_id,
        deadline_time=stamp(record.until_ms),
        freeze_cause=record.cause,  # type: ignore[arg-type]
        caller=record.caller,
        reason=record.reason,
    )
    return [fact]


def buyer_unfrozen(record: k.BuyerUnfrozen) -> list[Fact]:
    fact = Fact(
        kind=event_service_pb2.FACT_KIND_BUYER_UNFROZEN,
        buyer_id=record.buyer_id,
        caller=record.caller,
        reason=record.reason,
    )
    return [fact]


def _booked(entries: Sequence[Any]) -> list[CommissionEntry]:
    return [entry_message(0, entry) for entry in entries]

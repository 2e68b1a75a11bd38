"""Records of reservations, payments and refunds as facts. See `fact.py`."""

from typing import Any

from stockray_proto.v1 import common_pb2, event_service_pb2, reservation_pb2
from stockray_proto.v1.event_service_pb2 import Fact

from actors.core import records as r
from actors.core.identity import public_id
from actors.core.refunds import RefundReason, return_refund_key
from server.translate.scalars import stamp


def reserved(record: Any) -> list[Fact]:
    """A StockReserved or a SeatTaken, which begins with the same fields."""
    fact = Fact(
        kind=event_service_pb2.FACT_KIND_RESERVED,
        campaign_id=record.campaign_id,
        sku_id=record.sku_id,
        reservation_id=public_id(record.slot, record.key),
        buyer_id=record.buyer_id,
        caller=record.caller,
        request_id=record.request_id,
        order_id=record.order_id,
        quantity=record.quantity,
        list_price_minor=record.list_price_minor,
        unit_price_minor=record.unit_price_minor,
        payable_minor=record.payable_minor,
        currency_code=record.currency_code,
        deadline_time=stamp(record.deadline_ms),
    )
    if record.device_id or record.ip or record.claims:
        fact.buyer.CopyFrom(
            common_pb2.BuyerContext(
                buyer_id=record.buyer_id,
                device_id=record.device_id,
                ip=record.ip,
                claims=record.claims,
            )
        )
    if record.share_code or record.channel or record.experiment:
        fact.attribution.CopyFrom(
            common_pb2.Attribution(
                share_code=record.share_code,
                channel=record.channel,
                experiment=record.experiment,
            )
        )
    return [fact]


def _held(kind: event_service_pb2.FactKind.ValueType, record: Any, **fields: Any) -> Fact:
    """A fact of a reservation that its record names by its key."""
    return Fact(
        kind=kind,
        campaign_id=record.campaign_id,
        reservation_id=public_id(record.slot, record.key),
        **fields,
    )


def confirmed(record: r.ReservationConfirmed) -> list[Fact]:
    fact = _held(
        event_service_pb2.FACT_KIND_CONFIRMED,
        record,
        payment_id=record.payment_id,
        payment_channel=record.payment_channel,
        paid_minor=record.paid_minor,
        reacquired=record.reacquired,
    )
    return [fact]


def released(record: r.ReservationReleased) -> list[Fact]:
    return [_held(event_service_pb2.FACT_KIND_RELEASED, record, reason=record.reason)]


def expired(record: r.ReservationExpired) -> list[Fact]:
    return [_held(event_service_pb2.FACT_KIND_EXPIRED, record)]


def payment_begun(record: r.PaymentBegun) -> list[Fact]:
    fact = _held(
        event_service_pb2.FACT_KIND_PAYMENT_BEGUN,
        record,
        payment_id=record.payment_id,
        payment_channel=record.payment_channel,
        deadline_time=stamp(record.deadline_ms),
    )
    return [fact]


def payment_failed(record: r.PaymentFailed) -> list[Fact]:
    fact = _held(
        event_service_pb2.FACT_KIND_PAYMENT_FAILED,
        record,
        payment_id=record.payment_id,
        payment_channel=record.payment_channel,
        paid_minor=record.paid_minor,
    )
    return [fact]


def _refund_due(
    record: Any,
    *,
    key: bytes,
    reservation_id: str,
    amount_minor: int,
    reason: int,
    compensation: bool = False,
) -> Fact:
    """The refund that a record speaks of. All such records name buyer, payment and campaign."""
    return Fact(
        kind=event_service_pb2.FACT_KIND_REFUND_DUE,
        campaign_id=record.campaign_id,
        reservation_id=reservation_id,
        buyer_id=record.buyer_id,
        payment_id=record.payment_id,
        payment_channel=record.payment_channel,
        currency_code=record.currency_code,
        refund=reservation_pb2.Refund(
            refund_id=public_id(record.slot, key),
            reservation_id=reservation_id,
            payment_id=record.payment_id,
            payment_channel=record.payment_channel,
            amount_minor=amount_minor,
            currency_code=record.currency_code,
            reason=reason,  # type: ignore[arg-type]
            compensation=compensation,
            state=reservation_pb2.REFUND_STATE_DUE,
            campaign_id=record.campaign_id,
            buyer_id=record.buyer_id,
        ),
    )


def refund_fell_due(record: r.RefundFellDue) -> list[Fact]:
    fact = _refund_due(
        record,
        key=record.refund_key,
        reservation_id=record.reservation_id,
        amount_minor=record.amount_minor,
        reason=record.reason,
        compensation=record.compensation,
    )
    return [fact]


def with_refund(
    fact: Fact, record: Any, key: bytes, reason: int, compensation: bool = False
) -> list[Fact]:
    """What happened to a reservation, and the refund that came of it if there is one."""
    if not key:
        return [fact]
    due = _refund_due(
        record,
        key=key,
        reservation_id=fact.reservation_id,
        amount_minor=record.refund_minor,
        reason=reason,
        compensation=compensation,
    )
    return [fact, due]


def units_returned(record: r.UnitsReturned) -> list[Fact]:
    fact = _held(
        event_service_pb2.FACT_KIND_RETURNED,
        record,
        buyer_id=record.buyer_id,
        quantity=record.quantity,
        state=record.state,
        reason=record.reason,
    )
    key = return_refund_key(record.request_key) if record.refund_key else b""
    return with_refund(fact, record, key, RefundReason.RETURN)


def revoked(record: r.ReservationRevoked) -> list[Fact]:
    fact = _held(
        event_service_pb2.FACT_KIND_REVOKED,
        record,
        buyer_id=record.buyer_id,
        quantity=record.quantity,
    )
    return with_refund(fact, record, record.refund_key, RefundReason.SHORTAGE, True)


def fulfilment(record: r.FulfilmentReported) -> list[Fact]:
    return [_held(event_service_pb2.FACT_KIND_FULFILMENT_REPORTED, record, stage=record.stage)]


def refund_reported(record: r.RefundReported) -> list[Fact]:
    closed = record.closed
    fact = Fact(
        kind=event_service_pb2.FACT_KIND_REFUND_CLOSED
        if closed
        else event_service_pb2.FACT_KIND_REFUND_FAILED,
        campaign_id=record.campaign_id,
        reservation_id=record.reservation_id,
        reference=record.reference,
        refund=reservation_pb2.Refund(
            refund_id=public_id(record.slot, record.refund_key),
            reservation_id=record.reservation_id,
            state=reservation_pb2.REFUND_STATE_REFUNDED
            if closed
            else reservation_pb2.REFUND_STATE_DUE,
            attempt_count=record.attempts,
            failed_attempt_count=record.attempts - closed,
            campaign_id=record.campaign_id,
        ),
    )
    return [fact]

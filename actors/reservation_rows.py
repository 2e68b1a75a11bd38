"""Records of reservations, payments and refunds as SQL rows. See `rows.py`."""

import json
from collections.abc import Sequence
from typing import Any

from actors.core import records as r
from actors.core import state as s
from actors.core.evolve_reservations import FAILED
from actors.core.identity import buyer_part, public_id
from actors.core.refunds import RefundReason, failed_key, return_refund_key
from actors.stock_rows import DOCUMENT_FAILED_PAYMENT, DOCUMENT_RETURN, Row, document

PAYMENT_BEGUN, PAYMENT_FAILED, PAYMENT_KEPT, PAYMENT_REFUND_DUE = 1, 2, 3, 4
"""States of a row in `payments`."""


RESERVED_COLUMNS = (
    "buyer_part",
    "reservation_id",
    "slot",
    "generation",
    "seq",
    "caller",
    "request_id",
    "fingerprint",
    "campaign_id",
    "sku_id",
    "buyer_id",
    "device_id",
    "ip",
    "claims_json",
    "share_code",
    "channel",
    "experiment",
    "order_id",
    "quantity",
    "state",
    "list_price_minor",
    "unit_price_minor",
    "payable_minor",
    "currency_code",
    "reserved_ms",
    "first_deadline_ms",
    "deadline_ms",
    "updated_ms",
)
"""Of a new reservation, in the table's own order: then the sink has nothing to put in order."""


def reserved_values(record: tuple[Any, ...], now_ms: int, seq: int) -> tuple[Any, ...]:
    """The row of a new reservation, as `RESERVED_COLUMNS` says.

    Most rows of a sale are these, so they are made without a dict: that took 8 us, and takes 2."""
    (
        _,
        slot,
        key,
        caller,
        request_id,
        fingerprint,
        campaign_id,
        sku_id,
        quantity,
        buyer_id,
        list_price_minor,
        unit_price_minor,
        payable_minor,
        currency_code,
        deadline_ms,
        order_id,
        device_id,
        ip,
        claims,
        share_code,
        channel,
        experiment,
    ) = record
    return (
        buyer_part(buyer_id),
        public_id(slot, key),
        slot,
        s.GENERATION,
        seq,
        caller,
        request_id,
        fingerprint,
        campaign_id,
        sku_id,
        buyer_id,
        device_id,
        ip,
        json.dumps(claims, ensure_ascii=False) if claims else "[]",
        share_code,
        channel,
        experiment,
        order_id,
        quantity,
        s.RESERVED,
        list_price_minor,
        unit_price_minor,
        payable_minor,
        currency_code,
        now_ms,
        deadline_ms,
        deadline_ms,
        now_ms,
    )


def confirmed(record: r.ReservationConfirmed, now_ms: int) -> Sequence[Row]:
    columns = {
        "state": s.CONFIRMED,
        "payment_id": record.payment_id,
        "payment_channel": record.payment_channel,
        "paid_minor": record.paid_minor,
        "confirmed_ms": now_ms,
        "ended_ms": 0,
        "updated_ms": now_ms,
    }
    return [
        reservation(record.slot, record.key, record.part, columns),
        _payment(
            record,
            now_ms,
            PAYMENT_KEPT,
            reservation_id=public_id(record.slot, record.key),
            amount_minor=record.paid_minor,
        ),
    ]


def released(record: r.ReservationReleased, now_ms: int) -> Sequence[Row]:
    return [_ended(record, now_ms, s.RELEASED)]


def expired(record: r.ReservationExpired, now_ms: int) -> Sequence[Row]:
    return [_ended(record, now_ms, s.EXPIRED)]


def payment_begun(record: r.PaymentBegun, now_ms: int) -> Sequence[Row]:
    columns = {
        "deadline_ms": record.deadline_ms,
        "payment_begun_ms": now_ms,
        "updated_ms": now_ms,
    }
    reservation_id = public_id(record.slot, record.key)
    return [
        reservation(record.slot, record.key, record.part, columns),
        _payment(record, now_ms, PAYMENT_BEGUN, reservation_id=reservation_id),
    ]


def payment_failed(record: r.PaymentFailed, now_ms: int) -> Sequence[Row]:
    reservation_id = public_id(record.slot, record.key)
    request = failed_key(reservation_id, record.payment_id).hex()
    other = {"fingerprint": FAILED}
    return [
        _payment(
            record,
            now_ms,
            PAYMENT_FAILED,
            reservation_id=reservation_id,
            amount_minor=record.paid_minor,
        ),
        # The payment's row may come to speak of another reservation.
        document(DOCUMENT_FAILED_PAYMENT, "", request, 0, now_ms, other, record.slot),
    ]


def refund_fell_due(record: r.RefundFellDue, now_ms: int) -> Sequence[Row]:
    return [
        refund(
            record.slot,
            record.refund_key,
            record.reservation_id,
            record,
            record.amount_minor,
            record.reason,
            record.compensation,
            now_ms,
        ),
        _payment(
            record,
            now_ms,
            PAYMENT_REFUND_DUE,
            reservation_id=record.reservation_id,
            amount_minor=record.amount_minor,
        ),
    ]


def units_returned(record: r.UnitsReturned, now_ms: int) -> Sequence[Row]:
    columns = {
        "returned_quantity": record.returned_total,
        "state": record.state,
        "updated_ms": now_ms,
    }
    if record.state == s.RETURNED:
        columns["ended_ms"] = now_ms
    other = {"fingerprint": record.fingerprint, "reason": record.reason}
    request = record.request_key.hex()
    rows = [
        reservation(record.slot, record.key, record.part, columns),
        document(DOCUMENT_RETURN, "", request, record.quantity, now_ms, other, record.slot),
    ]
    if record.refund_key:
        reason = int(RefundReason.RETURN)
        reservation_id = public_id(record.slot, record.key)
        amount = record.refund_minor
        key = return_refund_key(record.request_key)
        rows.append(refund(record.slot, key, reservation_id, record, amount, reason, False, now_ms))
    return rows


def fulfilment(record: r.FulfilmentReported, now_ms: int) -> Sequence[Row]:
    columns = {
        "fulfilment": record.stage,
        "fulfilled_ms": record.at_ms,
        "updated_ms": now_ms,
    }
    return [reservation(record.slot, record.key, record.part, columns)]


def refund_reported(record: r.RefundReported, now_ms: int) -> Sequence[Row]:
    columns: dict[str, Any] = {
        "state": s.REFUND_CLOSED if record.closed else s.REFUND_DUE,
        "attempts": record.attempts,
        "reference": record.reference,
        "last_report": record.request_key.hex(),
        "updated_ms": now_ms,
    }
    if record.closed:
        columns["closed_ms"] = now_ms
    return [("refunds", {"refund_id": public_id(record.slot, record.refund_key)}, columns)]


def revoked(record: r.ReservationRevoked, now_ms: int) -> Sequence[Row]:
    rows = [_ended(record, now_ms, s.REVOKED)]
    if record.refund_key:
        reason = int(RefundReason.SHORTAGE)
        reservation_id = public_id(record.slot, record.key)
        key, amount = record.refund_key, record.refund_minor
        rows.append(refund(record.slot, key, reservation_id, record, amount, reason, True, now_ms))
    return rows


def reservation(slot: int, key: bytes, part: int, columns: dict[str, Any]) -> Row:
    return "reservations", {"buyer_part": part, "reservation_id": public_id(slot, key)}, columns


def _payment(record: Any, now_ms: int, state: int, **columns: Any) -> Row:
    key = {"slot": record.slot, "payment_id": record.payment_id}
    channel = record.payment_channel
    return (
        "payments",
        key,
        {"payment_channel": channel, "state": state, "at_ms": now_ms, **columns},
    )


def refund(  # noqa: PLR0917
    slot: int,
    key: bytes,
    reservation_id: str,
    record: Any,
    amount_minor: int,
    reason: int,
    compensation: bool,
    now_ms: int,
) -> Row:
    columns = {
        "reservation_id": reservation_id,
        "buyer_id": record.buyer_id,
        "payment_id": record.payment_id,
        "payment_channel": record.payment_channel,
        "amount_minor": amount_minor,
        "reason": reason,
        "compensation": int(compensation),
        "campaign_id": record.campaign_id,
        "currency_code": record.currency_code,
        "state": s.REFUND_DUE,
        "due_ms": now_ms,
        "updated_ms": now_ms,
    }
    return "refunds", {"refund_id": public_id(slot, key)}, columns


def _ended(record: Any, now_ms: int, state: int) -> Row:
    columns = {"state": state, "ended_ms": now_ms, "updated_ms": now_ms}
    return reservation(record.slot, record.key, record.part, columns)

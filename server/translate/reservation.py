"""Reading a reservation, and reports about it that move no stock."""

from collections.abc import Sequence
from typing import Any

from stockray_proto.v1 import inventory_service_pb2, reservation_pb2

from actors.core import commands as c
from actors.core.identity import public_id
from server.handlers import CallContext
from server.translate.payment import slot_of_public_id
from server.translate.scalars import stamp
from server.validate import REFERENCE_LENGTH_MAX, Violations

CLOCK_SKEW_MAX_MS = 10_000
"""A report may be this far ahead of the gateway's clock and still count as not later than now."""


def get_reservation_command(
    request: inventory_service_pb2.GetReservationRequest, context: CallContext
) -> c.GetReservation | None:
    """GetReservation; None for an id that no shard can know. Raises CallError."""
    wrong = Violations()
    wrong.id("reservation_id", request.reservation_id)
    wrong.refuse()
    slot = slot_of_public_id(request.reservation_id)
    if slot is None:
        return None
    return c.GetReservation(
        c.GET_RESERVATION, slot, context.deadline_ms, context.caller, request.reservation_id
    )


def reservation_message(
    slot: int, view: Sequence[Any]
) -> tuple[reservation_pb2.Reservation, reservation_pb2.Payment | None]:
    """A reservation as its shard knows it, and the payment that confirmed it."""
    (key, campaign_id, sku_id, buyer_id, quantity, returned, state, stage) = view[:8]
    (list_price, unit_price, payable, currency, reserved_ms, deadline_ms, begun) = view[8:15]
    team_key, paid = view[15:17]
    reservation = reservation_pb2.Reservation(
        reservation_id=public_id(slot, key),
        campaign_id=campaign_id,
        sku_id=sku_id,
        buyer_id=buyer_id,
        quantity=quantity,
        returned_quantity=returned,
        state=state,
        fulfilment_stage=stage,
        list_price_minor=list_price,
        unit_price_minor=unit_price,
        payable_minor=payable,
        currency_code=currency,
        reserve_time=stamp(reserved_ms),
        deadline_time=stamp(deadline_ms),
        payment_begun=begun,
        team_id=public_id(slot, team_key) if team_key else "",
    )
    if paid is None:
        return reservation, None
    payment_id, channel, amount, refunded = paid
    reservation.paid_minor = amount
    reservation.refunded_minor = refunded
    payment = reservation_pb2.Payment(
        payment_id=payment_id,
        payment_channel=channel,
        reservation_id=reservation.reservation_id,
        outcome=reservation_pb2.PAYMENT_OUTCOME_SUCCEEDED,
        paid_minor=amount,
    )
    return reservation, payment


def report_fulfilment_command(
    request: inventory_service_pb2.ReportFulfilmentRequest, context: CallContext
) -> c.ReportFulfilment | None:
    """ReportFulfilment; None for an id that no shard can know. Raises CallError."""
    now_ms, wrong = context.now_ms(), Violations()
    wrong.id("reservation_id", request.reservation_id)
    wrong.known("stage", request.stage, reservation_pb2.FulfilmentStage.Name)
    if request.stage == reservation_pb2.FULFILMENT_STAGE_UNSPECIFIED:
        wrong.add("stage", "required: SHIPPED, DELIVERED or COMPLETED")
    at_ms = now_ms
    if request.HasField("fulfilment_time"):
        at_ms = wrong.instant("fulfilment_time", request.fulfilment_time)
        if at_ms > now_ms + CLOCK_SKEW_MAX_MS:
            wrong.add("fulfilment_time", "not later than now")
    wrong.refuse()
    slot = slot_of_public_id(request.reservation_id)
    if slot is None:
        return None
    return c.ReportFulfilment(
        c.REPORT_FULFILMENT,
        slot,
        context.deadline_ms,
        context.caller,
        request.reservation_id,
        request.stage,
        at_ms,
    )


def report_refund_command(
    request: inventory_service_pb2.ReportRefundRequest, context: CallContext
) -> c.ReportRefund | None:
    """ReportRefund; None for an id that no shard can know. Raises CallError."""
    wrong = Violations()
    wrong.id("request_id", request.request_id)
    wrong.id("refund_id", request.refund_id)
    if request.outcome not in (
        inventory_service_pb2.REFUND_OUTCOME_SUCCEEDED,
        inventory_service_pb2.REFUND_OUTCOME_FAILED,
    ):
        wrong.add("outcome", "required: SUCCEEDED or FAILED")
    wrong.text("reference", request.reference, REFERENCE_LENGTH_MAX)
    wrong.refuse()
    slot = slot_of_public_id(request.refund_id)
    if slot is None:
        return None
    return c.ReportRefund(
        c.REPORT_REFUND,
        slot,
        context.deadline_ms,
        context.caller,
        request.refund_id,
        request.outcome == inventory_service_pb2.REFUND_OUTCOME_SUCCEEDED,
        request.request_id,
        request.reference,
    )

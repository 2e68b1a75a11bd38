"""Money owed back: why, under which id, and as it travels."""

from enum import IntEnum
from typing import Any

from actors.core.identity import request_key
from actors.core.state import Refund, SlotState


class RefundReason(IntEnum):
    """Why money is owed back; numbered as `stockray.v1.RefundReason`."""

    WRONG_AMOUNT = 1
    SECOND_PAYMENT = 2
    LATE_PAYMENT = 3
    NOT_HELD = 4
    RETURN = 5
    SHORTAGE = 6
    LEFT_TEAM = 7
    TEAM_FAILED = 8
    TEAM_PRICE = 9


def payment_key(payment_id: str) -> bytes:
    """What a payment id is stored under; also the key of the refund of the whole payment."""
    return request_key("payment", payment_id)


def failed_key(reservation_id: str, payment_id: str) -> bytes:
    """What the report of a failed attempt is remembered under."""
    return request_key(f"failed/{reservation_id}", payment_id)


def return_refund_key(key: bytes) -> bytes:
    """The refund of a return is named after the return's request."""
    return request_key("return", key.hex())


def refund_view(slot: SlotState, refund: Refund | None) -> tuple[Any, ...] | None:
    """A refund as it travels in answers."""
    if refund is None:
        return None
    return (
        refund.key,
        refund.reservation_id,
        refund.payment_id,
        refund.channel,
        refund.amount_minor,
        refund.reason,
        refund.compensation,
        refund.state,
        refund.attempts,
        refund.currency_code,
    )

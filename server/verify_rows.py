"""The fold as rows of the SQL view, for `verify` to compare: columns, and what a slot should have.

The first two columns of each table name a row.
"""

from collections.abc import Iterator
from typing import Any

from actors.core import state as s
from actors.core.identity import public_id
from actors.core.outcomes import Outcome
from actors.rows import PAYMENT_KEPT, PAYMENT_REFUND_DUE

POOL_COLUMNS = (
    "campaign_id",
    "sku_id",
    "slot",
    "total",
    "available",
    "reserved",
    "sold",
    "buffer",
    "scheduled",
    "in_transit",
    "owed",
)
RESERVATION_COLUMNS = (
    "slot",
    "reservation_id",
    "campaign_id",
    "sku_id",
    "buyer_id",
    "quantity",
    "returned_quantity",
    "state",
    "list_price_minor",
    "unit_price_minor",
    "payable_minor",
    "paid_minor",
    "payment_id",
    "fingerprint",
    "reserved_ms",
    "deadline_ms",
    "fulfilment",
)
REFUND_COLUMNS = (
    "slot",
    "refund_id",
    "reservation_id",
    "buyer_id",
    "payment_id",
    "payment_channel",
    "amount_minor",
    "reason",
    "compensation",
    "state",
    "attempts",
)
PAYMENT_COLUMNS = ("slot", "payment_id", "reservation_id", "amount_minor", "state")


def pool_rows(slot: s.SlotState) -> Iterator[tuple[Any, ...]]:
    """The slot's pools."""
    for pool in slot.pools():
        _, _, *rest = pool.balance(slot.slot, slot.generation)
        campaign_id, sku_id, *numbers = rest
        yield (campaign_id, sku_id, slot.slot, *numbers)


def reservation_rows(slot: s.SlotState) -> Iterator[tuple[Any, ...]]:
    """The slot's reservations."""
    for held in slot.reservations.values():
        payment = held.payment
        yield (
            slot.slot,
            public_id(slot.slot, held.key),
            held.pool.campaign_id,
            held.pool.sku_id,
            held.buyer_id,
            held.quantity,
            held.returned,
            held.state,
            held.list_price_minor,
            held.unit_price_minor,
            held.payable_minor,
            0 if payment is None else payment.amount_minor,
            "" if payment is None else payment.payment_id,
            held.fingerprint,
            held.reserved_ms,
            held.deadline_ms,
            held.stage,
        )


def refund_rows(slot: s.SlotState) -> Iterator[tuple[Any, ...]]:
    """The slot's refunds."""
    for refund in slot.refunds.values():
        yield (
            slot.slot,
            public_id(slot.slot, refund.key),
            refund.reservation_id,
            refund.buyer_id,
            refund.payment_id,
            refund.channel,
            refund.amount_minor,
            refund.reason,
            int(refund.compensation),
            refund.state,
            refund.attempts,
        )


def payment_rows(slot: s.SlotState) -> Iterator[tuple[Any, ...]]:
    """Payments that took effect: kept (3) or refund due as a whole (4)."""
    for held in slot.reservations.values():
        if held.payment is not None:
            yield (
                slot.slot,
                held.payment.payment_id,
                public_id(slot.slot, held.key),
                held.payment.amount_minor,
                PAYMENT_KEPT,
            )
    for key, refund in slot.refunds.items():
        effect = slot.payments.get(key)
        if effect is not None and effect[2] == Outcome.REFUND_DUE:
            yield (
                slot.slot,
                refund.payment_id,
                refund.reservation_id,
                refund.amount_minor,
                PAYMENT_REFUND_DUE,
            )

"""The fold as rows of the SQL view, for `verify` to compare: columns, and what a slot should have.

The first two columns of each table name a row.
"""

from collections.abc import Collection, Iterator
from typing import Any

from actors.core import records as r
from actors.core import state as s
from actors.core.evolve_reservations import from_recalled
from actors.core.identity import public_id
from actors.core.outcomes import Outcome
from actors.core.snapshot_rows import PACK
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


Held = Collection[s.Reservation]
"""A slot's reservations, the forgotten ones too."""


def known(state: s.ShardState, slot: s.SlotState) -> Held:
    """What the fold knows of the slot's reservations: those in memory and those forgotten in it."""
    archived = (state.archive or {}).get(slot.slot, {})
    return [*slot.reservations.values(), *archived.values()]


def find(state: s.ShardState, slot: s.SlotState, key: bytes) -> s.Reservation | None:
    """One of them."""
    return slot.reservations.get(key) or (state.archive or {}).get(slot.slot, {}).get(key)


def same_row(state: s.ShardState, slot: s.SlotState, record: r.ReservationRecalled) -> bool:
    """Whether a reservation came back as it was when it was forgotten, if the fold knows that."""
    was = (state.archive or {}).get(slot.slot, {}).get(record.key)
    if was is None:
        return True
    rows = [
        PACK["reservations"](record.key, row) for row in (was, from_recalled(state, slot, record))
    ]
    # All but the entry and the time of the last change, before the payment.
    return rows[0][:-3] == rows[1][:-3] and rows[0][-1] == rows[1][-1]


def pool_rows(slot: s.SlotState, held: Held) -> Iterator[tuple[Any, ...]]:
    """The slot's pools."""
    for pool in slot.pools():
        _, _, *rest = pool.balance(slot.slot, slot.generation)
        campaign_id, sku_id, *numbers = rest
        yield (campaign_id, sku_id, slot.slot, *numbers)


def reservation_rows(slot: s.SlotState, held: Held) -> Iterator[tuple[Any, ...]]:
    """The slot's reservations."""
    for row in held:
        payment = row.payment
        yield (
            slot.slot,
            public_id(slot.slot, row.key),
            row.pool.campaign_id,
            row.pool.sku_id,
            row.buyer_id,
            row.quantity,
            row.returned,
            row.state,
            row.list_price_minor,
            row.unit_price_minor,
            row.payable_minor,
            0 if payment is None else payment.amount_minor,
            "" if payment is None else payment.payment_id,
            row.fingerprint,
            row.reserved_ms,
            row.deadline_ms,
            row.stage,
        )


def refund_rows(slot: s.SlotState, held: Held) -> Iterator[tuple[Any, ...]]:
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


def payment_rows(slot: s.SlotState, held: Held) -> Iterator[tuple[Any, ...]]:
    """Payments that took effect: kept (3) or refund due as a whole (4)."""
    for row in held:
        if row.payment is not None:
            yield (
                slot.slot,
                row.payment.payment_id,
                public_id(slot.slot, row.key),
                row.payment.amount_minor,
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

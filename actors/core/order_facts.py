"""From the records of a stock shard to the facts that account shards learn of them. Pure.

Each fact concerns one account slot: what may earn concerns that of the programme, what says how a
buyer behaves concerns the buyer's own. Records of releases before the facts lack what a fact is
made of, and make none.
"""

from collections.abc import Callable, Sequence
from typing import Any

from actors.core import facts as f
from actors.core import records as r
from actors.core import team_records as t
from actors.core.identity import PROGRAMME_SLOT, account_slot, public_id

Addressed = tuple[int, Any]
"""An account slot, and a fact for it."""
Add = Callable[[Addressed], None]

DELIVERED_STAGE = 2
NEW_BUYER_CLAIM = "new_user"
"""Among the claims of a reservation: the caller's word that the buyer is new."""


def _id(record: Any) -> str:
    return public_id(record.slot, record.key)


def _reserved(record: Any, at_ms: int, add: Add) -> None:
    if record.share_code:
        fact = f.OrderBound(
            f.ORDER_BOUND,
            at_ms,
            _id(record),
            record.buyer_id,
            record.share_code,
            at_ms,
            record.campaign_id,
            NEW_BUYER_CLAIM in record.claims,
        )
        add((PROGRAMME_SLOT, fact))


def _earned(record: Any, at_ms: int, base_minor: int) -> Addressed:
    return (
        PROGRAMME_SLOT,
        f.OrderEarned(
            f.ORDER_EARNED,
            at_ms,
            _id(record),
            record.buyer_id,
            record.campaign_id,
            record.sku_id,
            record.quantity,
            base_minor,
            record.currency_code,
            record.reserved_ms,
            record.list_price_minor,
        ),
    )


def _confirmed(record: r.ReservationConfirmed, at_ms: int, add: Add) -> None:
    # A seat earns when its team has formed.
    if record.quantity and not record.is_seat:
        add(_earned(record, at_ms, record.paid_minor))


def _settled(record: t.SeatSettled, at_ms: int, add: Add) -> None:
    if record.quantity:
        add(_earned(record, at_ms, record.final_minor))


def _reduced(record: Any, at_ms: int, returned_total: int) -> Addressed:
    fact = f.OrderReduced(f.ORDER_REDUCED, at_ms, _id(record), returned_total, record.of_quantity)
    return (PROGRAMME_SLOT, fact)


def _returned(record: r.UnitsReturned, at_ms: int, add: Add) -> None:
    if record.of_quantity:
        add(_reduced(record, at_ms, record.returned_total))
    fact = f.OrderReturned(f.ORDER_RETURNED, at_ms, _id(record), record.buyer_id)
    add((account_slot(record.buyer_id), fact))


def _revoked(record: r.ReservationRevoked, at_ms: int, add: Add) -> None:
    # Without a payment it never earned.
    if record.of_quantity and record.payment_id:
        add(_reduced(record, at_ms, record.of_quantity))


def _delivered(record: r.FulfilmentReported, at_ms: int, add: Add) -> None:
    if record.stage >= DELIVERED_STAGE:
        add((PROGRAMME_SLOT, f.OrderDelivered(f.ORDER_DELIVERED, at_ms, _id(record))))


def _failed(record: r.PaymentFailed, at_ms: int, add: Add) -> None:
    if record.buyer_id:
        buyer_id = record.buyer_id
        fact = f.PaymentFailed(f.PAYMENT_FAILED, at_ms, _id(record), buyer_id, record.sku_id)
        add((account_slot(buyer_id), fact))


def _expired(record: r.ReservationExpired, at_ms: int, add: Add) -> None:
    if record.buyer_id:
        fact = f.UnpaidExpiry(f.UNPAID_EXPIRY, at_ms, _id(record), record.buyer_id)
        add((account_slot(record.buyer_id), fact))


_FACTS: dict[int, Callable[[Any, int, Add], None]] = {
    r.STOCK_RESERVED: _reserved,
    t.SEAT_TAKEN: _reserved,
    r.RESERVATION_CONFIRMED: _confirmed,
    t.SEAT_SETTLED: _settled,
    r.UNITS_RETURNED: _returned,
    r.RESERVATION_REVOKED: _revoked,
    r.FULFILMENT_REPORTED: _delivered,
    r.PAYMENT_FAILED: _failed,
    r.RESERVATION_EXPIRED: _expired,
}
FACT_KINDS = frozenset(_FACTS)
"""Kinds of records that may make facts."""


def order_facts(records: Sequence[Any], at_ms: int) -> Sequence[Addressed]:
    """What account shards learn of an entry decided at `at_ms`, in the order of its records. The
    same entry makes the same facts, whenever it is read."""
    found: list[Addressed] = []
    for record in records:
        make = None if record is None else _FACTS.get(record[0])
        if make is not None:
            make(record, at_ms, found.append)
    return found

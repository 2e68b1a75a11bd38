"""What orders earn: accrued when paid for good, available after the freeze, reversed by returns.

* The binding and the rates are those of the instant when the order was reserved; the version is on
  every entry, and a reversal reads nothing but the order's own shares.
* Each level gets floor(base x rate / 10,000) of the same base. All levels together never get more
  than the margin of the units, if it is given: the second is cut first.
* The buyer of an order earns nothing on it. The second level earns only if the first is active.
* What is left after returns is floor(full share x units left / units): from the total, so parts
  never drift. It is taken from where the money is; what was settled may go below 0.
"""

from collections.abc import Callable
from itertools import islice
from typing import Any

from actors.core import facts as f
from actors.core.commission_records import (
    ACCRUED,
    BECAME_AVAILABLE,
    MATURITY_MOVED,
    ORDER_ACCRUED,
    ORDER_MATURED,
    ORDER_REVERSED,
    REVERSED,
    Entry,
    MaturityMoved,
    OrderAccrued,
    OrderMatured,
    OrderReversed,
    Share,
)
from actors.core.commission_state import (
    ACTIVE,
    AVAILABLE,
    FROZEN,
    WAITING,
    Distributor,
    Earning,
    Order,
    Programme,
    Version,
    order_key,
    reservation_of,
    version_key,
)
from actors.core.ledger import Book, taken
from actors.core.programme import Touch, bind, bond_at
from actors.core.programme_config import FULL_BPS
from actors.core.state import Impossible, ShardState, SlotState

Records = tuple[Any, ...]


def earn(state: ShardState, slot: SlotState, fact: Any, now_ms: int) -> Records:
    """The records that an order fact leads to, to be folded at once. None for a fact that came
    before, and for one that is about no order of this programme."""
    programme = slot.programme
    if programme is None or not programme.versions:
        return ()
    effect = _EFFECTS.get(fact.kind)
    return () if effect is None else effect(programme, slot.slot, fact, now_ms)


def _order_bound(programme: Programme, slot: int, fact: f.OrderBound, now_ms: int) -> Records:
    touch = Touch(
        fact.buyer_id, fact.share_code, fact.reserved_ms, fact.new_buyer, fact.reservation_id
    )
    return bind(programme, slot, touch, now_ms)[1]


def _order_earned(programme: Programme, slot: int, fact: f.OrderEarned, now_ms: int) -> Records:
    key = order_key(fact.reservation_id)
    version = programme.version_at(fact.reserved_ms)
    if key is None or version is None or key in programme.orders:
        return ()
    bond = bond_at(programme, fact.buyer_id, fact.reserved_ms)
    config = version.config
    if bond is None or fact.currency_code != config.currency_code:
        return ()
    referrer = programme.distributors.get(bond.distributor_id)
    shares = _shares(programme, version, fact, bond.distributor_id, referrer)
    book = Book(programme, now_ms)
    return (
        OrderAccrued(
            ORDER_ACCRUED,
            slot,
            key,
            fact.reservation_id,
            fact.buyer_id,
            bond.distributor_id,
            fact.campaign_id,
            fact.sku_id,
            fact.quantity,
            fact.base_minor,
            fact.currency_code,
            "" if referrer is None else referrer.share_code,
            version.number,
            fact.reserved_ms,
            fact.at_ms,
            fact.at_ms + min(config.freeze_ms, config.freeze_max_ms),
            book.month,
            shares,
            tuple([_accrual(book, fact.reservation_id, version.number, share) for share in shares]),
        ),
    )


def _accrual(book: Book, reservation_id: str, version: int, share: Share) -> Entry:
    """As `Book.entry` makes it; written out, since most entries of a sale are these."""
    level, distributor_id, _, amount_minor = share
    book.number += 1
    return Entry(
        book.number,
        ACCRUED,
        distributor_id,
        reservation_id,
        level,
        version,
        book.month,
        -amount_minor,
        amount_minor,
        0,
        0,
        0,
        0,
    )


def _shares(
    programme: Programme,
    version: Version,
    fact: f.OrderEarned,
    referrer_id: str,
    referrer: Distributor | None,
) -> tuple[Share, ...]:
    """Who gets what of an order; without those who get nothing."""
    rates = version.rates(fact.campaign_id, fact.sku_id)
    names = (referrer_id, _second_level(programme, fact, referrer_id, referrer))
    left_minor = rates[2] * fact.quantity if rates[2] >= 0 else fact.base_minor
    shares = []
    for level, (name, rate_bps) in enumerate(zip(names, rates, strict=False), start=1):
        if not name or name == fact.buyer_id:
            continue
        amount_minor = min(fact.base_minor * rate_bps // FULL_BPS, left_minor)
        left_minor -= amount_minor
        if amount_minor > 0:
            shares.append(Share(level, name, rate_bps, amount_minor))
    return tuple(shares)


def _second_level(
    programme: Programme, fact: f.OrderEarned, referrer_id: str, referrer: Distributor | None
) -> str:
    if referrer is None or referrer.state != ACTIVE:
        return ""
    bond = bond_at(programme, referrer_id, fact.reserved_ms)
    return "" if bond is None else bond.distributor_id


def _order_reduced(programme: Programme, slot: int, fact: f.OrderReduced, now_ms: int) -> Records:
    key = order_key(fact.reservation_id)
    order = None if key is None else programme.orders.get(key)
    if key is None or order is None:
        return ()
    returned = min(fact.returned_total, order.quantity)
    if returned <= order.returned:
        return ()
    book = Book(programme, now_ms)
    left = tuple([_left(earning.full_minor, order, returned) for earning in order.earnings])
    entries = [
        _reversal(programme, book, fact.reservation_id, order, earning, left_minor)
        for earning, left_minor in zip(order.earnings, left, strict=True)
        if left_minor < earning.amount_minor
    ]
    sales_minor = _left(order.base_minor, order, order.returned)
    return (
        OrderReversed(
            ORDER_REVERSED,
            slot,
            key,
            fact.reservation_id,
            returned,
            book.month,
            order.referrer_id,
            sales_minor - _left(order.base_minor, order, returned),
            order.month,
            left,
            tuple(entries),
        ),
    )


def _left(full_minor: int, order: Order, returned: int) -> int:
    return full_minor * (order.quantity - returned) // order.quantity


def _reversal(  # noqa: PLR0917
    programme: Programme,
    book: Book,
    reservation_id: str,
    order: Order,
    earning: Earning,
    left_minor: int,
) -> Entry:
    back_minor = earning.amount_minor - left_minor
    frozen = available = settled = 0
    if earning.state == AVAILABLE:
        distributor = programme.distributors.get(earning.distributor_id)
        if distributor is None:
            raise Impossible(f"no distributor {earning.distributor_id}")
        available, settled = taken(distributor, back_minor, settled_first=False)
    else:
        frozen = back_minor
    return book.entry(
        REVERSED,
        earning.distributor_id,
        reservation_id,
        level=earning.level,
        version=order.version,
        expense=back_minor,
        frozen=-frozen,
        available=-available,
        settled=-settled,
    )


def _order_delivered(
    programme: Programme, slot: int, fact: f.OrderDelivered, now_ms: int
) -> Records:
    key = order_key(fact.reservation_id)
    order = None if key is None else programme.orders.get(key)
    if key is None or order is None or order.delivered or not order.frozen():
        return ()
    version = programme.rates.get(version_key(order.version))
    if version is None:
        raise Impossible(f"no version {order.version} of the rates")
    config = version.config
    matures_ms = min(fact.at_ms + config.freeze_ms, order.earned_ms + config.freeze_max_ms)
    return (MaturityMoved(MATURITY_MOVED, slot, key, fact.reservation_id, matures_ms),)


_EFFECTS: dict[int, Callable[[Programme, int, Any, int], Records]] = {
    f.ORDER_BOUND: _order_bound,
    f.ORDER_EARNED: _order_earned,
    f.ORDER_REDUCED: _order_reduced,
    f.ORDER_DELIVERED: _order_delivered,
}


def matured(programme: Programme, slot: int, now_ms: int, limit: int) -> list[Any]:
    """Records of up to `limit` orders whose freeze is over."""
    due = programme.maturing.due(now_ms, limit)
    if not due:
        return []
    book = Book(programme, now_ms)
    return [_matured(programme, slot, book, key, FROZEN) for key in due]


def released(programme: Programme, slot: int, now_ms: int, limit: int) -> list[Any]:
    """Records of up to `limit` orders that waited for a distributor who is held no more."""
    keys: dict[bytes, None] = {}
    for name in programme.released:
        held = programme.distributors.get(name)
        if held is not None:
            # An order may wait for two distributors: one record of it is for both.
            keys.update(dict.fromkeys(islice(held.waiting, limit - len(keys))))
        if len(keys) >= limit:
            break
    if not keys:
        return []
    book = Book(programme, now_ms)
    return [_matured(programme, slot, book, key, WAITING) for key in keys]


def _matured(programme: Programme, slot: int, book: Book, key: bytes, state: int) -> OrderMatured:
    order = programme.orders.get(key)
    if order is None:
        raise Impossible(f"an order that is due and not there: {key.hex()}")
    reservation_id = reservation_of(key)
    available, waiting, entries = [], [], []
    for earning in order.earnings:
        if earning.state != state:
            continue
        distributor = programme.distributors.get(earning.distributor_id)
        if distributor is None or distributor.held():
            if state == FROZEN:
                waiting.append(earning.level)
            continue
        available.append(earning.level)
        if earning.amount_minor:
            entries.append(
                book.entry(
                    BECAME_AVAILABLE,
                    earning.distributor_id,
                    reservation_id,
                    level=earning.level,
                    version=order.version,
                    frozen=-earning.amount_minor,
                    available=earning.amount_minor,
                )
            )
    return OrderMatured(
        ORDER_MATURED, slot, key, reservation_id, tuple(available), tuple(waiting), tuple(entries)
    )

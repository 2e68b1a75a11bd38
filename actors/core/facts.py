"""What account shards learn of orders: one NamedTuple per order fact, names in the past tense.

The relay makes them from the records of stock shards and sends them as plain arrays inside a
command, so the order of fields is a wire format: add fields at the end, with a default. The first
two are common: `kind`, and `at_ms`, the journalled time of the entry that the fact is from. What
one decides is decided by the account shard that takes it; nothing here is ever asked of a stock
shard again.

An order is a reservation; a seat of a team is one too, which earns when its team has formed.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

ORDER_BOUND, ORDER_EARNED, ORDER_REDUCED, ORDER_DELIVERED = 1, 2, 3, 4
PAYMENT_FAILED, UNPAID_EXPIRY, ORDER_RETURNED = 5, 6, 7


class OrderBound(NamedTuple):
    """A reservation was made through a share code: it may bind its buyer to the code's owner."""

    kind: int
    at_ms: int
    reservation_id: str
    buyer_id: str
    share_code: str
    reserved_ms: int
    """The binding stands from here on, so that it pays for this very order."""
    campaign_id: str = ""
    new_buyer: bool = False
    """The caller's word, among the claims of the reservation."""


class OrderEarned(NamedTuple):
    """An order is paid for good: confirmed, or its team has formed."""

    kind: int
    at_ms: int
    reservation_id: str
    buyer_id: str
    campaign_id: str
    """'' for an order of base stock."""
    sku_id: str
    quantity: int
    base_minor: int
    """What was paid in the end, without what became a refund due."""
    currency_code: str
    reserved_ms: int
    """The binding of this instant decides who earns."""
    list_price_minor: int
    """Of one unit."""


class OrderReduced(NamedTuple):
    """Units of an order came back, or all that was left of it was taken away."""

    kind: int
    at_ms: int
    reservation_id: str
    returned_total: int
    """Of `quantity` units, how many are back by now: a total, so that parts never drift."""
    quantity: int


class OrderDelivered(NamedTuple):
    """The goods have arrived (fulfilment stage 2 or above)."""

    kind: int
    at_ms: int
    reservation_id: str


class PaymentFailed(NamedTuple):
    """An attempt to pay for a reservation failed."""

    kind: int
    at_ms: int
    reservation_id: str
    buyer_id: str
    sku_id: str


class UnpaidExpiry(NamedTuple):
    """A reservation was not paid in time."""

    kind: int
    at_ms: int
    reservation_id: str
    buyer_id: str


class OrderReturned(NamedTuple):
    """A buyer sent units back."""

    kind: int
    at_ms: int
    reservation_id: str
    buyer_id: str


MAKE: dict[int, Callable[[Sequence[Any]], Any]] = {
    ORDER_BOUND: OrderBound._make,
    ORDER_EARNED: OrderEarned._make,
    ORDER_REDUCED: OrderReduced._make,
    ORDER_DELIVERED: OrderDelivered._make,
    PAYMENT_FAILED: PaymentFailed._make,
    UNPAID_EXPIRY: UnpaidExpiry._make,
    ORDER_RETURNED: OrderReturned._make,
}
"""From a decoded array (its first item is the kind) to the fact."""

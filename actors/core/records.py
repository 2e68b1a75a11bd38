"""What was decided: one NamedTuple per journalled record, names in the past tense.

A record is journalled as the array of its fields, the first being `kind`. Rules, for ever:

* A kind's number is never reused, its fields never change order or meaning.
* A later release may add fields at the end, with a default; so an old journal stays readable.
* A record says what was decided, with prices, times and refund ids in it: replay never re-decides.

The time of a record is the `now_ms` of its entry. `key` is the 16-byte request key of a
reservation; `part` its buyer's SQL partition, so that the projector can find the row. Every record
names the campaign it is of, so that whoever follows one campaign need remember nothing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from actors.core.commission_records import (
    ORDER_RECALLED,
    ORDERS_FORGOTTEN,
    WITHDRAWAL_RECALLED,
    WITHDRAWALS_FORGOTTEN,
)
from actors.core.commission_records import RECORDS as COMMISSION_RECORDS
from actors.core.relay_records import FACT_TAKEN
from actors.core.relay_records import RECORDS as RELAY_RECORDS
from actors.core.risk_records import HOLD_NOTED, PROFILES_RESTED, SIGNAL_NOTED
from actors.core.risk_records import RECORDS as RISK_RECORDS
from actors.core.team_records import RECORDS as TEAM_RECORDS
from actors.core.team_records import TEAMS_FORGOTTEN

SKU_PUT, STOCK_CHANGED, TRANSFERRED_OUT, TRANSFERRED_IN, TRANSFER_ENDED = 1, 2, 3, 4, 5
CAMPAIGN_PUT, CAMPAIGN_STATE_SET = 6, 7
STOCK_RESERVED, REQUEST_REFUSED = 10, 11
RESERVATION_CONFIRMED, RESERVATION_RELEASED, RESERVATION_EXPIRED = 12, 13, 14
PAYMENT_BEGUN, PAYMENT_FAILED, REFUND_FELL_DUE = 15, 16, 17
UNITS_RETURNED, FULFILMENT_REPORTED, REFUND_REPORTED = 18, 19, 20
RESERVATION_REVOKED, RESERVATIONS_FORGOTTEN, RESERVATION_RECALLED = 21, 22, 23

DOCUMENT_RECEIVE, DOCUMENT_ADJUST, DOCUMENT_BUFFER, DOCUMENT_SHORTAGE, DOCUMENT_TRANSFER = range(
    1, 6
)


class SkuPut(NamedTuple):
    """A SKU and its base pool exist from now on, with this description."""

    kind: int
    slot: int
    sku_id: str
    name: str
    attributes: dict[str, str]
    buffer_bps: int
    price_minor: int
    currency_code: str
    payment_window_ms: int
    created_ms: int
    """When it was first put."""
    caller: str
    reason: str


class StockChanged(NamedTuple):
    """A document changed a pool by these signed amounts; `total` changes by their sum."""

    kind: int
    slot: int
    document: int
    caller: str
    request_id: str
    fingerprint: int
    campaign_id: str
    sku_id: str
    quantity: int
    available: int
    buffer: int
    scheduled: int
    owed: int
    reason: str
    from_reserved: int
    """Of what a shortage owes, the units that reservations are to give up; orders the rest."""


class TransferredOut(NamedTuple):
    """Units left a pool and are in transit, still in its total."""

    kind: int
    slot: int
    transfer_id: bytes
    caller: str
    request_id: str
    fingerprint: int
    sku_id: str
    from_campaign_id: str
    to_campaign_id: str
    quantity: int
    reason: str
    granted: int
    """Of the source, from now on: units that it has by allocation; 0 for a base pool."""


class TransferredIn(NamedTuple):
    """Units arrived at their target pool, or (`arrived` false) were turned away for ever."""

    kind: int
    slot: int
    transfer_id: bytes
    sku_id: str
    to_campaign_id: str
    quantity: int
    arrived: bool
    granted: int
    """Of the target, from now on; 0 for a base pool, and without meaning if turned away."""


class TransferEnded(NamedTuple):
    """The source booked the units off, or (`arrived` false) took them back."""

    kind: int
    slot: int
    transfer_id: bytes
    arrived: bool
    sku_id: str
    from_campaign_id: str
    granted: int
    """Of the source, from now on; 0 for a base pool."""


class CampaignPut(NamedTuple):
    """A campaign stands as configured (nested arrays of CampaignConfig), in this state."""

    kind: int
    slot: int
    campaign_id: str
    config: tuple[Any, ...]
    state: int
    version: int
    """Counts the changes of its content, from 1."""
    created_ms: int
    """When it was first put."""
    caller: str
    reason: str


class CampaignStateSet(NamedTuple):
    """An operator paused, resumed or ended a campaign."""

    kind: int
    slot: int
    campaign_id: str
    state: int
    caller: str
    reason: str


class StockReserved(NamedTuple):
    """Units are held until the deadline's own record. All that the caller said is in here."""

    kind: int
    slot: int
    key: bytes
    caller: str
    request_id: str
    fingerprint: int
    campaign_id: str
    sku_id: str
    quantity: int
    buyer_id: str
    list_price_minor: int
    unit_price_minor: int
    payable_minor: int
    currency_code: str
    deadline_ms: int
    order_id: str = ""
    device_id: str = ""
    ip: str = ""
    claims: tuple[str, ...] = ()
    share_code: str = ""
    channel: str = ""
    experiment: str = ""


class RequestRefused(NamedTuple):
    """A business no, remembered so that a late duplicate cannot turn it into a yes."""

    kind: int
    slot: int
    key: bytes
    fingerprint: int
    outcome: int


class ReservationConfirmed(NamedTuple):
    """Paid. `reacquired`: it had expired, and units were still there."""

    kind: int
    slot: int
    key: bytes
    part: int
    payment_id: str
    payment_channel: str
    paid_minor: int
    reacquired: bool
    campaign_id: str = ""
    buyer_id: str = ""
    sku_id: str = ""
    quantity: int = 0
    reserved_ms: int = 0
    list_price_minor: int = 0
    """Of one unit."""
    currency_code: str = ""
    is_seat: bool = False


class ReservationReleased(NamedTuple):
    """Given up before payment; the units went back."""

    kind: int
    slot: int
    key: bytes
    part: int
    reason: str
    campaign_id: str = ""


class ReservationExpired(NamedTuple):
    """The payment window passed; the units went back."""

    kind: int
    slot: int
    key: bytes
    part: int
    campaign_id: str = ""
    buyer_id: str = ""
    """Who let it pass; '' if there was no time to pay, since an operator ended the seat's team."""


class PaymentBegun(NamedTuple):
    """The buyer is paying. `deadline_ms` is the reservation's deadline from now on."""

    kind: int
    slot: int
    key: bytes
    part: int
    payment_id: str
    payment_channel: str
    deadline_ms: int
    campaign_id: str = ""


class PaymentFailed(NamedTuple):
    """An attempt failed; nothing else changed."""

    kind: int
    slot: int
    key: bytes
    part: int
    payment_id: str
    payment_channel: str
    paid_minor: int
    campaign_id: str = ""
    buyer_id: str = ""
    sku_id: str = ""


class RefundFellDue(NamedTuple):
    """A payment that cannot be kept (wrong amount, second, late, for nothing held). Buyer, campaign
    and currency are those of the reservation, '' when it is not known."""

    kind: int
    slot: int
    refund_key: bytes
    reservation_id: str
    buyer_id: str
    payment_id: str
    payment_channel: str
    amount_minor: int
    reason: int
    compensation: bool
    campaign_id: str
    currency_code: str


class UnitsReturned(NamedTuple):
    """Confirmed units came back. `refund_minor` of `payment_id` is due as `refund_key`. `state` is
    the reservation's from now on."""

    kind: int
    slot: int
    key: bytes
    part: int
    request_key: bytes
    fingerprint: int
    quantity: int
    returned_total: int
    restock: int
    refund_key: bytes
    refund_minor: int
    payment_id: str
    payment_channel: str
    buyer_id: str
    reason: str
    state: int
    campaign_id: str
    currency_code: str
    of_quantity: int = 0
    """Units of the order."""


class FulfilmentReported(NamedTuple):
    """The caller shipped, delivered or completed the order."""

    kind: int
    slot: int
    key: bytes
    part: int
    stage: int
    at_ms: int
    campaign_id: str = ""


class RefundReported(NamedTuple):
    """A refund was paid back (`closed`) or an attempt failed and it stays due."""

    kind: int
    slot: int
    refund_key: bytes
    closed: bool
    attempts: int
    request_key: bytes
    reference: str
    """The payment channel's number of the attempt, for the books."""
    reservation_id: str = ""
    campaign_id: str = ""
    """'' also when the reservation has left memory."""


class ReservationRevoked(NamedTuple):
    """A declared shortage took the units of a reservation or an order. A paid one is refund due
    (`refund_minor` > 0) with a compensation mark."""

    kind: int
    slot: int
    key: bytes
    part: int
    quantity: int
    refund_key: bytes
    refund_minor: int
    payment_id: str
    payment_channel: str
    buyer_id: str
    campaign_id: str
    currency_code: str
    of_quantity: int = 0
    """Units of the reservation, with those that had come back before."""


class ReservationsForgotten(NamedTuple):
    """Finished reservations left memory; SQL has them."""

    kind: int
    slot: int
    keys: tuple[bytes, ...]


class ReservationRecalled(NamedTuple):
    """A forgotten reservation is back, as SQL had it: nobody changed it meanwhile."""

    kind: int
    slot: int
    key: bytes
    campaign_id: str
    sku_id: str
    buyer_id: str
    quantity: int
    returned: int
    state: int
    stage: int
    fingerprint: int
    reserved_ms: int
    first_deadline_ms: int
    deadline_ms: int
    begun: bool
    list_price_minor: int
    unit_price_minor: int
    payable_minor: int
    payment_id: str
    payment_channel: str
    paid_minor: int
    refunded_minor: int
    team_key: bytes = b""
    """b'' for one that is no seat."""
    new_buyer: bool = False
    settled_minor: int = 0
    joined_ms: int = 0


class Balance(NamedTuple):
    """A pool as it stands after an entry; one for each pool that the entry touched."""

    slot: int
    generation: int
    campaign_id: str
    sku_id: str
    total: int
    available: int
    reserved: int
    sold: int
    buffer: int
    scheduled: int
    in_transit: int
    owed: int


RECORDS: dict[int, Callable[..., Any]] = {
    SKU_PUT: SkuPut,
    STOCK_CHANGED: StockChanged,
    TRANSFERRED_OUT: TransferredOut,
    TRANSFERRED_IN: TransferredIn,
    TRANSFER_ENDED: TransferEnded,
    CAMPAIGN_PUT: CampaignPut,
    CAMPAIGN_STATE_SET: CampaignStateSet,
    STOCK_RESERVED: StockReserved,
    REQUEST_REFUSED: RequestRefused,
    RESERVATION_CONFIRMED: ReservationConfirmed,
    RESERVATION_RELEASED: ReservationReleased,
    RESERVATION_EXPIRED: ReservationExpired,
    PAYMENT_BEGUN: PaymentBegun,
    PAYMENT_FAILED: PaymentFailed,
    REFUND_FELL_DUE: RefundFellDue,
    UNITS_RETURNED: UnitsReturned,
    FULFILMENT_REPORTED: FulfilmentReported,
    REFUND_REPORTED: RefundReported,
    RESERVATION_REVOKED: ReservationRevoked,
    RESERVATIONS_FORGOTTEN: ReservationsForgotten,
    RESERVATION_RECALLED: ReservationRecalled,
    **TEAM_RECORDS,
    **COMMISSION_RECORDS,
    **RELAY_RECORDS,
    **RISK_RECORDS,
}
"""Kind -> class; the class is called with the journalled fields."""

UNKEPT = frozenset(
    {
        REQUEST_REFUSED,
        RESERVATIONS_FORGOTTEN,
        RESERVATION_RECALLED,
        TEAMS_FORGOTTEN,
        ORDERS_FORGOTTEN,
        ORDER_RECALLED,
        WITHDRAWALS_FORGOTTEN,
        WITHDRAWAL_RECALLED,
    }
)
"""Kinds that SQL does not keep for the event feed: refusals, which may be many, and what only
concerns a shard's memory."""

UNTOLD = UNKEPT | {FACT_TAKEN, SIGNAL_NOTED, PROFILES_RESTED, HOLD_NOTED}
"""Kinds that the event feed never tells: those, how far the relay is, and what moves a score, which
is the operator's business alone."""

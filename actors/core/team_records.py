"""What was decided on teams and their seats. Part of `records.py`, whose rules hold here."""

from collections.abc import Callable
from typing import Any, NamedTuple

TEAM_OPENED, SEAT_TAKEN, TEAM_LED, SEAT_MOVED, SEAT_CLOSED = 30, 31, 32, 33, 34
TEAM_FORMED, SEAT_SETTLED, TEAM_CLOSED, TEAMS_FORGOTTEN, TEAM_NEARLY_FULL = 35, 36, 37, 38, 39


SEAT_FIELDS_FROM = 22
"""Of SeatTaken: before this field it is a StockReserved."""


class TeamOpened(NamedTuple):
    """A team is forming; its opener's seat is the next record. It has no leader yet: that is its
    first paid member."""

    kind: int
    slot: int
    team_key: bytes
    campaign_id: str
    sku_id: str
    opener_id: str
    """The buyer who opened it, for the limit of teams per buyer."""
    deadline_ms: int


class SeatTaken(NamedTuple):
    """A seat and its units are held: a StockReserved, and of which team."""

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
    order_id: str
    device_id: str
    ip: str
    claims: tuple[str, ...]
    share_code: str
    channel: str
    experiment: str
    team_key: bytes
    new_buyer: bool


class TeamLed(NamedTuple):
    """A paid seat leads a forming team from now on; b'' and '': no seat is paid any more."""

    kind: int
    slot: int
    team_key: bytes
    leader_key: bytes
    leader_id: str
    campaign_id: str = ""


class SeatMoved(NamedTuple):
    """A late payer's seat is of another team from now on; its confirmation is the next record."""

    kind: int
    slot: int
    key: bytes
    part: int
    from_team_key: bytes
    team_key: bytes
    campaign_id: str = ""


class SeatClosed(NamedTuple):
    """A paid seat of a team that did not form ended: its units went back, and all that was paid is
    due as `refund_key`. `why` is a RefundReason: the buyer left, or the team failed."""

    kind: int
    slot: int
    key: bytes
    part: int
    team_key: bytes
    quantity: int
    why: int
    refund_key: bytes
    refund_minor: int
    payment_id: str
    payment_channel: str
    buyer_id: str
    campaign_id: str
    currency_code: str
    caller: str
    reason: str


class TeamFormed(NamedTuple):
    """A team reached a tier; the settlement of each of its paid seats follows in the same entry."""

    kind: int
    slot: int
    team_key: bytes
    campaign_id: str
    sku_id: str
    tier_people: int
    unit_price_minor: int
    virtual: int
    """Seats that nobody has: an operator completed it."""
    members: tuple[bytes, ...]
    """Keys of the paid seats, in the order of joining."""
    new_members: int
    leader_key: bytes
    caller: str
    reason: str


class SeatSettled(NamedTuple):
    """What a member of a formed team pays in the end; what was paid above it (if anything) is due
    as `refund_key`."""

    kind: int
    slot: int
    key: bytes
    part: int
    team_key: bytes
    final_minor: int
    refund_key: bytes
    refund_minor: int
    payment_id: str
    payment_channel: str
    buyer_id: str
    campaign_id: str
    currency_code: str
    sku_id: str = ""
    quantity: int = 0
    reserved_ms: int = 0
    list_price_minor: int = 0
    """Of one unit."""


class TeamClosed(NamedTuple):
    """A team ended without forming: failed (a TeamState) at its deadline or with its campaign, or
    cancelled since nobody was left. Its paid seats were closed in the records before."""

    kind: int
    slot: int
    team_key: bytes
    campaign_id: str
    sku_id: str
    state: int
    members: tuple[bytes, ...]
    """Keys of the seats that were paid, in the order of joining."""


class TeamsForgotten(NamedTuple):
    """Teams that ended left memory; SQL has them."""

    kind: int
    slot: int
    keys: tuple[bytes, ...]


class TeamNearlyFull(NamedTuple):
    """A payment left no more seats unpaid than the campaign's rules call nearly full. Changes
    nothing: a fact for who wants to tell people."""

    kind: int
    slot: int
    team_key: bytes
    campaign_id: str
    sku_id: str
    missing: int


RECORDS: dict[int, Callable[..., Any]] = {
    TEAM_OPENED: TeamOpened,
    SEAT_TAKEN: SeatTaken,
    TEAM_LED: TeamLed,
    SEAT_MOVED: SeatMoved,
    SEAT_CLOSED: SeatClosed,
    TEAM_FORMED: TeamFormed,
    SEAT_SETTLED: SeatSettled,
    TEAM_CLOSED: TeamClosed,
    TEAMS_FORGOTTEN: TeamsForgotten,
    TEAM_NEARLY_FULL: TeamNearlyFull,
}
"""See `records.RECORDS`."""

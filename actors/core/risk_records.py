"""What was decided on risk. Part of `records.py`, whose rules hold here."""

from collections.abc import Callable
from typing import Any, NamedTuple

SIGNAL_NOTED, BUYER_FROZEN, BUYER_UNFROZEN, PROFILES_RESTED, HOLD_NOTED = range(90, 95)

BY_PAYMENT_FAILURES, BY_OPERATOR = 1, 2
"""Who froze a buyer, numbered as `stockray.v1.FreezeCause`."""


class SignalNoted(NamedTuple):
    """A buyer's score fell: it is whole again at `whole_ms`."""

    kind: int
    slot: int
    buyer_id: str
    signal: int
    times: int
    whole_ms: int
    failures: tuple[int, ...]
    """When payments of this buyer failed, as far as it matters, earliest first."""
    reservation_id: str = ""
    """That it is about; '' for a signal of a gateway."""


class BuyerFrozen(NamedTuple):
    """A buyer is frozen until then. Payment failures before it count for no other freeze.

    `as_of_ms` is when this was decided, and later than that of the change before: it is what the
    commission programme goes by (`HoldDistributor`)."""

    kind: int
    slot: int
    buyer_id: str
    until_ms: int
    cause: int
    caller: str
    reason: str
    as_of_ms: int


class BuyerUnfrozen(NamedTuple):
    """A freeze ended: by itself, or (`caller`) by an operator. Only the latter is a change to be
    told of: of itself it ends everywhere, `as_of_ms` is that of the freeze."""

    kind: int
    slot: int
    buyer_id: str
    by_itself: bool
    caller: str
    reason: str
    as_of_ms: int


class ProfilesRested(NamedTuple):
    """Profiles with nothing in them any more left memory."""

    kind: int
    slot: int
    buyer_ids: tuple[str, ...]


class HoldNoted(NamedTuple):
    """The commission programme knows of this buyer what was decided up to then."""

    kind: int
    slot: int
    buyer_id: str
    as_of_ms: int


RECORDS: dict[int, Callable[..., Any]] = {
    SIGNAL_NOTED: SignalNoted,
    BUYER_FROZEN: BuyerFrozen,
    BUYER_UNFROZEN: BuyerUnfrozen,
    PROFILES_RESTED: ProfilesRested,
    HOLD_NOTED: HoldNoted,
}
"""See `records.RECORDS`."""

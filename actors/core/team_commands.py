"""What can be asked of a shard about teams. Part of `commands.py`, whose rules hold here.

A seat is a reservation: it is confirmed, released and paid for by the commands for those. In
`payable_minor`, -1 leaves the price to the line's first tier, as DEFAULT_PAYABLE does elsewhere.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from actors.core.risk_state import SCORE_MAX

OPEN_TEAM, JOIN_TEAM, LEAVE_TEAM, GET_TEAM, SUGGEST_TEAMS, COMPLETE_TEAM = range(50, 56)


class OpenTeam(NamedTuple):
    """Start a team on a campaign's line, and take its first seat with its units."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    request_id: str
    campaign_id: str
    sku_id: str
    quantity: int
    buyer_id: str
    payable_minor: int = -1
    order_id: str = ""
    device_id: str = ""
    ip: str = ""
    claims: tuple[str, ...] = ()
    share_code: str = ""
    channel: str = ""
    experiment: str = ""
    new_buyer: bool = False
    """The caller's word that the buyer is new; decided once, here, and recorded."""
    score: int = SCORE_MAX
    """As of `commands.Reserve`."""


class JoinTeam(NamedTuple):
    """Take a seat of a team, with its units."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    request_id: str
    team_key: bytes
    quantity: int
    buyer_id: str
    payable_minor: int = -1
    order_id: str = ""
    device_id: str = ""
    ip: str = ""
    claims: tuple[str, ...] = ()
    share_code: str = ""
    channel: str = ""
    experiment: str = ""
    new_buyer: bool = False
    score: int = SCORE_MAX


class LeaveTeam(NamedTuple):
    """Give a seat up while its team is forming; what was paid becomes a refund due."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    reservation_id: str
    reason: str = ""


class GetTeam(NamedTuple):
    """Read a team and its members."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    team_key: bytes


class SuggestTeams(NamedTuple):
    """Teams that the buyer could join now, nearest to full first, then earliest deadline."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    campaign_id: str
    sku_id: str
    """'' for all lines of the campaign."""
    buyer_id: str
    new_buyer: bool
    limit: int
    """At most so many, 1 to 50."""


class CompleteTeam(NamedTuple):
    """An operator's act: form a team with virtual seats up to a tier."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    team_key: bytes
    people: int
    """Of the tier to reach; 0: the lowest that the paid seats do not exceed."""
    reason: str


MAKE: dict[int, Callable[[Sequence[Any]], Any]] = {
    OPEN_TEAM: OpenTeam._make,
    JOIN_TEAM: JoinTeam._make,
    LEAVE_TEAM: LeaveTeam._make,
    GET_TEAM: GetTeam._make,
    SUGGEST_TEAMS: SuggestTeams._make,
    COMPLETE_TEAM: CompleteTeam._make,
}
"""See `commands.MAKE`."""

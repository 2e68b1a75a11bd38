"""Group campaigns, teams and their seats, and what the verbs about them answer, as frozen values.

As in `records` and `results`: names and meanings are those of the messages in
`stockray_proto/v1/group_buy_service.proto`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from stockray.enums import (
    CampaignPhase,
    FreedUnitPolicy,
    ReservationState,
    Status,
    TeamState,
)
from stockray.records import DataAge, Refund, Session, Stock
from stockray.results import Answer, refusal

__all__ = [
    "CompleteTeamResult",
    "GetGroupCampaignResult",
    "GetTeamResult",
    "GroupCampaign",
    "GroupCampaignResult",
    "GroupLine",
    "GroupRules",
    "LeaveTeamResult",
    "SeatResult",
    "SuggestTeamsResult",
    "Team",
    "TeamChange",
    "TeamMember",
    "Tier",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """What a unit costs each member of a team of so many paid seats."""

    people: int = 0
    unit_price_minor: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRules:
    """What holds for all teams of a campaign; what is not given has the service's default."""

    window: timedelta | None = None
    new_buyer_count: int = 0
    teams_per_buyer: int = 0
    leader_discount_bps: int = 0
    nearly_full_count: int | None = None
    virtual_completion: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLine:
    """One SKU of a group campaign; fields from `allocated_count` to `stock` are answers.

    `unit_price_minor` is the solo price; 0: it is sold to teams alone.
    """

    sku_id: str
    tiers: tuple[Tier, ...] = ()
    allocation_count: int = 0
    list_price_minor: int = 0
    unit_price_minor: int = 0
    limit_per_buyer: int = 0
    allocated_count: int = 0
    allocation_status: Status = Status.UNSPECIFIED
    allocation_message: str = ""
    stock: Stock | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCampaign:
    """A campaign for teams; fields from `phase` on are answers and ignored in a put."""

    campaign_id: str
    title: str = ""
    currency_code: str = ""
    lines: tuple[GroupLine, ...] = ()
    sessions: tuple[Session, ...] = ()
    start_time: datetime | None = None
    end_time: datetime | None = None
    payment_window: timedelta | None = None
    limit_per_buyer: int = 0
    required_claims: tuple[str, ...] = ()
    freed_unit_policy: FreedUnitPolicy = FreedUnitPolicy.UNSPECIFIED
    min_score: int = 0
    rules: GroupRules | None = None
    phase: CampaignPhase = CampaignPhase.UNSPECIFIED
    next_phase_time: datetime | None = None
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamMember:
    """A seat of a team; the buyer's id is masked unless it is the viewer's `own`."""

    buyer_id: str = ""
    reservation_id: str = ""
    own: bool = False
    leader: bool = False
    paid: bool = False
    new_buyer: bool = False
    join_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """A team; real paid, unpaid and virtual seats are counted apart."""

    team_id: str = ""
    campaign_id: str = ""
    sku_id: str = ""
    state: TeamState = TeamState.UNSPECIFIED
    joinable: bool = False
    open_time: datetime | None = None
    deadline_time: datetime | None = None
    end_time: datetime | None = None
    tiers: tuple[Tier, ...] = ()
    capacity_count: int = 0
    paid_count: int = 0
    unpaid_count: int = 0
    virtual_count: int = 0
    free_count: int = 0
    new_buyer_count: int = 0
    new_buyer_missing_count: int = 0
    tier: Tier | None = None
    next_tier: Tier | None = None
    missing_count: int = 0
    currency_code: str = ""
    final_unit_price_minor: int = 0
    members: tuple[TeamMember, ...] = ()

    @property
    def ended(self) -> bool:
        """True when it is what it will be for ever."""
        return self.state not in (TeamState.UNSPECIFIED, TeamState.FORMING)


class SeatResult(NamedTuple):
    """The answer to `open_team` or `join_team`; prices and deadlines are set when RESERVED."""

    status: Status
    request_id: str
    reservation_id: str = ""
    unit_price_minor: int = 0
    list_price_minor: int = 0
    payable_minor: int = 0
    currency_code: str = ""
    deadline_time: datetime | None = None
    remaining_count: int | None = None
    retry_after: timedelta | None = None
    message: str = ""
    team_id: str = ""
    team_deadline_time: datetime | None = None
    free_count: int = 0
    other_team_ids: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True when the seat and its units are held."""
        return self.status is Status.RESERVED

    def raise_for_status(self) -> None:
        """Raises Refused, or DeadlineExceeded for RETRY and UNKNOWN, unless `ok`."""
        if self.status is not Status.RESERVED:
            raise refusal(self.status, self.message, self.retry_after, (self.request_id,))


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCampaignResult(Answer):
    """The answer to `put_group_campaign`."""

    campaign: GroupCampaign | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GetGroupCampaignResult(Answer):
    """The answer to `get_group_campaign`."""

    campaign: GroupCampaign | None = None
    age: DataAge | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveTeamResult(Answer):
    """The answer to `leave_team`; `refund` is set if the seat was paid."""

    reservation_id: str = ""
    state: ReservationState = ReservationState.UNSPECIFIED
    refund: Refund | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GetTeamResult(Answer):
    """The answer to `get_team`."""

    team: Team | None = None
    age: DataAge | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SuggestTeamsResult(Answer):
    """The answer to `suggest_teams`: nearest to full first, each with its leader alone."""

    teams: tuple[Team, ...] = ()
    age: DataAge | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompleteTeamResult(Answer):
    """The answer to `complete_team`."""

    team: Team | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamChange:
    """What `watch_team` yields; `team` is None when nothing of it is known, or it is unchanged."""

    status: Status = Status.UNSPECIFIED
    team: Team | None = None
    server_time: datetime | None = None

"""Teams: requests to commands, views of a shard or of SQL to messages.

Other people's ids leave the service masked. A view has them in full, so nothing else than
`team_message` may write one.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from stockray_proto.v1 import group_buy_service_pb2

from actors.core import team_commands as t
from actors.core.campaign_config import Tier
from actors.core.identity import parse_public_id, public_id
from actors.core.outcomes import Outcome
from actors.core.team_state import TEAM_FORMED, TEAM_FORMING
from server.handlers import CallContext
from server.translate.group_campaign import TEAM_PEOPLE_MAX, tier_message
from server.translate.payment import slot_of_public_id
from server.translate.scalars import SLOT_OF_KEY, stamp, stamp_or_none
from server.validate import Violations

SUGGESTIONS_MAX = 50
SUGGESTIONS_DEFAULT = 10

MESSAGES = {
    Outcome.NOT_ELIGIBLE: "the campaign's rules do not allow virtual completion",
    Outcome.TEAM_NOT_OPEN: "nobody has paid yet",
    Outcome.INVALID: "people: that of a tier which the paid seats do not exceed",
}
"""Why a team was not completed, for people."""


class MemberView(NamedTuple):
    """A member, as `core.teams.team_view` has it."""

    key: bytes
    buyer_id: str
    paid: bool
    new_buyer: bool
    joined_ms: int


class TeamView(NamedTuple):
    """`core.teams.team_view`, with its parts restored from how they travel."""

    key: bytes
    campaign_id: str
    sku_id: str
    state: int
    opened_ms: int
    deadline_ms: int
    ended_ms: int
    leader: bytes
    tiers: tuple[Tier, ...]
    paid: int
    unpaid: int
    virtual: int
    new_members: int
    missing_new: int
    tier_people: int
    unit_price_minor: int
    members: tuple[MemberView, ...]
    currency_code: str

    @property
    def ended(self) -> bool:
        """Whether it is what it will be for ever."""
        return self.state != TEAM_FORMING


def team_view(view: Sequence[Any] | None) -> TeamView | None:
    """The view in an answer; None when there is none."""
    if view is None:
        return None
    found = TeamView(*view)
    return found._replace(
        tiers=tuple(Tier._make(tier) for tier in found.tiers),
        members=tuple(MemberView._make(member) for member in found.members),
    )


def masked(buyer_id: str) -> str:
    """A buyer's id for other people's eyes: "u***7"; of one or two characters only the first."""
    return f"{buyer_id[:1]}***{buyer_id[-1]}" if len(buyer_id) > 2 else f"{buyer_id[:1]}***"


def team_message(
    slot: int, view: TeamView, *, viewer: str = "", now_ms: int
) -> group_buy_service_pb2.Team:
    """A team as `viewer` may see it; '' is nobody in it."""
    forming = not view.ended
    capacity = view.tiers[-1].people if view.tiers else 0
    free = capacity - view.paid - view.unpaid if forming else 0
    people = view.paid if forming else view.tier_people
    reached = [tier for tier in view.tiers if tier.people <= people]
    following = [tier for tier in view.tiers if forming and tier.people > people]
    formed = view.state == TEAM_FORMED
    message = group_buy_service_pb2.Team(
        team_id=public_id(slot, view.key),
        campaign_id=view.campaign_id,
        sku_id=view.sku_id,
        state=view.state,  # type: ignore[arg-type]
        joinable=forming and bool(view.leader) and free > 0 and now_ms < view.deadline_ms,
        open_time=stamp(view.opened_ms),
        deadline_time=stamp(view.deadline_ms),
        end_time=stamp_or_none(view.ended_ms),
        tiers=[tier_message(tier) for tier in view.tiers],
        capacity_count=capacity,
        paid_count=view.paid,
        unpaid_count=view.unpaid,
        virtual_count=view.virtual,
        free_count=free,
        new_buyer_count=view.new_members,
        new_buyer_missing_count=view.missing_new,
        tier=tier_message(reached[-1]) if reached else None,
        next_tier=tier_message(following[0]) if following else None,
        missing_count=following[0].people - people if following else 0,
        currency_code=view.currency_code,
        final_unit_price_minor=view.unit_price_minor if formed else 0,
    )
    # A formed team's come with the last payer last.
    for member in sorted(view.members, key=lambda member: (member.joined_ms, member.key)):
        own = member.buyer_id == viewer
        message.members.add(
            buyer_id=viewer if own else masked(member.buyer_id),
            reservation_id=public_id(slot, member.key) if own else "",
            own=own,
            leader=member.key == view.leader,
            paid=member.paid or view.ended,
            new_buyer=member.new_buyer,
            join_time=stamp(member.joined_ms),
        )
    return message


def get_team_command(team_id: str, deadline_ms: int, caller: str) -> t.GetTeam | None:
    """GetTeam of an id by the package's rule; None for one that no shard can know."""
    parsed = parse_public_id(team_id)
    if parsed is None:
        return None
    slot, key = parsed
    return t.GetTeam(t.GET_TEAM, slot, deadline_ms, caller, key)


def team_violations(request: Any) -> Violations:
    """What breaks a rule in a GetTeamRequest or a WatchTeamRequest."""
    wrong = Violations()
    wrong.id("team_id", request.team_id)
    wrong.optional_id("viewer_buyer_id", request.viewer_buyer_id)
    return wrong


def leave_team_command(
    request: group_buy_service_pb2.LeaveTeamRequest, context: CallContext
) -> t.LeaveTeam | None:
    """LeaveTeam; None for an id that no shard can know. Raises CallError."""
    wrong = Violations()
    wrong.id("reservation_id", request.reservation_id)
    wrong.reason(request.reason)
    wrong.refuse()
    slot = slot_of_public_id(request.reservation_id)
    if slot is None:
        return None
    head = (t.LEAVE_TEAM, slot, context.deadline_ms, context.caller)
    return t.LeaveTeam(*head, request.reservation_id, request.reason)


def suggest_teams_command(
    request: group_buy_service_pb2.SuggestTeamsRequest, context: CallContext
) -> t.SuggestTeams:
    """SuggestTeams. Raises CallError."""
    wrong = Violations()
    wrong.id("campaign_id", request.campaign_id)
    wrong.optional_id("sku_id", request.sku_id)
    wrong.id("buyer_id", request.buyer_id)
    wrong.number("limit", request.limit, 0, SUGGESTIONS_MAX)
    wrong.refuse()
    return t.SuggestTeams(
        t.SUGGEST_TEAMS,
        SLOT_OF_KEY[request.campaign_id],
        context.deadline_ms,
        context.caller,
        request.campaign_id,
        request.sku_id,
        request.buyer_id,
        request.new_buyer,
        request.limit or SUGGESTIONS_DEFAULT,
    )


def complete_team_command(
    request: group_buy_service_pb2.CompleteTeamRequest, context: CallContext
) -> t.CompleteTeam | None:
    """CompleteTeam; None for an id that no shard can know. Raises CallError."""
    wrong = Violations()
    wrong.id("team_id", request.team_id)
    wrong.number("people", request.people, 0, TEAM_PEOPLE_MAX)
    wrong.reason(request.reason, required=True)
    wrong.refuse()
    parsed = parse_public_id(request.team_id)
    if parsed is None:
        return None
    slot, key = parsed
    head = (t.COMPLETE_TEAM, slot, context.deadline_ms, context.caller)
    return t.CompleteTeam(*head, key, request.people, request.reason)

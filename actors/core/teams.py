"""Deciding on teams: open, join, leave, complete by hand, read, suggest.

A seat is a reservation: its units, deadline, payment and release are those of any other. What a
seat adds is its team: no buyer twice in one, no more seats than people of the last tier, a share of
them for new buyers only.

Order of precedence of an opening's outcomes: ID_REUSED, NOT_FOUND, ENDED, PAUSED, NOT_STARTED,
NOT_ELIGIBLE, NEW_BUYERS_ONLY, TOO_MANY_TEAMS, INVALID, LIMIT_EXCEEDED, SOLD_OUT, RESERVED. Of a
joining's: ID_REUSED, NOT_FOUND, ENDED, PAUSED, NOT_STARTED, NOT_ELIGIBLE, TEAM_CLOSED,
ALREADY_IN_TEAM, TEAM_NOT_OPEN, TEAM_FULL, NEW_BUYERS_ONLY, INVALID, LIMIT_EXCEEDED, SOLD_OUT,
RESERVED.
"""

from typing import Any

from actors.core import team_commands as t
from actors.core.commands import DEFAULT_PAYABLE
from actors.core.identity import (
    fingerprint_of,
    public_id,
    request_key,
)
from actors.core.outcomes import Outcome
from actors.core.pools import Pool
from actors.core.refunds import RefundReason, refund_view
from actors.core.refusals import refuse, refused_before
from actors.core.reservations import AFTER_RESERVED, find_reservation, given_up
from actors.core.state import (
    CONFIRMED,
    REFUND_DUE,
    RELEASED,
    RESERVED,
    RETURNED,
    Campaign,
    Seat,
    ShardState,
    SlotState,
)
from actors.core.team_ends import (
    Act,
    after_leaving,
    close_seat,
    form,
    leaders_price,
    members,
    nearest_to_full,
    paid_members,
    paid_seat,
    seat_refund_key,
    team_of,
)
from actors.core.team_records import SEAT_TAKEN, TEAM_OPENED, SeatTaken, TeamOpened
from actors.core.team_state import NOT_JOINABLE, TEAM_FORMING, Group, Team
from actors.core.terms import closed, currency_of, exceeds_limit, not_eligible

Decision = tuple[tuple[Any, ...], tuple[Any, ...]]

_NEW = "new"
"""What a new buyer's request has in its fingerprint: a word, for a bool takes 0.1 us to write."""
OTHERS_MAX = 3
"""Teams named to who found one full or closed."""


def team_key_of(seat_key: bytes) -> bytes:
    """A team is named after the seat that opened it."""
    return request_key("team", seat_key.hex())


def open_team(state: ShardState, command: t.OpenTeam, now_ms: int) -> Decision:
    """(RESERVED, key, list, unit, payable, currency, deadline_ms, remaining, team key, team's
    deadline_ms, seats still free), or a refusal: (outcome, remaining, ())."""
    number, _, caller, request_id, campaign_id, sku_id = command[1:7]
    quantity, buyer_id, payable, order_id = command[7:11]
    slot = state.slot(number)
    key = request_key(caller, request_id)
    who = _NEW if command.new_buyer else ""
    mark = fingerprint_of(
        f"open\0{campaign_id}\0{sku_id}\0{quantity}\0{buyer_id}\0{payable}\0{who}\0{order_id}"
    )
    held = slot.reservations.get(key)
    if held is not None:
        return _seat_before(slot, held, mark), ()
    refused = refused_before(slot, key, mark)
    if refused is not None:
        return (refused, 0, ()), ()
    campaign = slot.campaigns.get(campaign_id)
    pool = None if campaign is None else campaign.pools.get(sku_id)
    if campaign is None or pool is None or pool.group is None:
        return refuse(state, number, key, mark, Outcome.NOT_FOUND, 0, ())
    group = pool.group
    unit = leaders_price(group, group.tiers[0].unit_price_minor)
    broken = (
        closed(campaign, now_ms)
        or not_eligible(campaign, command)
        or _may_not_open(campaign, group, buyer_id, command.new_buyer)
        or _not_to_be_had(campaign, pool, buyer_id, quantity, payable, unit)
    )
    if broken:
        return refuse(state, number, key, mark, broken, pool.available, ())
    # Nothing below this line can fail.
    team_key = team_key_of(key)
    ends_ms = min(now_ms + group.rules.window_ms, campaign.config.ends_ms)
    opened = TeamOpened(TEAM_OPENED, number, team_key, campaign_id, sku_id, buyer_id, ends_ms)
    place = (team_key, unit, ends_ms, group.capacity - 1)
    answer, taken = _seat(
        number, key, mark, command[3:5], command[7:-1], campaign, pool, place, now_ms
    )
    return answer, (opened, taken)


def join_team(state: ShardState, command: t.JoinTeam, now_ms: int) -> Decision:
    """As `open_team`; who finds the team full or closed is told up to three others: (outcome,
    remaining, their ids)."""
    number, _, caller, request_id, team_key = command[1:6]
    quantity, buyer_id, payable, order_id = command[6:10]
    slot = state.slots.get(number) or state.slot(number)
    key = request_key(caller, request_id)
    who = _NEW if command.new_buyer else ""
    mark = fingerprint_of(
        f"join\0{team_key.hex()}\0{quantity}\0{buyer_id}\0{payable}\0{who}\0{order_id}"
    )
    held = slot.reservations.get(key)
    if held is not None:
        return _seat_before(slot, held, mark), ()
    refused = refused_before(slot, key, mark)
    if refused is not None:
        return (refused, 0, ()), ()
    team = slot.teams.get(team_key)
    if team is None:
        return refuse(state, number, key, mark, Outcome.NOT_FOUND, 0, ())
    campaign = slot.campaigns[team.campaign_id]
    pool = campaign.pools[team.sku_id]
    unit = team.group.tiers[0].unit_price_minor
    broken = (
        closed(campaign, now_ms)
        or not_eligible(campaign, command)
        or _may_not_join(team, buyer_id, command.new_buyer, now_ms)
        or _not_to_be_had(campaign, pool, buyer_id, quantity, payable, unit)
    )
    if broken:
        others: tuple[str, ...] = ()
        if broken in (Outcome.TEAM_FULL, Outcome.TEAM_CLOSED, Outcome.NEW_BUYERS_ONLY):
            others = _others(slot, team, buyer_id, command.new_buyer)
        return refuse(state, number, key, mark, broken, pool.available, others)
    # Nothing below this line can fail.
    place = (team.key, unit, team.deadline_ms, team.free() - 1)
    answer, taken = _seat(
        number, key, mark, command[3:5], command[6:-1], campaign, pool, place, now_ms
    )
    return answer, (taken,)


def _may_not_open(
    campaign: Campaign, group: Group, buyer_id: str, new_buyer: bool
) -> Outcome | None:
    if not new_buyer and group.rules.new_buyer_seats >= group.capacity:
        return Outcome.NEW_BUYERS_ONLY
    if (campaign.openers.get(buyer_id) or 0) >= group.rules.teams_per_buyer:
        return Outcome.TOO_MANY_TEAMS
    return None


def _may_not_join(team: Team, buyer_id: str, new_buyer: bool, now_ms: int) -> Outcome | None:
    place = team.place
    if place < 0 or now_ms >= team.deadline_ms:
        return Outcome.TEAM_CLOSED
    if buyer_id in team.buyers:
        return Outcome.ALREADY_IN_TEAM
    if place == NOT_JOINABLE:
        return Outcome.TEAM_FULL if team.leader else Outcome.TEAM_NOT_OPEN
    if place & 1 and not new_buyer:
        return Outcome.NEW_BUYERS_ONLY
    return None


def _not_to_be_had(  # noqa: PLR0917
    campaign: Campaign, pool: Pool, buyer_id: str, quantity: int, payable: int, unit: int
) -> Outcome | None:
    if payable > unit * quantity:
        return Outcome.INVALID
    if exceeds_limit(campaign, pool, buyer_id, quantity):
        return Outcome.LIMIT_EXCEEDED
    if quantity > pool.available:
        return Outcome.SOLD_OUT
    return None


def _seat(  # noqa: PLR0917
    number: int,
    key: bytes,
    mark: int,
    asker: tuple[Any, ...],
    asked: tuple[Any, ...],
    campaign: Campaign,
    pool: Pool,
    place: tuple[bytes, int, int, int],
    now_ms: int,
) -> tuple[tuple[Any, ...], SeatTaken]:
    """Answer and record. Of the command: caller and request id, and all from the quantity on; of
    the place: team, price of a unit, the team's deadline, seats free afterwards."""
    caller, request_id = asker
    # Unpacked, and packed again without a star: a third of the time.
    quantity, buyer_id, payable, order_id, device_id, ip = asked[:6]
    claims, share_code, channel, experiment, new_buyer = asked[6:]
    team, unit, ends_ms, free = place
    config = campaign.config
    listed, currency = pool.list_price_minor, config.currency_code
    if payable == DEFAULT_PAYABLE:
        payable = unit * quantity
    due_ms = min(now_ms + config.payment_window_ms, ends_ms)
    # Past the constructor of NamedTuple, as in `reservations.reserve`.
    taken = tuple.__new__(
        SeatTaken,
        (
            SEAT_TAKEN,
            number,
            key,
            caller,
            request_id,
            mark,
            pool.campaign_id,
            pool.sku_id,
            quantity,
            buyer_id,
            listed,
            unit,
            payable,
            currency,
            due_ms,
            order_id,
            device_id,
            ip,
            claims,
            share_code,
            channel,
            experiment,
            team,
            new_buyer,
        ),
    )
    left = pool.available - quantity
    return (
        (Outcome.RESERVED, key, listed, unit, payable, currency, due_ms, left, team, ends_ms, free),
        taken,
    )


def _seat_before(slot: SlotState, held: Any, mark: int) -> tuple[Any, ...]:
    if held.fingerprint != mark or type(held) is not Seat:
        return (Outcome.ID_REUSED, 0, ())
    team = slot.teams.get(held.team_key)
    return (
        Outcome.RESERVED,
        held.key,
        held.list_price_minor,
        held.unit_price_minor,
        held.payable_minor,
        currency_of(slot, held.pool),
        held.first_deadline_ms,
        held.pool.available,
        held.team_key,
        0 if team is None else team.deadline_ms,
        0 if team is None else max(0, team.free()),
    )


def _others(slot: SlotState, team: Team, buyer_id: str, new_buyer: bool) -> tuple[str, ...]:
    found = nearest_to_full(slot, team.group.joinable(new_buyer), OTHERS_MAX + 1)
    return tuple(
        public_id(slot.slot, other.key)
        for other in found
        if other is not team and buyer_id not in other.buyers
    )[:OTHERS_MAX]


def leave_team(state: ShardState, command: t.LeaveTeam, now_ms: int) -> Decision:
    """(LEFT, state, refund or None); again: the same. Precedence: NOT_FOUND (or no seat), LEFT
    before, EXPIRED, REVOKED, TEAM_CLOSED (it formed or failed: a return is another call), LEFT."""
    slot = state.slot(command.slot)
    held = find_reservation(slot, command.reservation_id)
    if type(held) is not Seat:
        return (Outcome.NOT_FOUND, 0, None), ()
    refund = slot.refunds.get(seat_refund_key(held.key))
    left = refund is not None and refund.reason == RefundReason.LEFT_TEAM
    if held.state == RELEASED or left:
        return (Outcome.LEFT, held.state, refund_view(slot, refund)), ()
    team = team_of(slot, held)
    if team is None:
        outcome = AFTER_RESERVED.get(held.state, Outcome.TEAM_CLOSED)
        if outcome is Outcome.ALREADY_CONFIRMED:
            outcome = Outcome.TEAM_CLOSED
        return (outcome, held.state, None), ()
    gone = after_leaving(slot, team, (held.key,))
    payment = held.payment
    if held.state == RESERVED or payment is None:
        record = given_up(command.slot, held, command.reason)
        return (Outcome.LEFT, RELEASED, None), (record, *gone)
    paid = paid_seat(held, payment)
    closing = close_seat(slot, paid, RefundReason.LEFT_TEAM, command.caller, command.reason)
    view = (
        closing.refund_key,
        command.reservation_id,
        paid.payment_id,
        paid.channel,
        paid.amount_minor,
        int(RefundReason.LEFT_TEAM),
        False,
        REFUND_DUE,
        0,
        closing.currency_code,
    )
    return (Outcome.LEFT, RETURNED, view), (closing, *gone)


def complete_team(state: ShardState, command: t.CompleteTeam, now_ms: int) -> Decision:
    """(APPLIED, team): formed with the virtual seats that it needs, none perhaps; again: the same.
    Precedence: NOT_FOUND, TEAM_CLOSED, NOT_ELIGIBLE (the campaign's rules do not allow it),
    TEAM_NOT_OPEN (nobody has paid), INVALID (no tier of so many people, or the paid seats are
    beyond it), APPLIED."""
    slot = state.slot(command.slot)
    team = slot.teams.get(command.team_key)
    if team is None:
        return (Outcome.NOT_FOUND, None), ()
    if team.state != TEAM_FORMING:
        done = team.completed_by and command.people in (0, team.tier_people)
        return (Outcome.APPLIED if done else Outcome.TEAM_CLOSED, team_view(slot, team)), ()
    if not team.group.rules.virtual_completion:
        return (Outcome.NOT_ELIGIBLE, team_view(slot, team)), ()
    paid = paid_members(slot, team)
    if not paid:
        return (Outcome.TEAM_NOT_OPEN, team_view(slot, team)), ()
    wanted = [
        tier.people
        for tier in team.group.tiers
        if tier.people >= len(paid) and command.people in (0, tier.people)
    ]
    if not wanted:
        return (Outcome.INVALID, team_view(slot, team)), ()
    act = Act(wanted[0] - len(paid), command.caller, command.reason)
    return (Outcome.APPLIED, None), tuple(form(slot, team, paid, team.leader, act, early=True))


def get_team(state: ShardState, command: t.GetTeam, now_ms: int) -> Decision:
    """(FOUND, team) or (NOT_FOUND, None)."""
    slot = state.slot(command.slot)
    team = slot.teams.get(command.team_key)
    if team is None:
        return (Outcome.NOT_FOUND, None), ()
    return (Outcome.FOUND, team_view(slot, team)), ()


def suggest_teams(state: ShardState, command: t.SuggestTeams, now_ms: int) -> Decision:
    """(FOUND, teams) or (NOT_FOUND, ()): none that the buyer is in or may not join."""
    slot = state.slot(command.slot)
    campaign = slot.campaigns.get(command.campaign_id)
    if campaign is None:
        return (Outcome.NOT_FOUND, ()), ()
    groups = [
        pool.group
        for pool in campaign.pools.values()
        if pool.group is not None and command.sku_id in ("", pool.sku_id)
    ]
    # More than asked for, by the teams that the buyer may be in: as many as seats fit the limits.
    room = command.limit + len(groups) * IN_TEAMS_MAX
    found = [
        team
        for group in groups
        for team in nearest_to_full(slot, group.joinable(command.new_buyer), room)
        if command.buyer_id not in team.buyers and now_ms < team.deadline_ms
    ]
    found.sort(key=lambda team: (team.free(), team.deadline_ms, team.key))
    return (
        Outcome.FOUND,
        tuple(team_view(slot, team, whole=False) for team in found[: command.limit]),
    ), ()


IN_TEAMS_MAX = 20
"""So many of the nearest teams are passed over at most because the buyer is in them."""


def team_view(slot: SlotState, team: Team, *, whole: bool = True) -> tuple[Any, ...]:
    """A team as it travels in answers: (key, campaign, SKU, state, opened_ms, deadline_ms,
    ended_ms, leader's key, tiers, paid, unpaid, virtual, new members, seats for new buyers still
    free, tier reached, unit price reached, members, currency); a member is (key, buyer, paid, new,
    joined_ms). Not `whole`: the leader is the only member told, since teams may have hundreds."""
    if team.state == TEAM_FORMING and whole:
        seats = members(slot, team)
    else:
        keys = team.members if whole else (team.leader,)
        held = (slot.reservations.get(key) for key in keys)
        seats = [seat for seat in held if type(seat) is Seat]
    forming = team.state == TEAM_FORMING
    return (
        team.key,
        team.campaign_id,
        team.sku_id,
        team.state,
        team.opened_ms,
        team.deadline_ms,
        team.ended_ms,
        team.leader,
        team.group.tiers,
        team.paid if forming else len(team.members),
        len(team.buyers) - team.paid if forming else 0,
        team.virtual,
        team.new_count,
        team.missing_new() if forming else 0,
        team.tier_people,
        team.unit_price_minor,
        tuple(
            (seat.key, seat.buyer_id, seat.state == CONFIRMED, seat.new_buyer, seat.joined_ms)
            for seat in seats
        ),
        slot.campaigns[team.campaign_id].config.currency_code,
    )

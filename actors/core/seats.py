"""Who is in a forming team: kept as its seats come, are paid and go, and counted anew on load."""

from actors.core import state as s
from actors.core.tables import Counts, Deadlines
from actors.core.team_state import TEAM_FORMING, Team, after_taking, put_in_place


def enter(state: s.ShardState, slot: s.SlotState, seat: s.Seat) -> None:
    """A seat is taken, reserved or paid. `Impossible` if the team has no place for it."""
    team = slot.teams.get(seat.team_key)
    if team is None or team.state != TEAM_FORMING:
        raise s.Impossible(f"entry {state.seq}: a seat of a team that is not forming")
    buyers, buyer_id = team.buyers, seat.buyer_id
    if buyer_id in buyers or len(buyers) >= team.group.capacity:
        raise s.Impossible(f"entry {state.seq}: no seat for {buyer_id} in this team")
    seat.team_key = team.key
    buyers[buyer_id] = seat.key
    if seat.new_buyer:
        team.new_count += 1
    if seat.state == s.CONFIRMED:
        team.paid += 1
        team.new_paid += seat.new_buyer
    after_taking(team, state.now_ms)


def pay(state: s.ShardState, slot: s.SlotState, seat: s.Seat) -> None:
    """A seat that is in its team is paid now."""
    team = _team_with(slot, seat)
    if team is not None:
        team.paid += 1
        team.new_paid += seat.new_buyer


def drop(state: s.ShardState, slot: s.SlotState, seat: s.Seat) -> None:
    """A seat is given up, before its state changes. Nothing for one whose team has ended."""
    team = _team_with(slot, seat)
    if team is not None:
        _count(team, seat, -1)
        put_in_place(team, state.now_ms)


def _team_with(slot: s.SlotState, seat: s.Seat) -> Team | None:
    team = slot.teams.get(seat.team_key)
    if team is None or team.buyers.get(seat.buyer_id) != seat.key:
        return None
    return team


def _count(team: Team, seat: s.Seat, by: int) -> None:
    if by > 0:
        team.buyers[seat.buyer_id] = seat.key
    else:
        del team.buyers[seat.buyer_id]
    team.new_count += by * seat.new_buyer
    if seat.state == s.CONFIRMED:
        team.paid += by
        team.new_paid += by * seat.new_buyer


def recount_teams(state: s.ShardState, slot: s.SlotState) -> None:
    """Count the teams of a loaded snapshot: members, places, deadlines, openers."""
    slot.team_deadlines = Deadlines()
    for campaign in slot.campaigns.values():
        campaign.openers = Counts()
        for pool in campaign.pools.values():
            if pool.group is not None:
                pool.group.forming = {}
    if not len(slot.teams):
        return
    for team in slot.teams.values():
        _reset(slot, team)
        if team.state == TEAM_FORMING:
            slot.team_deadlines.add(team.key, team.deadline_ms, state.now_ms)
            campaign = slot.campaigns[team.campaign_id]
            campaign.openers.change(team.opener_id, 1)
            if campaign.state == s.CAMPAIGN_ENDED:
                state.closing[slot.slot, team.campaign_id] = None
    for held in slot.reservations.values():
        if type(held) is s.Seat and held.state in (s.RESERVED, s.CONFIRMED):
            of = slot.teams.get(held.team_key)
            if of is not None and of.state == TEAM_FORMING:
                held.team_key = of.key
                _count(of, held, 1)
    for team in slot.teams.values():
        put_in_place(team, state.now_ms)


def _reset(slot: s.SlotState, team: Team) -> None:
    pool = slot.campaigns[team.campaign_id].pools[team.sku_id]
    if pool.group is None:
        raise s.Impossible(f"a team of {team.campaign_id}/{team.sku_id}, which has none")
    team.group = pool.group
    team.place = -1
    team.buyers = {}
    if team.state == TEAM_FORMING:
        team.paid = team.new_count = team.new_paid = 0

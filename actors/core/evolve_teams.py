"""Applying what was decided on teams and their seats.

Part of `evolve.py`, whose rules hold here. While a snapshot is completed only what a team's own
records say is kept; who is in it, and where it stands among the others, is counted at the end.
"""

from actors.core import state as s
from actors.core import team_records as t
from actors.core.evolve_reservations import change_row, put_refund_of, skip, stock_reserved
from actors.core.evolve_stock import free
from actors.core.identity import public_id
from actors.core.refunds import RefundReason
from actors.core.seats import drop, enter
from actors.core.team_state import (
    TEAM_FORMED,
    TEAM_FORMING,
    Team,
    put_in_place,
)


def team_opened(state: s.ShardState, slot: s.SlotState, record: t.TeamOpened) -> None:
    if state.fuzzy is not None and record.team_key in slot.teams:
        return
    pool = slot.pool(record.campaign_id, record.sku_id)
    if pool is None or pool.group is None:
        raise s.Impossible(f"entry {state.seq}: no teams of {record.campaign_id}/{record.sku_id}")
    team = Team()
    team.key = record.team_key
    team.campaign_id = pool.campaign_id
    team.sku_id = pool.sku_id
    team.group = pool.group
    team.opener_id = record.opener_id
    team.opened_ms = team.touched_ms = state.now_ms
    team.deadline_ms = record.deadline_ms
    team.seq = state.seq
    slot.teams.put(team.key, team)
    pool.group.opened += 1
    if state.fuzzy is None:
        slot.team_deadlines.add(team.key, team.deadline_ms, state.now_ms)
        slot.campaigns[team.campaign_id].openers.change(team.opener_id, 1)
        put_in_place(team, state.now_ms)


def seat_taken(state: s.ShardState, slot: s.SlotState, record: t.SeatTaken) -> None:
    seat = stock_reserved(state, slot, record, s.Seat)
    if type(seat) is not s.Seat:
        return
    seat.team_key = record.team_key
    seat.new_buyer = record.new_buyer
    seat.joined_ms = state.now_ms
    seat.settled_minor = 0
    if state.fuzzy is None:
        enter(state, slot, seat)


def team_led(state: s.ShardState, slot: s.SlotState, record: t.TeamLed) -> None:
    team = _team(state, slot, record.team_key)
    if team is None:
        return
    team.leader, team.leader_id = record.leader_key, record.leader_id
    if state.fuzzy is None:
        put_in_place(team, state.now_ms)


def seat_moved(state: s.ShardState, slot: s.SlotState, record: t.SeatMoved) -> None:
    if skip(state, slot, record.key):
        return
    seat = change_row(state, slot, record.key)
    if type(seat) is not s.Seat:
        raise s.Impossible(f"entry {state.seq}: {public_id(slot.slot, record.key)} is no seat")
    seat.team_key = record.team_key
    seat.joined_ms = state.now_ms


def seat_closed(state: s.ShardState, slot: s.SlotState, record: t.SeatClosed) -> None:
    failed = record.why == RefundReason.TEAM_FAILED
    put_refund_of(state, slot, record, record.why, compensation=failed)
    if skip(state, slot, record.key):
        return
    seat = change_row(state, slot, record.key)
    if type(seat) is not s.Seat or seat.state != s.CONFIRMED or seat.payment is None:
        raise s.Impossible(f"entry {state.seq}: {public_id(slot.slot, record.key)} is not paid")
    seat.payment.refunded_minor += record.refund_minor
    if state.fuzzy is None:
        drop(state, slot, seat)
    seat.state = s.RETURNED
    seat.returned = seat.quantity
    seat.pool.sold -= record.quantity
    free(state, slot, seat.pool, record.quantity)
    for counts in seat.pool.counted_in:
        counts.change(seat.buyer_id, -record.quantity)


def seat_settled(state: s.ShardState, slot: s.SlotState, record: t.SeatSettled) -> None:
    if record.refund_key:
        put_refund_of(state, slot, record, int(RefundReason.TEAM_PRICE), compensation=False)
    if skip(state, slot, record.key):
        return
    seat = change_row(state, slot, record.key)
    if type(seat) is not s.Seat or seat.payment is None:
        raise s.Impossible(f"entry {state.seq}: {public_id(slot.slot, record.key)} is not paid")
    seat.payment.refunded_minor += record.refund_minor
    seat.settled_minor = record.refund_minor


def team_formed(state: s.ShardState, slot: s.SlotState, record: t.TeamFormed) -> None:
    team = _team(state, slot, record.team_key)
    if team is None:
        return
    team.leader = record.leader_key
    team.tier_people = record.tier_people
    team.unit_price_minor = record.unit_price_minor
    team.virtual = record.virtual
    team.completed_by = record.caller
    _ended(state, slot, team, TEAM_FORMED, record.members)
    team.new_count = team.new_paid = record.new_members


def team_closed(state: s.ShardState, slot: s.SlotState, record: t.TeamClosed) -> None:
    team = _team(state, slot, record.team_key)
    if team is not None:
        _ended(state, slot, team, record.state, record.members)


def _ended(
    state: s.ShardState, slot: s.SlotState, team: Team, new: int, members: tuple[bytes, ...]
) -> None:
    if team.state != TEAM_FORMING:
        raise s.Impossible(f"entry {state.seq}: team state {team.state} cannot become {new}")
    team.state = new
    team.members = members
    team.paid = len(members)
    team.new_count = team.new_paid = 0
    team.ended_ms = state.now_ms
    team.buyers = {}
    if state.fuzzy is not None:
        return
    put_in_place(team, state.now_ms)
    slot.team_deadlines.remove(team.key, team.deadline_ms)
    campaign = slot.campaigns[team.campaign_id]
    campaign.openers.change(team.opener_id, -1)
    closing = (slot.slot, team.campaign_id)
    if closing in state.closing and not campaign.openers:
        del state.closing[closing]


def teams_forgotten(state: s.ShardState, slot: s.SlotState, record: t.TeamsForgotten) -> None:
    for key in record.keys:
        team = slot.teams.pop(key)
        # Forgotten before its turn to be written, a team is not in the snapshot.
        if team is None and state.fuzzy is None:
            raise s.Impossible(f"entry {state.seq}: no team {public_id(slot.slot, key)}")
        if team is not None and team.state == TEAM_FORMING and state.fuzzy is None:
            raise s.Impossible(f"entry {state.seq}: team {public_id(slot.slot, key)} is forming")
        if team is not None and state.archive is not None:
            state.archived_teams.setdefault(slot.slot, {})[key] = team


def team_nearly_full(state: s.ShardState, slot: s.SlotState, record: t.TeamNearlyFull) -> None:
    """Nothing changes."""


def _team(state: s.ShardState, slot: s.SlotState, key: bytes) -> Team | None:
    """The team of one of its own records; None if the snapshot being completed is newer."""
    team = slot.teams.get(key)
    if state.fuzzy is not None:
        # Not in the snapshot: forgotten before its turn to be written.
        if team is None or state.fuzzy.get(("teams", slot.slot, key), 0) >= state.seq:
            return None
    elif team is None:
        raise s.Impossible(f"entry {state.seq}: no team {public_id(slot.slot, key)}")
    team.seq = state.seq
    team.touched_ms = state.now_ms
    return team

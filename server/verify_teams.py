"""Teams, for `verify`: counted anew from seats, payments and refunds alone.

* I1: seats that are held or paid are no more than a team has, each of another buyer; what a team
  counts is what its seats add up to; a paid member leads; an ended team holds no unpaid seat, and
  has virtual ones only by an operator, where its campaign allows that.
* I6: a team ends only together with what it owes; what is paid for a seat is kept at the tier's
  price by a team that formed, or all of it is due back.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from actors.core import state as s
from actors.core import team_records as t
from actors.core.identity import public_id
from actors.core.team_ends import (
    leaders_price,
    seat_refund_key,
    settlement_refund_key,
    tier_for,
)
from actors.core.team_state import TEAM_FAILED, TEAM_FORMED, TEAM_FORMING, Team
from server.verify_rows import known, known_teams

Check = Callable[[bool, str], None]

_HELD = (s.RESERVED, s.CONFIRMED)


def check_teams(state: s.ShardState, *, whole: bool, i1: Check, i6: Check) -> None:
    """All teams and seats of a state. Not `whole`: it was folded from a snapshot, and of what was
    forgotten before it nothing is known."""
    for slot in state.slots.values():
        teams = known_teams(state, slot)
        seats: dict[bytes, list[s.Seat]] = {}
        for held in known(state, slot):
            if type(held) is s.Seat:
                seats.setdefault(held.team_key, []).append(held)
        for key, team in teams.items():
            _check_counts(slot, team, seats.get(key, []), i1, whole=whole)
        for key, held_seats in seats.items():
            of = teams.get(key)
            i1(of is not None or not whole, f"team {public_id(slot.slot, key)}: seats of no team")
            if of is not None:
                _check_money(slot, of, held_seats, i6)
        _check_openers(slot, i1)


def check_ends(records: Sequence[Any], i6: Check) -> None:
    """Of an entry: who ends a team owes its members in the same one."""
    for record in records:
        if record.kind == t.TEAM_FORMED:
            wanted = t.SEAT_SETTLED
        elif record.kind == t.TEAM_CLOSED and record.state == TEAM_FAILED:
            wanted = t.SEAT_CLOSED
        else:
            continue
        of = (wanted, record.slot, record.team_key)
        ends = [one for one in records if one.kind in (t.SEAT_CLOSED, t.SEAT_SETTLED)]
        found = {one.key for one in ends if (one.kind, one.slot, one.team_key) == of}
        i6(
            found == set(record.members),
            f"team {public_id(record.slot, record.team_key)}: {len(record.members)} members, "
            f"{len(found)} were settled with it",
        )


def check_decided(state: s.ShardState, records: Sequence[Any], i1: Check, i6: Check) -> None:
    """Of an entry that was folded: a team that no operator completed has its new buyers; what a
    seat's end makes due is of its own key, payment and buyer."""
    for record in records:
        if record.kind in (t.SEAT_CLOSED, t.SEAT_SETTLED):
            _check_own(state.slot(record.slot), record, i6)
        elif record.kind == t.TEAM_FORMED and not record.caller:
            _check_new_buyers(state.slot(record.slot), record, i1)


def _check_new_buyers(slot: s.SlotState, record: t.TeamFormed, i1: Check) -> None:
    held = [slot.reservations.get(key) for key in record.members]
    found = sum(seat.new_buyer for seat in held if type(seat) is s.Seat)
    team = slot.teams.get(record.team_key)
    needed = 0 if team is None else team.group.rules.new_buyer_seats
    i1(
        found == record.new_members >= needed,
        f"team {public_id(slot.slot, record.team_key)}: says {record.new_members} new buyers, has "
        f"{found} of {needed}",
    )


def _check_own(slot: s.SlotState, record: Any, i6: Check) -> None:
    key = record.key
    name = public_id(slot.slot, key)
    settles = record.kind == t.SEAT_SETTLED
    own = settlement_refund_key(key) if settles else seat_refund_key(key)
    if record.refund_minor or not settles:
        i6(record.refund_key == own, f"seat {name}: its refund is not its own")
    held = slot.reservations.get(key)
    found = None
    if held is not None and held.payment is not None:
        found = (held.payment.payment_id, held.buyer_id)
    told = (record.payment_id, record.buyer_id)
    i6(found == told, f"seat {name}: its refund is of another payment: {told}, it has {found}")


def _check_counts(
    slot: s.SlotState, team: Team, seats: Sequence[s.Seat], i1: Check, *, whole: bool
) -> None:
    name = f"team {public_id(slot.slot, team.key)}"
    if team.state == TEAM_FORMING:
        _check_forming(name, team, seats, i1)
        return
    i1(not any(seat.state == s.RESERVED for seat in seats), f"{name}: ended with unpaid seats")
    keys = {seat.key for seat in seats}
    i1(
        keys.issuperset(team.members) or not whole,
        f"{name}: {len(team.members)} members, {len(keys.intersection(team.members))} have seats",
    )
    if team.state != TEAM_FORMED:
        return
    people = len(team.members) + team.virtual
    i1(people <= team.group.capacity, f"{name}: {people} members, its tiers end before")
    tier = tier_for(team, people)
    i1(
        tier == (team.tier_people, team.unit_price_minor),
        f"{name}: {people} members reach {tier}, it formed at {team.tier_people}",
    )
    i1(team.leader in team.members, f"{name}: formed without its leader")
    by = team.completed_by
    i1(bool(by) or not team.virtual, f"{name}: {team.virtual} virtual seats, completed by nobody")
    allowed = team.group.rules.virtual_completion
    i1(allowed or not by, f"{name}: completed by {by} against its campaign's rules")


def _check_forming(name: str, team: Team, seats: Sequence[s.Seat], i1: Check) -> None:
    held = [seat for seat in seats if seat.state in _HELD]
    paid = [seat for seat in held if seat.state == s.CONFIRMED]
    i1(
        len(held) <= team.group.capacity,
        f"{name}: {len(held)} seats taken of {team.group.capacity}",
    )
    i1(
        len(held) == len(team.buyers) and {seat.buyer_id: seat.key for seat in held} == team.buyers,
        f"{name}: its seats are of {sorted(seat.buyer_id for seat in held)}, it has "
        f"{sorted(team.buyers)}",
    )
    told = (team.paid, team.new_count, team.new_paid)
    counted = (
        len(paid),
        sum(seat.new_buyer for seat in held),
        sum(seat.new_buyer for seat in paid),
    )
    i1(told == counted, f"{name}: counts (paid, new, new and paid) {told}, its seats {counted}")
    leads = team.leader in {seat.key for seat in paid} if paid else not team.leader
    i1(leads, f"{name}: led by {team.leader.hex() or 'nobody'}, which is no paid seat of it")


def _check_openers(slot: s.SlotState, i1: Check) -> None:
    counted = Counter(
        (team.campaign_id, team.opener_id)
        for team in slot.teams.values()
        if team.state == TEAM_FORMING
    )
    for campaign_id, campaign in slot.campaigns.items():
        if campaign.config.group is None:
            continue
        told = dict(campaign.openers.items())
        found = {buyer: count for (name, buyer), count in counted.items() if name == campaign_id}
        i1(told == found, f"campaign {campaign_id}: open teams by buyer {told}, counted {found}")


def _check_money(slot: s.SlotState, team: Team, seats: Sequence[s.Seat], i6: Check) -> None:
    members = set(team.members) if team.state == TEAM_FORMED else set()
    for seat in seats:
        payment = seat.payment
        if payment is None:
            i6(seat.key not in members, f"seat {_id(slot, seat)}: a member that never paid")
            continue
        paid, back = payment.amount_minor, payment.refunded_minor
        if seat.key in members:
            _check_price(slot, team, seat, payment, i6)
        elif team.state == TEAM_FORMING and seat.state == s.CONFIRMED:
            i6(back == 0, f"seat {_id(slot, seat)}: {back} of {paid} due back, and still a seat")
        else:
            i6(back == paid, f"seat {_id(slot, seat)}: in no team, {back} of {paid} due back")


def _check_price(
    slot: s.SlotState, team: Team, seat: s.Seat, payment: s.Payment, i6: Check
) -> None:
    paid, back = payment.amount_minor, payment.refunded_minor
    price = final_minor(team, seat, paid)
    kept = paid - seat.settled_minor
    i6(kept == price, f"seat {_id(slot, seat)}: its tier costs {price}, {kept} was kept")
    due = seat.settled_minor + kept * seat.returned // seat.quantity
    if seat.state == s.REVOKED:
        due = paid
    i6(back == due, f"seat {_id(slot, seat)}: {back} due back instead of {due}")


def final_minor(team: Team, seat: s.Seat, paid_minor: int) -> int:
    """What a member of a formed team pays in the end: never more than was paid."""
    unit = team.unit_price_minor
    if seat.key == team.leader:
        unit = leaders_price(team.group, unit)
    return min(paid_minor, unit * seat.quantity)


def _id(slot: s.SlotState, seat: s.Seat) -> str:
    return public_id(slot.slot, seat.key)

"""How seats and teams end: leaving, forming, failing, and where a late payer goes.

All of it is decided on the state before its records are folded, so what is about to change (a seat
that is being paid, seats that are gone) is handed in.

Of what a member paid, what is above the final price is one refund of that member's own; a team that
fails owes each member a refund of that member's own. So one refund never holds up another.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from actors.core.campaign_config import Tier
from actors.core.identity import buyer_part, request_key
from actors.core.records import RESERVATION_EXPIRED, ReservationConfirmed, ReservationExpired
from actors.core.refunds import RefundReason
from actors.core.state import CONFIRMED, Payment, Reservation, Seat, ShardState, SlotState
from actors.core.team_records import (
    SEAT_CLOSED,
    SEAT_MOVED,
    SEAT_SETTLED,
    TEAM_CLOSED,
    TEAM_FORMED,
    TEAM_LED,
    TEAM_NEARLY_FULL,
    SeatClosed,
    SeatMoved,
    SeatSettled,
    TeamClosed,
    TeamFormed,
    TeamLed,
    TeamNearlyFull,
)
from actors.core.team_state import (
    FOR_EVER_MS,
    TEAM_CANCELLED,
    TEAM_FAILED,
    TEAM_FORMING,
    Group,
    Team,
)
from actors.core.terms import currency_of, exceeds_limit

LATE_LOOKS = 8
"""Teams looked at for a late payer's seat."""


class Paid(NamedTuple):
    """A paid seat, or one that is being paid in this decision."""

    seat: Seat
    payment_id: str
    channel: str
    amount_minor: int
    joined_ms: int
    """Of a seat that moves to another team in this decision: now."""


class Act(NamedTuple):
    """Who completed a team by hand, with how many virtual seats, and why."""

    virtual: int
    caller: str
    reason: str


NOBODY = Act(0, "", "")


def seat_refund_key(key: bytes) -> bytes:
    """The refund of all that was paid for a seat, when it ends without a formed team."""
    return request_key("seat", key.hex())


def settlement_refund_key(key: bytes) -> bytes:
    """The refund of what a member paid above the final price."""
    return request_key("settle", key.hex())


def team_of(slot: SlotState, held: Reservation | None) -> Team | None:
    """The forming team that a reservation is a seat of; None for any other reservation."""
    if type(held) is not Seat:
        return None
    team = slot.teams.get(held.team_key)
    if team is None or team.state != TEAM_FORMING or team.buyers.get(held.buyer_id) != held.key:
        return None
    return team


def members(slot: SlotState, team: Team) -> list[Seat]:
    """A forming team's seats, reserved and paid, in the order of joining."""
    return sorted(
        (seat for key in team.buyers.values() if type(seat := slot.reservations.get(key)) is Seat),
        key=lambda seat: (seat.joined_ms, seat.key),
    )


def paid_seat(seat: Seat, payment: Payment) -> Paid:
    """A seat with the payment that it has."""
    return Paid(seat, payment.payment_id, payment.channel, payment.amount_minor, seat.joined_ms)


def paid_members(slot: SlotState, team: Team) -> list[Paid]:
    """Those of them that are paid."""
    return [
        paid_seat(seat, payment)
        for seat in members(slot, team)
        if seat.state == CONFIRMED and (payment := seat.payment) is not None
    ]


def tier_for(team: Team, people: int) -> Tier | None:
    """The highest tier that so many people reach; None below the first."""
    reached = [tier for tier in team.group.tiers if people >= tier.people]
    return reached[-1] if reached else None


def leaders_price(group: Group, unit_price_minor: int) -> int:
    """A unit's price for the leader: less the discount, which is rounded down."""
    return unit_price_minor - unit_price_minor * group.rules.leader_discount_bps // 10_000


def after_leaving(slot: SlotState, team: Team, gone: Iterable[bytes]) -> list[Any]:
    """Seats of a forming team are gone by the records before: the next leader, or the team's end
    when nobody is left."""
    gone = set(gone)
    left = [seat for seat in members(slot, team) if seat.key not in gone]
    if not left:
        return [_closed(slot, team, TEAM_CANCELLED, ())]
    if team.leader not in gone:
        return []
    heir = next((seat for seat in left if seat.state == CONFIRMED), None)
    return [led_by(slot, team, heir)]


def teams_left(seats: Iterable[tuple[SlotState, Seat]]) -> list[Any]:
    """`after_leaving` for seats that end together in the records before."""
    gone: dict[tuple[int, bytes], tuple[SlotState, Team, list[bytes]]] = {}
    for slot, seat in seats:
        team = team_of(slot, seat)
        if team is not None:
            gone.setdefault((slot.slot, team.key), (slot, team, []))[2].append(seat.key)
    return [
        record for slot, team, keys in gone.values() for record in after_leaving(slot, team, keys)
    ]


def led_by(slot: SlotState, team: Team, seat: Seat | None) -> TeamLed:
    """From now on the team is led by this paid seat, or by none."""
    key, buyer_id = (b"", "") if seat is None else (seat.key, seat.buyer_id)
    return TeamLed(TEAM_LED, slot.slot, team.key, key, buyer_id, team.campaign_id)


def close_seat(
    slot: SlotState, paid: Paid, why: RefundReason, caller: str = "", reason: str = ""
) -> SeatClosed:
    """A paid seat ends without a formed team: all that was paid is due."""
    seat = paid.seat
    return SeatClosed(
        SEAT_CLOSED,
        slot.slot,
        seat.key,
        buyer_part(seat.buyer_id),
        seat.team_key,
        seat.quantity,
        int(why),
        seat_refund_key(seat.key),
        paid.amount_minor,
        paid.payment_id,
        paid.channel,
        seat.buyer_id,
        seat.pool.campaign_id,
        currency_of(slot, seat.pool),
        caller,
        reason,
    )


def form(
    slot: SlotState,
    team: Team,
    paid: Sequence[Paid],
    leader: bytes,
    act: Act = NOBODY,
    *,
    early: bool = False,
) -> list[Any]:
    """The team succeeds with these paid seats: its unpaid ones expire, it reaches its tier, and
    each member is settled. `leader` is the leader's seat as of this decision."""
    tier = tier_for(team, len(paid) + act.virtual)
    if tier is None:
        raise AssertionError(f"team {team.key.hex()} has {len(paid)} paid seats")
    # Who pays last need not have joined last.
    paid = sorted(paid, key=lambda one: (one.joined_ms, one.seat.key))
    keys = tuple(one.seat.key for one in paid)
    records = _unpaid(slot, team, keys, early=early)
    records.append(
        TeamFormed(
            TEAM_FORMED,
            slot.slot,
            team.key,
            team.campaign_id,
            team.sku_id,
            tier.people,
            tier.unit_price_minor,
            act.virtual,
            keys,
            sum(one.seat.new_buyer for one in paid),
            leader,
            act.caller,
            act.reason,
        )
    )
    records.extend(_settled(slot, team, one, tier, leads=one.seat.key == leader) for one in paid)
    return records


def seat_paid(
    slot: SlotState, seat: Seat, record: ReservationConfirmed, now_ms: int
) -> tuple[Any, ...]:
    """A seat's payment is kept: its confirmation, and what that makes of its team. A late payer's
    seat moves first, if its own team has no room for it."""
    records: list[Any] = [record]
    joined_ms = seat.joined_ms
    team = team_of(slot, seat)
    if team is None:
        team = place_for_late(slot, seat)
        if team is None:
            raise AssertionError(f"no team for a seat that is kept: {seat.key.hex()}")
        if team.key != seat.team_key:
            joined_ms = now_ms
            part = buyer_part(seat.buyer_id)
            moved = SeatMoved(
                SEAT_MOVED,
                slot.slot,
                seat.key,
                part,
                seat.team_key,
                team.key,
                team.campaign_id,
            )
            records.insert(0, moved)
    leader = team.leader
    if not leader:
        leader = seat.key
        records.append(led_by(slot, team, seat))
    now = Paid(seat, record.payment_id, record.payment_channel, record.paid_minor, joined_ms)
    missing = team.group.capacity - team.paid - 1
    if missing <= 0:
        paid = [*paid_members(slot, team), now]
        records.extend(form(slot, team, paid, leader))
    elif missing == team.group.rules.nearly_full_seats:
        records.append(
            TeamNearlyFull(
                TEAM_NEARLY_FULL, slot.slot, team.key, team.campaign_id, team.sku_id, missing
            )
        )
    return tuple(records)


def _unpaid(
    slot: SlotState, team: Team, paid: Sequence[bytes], *, early: bool = False
) -> list[Any]:
    """`early`: an operator ends the team, which is no fault of who was about to pay."""
    known = set(paid)
    return [
        ReservationExpired(
            RESERVATION_EXPIRED,
            slot.slot,
            seat.key,
            buyer_part(seat.buyer_id),
            team.campaign_id,
            "" if early else seat.buyer_id,
        )
        for seat in members(slot, team)
        if seat.key not in known
    ]


def _settled(slot: SlotState, team: Team, one: Paid, tier: Tier, *, leads: bool) -> SeatSettled:
    seat = one.seat
    unit = tier.unit_price_minor
    if leads:
        unit = leaders_price(team.group, unit)
    refund = max(0, one.amount_minor - unit * seat.quantity)
    return SeatSettled(
        SEAT_SETTLED,
        slot.slot,
        seat.key,
        buyer_part(seat.buyer_id),
        team.key,
        one.amount_minor - refund,
        settlement_refund_key(seat.key) if refund else b"",
        refund,
        one.payment_id,
        one.channel,
        seat.buyer_id,
        team.campaign_id,
        currency_of(slot, seat.pool),
        seat.pool.sku_id,
        seat.quantity,
        seat.reserved_ms,
        seat.list_price_minor,
    )


def end(slot: SlotState, team: Team, *, early: bool = False) -> list[Any]:
    """The deadline passed, or (`early`) the campaign was ended: the team forms at the highest tier
    that its paid seats reach, or fails, and every paid seat gets its refund."""
    paid = paid_members(slot, team)
    new = sum(one.seat.new_buyer for one in paid)
    if tier_for(team, len(paid)) is not None and new >= team.group.rules.new_buyer_seats:
        return form(slot, team, paid, team.leader, early=early)
    keys = tuple(one.seat.key for one in paid)
    return [
        *_unpaid(slot, team, keys, early=early),
        *(close_seat(slot, one, RefundReason.TEAM_FAILED) for one in paid),
        _closed(slot, team, TEAM_FAILED, keys),
    ]


def _closed(slot: SlotState, team: Team, state: int, keys: tuple[bytes, ...]) -> TeamClosed:
    return TeamClosed(TEAM_CLOSED, slot.slot, team.key, team.campaign_id, team.sku_id, state, keys)


def place_for_late(slot: SlotState, seat: Seat) -> Team | None:
    """Where a payer comes in whose seat had expired: the seat's own team if it still has room,
    else the nearest to full that has, else nowhere. The units must be there, and
    the limit must allow them."""
    pool = seat.pool
    campaign = slot.campaigns.get(pool.campaign_id)
    if pool.available < seat.quantity or exceeds_limit(
        campaign, pool, seat.buyer_id, seat.quantity
    ):
        return None
    own = slot.teams.get(seat.team_key)
    if own is not None and _has_room(own, seat):
        return own
    if pool.group is None:
        return None
    return next((team for team in _nearest(slot, seat, LATE_LOOKS) if _has_room(team, seat)), None)


def _has_room(team: Team, seat: Seat) -> bool:
    return (
        team.state == TEAM_FORMING
        and seat.buyer_id not in team.buyers
        and team.takes(seat.new_buyer)
    )


def _nearest(slot: SlotState, seat: Seat, limit: int) -> list[Team]:
    group = seat.pool.group
    if group is None:
        return []
    return nearest_to_full(slot, group.joinable(seat.new_buyer), limit)


def nearest_to_full(slot: SlotState, buckets: Iterable[Any], limit: int) -> list[Team]:
    """Up to `limit` teams, in the order of the buckets, then by deadline."""
    found: list[Team] = []
    for bucket in buckets:
        keys = bucket.due(FOR_EVER_MS, limit - len(found))
        teams = [team for key in keys if (team := slot.teams.get(key)) is not None]
        found.extend(sorted(teams, key=lambda team: (team.deadline_ms, team.key)))
        if len(found) >= limit:
            break
    return found


def due_teams(state: ShardState, now_ms: int, limit: int) -> list[Any]:
    """Records that end teams whose deadline has passed, or whose campaign was ended: of one team at
    least, then no more than `limit`."""
    records: list[Any] = []
    for slot in state.slots.values():
        if not slot.team_deadlines:
            continue
        for key in slot.team_deadlines.due(now_ms, max(1, limit - len(records))):
            team = slot.teams.get(key)
            if team is None or team.state != TEAM_FORMING:
                raise AssertionError(f"deadline of a team that is not forming: {key.hex()}")
            records.extend(end(slot, team))
            if len(records) >= limit:
                return records
    return records


def closing_teams(state: ShardState, limit: int) -> list[Any]:
    """The same for campaigns that were ended before their time. Fold what is due before."""
    records: list[Any] = []
    for number, campaign_id in list(state.closing):
        slot = state.slots[number]
        pools = slot.campaigns[campaign_id].pools.values()
        groups = [pool.group for pool in pools if pool.group is not None]
        buckets = [bucket for group in groups for bucket in list(group.forming.values())]
        for bucket in buckets:
            for key in bucket.due(FOR_EVER_MS, max(1, limit - len(records))):
                team = slot.teams.get(key)
                if team is not None:
                    records.extend(end(slot, team, early=True))
                if len(records) >= limit:
                    return records
    return records

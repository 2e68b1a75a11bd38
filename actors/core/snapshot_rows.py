"""Rows of the large tables, as a snapshot has them: packed, and filled in again."""

from collections.abc import Callable
from sys import intern
from typing import Any, NamedTuple

from actors.core import state as s
from actors.core.bloom import Forgotten
from actors.core.commission_rows import FILL as COMMISSION_FILL
from actors.core.commission_rows import PACK as COMMISSION_PACK
from actors.core.commission_rows import fill_recent
from actors.core.evolve_reservations import counted_units
from actors.core.pools import Pool
from actors.core.risk_state import Profile
from actors.core.team_state import TEAM_FORMING, Team


class UnreadableSnapshot(Exception):
    """The chunks are no snapshot of a format this release knows, or are not complete."""


def _pack_reservation(key: bytes, held: s.Reservation) -> tuple[Any, ...]:
    return (
        key,
        held.pool.campaign_id,
        held.pool.sku_id,
        held.buyer_id,
        held.quantity,
        held.returned,
        held.state,
        held.stage,
        held.fingerprint,
        held.reserved_ms,
        held.first_deadline_ms,
        held.deadline_ms,
        held.begun,
        held.list_price_minor,
        held.unit_price_minor,
        held.payable_minor,
        held.seq,
        held.touched_ms,
        _paid(held) if type(held) is not s.Seat else (_paid(held), *_seat(held)),
    )


def _paid(held: s.Reservation) -> tuple[Any, ...] | None:
    payment = held.payment
    if payment is None:
        return None
    return (payment.payment_id, payment.channel, payment.amount_minor, payment.refunded_minor)


def _seat(seat: s.Seat) -> tuple[Any, ...]:
    return (seat.team_key, seat.new_buyer, seat.joined_ms, seat.settled_minor)


SEAT_LENGTH = 5
"""Of what stands in the place of a seat's payment: that, and what `_seat` says."""


def _pack_team(key: bytes, team: Team) -> tuple[Any, ...]:
    forming = team.state == TEAM_FORMING
    return (
        key,
        team.campaign_id,
        team.sku_id,
        team.opener_id,
        team.opened_ms,
        team.deadline_ms,
        team.state,
        team.leader,
        team.leader_id,
        team.members,
        team.tier_people,
        team.unit_price_minor,
        team.virtual,
        team.ended_ms,
        team.seq,
        team.touched_ms,
        0 if forming else team.new_count,
        team.completed_by,
    )


def _pack_refund(key: bytes, refund: s.Refund) -> tuple[Any, ...]:
    return (
        key,
        refund.reservation_id,
        refund.buyer_id,
        refund.payment_id,
        refund.channel,
        refund.amount_minor,
        refund.reason,
        refund.compensation,
        refund.state,
        refund.attempts,
        refund.last_report,
        refund.seq,
        refund.currency_code,
    )


def _pack_profile(buyer_id: str, profile: Profile) -> tuple[Any, ...]:
    return (
        buyer_id,
        profile.whole_ms,
        profile.counts,
        profile.failures,
        profile.frozen_until_ms,
        profile.frozen_as_of_ms,
        profile.cause,
        profile.caller,
        profile.reason,
        profile.told_as_of_ms,
        profile.seq,
    )


def _pack_pair(key: bytes, value: Any) -> tuple[Any, ...]:
    return (key, value)


PACK: dict[str, Callable[[Any, Any], tuple[Any, ...]]] = {
    "teams": _pack_team,
    "reservations": _pack_reservation,
    "payments": _pack_pair,
    "documents": _pack_pair,
    "figures": _pack_pair,
    "refunds": _pack_refund,
    "refusals": _pack_pair,
    **COMMISSION_PACK,
    "profiles": _pack_profile,
}
"""Table of a slot -> how a row of it is packed."""


def table_of(slot: s.SlotState, name: str) -> Any:
    """A large table of a slot; None for one of a programme that it does not have."""
    if name not in COMMISSION_PACK:
        return getattr(slot, name)
    return None if slot.programme is None else getattr(slot.programme, name)


class Filling(NamedTuple):
    """What is filled."""

    state: s.ShardState
    begin_seq: int
    """Of the snapshot: newer rows are noted in `state.fuzzy`."""
    now_ms: int
    """Journalled time at the snapshot's end."""


def _filled_seat(fields: tuple[Any, ...]) -> tuple[s.Reservation, tuple[Any, ...] | None]:
    """A seat with what only seats have, and what stands for its payment."""
    seat = s.Seat()
    paid, seat.team_key, seat.new_buyer, seat.joined_ms, seat.settled_minor = fields
    return seat, paid


def _fill_reservations(filling: Filling, slot: s.SlotState, rows: Any) -> None:
    state, begin_seq, now_ms = filling
    fuzzy = state.fuzzy
    pool: Pool | None = None
    reserved_ms = touched_ms = seq = -1
    for row in rows:
        paid = row[-1]
        if paid is not None and len(paid) == SEAT_LENGTH:
            held, paid = _filled_seat(paid)
        else:
            held = s.Reservation()
        (
            held.key,
            campaign_id,
            sku_id,
            held.buyer_id,
            held.quantity,
            held.returned,
            held.state,
            held.stage,
            held.fingerprint,
            row_reserved_ms,
            held.first_deadline_ms,
            deadline_ms,
            held.begun,
            list_minor,
            unit_minor,
            payable_minor,
            row_seq,
            row_touched_ms,
            _,
        ) = row
        if pool is None or pool.sku_id != sku_id or pool.campaign_id != campaign_id:
            pool = _pool_of(slot, campaign_id, sku_id)
        held.pool = pool
        # Rows of one entry share its time and number, as they do where they were folded.
        if reserved_ms != row_reserved_ms:
            reserved_ms = row_reserved_ms
        if touched_ms != row_touched_ms:
            touched_ms = reserved_ms if row_touched_ms == reserved_ms else row_touched_ms
        if seq != row_seq:
            seq = row_seq
        held.reserved_ms, held.touched_ms, held.seq = reserved_ms, touched_ms, seq
        first = held.first_deadline_ms
        held.deadline_ms = first if deadline_ms == first else deadline_ms
        price = pool.list_price_minor
        held.list_price_minor = price if list_minor == price else list_minor
        price = pool.unit_price_minor
        held.unit_price_minor = price if unit_minor == price else unit_minor
        price = held.unit_price_minor
        held.payable_minor = price if payable_minor == price else payable_minor
        held.payment = None
        if paid is not None:
            held.payment = s.Payment(*paid[:3])
            held.payment.refunded_minor = paid[3]
        if seq > begin_seq and fuzzy is not None:
            fuzzy["reservations", slot.slot, held.key] = seq
        slot.reservations.put(held.key, held)
        _count(slot, held, now_ms)


def _pool_of(slot: s.SlotState, campaign_id: str, sku_id: str) -> Pool:
    pool = slot.pool(campaign_id, sku_id)
    if pool is None:
        raise UnreadableSnapshot(f"a reservation of an unknown pool {campaign_id}/{sku_id}")
    return pool


def _count(slot: s.SlotState, held: s.Reservation, now_ms: int) -> None:
    """Note when it is due, and what it counts for its buyer."""
    if held.state == s.RESERVED:
        slot.deadlines.add(held.key, held.deadline_ms, now_ms)
    units = counted_units(held)
    if units:
        for counts in held.pool.counted_in:
            counts.change(held.buyer_id, units)


def _fill_teams(filling: Filling, slot: s.SlotState, rows: Any) -> None:
    state, begin_seq, _ = filling
    for row in rows:
        team = Team()
        (
            team.key,
            campaign_id,
            sku_id,
            team.opener_id,
            team.opened_ms,
            team.deadline_ms,
            team.state,
            team.leader,
            team.leader_id,
            team.members,
            team.tier_people,
            team.unit_price_minor,
            team.virtual,
            team.ended_ms,
            team.seq,
            team.touched_ms,
            team.new_count,
            team.completed_by,
        ) = row
        team.new_paid = team.new_count
        pool = slot.pool(campaign_id, sku_id)
        if pool is None or pool.group is None:
            raise UnreadableSnapshot(f"a team of {campaign_id}/{sku_id}, which has none")
        team.campaign_id, team.sku_id, team.group = pool.campaign_id, pool.sku_id, pool.group
        team.paid = len(team.members)
        if team.seq > begin_seq and state.fuzzy is not None:
            state.fuzzy["teams", slot.slot, team.key] = team.seq
        slot.teams.put(team.key, team)


def _fill_refunds(filling: Filling, slot: s.SlotState, rows: Any) -> None:
    state, begin_seq, _ = filling
    for row in rows:
        refund = s.Refund()
        (
            refund.key,
            refund.reservation_id,
            refund.buyer_id,
            refund.payment_id,
            refund.channel,
            refund.amount_minor,
            refund.reason,
            refund.compensation,
            refund.state,
            refund.attempts,
            refund.last_report,
            refund.seq,
            currency_code,
        ) = row
        refund.currency_code = intern(currency_code)
        if refund.seq > begin_seq and state.fuzzy is not None:
            state.fuzzy["refunds", slot.slot, refund.key] = refund.seq
        slot.refunds.put(refund.key, refund)


def _fill_payments(filling: Filling, slot: s.SlotState, rows: Any) -> None:
    for key, effect in rows:
        slot.payments.put(key, effect)


def _fill_documents(filling: Filling, slot: s.SlotState, rows: Any) -> None:
    for key, mark in rows:
        slot.documents.put(key, mark)


def _fill_figures(filling: Filling, slot: s.SlotState, rows: Any) -> None:
    for key, figures in rows:
        slot.figures.put(key, figures)


def _fill_refusals(filling: Filling, slot: s.SlotState, rows: Any) -> None:
    for key, packed in rows:
        slot.refusals.put(key, packed >> 8, packed & 255)


def _fill_forgotten(filling: Filling, slot: s.SlotState, rows: Any) -> None:
    if slot.forgotten is None:
        slot.forgotten = Forgotten()
    filling.state.forgets = True
    for count, bits in rows:
        slot.forgotten.load(count, bits)


def _fill_programme(name: str) -> Callable[[Filling, s.SlotState, Any], None]:
    fill = COMMISSION_FILL[name]

    def filled(filling: Filling, slot: s.SlotState, rows: Any) -> None:
        state, begin_seq, _ = filling
        programme = state.programme(slot)
        for row in rows:
            key, seq = fill(programme, row)
            if seq > begin_seq and state.fuzzy is not None:
                state.fuzzy[name, slot.slot, key] = seq

    return filled


def _fill_recent(filling: Filling, slot: s.SlotState, rows: Any) -> None:
    fill_recent(filling.state.programme(slot), rows)


def _fill_profiles(filling: Filling, slot: s.SlotState, rows: Any) -> None:
    state, begin_seq, _ = filling
    for row in rows:
        profile = Profile()
        (
            buyer_id,
            profile.whole_ms,
            profile.counts,
            profile.failures,
            profile.frozen_until_ms,
            profile.frozen_as_of_ms,
            profile.cause,
            profile.caller,
            profile.reason,
            profile.told_as_of_ms,
            profile.seq,
        ) = row
        if profile.seq > begin_seq and state.fuzzy is not None:
            state.fuzzy["profiles", slot.slot, buyer_id.encode()] = profile.seq
        slot.profiles.put(buyer_id, profile)


FILL = {
    "teams": _fill_teams,
    "reservations": _fill_reservations,
    "payments": _fill_payments,
    "documents": _fill_documents,
    "figures": _fill_figures,
    "refunds": _fill_refunds,
    "refusals": _fill_refusals,
    "forgotten": _fill_forgotten,
    **{name: _fill_programme(name) for name in COMMISSION_FILL},
    "recent": _fill_recent,
    "profiles": _fill_profiles,
}
"""Table of a slot -> what puts packed rows into it. Of rows that change, those newer than the
snapshot's beginning are noted in `state.fuzzy`."""

"""Rules of group-buys, each broken on purpose: first the bugs found in well-known shops.

As in `breakages.py`, a breakage is a function that patches the real code.
"""

from collections.abc import Sequence
from typing import Any

import pytest

from actors.core import commands as c
from actors.core import (
    decide,
    evolve_reservations,
    evolve_teams,
    payments,
    pulse,
    seats,
    snapshot,
    snapshot_rows,
    team_ends,
    team_state,
    teams,
)
from actors.core import records as r
from actors.core import state as s
from actors.core import team_commands as tc
from actors.core import team_records as t
from actors.core.identity import request_key
from actors.core.outcomes import Outcome
from actors.core.refunds import RefundReason
from tests.helpers.breakages import after

Patch = pytest.MonkeyPatch


def _nothing(*_: Any) -> None:
    return None


def _enter_whoever(state: s.ShardState, slot: s.SlotState, seat: s.Seat) -> None:
    """As `seats.enter`, which takes nobody in who finds no seat: the last line of defence."""
    team = slot.teams.get(seat.team_key)
    assert team is not None
    team.buyers[seat.buyer_id] = seat.key
    team.new_count += seat.new_buyer
    if seat.state == s.CONFIRMED:
        team.paid += 1
        team.new_paid += seat.new_buyer
    team_state.put_in_place(team, state.now_ms)


def _without_the_last_defence(patch: Patch) -> None:
    patch.setattr(evolve_reservations, "enter", _enter_whoever)
    patch.setattr(evolve_teams, "enter", _enter_whoever)


# The last seat


def the_last_seat_is_taken_by_all_who_ask_at_once(patch: Patch) -> None:
    """The race: only seats that were paid when they asked are counted."""
    _without_the_last_defence(patch)
    honest = teams._may_not_join

    def may_not_join(team: Any, buyer_id: str, new_buyer: bool, now_ms: int) -> Any:
        broken = honest(team, buyer_id, new_buyer, now_ms)
        free = broken is Outcome.TEAM_FULL and team.paid < team.group.capacity
        return None if free else broken

    patch.setattr(teams, "_may_not_join", may_not_join)


def a_late_payer_enters_a_full_team(patch: Patch) -> None:
    _without_the_last_defence(patch)
    patch.setattr(
        team_ends,
        "_has_room",
        lambda team, seat: (
            team.state == team_state.TEAM_FORMING and seat.buyer_id not in team.buyers
        ),
    )


def a_late_payer_enters_a_team_that_ended(patch: Patch) -> None:
    """And keeps a seat that no settlement and no refund will ever reach."""

    def confirm(state: s.ShardState, command: c.Confirm, now_ms: int) -> Any:
        slot = state.slot(command.slot)
        held = payments.find_reservation(slot, command.reservation_id)
        team = slot.teams.get(held.team_key) if type(held) is s.Seat else None
        answer, records = honest(state, command, now_ms)
        ended = team is not None and team.state != team_state.TEAM_FORMING
        if not ended or held is None or records == () or records[0][0] != r.REFUND_FELL_DUE:
            return answer, records
        if records[0].reason != RefundReason.LATE_PAYMENT:
            return answer, records
        paid = (command.payment_id, command.payment_channel, command.paid_minor, True)
        head = (r.RESERVATION_CONFIRMED, command.slot, held.key, 0)
        return (Outcome.CONFIRMED, s.CONFIRMED, None), (r.ReservationConfirmed(*head, *paid),)

    def enter(state: s.ShardState, slot: s.SlotState, seat: s.Seat) -> None:
        team = slot.teams.get(seat.team_key)
        if team is None or team.state == team_state.TEAM_FORMING:
            seats.enter(state, slot, seat)

    honest = payments.confirm
    patch.setattr(evolve_reservations, "enter", enter)
    patch.setitem(decide.HANDLERS, c.CONFIRM, confirm)


def minus_one_seats_are_not_none(patch: Patch) -> None:
    """`remaining == 0` means full; once a late payer too many is in, -1 remain for ever."""
    a_late_payer_enters_a_full_team(patch)
    honest = teams._may_not_join

    def may_not_join(team: Any, buyer_id: str, new_buyer: bool, now_ms: int) -> Any:
        broken = honest(team, buyer_id, new_buyer, now_ms)
        return None if broken is Outcome.TEAM_FULL and team.free() < 0 else broken

    patch.setattr(teams, "_may_not_join", may_not_join)


def nobody_checks_who_is_in_already(patch: Patch) -> None:
    honest = teams._may_not_join

    def may_not_join(team: Any, buyer_id: str, new_buyer: bool, now_ms: int) -> Any:
        return honest(team, "" if buyer_id in team.buyers else buyer_id, new_buyer, now_ms)

    _without_the_last_defence(patch)
    patch.setattr(teams, "_may_not_join", may_not_join)


def a_team_is_joined_before_its_leader_paid(patch: Patch) -> None:
    honest = teams._may_not_join

    def may_not_join(team: Any, buyer_id: str, new_buyer: bool, now_ms: int) -> Any:
        broken = honest(team, buyer_id, new_buyer, now_ms)
        return None if broken is Outcome.TEAM_NOT_OPEN else broken

    patch.setattr(teams, "_may_not_join", may_not_join)


def the_last_seats_are_for_anybody(patch: Patch) -> None:
    """New buyers are only asked for when the team ends."""
    honest = teams._may_not_join

    def may_not_join(team: Any, buyer_id: str, _: bool, now_ms: int) -> Any:
        return honest(team, buyer_id, True, now_ms)

    patch.setattr(teams, "_may_not_join", may_not_join)


# Money of a team that fails


def one_members_refund_stops_those_after_it(patch: Patch) -> None:
    """A seat of more than one unit is trouble, and the batch of refunds ends there."""
    honest = team_ends.end

    def end(slot: s.SlotState, team: Any, **early: bool) -> list[Any]:
        records: list[Any] = []
        poisoned = False
        for record in honest(slot, team, **early):
            if record[0] == t.SEAT_CLOSED and poisoned:
                continue
            poisoned |= record[0] == t.SEAT_CLOSED and record.quantity > 1
            records.append(record)
        return records

    patch.setattr(team_ends, "end", end)


def a_refund_that_is_put_back_closes_the_others_of_its_team(patch: Patch) -> None:
    """One report is taken for the whole batch."""

    def more(_: s.ShardState, slot: s.SlotState, record: Any) -> None:
        refund = slot.refunds.get(record.refund_key)
        for other in slot.refunds.values():
            if refund is not None and other is not refund and other.reason == refund.reason:
                other.state = s.REFUND_CLOSED

    after(patch, r.REFUND_REPORTED, more)


def a_team_has_failed_before_its_refunds_exist(patch: Patch) -> None:
    """They are left for a later step."""
    honest = team_ends.end

    def end(slot: s.SlotState, team: Any, **early: bool) -> list[Any]:
        return [record for record in honest(slot, team, **early) if record[0] != t.SEAT_CLOSED]

    patch.setattr(team_ends, "end", end)


def all_refunds_have_the_leaders_key(patch: Patch) -> None:
    honest = team_ends.close_seat

    def close_seat(slot: s.SlotState, paid: Any, *rest: Any) -> Any:
        team = slot.teams.get(paid.seat.team_key)
        key = team_ends.seat_refund_key(team.leader if team is not None else b"")
        return honest(slot, paid, *rest)._replace(refund_key=key)

    patch.setattr(team_ends, "close_seat", close_seat)
    patch.setattr(teams, "close_seat", close_seat)


def settlements_have_the_leaders_key(patch: Patch) -> None:
    honest = team_ends._settled

    def settled(slot: s.SlotState, team: Any, *rest: Any, **leads: Any) -> Any:
        record = honest(slot, team, *rest, **leads)
        key = team_ends.settlement_refund_key(team.leader)
        return record._replace(refund_key=key) if record.refund_key else record

    patch.setattr(team_ends, "_settled", settled)


# Who counts


def a_member_who_left_still_counts(patch: Patch) -> None:
    patch.setattr(evolve_teams, "drop", _nothing)


def the_leader_counts_twice(patch: Patch) -> None:
    """Once as who opened the team, once as who paid."""

    def more(_: s.ShardState, slot: s.SlotState, record: Any) -> None:
        team = slot.teams.get(record.team_key)
        if team is not None and record.leader_key:
            team.paid += 1

    after(patch, t.TEAM_LED, more)


def a_tier_is_reached_by_exactly_its_people(patch: Patch) -> None:
    """`==` where `>=` is meant."""

    def tier_for(team: Any, people: int) -> Any:
        return next((tier for tier in team.group.tiers if tier.people == people), None)

    patch.setattr(team_ends, "tier_for", tier_for)


def a_full_team_is_only_seen_when_the_payment_was_in_time(patch: Patch) -> None:
    """A late payer takes the last seat, and the team is never completed."""
    honest = team_ends.seat_paid

    def seat_paid(slot: s.SlotState, seat: s.Seat, record: Any, now_ms: int) -> tuple[Any, ...]:
        records = honest(slot, seat, record, now_ms)
        ends = (t.TEAM_FORMED, t.SEAT_SETTLED)
        return tuple(x for x in records if not record.reacquired or x[0] not in ends)

    patch.setattr(payments, "seat_paid", seat_paid)


def a_late_payment_is_taken_and_nothing_follows(patch: Patch) -> None:
    """Neither completed nor refunded."""
    honest = payments.confirm

    def confirm(state: s.ShardState, command: c.Confirm, now_ms: int) -> Any:
        slot = state.slot(command.slot)
        held = payments.find_reservation(slot, command.reservation_id)
        late = type(held) is s.Seat and held.state == s.EXPIRED
        answer, records = honest(state, command, now_ms)
        return (answer, () if late else records)

    patch.setitem(decide.HANDLERS, c.CONFIRM, confirm)


def a_late_payer_goes_to_the_emptiest_team(patch: Patch) -> None:
    honest = team_ends._nearest

    def nearest(slot: s.SlotState, seat: s.Seat, limit: int) -> Sequence[Any]:
        return honest(slot, seat, limit)[::-1]

    patch.setattr(team_ends, "_nearest", nearest)


def a_late_payer_is_never_relocated(patch: Patch) -> None:
    patch.setattr(team_ends, "_nearest", lambda *_: [])


# Leaders, prices, ends


def nobody_follows_a_leader_who_left(patch: Patch) -> None:
    def after_leaving(*given: Any) -> list[Any]:
        return [record for record in honest(*given) if record[0] != t.TEAM_LED]

    honest = team_ends.after_leaving
    patch.setattr(team_ends, "after_leaving", after_leaving)
    patch.setattr(teams, "after_leaving", after_leaving)


def the_newest_member_follows_a_leader(patch: Patch) -> None:
    honest = team_ends.after_leaving

    def after_leaving(slot: s.SlotState, team: Any, gone: Any) -> list[Any]:
        gone = set(gone)
        records = honest(slot, team, gone)
        left = [one.seat for one in team_ends.paid_members(slot, team) if one.seat.key not in gone]
        led = [record for record in records if record[0] == t.TEAM_LED]
        return [team_ends.led_by(slot, team, left[-1])] if led and left else records

    patch.setattr(team_ends, "after_leaving", after_leaving)
    patch.setattr(teams, "after_leaving", after_leaving)


def a_ladders_refund_is_off_by_a_cent(patch: Patch) -> None:
    """The discount is rounded up at the settlement, and down when the seat was sold."""
    honest = team_ends.leaders_price

    def leaders_price(group: Any, unit_price_minor: int) -> int:
        price = honest(group, unit_price_minor)
        return price - (unit_price_minor * group.rules.leader_discount_bps % 10_000 > 0)

    patch.setattr(team_ends, "leaders_price", leaders_price)


def a_settlement_is_for_one_unit(patch: Patch) -> None:
    honest = team_ends._settled

    def settled(slot: s.SlotState, team: Any, one: Any, tier: Any, *, leads: bool) -> Any:
        record = honest(slot, team, one, tier, leads=leads)
        if not record.refund_key:
            return record
        back = record.refund_minor // one.seat.quantity
        return record._replace(refund_minor=back, final_minor=one.amount_minor - back)

    patch.setattr(team_ends, "_settled", settled)


def a_settlement_is_forgotten_at_a_return(patch: Patch) -> None:
    """What was paid back at the settlement is paid back again."""

    def more(_: s.ShardState, slot: s.SlotState, record: Any) -> None:
        seat = slot.reservations.get(record.key)
        if type(seat) is s.Seat and seat.payment is not None:
            seat.settled_minor = 0
            seat.payment.refunded_minor -= record.refund_minor

    after(patch, t.SEAT_SETTLED, more)


def a_leaver_is_not_paid_back(patch: Patch) -> None:
    honest = teams.close_seat

    def close_seat(*given: Any) -> Any:
        return honest(*given)._replace(refund_minor=0)

    patch.setattr(teams, "close_seat", close_seat)


def unpaid_seats_outlive_their_team(patch: Patch) -> None:
    patch.setattr(team_ends, "_unpaid", lambda *_, **__: [])


def an_empty_team_goes_on(patch: Patch) -> None:
    def teams_left(*given: Any) -> list[Any]:
        return [record for record in honest(*given) if record[0] != t.TEAM_CLOSED]

    honest = pulse.teams_left
    patch.setattr(pulse, "teams_left", teams_left)


def a_payment_extends_the_teams_time(patch: Patch) -> None:
    """A seat's window ends when its payment's does, whatever its team's."""

    def begin(*given: Any) -> Any:
        with pytest.MonkeyPatch.context() as within:
            within.setattr(payments, "team_of", lambda *_: None)
            return payments.begin_payment(*given)

    patch.setitem(decide.HANDLERS, c.BEGIN_PAYMENT, begin)


def who_opened_a_team_may_open_no_more(patch: Patch) -> None:
    """What ends is not taken off the number of forming teams."""

    def more(_: s.ShardState, slot: s.SlotState, record: Any) -> None:
        team = slot.teams.get(record.team_key)
        if team is not None:
            slot.campaigns[team.campaign_id].openers.change(team.opener_id, 1)

    after(patch, t.TEAM_CLOSED, more)


# Copies


def a_snapshot_has_seats_without_their_team(patch: Patch) -> None:
    honest = snapshot_rows._filled_seat

    def filled(fields: tuple[Any, ...]) -> Any:
        seat, paid = honest(fields)
        if type(seat) is s.Seat:
            seat.team_key = b""
        return seat, paid

    patch.setattr(snapshot_rows, "_filled_seat", filled)


def a_completion_is_known_by_its_virtual_seats(patch: Patch) -> None:
    """One that needed none is told TEAM_CLOSED when it is asked for again."""
    honest = teams.complete_team

    def complete(state: s.ShardState, command: tc.CompleteTeam, now_ms: int) -> Any:
        team = state.slot(command.slot).teams.get(command.team_key)
        answer, records = honest(state, command, now_ms)
        again = answer[0] == Outcome.APPLIED and not records
        if again and team is not None and not team.virtual:
            return (Outcome.TEAM_CLOSED, answer[1]), ()
        return answer, records

    patch.setitem(decide.HANDLERS, tc.COMPLETE_TEAM, complete)


def a_snapshot_loses_who_leads(patch: Patch) -> None:
    def pack(key: bytes, team: Any) -> tuple[Any, ...]:
        row = list(honest(key, team))
        row[row.index(team.leader, 6)] = b""
        return tuple(row)

    honest = snapshot_rows.PACK["teams"]
    patch.setitem(snapshot_rows.PACK, "teams", pack)


def a_snapshots_teams_are_not_counted(patch: Patch) -> None:
    patch.setattr(seats, "_count", _nothing)


def a_snapshot_forgets_which_campaigns_are_closing(patch: Patch) -> None:
    honest = snapshot.recount_teams

    def recount(state: s.ShardState, slot: s.SlotState) -> None:
        honest(state, slot)
        state.closing.clear()

    patch.setattr(snapshot, "recount_teams", recount)


def a_team_is_named_after_its_opener(patch: Patch) -> None:
    """So that a buyer's second team is the first one again."""
    patch.setattr(teams, "team_key_of", lambda _: request_key("team", "opener"))

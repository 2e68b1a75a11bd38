"""What a shard decides by itself as time passes: expiries, and the slices of a shortage.

`Pulse` belongs to a primary. Its own fields are only places to look next (where a scan stands),
never facts: what it decides is journalled like any other decision, and a new primary starts a new
one. Every step is bounded, so that 100,000 reservations due at once stall nobody.
"""

from heapq import heappush, heappushpop
from typing import Any

from actors.core.commission_records import DISTRIBUTOR_HELD, DistributorHeld
from actors.core.commission_state import Programme
from actors.core.earning import matured, released
from actors.core.identity import buyer_part
from actors.core.paying_out import SETTLE_SLICE, statements_due
from actors.core.pools import Pool
from actors.core.records import (
    RESERVATION_EXPIRED,
    RESERVATION_REVOKED,
    ReservationExpired,
    ReservationRevoked,
)
from actors.core.refunds import payment_key
from actors.core.risk import due_risk
from actors.core.state import CONFIRMED, RESERVED, Debt, Reservation, Seat, ShardState, SlotState
from actors.core.team_ends import closing_teams, due_teams, teams_left
from actors.core.terms import currency_of

MATURED_A_STEP = 500
"""Orders of one record each (about 6 ms)."""
SCAN_SLICE = 4_096
"""Reservations looked at in one step of a shortage's search (about 1 ms)."""


class Pulse:
    """Decides what is due. The caller folds each answer before it asks again."""

    def __init__(self) -> None:
        self._searches: dict[Pool, Search] = {}

    def expiries(self, state: ShardState, now_ms: int, limit: int) -> list[Any]:
        """Up to `limit` records for reservations whose deadline has passed, and those that follow
        from seats among them."""
        records: list[Any] = []
        seats: list[tuple[SlotState, Seat]] = []
        for number, slot in state.slots.items():
            room = limit - len(records)
            if room <= 0:
                break
            for key in slot.deadlines.due(now_ms, room):
                held = slot.reservations.get(key)
                if held is None or held.state != RESERVED:
                    raise AssertionError(f"deadline of a reservation that is not held: {key.hex()}")
                part, campaign_id = buyer_part(held.buyer_id), held.pool.campaign_id
                records.append(
                    ReservationExpired(
                        RESERVATION_EXPIRED, number, key, part, campaign_id, held.buyer_id
                    )
                )
                if type(held) is Seat:
                    seats.append((slot, held))
        return records + teams_left(seats) if seats else records

    def teams(self, state: ShardState, now_ms: int, limit: int) -> list[Any]:
        """Records that end teams, those of one at least and then up to `limit`: first of those
        whose deadline has passed; if there is none, of campaigns that were ended."""
        return due_teams(state, now_ms, limit) or (
            closing_teams(state, limit) if state.closing else []
        )

    def commission(self, state: ShardState, now_ms: int, limit: int) -> list[Any]:
        """Up to `limit` records of a programme, of one kind: what orders earned and is frozen no
        longer; holds of distributors that end; what waited for that; statements of a month that is
        over."""
        limit = min(limit, MATURED_A_STEP)
        for number, programme in state.programmes.items():
            records = (
                matured(programme, number, now_ms, limit)
                or _holds_over(programme, number, now_ms, limit)
                or released(programme, number, now_ms, limit)
                or statements_due(programme, number, now_ms, min(limit, SETTLE_SLICE))
            )
            if records:
                return records
        return []

    def risk(self, state: ShardState, now_ms: int, limit: int) -> list[Any]:
        """Up to `limit` freezes that end, and profiles that say nothing any more."""
        return due_risk(state, now_ms, limit)

    def revocations(self, state: ShardState, limit: int) -> list[Any]:
        """The next step for every pool that owes units: newest reservations first, then the
        newest orders. Records are of different reservations, so they can be folded in order."""
        records: list[Any] = []
        seats: list[tuple[SlotState, Seat]] = []
        for pool, debt in list(state.debtors.items()):
            slot = state.slots[debt.slot]
            search = self._searches.get(pool)
            if search is None or search.debt is not debt:
                search = self._searches[pool] = Search(slot, pool, debt)
            if search.look_on(pool):
                records.extend(search.take(slot, pool, limit - len(records)))
                seats.extend((slot, seat) for seat in search.seats)
                search.seats.clear()
                if search.empty():
                    del self._searches[pool]
        for pool in [pool for pool in self._searches if pool not in state.debtors]:
            del self._searches[pool]
        return records + teams_left(seats) if seats else records


def _holds_over(programme: Programme, number: int, now_ms: int, limit: int) -> list[Any]:
    records: list[Any] = []
    for name in programme.hold_ends.due(now_ms, limit):
        distributor_id = name.decode()
        held = programme.distributors.get(distributor_id)
        if held is None:
            raise AssertionError(f"no distributor {distributor_id}, whose hold is over")
        as_of_ms = held.held_as_of_ms
        over = DistributorHeld(DISTRIBUTOR_HELD, number, distributor_id, 0, "", "", as_of_ms)
        records.append(over)
    return records


class Search:
    """Finds the newest reservations and orders of a pool, part by part of the table.

    Only as many candidates are kept as units are owed, in two heaps with the oldest on top. What is
    found ages while the search goes on: a reservation that has ended or was paid since is passed
    over, and orders are taken only if no reservation can have been left out."""

    def __init__(self, slot: SlotState, pool: Pool, debt: Debt) -> None:
        self.debt = debt
        # Snapshot of keys would cost memory; parts are walked whole, one slice of parts a step.
        self._parts = list(slot.reservations.parts)
        self._owed = pool.owed
        self._found: dict[int, list[tuple[int, int, bytes]]] = {RESERVED: [], CONFIRMED: []}
        self._ordered: list[tuple[int, bytes]] | None = None
        self._orders_too = False
        self.seats: list[Seat] = []
        """Seats among what was taken last."""

    def look_on(self, pool: Pool) -> bool:
        """One slice of the search; True when it is complete."""
        looked = 0
        while self._parts and looked < SCAN_SLICE:
            part = self._parts.pop()
            looked += len(part)
            for held in part.values():
                self._consider(held, pool)
        if self._parts:
            return False
        if self._ordered is None:
            self._orders_too = len(self._found[RESERVED]) < self._owed
            # Taken from the end: newest reservations, then newest orders.
            self._ordered = [
                (kind, key)
                for kind in (CONFIRMED, RESERVED)
                for _, _, key in sorted(self._found[kind])
            ]
        return True

    def _consider(self, held: Reservation, pool: Pool) -> None:
        if held.pool is not pool or held.state not in self._found:
            return
        heap = self._found[held.state]
        item = (held.reserved_ms, held.seq, held.key)
        if len(heap) < self._owed:
            heappush(heap, item)
        else:
            heappushpop(heap, item)

    def take(self, slot: SlotState, pool: Pool, limit: int) -> list[Any]:
        """Records that revoke until what is owed is paid, or the slice is full."""
        records: list[Any] = []
        owed = pool.owed
        while self._ordered and owed > 0 and len(records) < limit:
            kind, key = self._ordered.pop()
            if kind == CONFIRMED and not self._orders_too:
                self._ordered.clear()
                break
            held = slot.reservations.get(key)
            if held is None or held.state != kind:
                # Paid since, it is an order now, perhaps the newest: the next search ranks it.
                self._orders_too &= kind == CONFIRMED
                continue
            records.append(_revoked(slot, held))
            if type(held) is Seat:
                self.seats.append(held)
            owed -= held.quantity - held.returned
        return records

    def empty(self) -> bool:
        """Whether all candidates were taken (a new search may find more)."""
        return not self._ordered


def _revoked(slot: SlotState, held: Reservation) -> ReservationRevoked:
    payment = held.payment
    refund_minor = 0 if payment is None else payment.amount_minor - payment.refunded_minor
    return ReservationRevoked(
        RESERVATION_REVOKED,
        slot.slot,
        held.key,
        buyer_part(held.buyer_id),
        held.quantity - held.returned,
        payment_key(payment.payment_id) if payment is not None and refund_minor else b"",
        refund_minor,
        "" if payment is None else payment.payment_id,
        "" if payment is None else payment.channel,
        held.buyer_id,
        held.pool.campaign_id,
        currency_of(slot, held.pool),
        held.quantity,
    )

"""The fold as rows of the SQL view, for `verify` to compare: columns, and what a slot should have.

The first two columns of each table name a row.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from actors.core import records as r
from actors.core import state as s
from actors.core.evolve_reservations import from_recalled
from actors.core.identity import public_id
from actors.core.outcomes import Outcome
from actors.core.snapshot_rows import PACK
from actors.core.team_ends import seat_refund_key
from actors.core.team_state import TEAM_FORMED, Team
from actors.rows import PAYMENT_KEPT, PAYMENT_REFUND_DUE

POOL_COLUMNS = (
    "campaign_id",
    "sku_id",
    "slot",
    "total",
    "available",
    "reserved",
    "sold",
    "buffer",
    "scheduled",
    "in_transit",
    "owed",
)
RESERVATION_COLUMNS = (
    "slot",
    "reservation_id",
    "campaign_id",
    "sku_id",
    "buyer_id",
    "quantity",
    "returned_quantity",
    "state",
    "list_price_minor",
    "unit_price_minor",
    "payable_minor",
    "paid_minor",
    "payment_id",
    "fingerprint",
    "reserved_ms",
    "deadline_ms",
    "fulfilment",
)
REFUND_COLUMNS = (
    "slot",
    "refund_id",
    "reservation_id",
    "buyer_id",
    "payment_id",
    "payment_channel",
    "amount_minor",
    "reason",
    "compensation",
    "state",
    "attempts",
)
TEAM_COLUMNS = (
    "slot",
    "team_id",
    "campaign_id",
    "sku_id",
    "state",
    "opener_id",
    "leader_id",
    "leader_reservation_id",
    "paid",
    "new_members",
    "virtual_seats",
    "tier_people",
    "unit_price_minor",
    "completed_by",
    "opened_ms",
    "deadline_ms",
    "ended_ms",
)
SEAT_COLUMNS = (
    "slot",
    "reservation_id",
    "team_id",
    "campaign_id",
    "buyer_id",
    "new_buyer",
    "closed",
    "final_minor",
    "settled_minor",
    "joined_ms",
    "settled_ms",
)
PAYMENT_COLUMNS = ("slot", "payment_id", "reservation_id", "amount_minor", "state")


Held = Collection[s.Reservation]
"""A slot's reservations, the forgotten ones too."""


def known(state: s.ShardState, slot: s.SlotState) -> Held:
    """What the fold knows of the slot's reservations: those in memory and those forgotten in it."""
    archived = (state.archive or {}).get(slot.slot, {})
    return [*slot.reservations.values(), *archived.values()]


def known_teams(state: s.ShardState, slot: s.SlotState) -> Mapping[bytes, Team]:
    """The same of the slot's teams."""
    return {**dict(slot.teams.items()), **state.archived_teams.get(slot.slot, {})}


def find(state: s.ShardState, slot: s.SlotState, key: bytes) -> s.Reservation | None:
    """One of them."""
    return slot.reservations.get(key) or (state.archive or {}).get(slot.slot, {}).get(key)


def same_row(state: s.ShardState, slot: s.SlotState, record: r.ReservationRecalled) -> bool:
    """Whether a reservation came back as it was when it was forgotten, if the fold knows that."""
    was = (state.archive or {}).get(slot.slot, {}).get(record.key)
    if was is None:
        return True
    rows = [
        PACK["reservations"](record.key, row) for row in (was, from_recalled(state, slot, record))
    ]
    # All but the entry and the time of the last change, before the payment.
    return rows[0][:-3] == rows[1][:-3] and rows[0][-1] == rows[1][-1]


def pool_rows(state: s.ShardState, slot: s.SlotState) -> Iterator[tuple[Any, ...]]:
    """The slot's pools."""
    for pool in slot.pools():
        _, _, *rest = pool.balance(slot.slot, slot.generation)
        campaign_id, sku_id, *numbers = rest
        yield (campaign_id, sku_id, slot.slot, *numbers)


def reservation_rows(state: s.ShardState, slot: s.SlotState) -> Iterator[tuple[Any, ...]]:
    """The slot's reservations."""
    for row in known(state, slot):
        payment = row.payment
        yield (
            slot.slot,
            public_id(slot.slot, row.key),
            row.pool.campaign_id,
            row.pool.sku_id,
            row.buyer_id,
            row.quantity,
            row.returned,
            row.state,
            row.list_price_minor,
            row.unit_price_minor,
            row.payable_minor,
            0 if payment is None else payment.amount_minor,
            "" if payment is None else payment.payment_id,
            row.fingerprint,
            row.reserved_ms,
            row.deadline_ms,
            row.stage,
        )


def team_rows(state: s.ShardState, slot: s.SlotState) -> Iterator[tuple[Any, ...]]:
    """The slot's teams."""
    for team in known_teams(state, slot).values():
        formed = team.state == TEAM_FORMED
        yield (
            slot.slot,
            public_id(slot.slot, team.key),
            team.campaign_id,
            team.sku_id,
            team.state,
            team.opener_id,
            team.leader_id,
            public_id(slot.slot, team.leader) if team.leader else "",
            len(team.members),
            team.new_count if formed else 0,
            team.virtual,
            team.tier_people,
            team.unit_price_minor,
            team.completed_by,
            team.opened_ms,
            team.deadline_ms,
            team.ended_ms,
        )


def seat_rows(state: s.ShardState, slot: s.SlotState) -> Iterator[tuple[Any, ...]]:
    """What the slot's seats are beyond their reservations; of teams that are known."""
    teams = known_teams(state, slot)
    members = {key for team in teams.values() if team.state == TEAM_FORMED for key in team.members}
    for seat in known(state, slot):
        team = teams.get(seat.team_key) if type(seat) is s.Seat else None
        if team is None or type(seat) is not s.Seat:
            continue
        closed = slot.refunds.get(seat_refund_key(seat.key))
        settled = seat.key in members
        paid = 0 if seat.payment is None else seat.payment.amount_minor
        yield (
            slot.slot,
            public_id(slot.slot, seat.key),
            public_id(slot.slot, seat.team_key),
            seat.pool.campaign_id,
            seat.buyer_id,
            int(seat.new_buyer),
            0 if closed is None else closed.reason,
            paid - seat.settled_minor if settled else 0,
            seat.settled_minor,
            seat.joined_ms,
            team.ended_ms if settled else 0,
        )


def refund_rows(state: s.ShardState, slot: s.SlotState) -> Iterator[tuple[Any, ...]]:
    """The slot's refunds."""
    for refund in slot.refunds.values():
        yield (
            slot.slot,
            public_id(slot.slot, refund.key),
            refund.reservation_id,
            refund.buyer_id,
            refund.payment_id,
            refund.channel,
            refund.amount_minor,
            refund.reason,
            int(refund.compensation),
            refund.state,
            refund.attempts,
        )


def payment_rows(state: s.ShardState, slot: s.SlotState) -> Iterator[tuple[Any, ...]]:
    """Payments that took effect: kept (3) or refund due as a whole (4)."""
    for row in known(state, slot):
        if row.payment is not None:
            yield (
                slot.slot,
                row.payment.payment_id,
                public_id(slot.slot, row.key),
                row.payment.amount_minor,
                PAYMENT_KEPT,
            )
    for key, refund in slot.refunds.items():
        effect = slot.payments.get(key)
        if effect is not None and effect[2] == Outcome.REFUND_DUE:
            yield (
                slot.slot,
                refund.payment_id,
                refund.reservation_id,
                refund.amount_minor,
                PAYMENT_REFUND_DUE,
            )

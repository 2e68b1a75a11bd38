"""Sums over a shard's state, for `verify` and operators. Walks every row: about 1 us each."""

from typing import NamedTuple

from actors.core import state as s
from actors.core.outcomes import Outcome
from actors.core.refunds import RefundReason

OF_KEPT = frozenset(
    {
        RefundReason.RETURN,
        RefundReason.SHORTAGE,
        RefundReason.LEFT_TEAM,
        RefundReason.TEAM_FAILED,
        RefundReason.TEAM_PRICE,
    }
)
"""Why a part of a payment that was kept is owed back."""


class Totals(NamedTuple):
    """Counts and sums, and the pools that break the conservation law."""

    pools: int
    reservations: int
    pool_sums: tuple[int, ...]
    """total, available, reserved, sold, buffer, scheduled, in transit, owed."""
    paid_minor: int
    kept_minor: int
    refund_due_minor: int
    refunded_minor: int
    broken: tuple[str, ...]
    ledger_minor: tuple[int, ...] = (0,) * 6
    """Of commission programmes, by account as in an entry of the ledger: their sum is 0."""


def totals(state: s.ShardState) -> Totals:
    """The sums of a whole state."""
    sums = [0] * 8
    pools = reservations = paid = kept = due = refunded = 0
    broken: list[str] = []
    for slot in state.slots.values():
        reservations += len(slot.reservations)
        for pool in slot.pools():
            pools += 1
            sums = [a + b for a, b in zip(sums, pool.balance(0, 0)[4:12], strict=True)]
            if pool.broken_law():
                broken.append(pool.broken_law())
        for _, amount, outcome in slot.payments.values():
            paid += amount
            if outcome == Outcome.CONFIRMED:
                kept += amount
        for refund in slot.refunds.values():
            # What comes back of a payment that was kept; others are refunds as a whole.
            if refund.reason in OF_KEPT:
                kept -= refund.amount_minor
            if refund.state == s.REFUND_DUE:
                due += refund.amount_minor
            else:
                refunded += refund.amount_minor
    ledger = _ledger(state, broken)
    told = tuple(broken[:5])
    return Totals(pools, reservations, tuple(sums), paid, kept, due, refunded, told, ledger)


def _ledger(state: s.ShardState, broken: list[str]) -> tuple[int, ...]:
    """The sums of all distributors' balances; names those that do not sum to 0, and a programme
    whose own sums are others."""
    ledger = [0] * 6
    for number, programme in state.programmes.items():
        own = [0] * 6
        for distributor_id, held in programme.distributors.items():
            own = [a + b for a, b in zip(own, held.balances, strict=True)]
            if sum(held.balances):
                broken.append(f"distributor {distributor_id}: balances that do not sum to 0")
        if own != programme.sums:
            broken.append(f"programme of slot {number}: {programme.sums}, its distributors: {own}")
        ledger = [a + b for a, b in zip(ledger, own, strict=True)]
    return tuple(ledger)

"""Rows of a programme's tables, as a snapshot has them: packed, and filled in again.

Part of `snapshot_rows.py`. A row that is filled answers its key, as evolve asks for it, and the
entry of its last change.
"""

from collections.abc import Callable, Sequence
from sys import intern
from typing import Any

from actors.core.commission_state import (
    Bond,
    Bonds,
    Distributor,
    Earning,
    Order,
    Programme,
    Statement,
    Sums,
    Version,
    Withdrawal,
    version_key,
)
from actors.core.programme_config import programme_config


def _pack_version(key: bytes, version: Version) -> tuple[Any, ...]:
    return (version.number, version.from_ms, version.config, version.seq)


def _fill_version(programme: Programme, row: Any) -> tuple[bytes, int]:
    number, from_ms, config, seq = row
    version = Version(number, from_ms, programme_config(config), seq)
    programme.rates.put(version_key(number), version)
    return version_key(number), seq


def _pack_distributor(distributor_id: str, held: Distributor) -> tuple[Any, ...]:
    return (
        distributor_id,
        held.state,
        held.share_code,
        held.applied_ms,
        held.changed_ms,
        held.held_until_ms,
        held.held_as_of_ms,
        held.balances,
        [(month, *held.months[month].pack()) for month in sorted(held.months)],
        held.closing_minor,
        held.settled_through,
        held.statements,
        held.orders,
        held.sales_minor,
        held.invited,
        held.board,
        held.open_withdrawals,
        held.seq,
    )


def _fill_distributor(programme: Programme, row: Any) -> tuple[bytes, int]:
    held = Distributor()
    (
        distributor_id,
        held.state,
        held.share_code,
        held.applied_ms,
        held.changed_ms,
        held.held_until_ms,
        held.held_as_of_ms,
        balances,
        months,
        held.closing_minor,
        held.settled_through,
        statements,
        held.orders,
        held.sales_minor,
        held.invited,
        board,
        held.open_withdrawals,
        held.seq,
    ) = row
    held.balances = list(balances)
    held.months = {month: Sums.of(sums) for month, *sums in months}
    held.statements = tuple(Statement(*made) for made in statements)
    held.board = tuple(tuple(line) for line in board)
    programme.distributors.put(intern(distributor_id), held)
    return distributor_id.encode(), held.seq


def _pack_bonds(buyer_id: str, held: Bonds) -> tuple[Any, ...]:
    return (buyer_id, held.seq, held.bonds)


def _fill_bonds(programme: Programme, row: Any) -> tuple[bytes, int]:
    buyer_id, seq, bonds = row
    held = tuple(Bond(from_ms, until_ms, intern(name)) for from_ms, until_ms, name in bonds)
    programme.bonds.put(buyer_id, Bonds(seq, held))
    return buyer_id.encode(), seq


def _pack_order(key: bytes, order: Order) -> tuple[Any, ...]:
    return (
        key,
        order.base_minor,
        order.quantity,
        order.returned,
        order.referrer_id,
        order.version,
        order.month,
        order.earned_ms,
        order.matures_ms,
        order.delivered,
        order.seq,
        [
            (
                earning.level,
                earning.distributor_id,
                earning.rate_bps,
                earning.full_minor,
                earning.amount_minor,
                earning.state,
            )
            for earning in order.earnings
        ],
    )


def _fill_order(programme: Programme, row: Any) -> tuple[bytes, int]:
    order = Order()
    (
        key,
        order.base_minor,
        order.quantity,
        order.returned,
        referrer_id,
        order.version,
        order.month,
        order.earned_ms,
        order.matures_ms,
        order.delivered,
        order.seq,
        earnings,
    ) = row
    order.referrer_id = intern(referrer_id)
    order.earnings = tuple(_filled_earning(fields) for fields in earnings)
    programme.orders.put(key, order)
    return key, order.seq


def _filled_earning(fields: Sequence[Any]) -> Earning:
    level, distributor_id, rate_bps, full_minor, amount_minor, state = fields
    earning = Earning(level, intern(distributor_id), rate_bps, full_minor)
    earning.amount_minor, earning.state = amount_minor, state
    return earning


def _pack_withdrawal(key: bytes, held: Withdrawal) -> tuple[Any, ...]:
    return (
        key,
        held.distributor_id,
        held.amount_minor,
        held.from_settled_minor,
        held.fingerprint,
        held.state,
        held.requested_ms,
        held.changed_ms,
        held.reference,
        held.seq,
    )


def _fill_withdrawal(programme: Programme, row: Any) -> tuple[bytes, int]:
    held = Withdrawal()
    (
        key,
        held.distributor_id,
        held.amount_minor,
        held.from_settled_minor,
        held.fingerprint,
        held.state,
        held.requested_ms,
        held.changed_ms,
        held.reference,
        held.seq,
    ) = row
    programme.withdrawals.put(key, held)
    return key, held.seq


PACK: dict[str, Callable[[Any, Any], tuple[Any, ...]]] = {
    "rates": _pack_version,
    "distributors": _pack_distributor,
    "bonds": _pack_bonds,
    "orders": _pack_order,
    "withdrawals": _pack_withdrawal,
}
"""Table of a programme -> how a row of it is packed."""
FILL: dict[str, Callable[[Programme, Any], tuple[bytes, int]]] = {
    "rates": _fill_version,
    "distributors": _fill_distributor,
    "bonds": _fill_bonds,
    "orders": _fill_order,
    "withdrawals": _fill_withdrawal,
}


def ledger(programme: Programme) -> tuple[Any, ...]:
    """What of a programme is written in one step, at a snapshot's end."""
    row = (programme.entry_count, programme.sums)
    return (*row, programme.forgotten_ms) if programme.forgotten_ms else row


def set_ledger(programme: Programme, packed: Any) -> None:
    """Set what `ledger` packed."""
    programme.entry_count, sums, *forgotten_ms = packed
    programme.forgotten_ms = forgotten_ms[0] if forgotten_ms else 0
    programme.sums = list(sums)


def recent(programme: Programme) -> list[Any]:
    """The newest entries, as they are at one instant: those that come later are in the journal."""
    return list(programme.recent)


def fill_recent(programme: Programme, rows: Any) -> None:
    """Take what `recent` gave."""
    programme.recent.extend(rows)

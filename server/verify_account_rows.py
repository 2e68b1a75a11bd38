"""The fold's programme and profiles as rows of the SQL view, for `verify` to compare.

The first two columns of each table name a row. Part of `verify_rows.py`.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from actors.core import commission_records as r
from actors.core import commission_state as c
from actors.core import state as s
from actors.core.commission_rows import PACK
from actors.core.evolve_commission import from_recalled
from actors.core.identity import public_id
from actors.core.programme_config import programme_config

DISTRIBUTOR_COLUMNS = (
    "slot",
    "distributor_id",
    "state",
    "share_code",
    "applied_ms",
    "changed_ms",
    "held_until_ms",
    "held_as_of_ms",
)
BOND_COLUMNS = ("buyer_id", "from_ms", "slot", "distributor_id", "until_ms")
ORDER_COLUMNS = (
    "slot",
    "reservation_id",
    "referrer_id",
    "quantity",
    "returned_quantity",
    "base_minor",
    "version",
    "month",
    "earned_ms",
    "matures_ms",
    "delivered",
    "level1_id",
    "level1_bps",
    "level1_minor",
    "level1_state",
    "level2_id",
    "level2_bps",
    "level2_minor",
    "level2_state",
    "commission_minor",
)
RATE_COLUMNS = ("slot", "version", "from_ms", "config_json")
STATEMENT_COLUMNS = ("distributor_id", *c.Statement._fields)
WITHDRAWAL_COLUMNS = (
    "slot",
    "withdrawal_id",
    "distributor_id",
    "amount_minor",
    "from_settled_minor",
    "fingerprint",
    "state",
    "requested_ms",
    "changed_ms",
    "reference",
)
PROFILE_COLUMNS = (
    "slot",
    "buyer_id",
    "whole_ms",
    "failures_json",
    "frozen",
    "frozen_until_ms",
    "frozen_as_of_ms",
    "told_as_of_ms",
    "cause",
    "caller",
    "reason",
)
WITHDRAWAL_FIELDS = (
    "distributor_id",
    "amount_minor",
    "from_settled_minor",
    "fingerprint",
    "state",
    "requested_ms",
    "changed_ms",
    "reference",
)
"""In the order in which a snapshot has them."""
Rows = Iterator[tuple[Any, ...]]


def distributor_rows(_: s.ShardState, slot: s.SlotState) -> Rows:
    """The slot's distributors."""
    for name, held in _programme(slot).distributors.items():
        yield (
            slot.slot,
            name,
            held.state,
            held.share_code,
            held.applied_ms,
            held.changed_ms,
            held.held_until_ms,
            held.held_as_of_ms,
        )


def bond_rows(_: s.ShardState, slot: s.SlotState) -> Rows:
    """The slot's bindings. The oldest of a buyer who has very many are in SQL alone."""
    for buyer_id, held in _programme(slot).bonds.items():
        for bond in held.bonds:
            yield (buyer_id, bond.from_ms, slot.slot, bond.distributor_id, bond.until_ms)


def order_rows(_: s.ShardState, slot: s.SlotState) -> Rows:
    """The slot's orders that a distributor brought."""
    for key, order in known_orders(_programme(slot)):
        levels = {
            earning.level: (
                earning.distributor_id,
                earning.rate_bps,
                earning.full_minor,
                earning.state,
            )
            for earning in order.earnings
        }
        nothing = ("", 0, 0, 0)
        yield (
            slot.slot,
            c.reservation_of(key),
            order.referrer_id,
            order.quantity,
            order.returned,
            order.base_minor,
            order.version,
            order.month,
            order.earned_ms,
            order.matures_ms,
            int(order.delivered),
            *levels.get(1, nothing),
            *levels.get(2, nothing),
            sum(earning.amount_minor for earning in order.earnings),
        )


def known_orders(programme: c.Programme) -> Iterator[tuple[bytes, c.Order]]:
    """Orders in memory, and those forgotten in the fold."""
    yield from programme.orders.items()
    yield from programme.archived_orders.items()


def known_order(programme: c.Programme, key: bytes) -> c.Order | None:
    """One of them."""
    return programme.orders.get(key) or programme.archived_orders.get(key)


def same_account_row(state: s.ShardState, slot: s.SlotState, record: Any) -> bool:
    """Whether an order or withdrawal came back as it was when it was forgotten, if the fold knows
    that."""
    programme = _programme(slot)
    if record.kind == r.ORDER_RECALLED:
        order = programme.archived_orders.get(record.key)
        if order is None:
            return True
        back = PACK["orders"](record.key, from_recalled(state, record))
        at = len(back) - 2
        was = PACK["orders"](record.key, order)
        # All but the entry of the last change.
        return (*was[:at], was[-1]) == (*back[:at], back[-1])
    held = programme.archived_withdrawals.get(record.key)
    return held is None or PACK["withdrawals"](record.key, held)[1:-1] == tuple(
        getattr(record, name) for name in WITHDRAWAL_FIELDS
    )


def rate_rows(_: s.ShardState, slot: s.SlotState) -> Rows:
    """The slot's versions of the rates."""
    for version in _programme(slot).rates.values():
        yield (slot.slot, version.number, version.from_ms, version.config)


def withdrawal_rows(_: s.ShardState, slot: s.SlotState) -> Rows:
    """The slot's withdrawals."""
    programme = _programme(slot)
    for key, held in (*programme.withdrawals.items(), *programme.archived_withdrawals.items()):
        yield (
            slot.slot,
            public_id(slot.slot, key),
            held.distributor_id,
            held.amount_minor,
            held.from_settled_minor,
            held.fingerprint,
            held.state,
            held.requested_ms,
            held.changed_ms,
            held.reference,
        )


def profile_rows(_: s.ShardState, slot: s.SlotState) -> Rows:
    """The slot's risk profiles."""
    for buyer_id, held in slot.profiles.items():
        yield (
            slot.slot,
            buyer_id,
            held.whole_ms,
            list(held.failures),
            int(held.frozen_until_ms > 0),
            held.frozen_until_ms,
            held.frozen_as_of_ms,
            held.told_as_of_ms,
            held.cause,
            held.caller,
            held.reason,
        )


def read_row(table: str, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A row of SQL with its document as the fold has it."""
    if table == "commission_rates":
        return (*row[:-1], programme_config(json.loads(row[-1])))
    if table == "risk_profiles":
        at = PROFILE_COLUMNS.index("failures_json")
        return (*row[:at], json.loads(row[at] or "[]"), *row[at + 1 :])
    return row


def left_memory(table: str, row: tuple[Any, ...], slot: s.SlotState) -> bool:
    """Whether a row without its like in the fold is of a profile at rest, or one of the oldest
    bindings of a buyer who has very many."""
    if table == "bonds":
        held = _programme(slot).bonds.get(row[0])
        full = held is not None and len(held.bonds) == c.BONDS_MAX
        return full and held is not None and row[1] < held.bonds[0].from_ms
    return table == "risk_profiles" and row[2:] == (0, [], 0, 0, 0, 0, 0, "", "")


def _programme(slot: s.SlotState) -> c.Programme:
    return _NONE if slot.programme is None else slot.programme


_NONE = c.Programme()
"""Never changed."""

ACCOUNT_TABLES: Mapping[str, tuple[Sequence[str], Callable[[s.ShardState, s.SlotState], Rows]]] = {
    "distributors": (DISTRIBUTOR_COLUMNS, distributor_rows),
    "bonds": (BOND_COLUMNS, bond_rows),
    "commission_orders": (ORDER_COLUMNS, order_rows),
    "commission_rates": (RATE_COLUMNS, rate_rows),
    "withdrawals": (WITHDRAWAL_COLUMNS, withdrawal_rows),
    "risk_profiles": (PROFILE_COLUMNS, profile_rows),
}
"""Table -> its columns, and the rows of a slot."""

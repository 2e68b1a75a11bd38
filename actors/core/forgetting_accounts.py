"""What account shards forget: orders whose commission is available, and finished withdrawals.

Part of `forgetting.py`, and done as there: records take rows out, their keys stay in the slot's
Bloom filter, and what is asked of one that may have been forgotten is answered RECALL.

* An order may go when nothing of it is frozen or waits, its freeze has been over for
  `recall_after_ms`, and SQL has it as it is. Only facts are about orders, so it is the relay that
  fetches the row. A row may have changed since it was fetched, but then its fact was taken, too:
  for a fact that does not follow the mark of its source, no row comes back.
* A withdrawal may go when it was paid, declined or failed `recall_after_ms` ago. Its row never
  changes again.
* Most orders that earn are new. The programme knows when the youngest forgotten order earned
  (`forgotten_ms`), so the filter is asked only about a fact that is as old.
"""

from collections.abc import Iterator
from typing import Any

from actors.core import commands as c
from actors.core import commission_commands as d
from actors.core import commission_records as r
from actors.core import facts as f
from actors.core.commission_state import (
    AVAILABLE,
    FINISHED,
    KEY_BYTES,
    Order,
    Programme,
    Withdrawal,
    order_key,
)
from actors.core.identity import request_key
from actors.core.relay_commands import TAKE_FACTS, TakeFacts
from actors.core.state import NO_MARK, ShardState, SlotState
from actors.core.tables import SplitDict

SCAN_SLICE = 4_096
"""Rows looked at in one step (about 1 ms)."""

ON_ACCOUNTS = frozenset({TAKE_FACTS, d.REQUEST_WITHDRAWAL, d.REVIEW_WITHDRAWAL})
"""Commands that may be answered RECALL, for the row of an order or a withdrawal."""
_ABOUT_ORDERS = frozenset({f.ORDER_EARNED, f.ORDER_REDUCED})
"""Facts that matter to an order after its freeze."""

Row = Order | Withdrawal
Rows = Iterator[tuple[int, bytes, Row | None]]


class ForgettingAccounts:
    """Walks a shard's programmes round and round, as `Forgetting` walks reservations."""

    def __init__(self) -> None:
        self._rows: Rows | None = None

    def look_on(
        self, state: ShardState, *, now_ms: int, recall_after_ms: int, sink_seq: int, limit: int
    ) -> list[Any]:
        """One slice: records that forget up to `limit` rows. Fold them before asking again."""
        if not state.programmes:
            return []
        before_ms = now_ms - recall_after_ms
        found: list[tuple[int, bytes, Row]] = []
        if self._rows is None:
            self._rows = _walk(state)
        for _ in range(SCAN_SLICE):
            number, key, row = next(self._rows, (0, b"", None))
            if row is None:
                self._rows = None
                break
            if row.seq <= sink_seq and _may_go(state.programmes[number], key, row, before_ms):
                found.append((number, key, row))
                if len(found) == limit:
                    break
        return _records(found)


def _walk(state: ShardState) -> Rows:
    """All rows. A part is listed in one step: it may change before the next row is asked for."""
    for number, programme in list(state.programmes.items()):
        tables: tuple[SplitDict[bytes, Any], ...] = (programme.orders, programme.withdrawals)
        for table in tables:
            for part in list(table.parts):
                for key, row in list(part.items()):
                    yield number, key, row


def _may_go(programme: Programme, key: bytes, row: Row, before_ms: int) -> bool:
    # The walk may stand on a row that is gone, or was recalled as another object.
    if type(row) is Withdrawal:
        done = row.state in FINISHED and row.changed_ms <= before_ms
        return done and programme.withdrawals.get(key) is row
    assert type(row) is Order
    old = row.matures_ms <= before_ms and not row.open()
    return old and programme.orders.get(key) is row


def _records(found: list[tuple[int, bytes, Row]]) -> list[Any]:
    orders: dict[int, list[tuple[bytes, int]]] = {}
    withdrawals: dict[int, list[bytes]] = {}
    for number, key, row in found:
        if type(row) is Order:
            orders.setdefault(number, []).append((key, row.earned_ms))
        else:
            withdrawals.setdefault(number, []).append(key)
    records: list[Any] = []
    for number, gone in orders.items():
        earned_ms = max(earned_ms for _, earned_ms in gone)
        keys = tuple([key for key, _ in gone])
        records.append(r.OrdersForgotten(r.ORDERS_FORGOTTEN, number, keys, earned_ms))
    for number, names in withdrawals.items():
        records.append(r.WithdrawalsForgotten(r.WITHDRAWALS_FORGOTTEN, number, tuple(names)))
    return records


def account_slot_of(command: Any) -> int:
    """The slot of the order or withdrawal that a command is about."""
    number: int = command.facts[0][2] if command.kind == TAKE_FACTS else command.slot
    return number


def account_key(command: Any) -> bytes | None:
    """The key of the order or withdrawal that a command is about; None of no possible one."""
    if command.kind == d.REQUEST_WITHDRAWAL:
        return request_key(command.caller, command.request_id)
    if command.kind == d.REVIEW_WITHDRAWAL:
        key: bytes = command.withdrawal_key
        return key
    fact = command.first_fact()
    return order_key(fact.reservation_id) if fact and fact.kind in _ABOUT_ORDERS else None


def may_be_forgotten(state: ShardState, command: Any) -> bool:
    """See `forgetting.may_be_forgotten`; of a line of facts it is about the first."""
    slot = state.slots.get(account_slot_of(command))
    if slot is None or slot.forgotten is None or slot.programme is None:
        return False
    if command.kind == TAKE_FACTS:
        fact = command.first_fact()
        follows = command.follow(state.sources.get(command.source, NO_MARK))
        return bool(fact) and follows and order_may_be_forgotten(slot, fact)
    key = account_key(command)
    if key is None or key in slot.programme.withdrawals:
        return False
    return slot.forgotten.may_contain(key)


def order_may_be_forgotten(slot: SlotState, fact: Any) -> bool:
    """Whether a fact that follows is about an order that is not in memory and may have been."""
    programme, forgotten = slot.programme, slot.forgotten
    if programme is None or forgotten is None or fact.kind not in _ABOUT_ORDERS:
        return False
    if fact.kind == f.ORDER_EARNED and fact.at_ms > programme.forgotten_ms:
        return False
    key = order_key(fact.reservation_id)
    if key is None or key in programme.orders:
        return False
    return forgotten.may_contain(key[:KEY_BYTES])


def recalled_row(state: ShardState, command: c.Recalled) -> Any:
    """The record that puts the row of a command back, if it may be forgotten. ValueError or
    TypeError for a row that is none."""
    inner = command.command
    if not may_be_forgotten(state, inner):
        return None
    key = account_key(inner)
    assert key is not None
    if inner.kind == TAKE_FACTS:
        return _recalled_order(key, inner, command.row)
    withdrawal = d.RecalledWithdrawal._make(command.row)
    if withdrawal.state not in FINISHED:
        raise ValueError(f"a forgotten withdrawal in state {withdrawal.state}")
    return r.WithdrawalRecalled(r.WITHDRAWAL_RECALLED, command.slot, key, *withdrawal)


def _recalled_order(key: bytes, inner: TakeFacts, row: tuple[Any, ...]) -> r.OrderRecalled:
    order = d.RecalledOrder._make(row)
    states = {share[-1] for share in order.shares}
    if states - {AVAILABLE} or not 0 <= order.returned <= order.quantity or not order.quantity:
        raise ValueError(f"a forgotten order with shares in states {sorted(states)}")
    shares = tuple([tuple(share[:-1]) for share in order.shares])
    number, about = account_slot_of(inner), inner.first_fact().reservation_id
    return r.OrderRecalled(r.ORDER_RECALLED, number, key, about, *order[:-1], shares)

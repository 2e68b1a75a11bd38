"""Journal records as SQL rows: the shape of the view, in one table of functions.

Every function answers (table, key columns, other columns). Rows of one key are merged over a batch,
the later record's columns winning, so that a batch has one row per key and the sink's guard by
(generation, seq) never has to choose within an entry. Columns that a record does not speak of are
left out, and stay as they are in SQL. Most rows of a sale are new reservations, and most of a
programme new bindings, new orders and entries of its ledger: these alone are made without dicts.
"""

from collections.abc import Callable, Sequence
from typing import Any

from actors import commission_rows as on_commission
from actors import relay_rows as on_relay
from actors import reservation_rows as on_reservations
from actors import risk_rows as on_risk
from actors import stock_rows as on_stock
from actors import team_rows as on_teams
from actors.core import commission_records as m
from actors.core import records as r
from actors.core import relay_records as y
from actors.core import state as s
from actors.core import team_records as t
from actors.reservation_rows import PAYMENT_KEPT, PAYMENT_REFUND_DUE, RESERVED_COLUMNS
from actors.stock_rows import Row
from persistence.ports import Rows

__all__ = ["PAYMENT_KEPT", "PAYMENT_REFUND_DUE", "ROWS", "RowBatch"]


class RowBatch:
    """Collects rows, merged by key.

    A new reservation, binding or order is kept as its row's values for as long as no other record
    speaks of it, and of the balances of a pool and the marks of a source only the last is made into
    a row."""

    def __init__(self, shard: int) -> None:
        self._shard = shard
        self._rows: dict[tuple[str, tuple[Any, ...]], dict[str, Any]] = {}
        self._reserved: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        self._accrued: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        self._bound: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        self._new = {
            "reservations": (RESERVED_COLUMNS, self._reserved),
            on_commission.ORDERS: (on_commission.ORDER_COLUMNS, self._accrued),
            on_commission.BONDS: (on_commission.BOND_COLUMNS, self._bound),
        }
        self._earned: list[tuple[Any, ...]] = []
        self._entries: list[tuple[Any, ...]] = []
        self._balances: dict[tuple[str, str], tuple[int, int, r.Balance]] = {}
        self._marks: dict[int, tuple[int, int, y.FactTaken]] = {}

    def add(self, seq: int, now_ms: int, record: Any) -> None:
        """The rows of one record. KeyError for a kind that this release does not know."""
        kind = record[0]
        if kind == r.STOCK_RESERVED:
            self._reserve(on_reservations.reserved_values(record, now_ms, seq))
        elif kind == y.FACT_TAKEN:
            self._marks[record.source] = seq, now_ms, record
        elif kind == m.ORDER_ACCRUED:
            values = on_commission.accrued_values(record, now_ms, seq)
            self._accrued[values[:1]] = values
            self._earned.extend(on_commission.accrued_entries(record, now_ms, seq))
        elif kind == m.BUYER_BOUND and not record.renewed:
            values = on_commission.bound_values(record, now_ms, seq)
            self._bound[values[:3]] = values
        else:
            for table, key, columns in ROWS[kind](record, now_ms):
                self._put(table, key, {"slot": record.slot, **columns}, seq)
            if kind in on_commission.WITH_ENTRIES:
                self._entries.extend(on_commission.entry_values(record, now_ms, seq))

    def add_balance(self, seq: int, now_ms: int, balance: r.Balance) -> None:
        """A pool as it stands after an entry."""
        self._balances[balance.campaign_id, balance.sku_id] = seq, now_ms, balance

    def tables(self) -> list[Rows]:
        """All rows, those of one table and one set of columns together."""
        for seq, now_ms, balance in self._balances.values():
            self._put_balance(seq, now_ms, balance)
        self._balances.clear()
        for seq, now_ms, mark in self._marks.values():
            source, values = on_relay.mark(mark, now_ms)
            self._put(on_relay.MARKS, {"shard": self._shard, **source}, values, seq)
        self._marks.clear()
        groups: dict[tuple[str, tuple[str, ...]], list[tuple[object, ...]]] = {}
        for table, (columns, made) in self._new.items():
            if made:
                groups[table, columns] = list(made.values())
        if self._earned:
            groups[on_commission.ENTRIES, on_commission.ACCRUED_COLUMNS] = self._earned
        if self._entries:
            groups[on_commission.ENTRIES, on_commission.ENTRY_COLUMNS] = self._entries
        for (table, _), row in self._rows.items():
            names = tuple(sorted(row))
            groups.setdefault((table, names), []).append(tuple([row[name] for name in names]))
        return [
            Rows(table=table, columns=columns, values=values)
            for (table, columns), values in groups.items()
        ]

    def _reserve(self, values: tuple[Any, ...]) -> None:
        key = values[:2]
        row = self._rows.get(("reservations", key))
        if row is None:
            self._reserved[key] = values
        else:
            row.update(zip(RESERVED_COLUMNS, values, strict=True))

    def _put_balance(self, seq: int, now_ms: int, balance: r.Balance) -> None:
        columns = balance._asdict()
        key = {"campaign_id": columns.pop("campaign_id"), "sku_id": columns.pop("sku_id")}
        row = self._rows.get(("pools", tuple(key.values())), {})
        # A record of the pool may be of a later entry than its last balance.
        seq = max(seq, row.get("seq", 0))
        self._put("pools", key, {**columns, "updated_ms": now_ms}, seq)

    def _put(self, table: str, key: dict[str, Any], columns: dict[str, Any], seq: int) -> None:
        at = (table, tuple(key.values()))
        row = self._rows.setdefault(at, {})
        new = self._new.get(table)
        if new is not None and (values := new[1].pop(at[1], None)):
            row.update(zip(new[0], values, strict=True))
        row.update(key)
        row.update(columns)
        row.setdefault("generation", s.GENERATION)
        row["seq"] = seq


def _no_rows(record: Any, now_ms: int) -> Sequence[Row]:
    return ()


ROWS: dict[int, Callable[[Any, int], Sequence[Row]]] = {
    r.SKU_PUT: on_stock.sku,
    r.STOCK_CHANGED: on_stock.stock_changed,
    r.TRANSFERRED_OUT: on_stock.transferred_out,
    r.TRANSFERRED_IN: on_stock.transferred_in,
    r.TRANSFER_ENDED: on_stock.transfer_ended,
    r.CAMPAIGN_PUT: on_stock.campaign_put,
    r.CAMPAIGN_STATE_SET: on_stock.campaign_state,
    r.REQUEST_REFUSED: _no_rows,
    r.RESERVATION_CONFIRMED: on_reservations.confirmed,
    r.RESERVATION_RELEASED: on_reservations.released,
    r.RESERVATION_EXPIRED: on_reservations.expired,
    r.PAYMENT_BEGUN: on_reservations.payment_begun,
    r.PAYMENT_FAILED: on_reservations.payment_failed,
    r.REFUND_FELL_DUE: on_reservations.refund_fell_due,
    r.UNITS_RETURNED: on_reservations.units_returned,
    r.FULFILMENT_REPORTED: on_reservations.fulfilment,
    r.REFUND_REPORTED: on_reservations.refund_reported,
    r.RESERVATION_REVOKED: on_reservations.revoked,
    r.RESERVATIONS_FORGOTTEN: _no_rows,
    r.RESERVATION_RECALLED: _no_rows,
    t.TEAM_OPENED: on_teams.team_opened,
    t.SEAT_TAKEN: on_teams.seat_taken,
    t.TEAM_LED: on_teams.team_led,
    t.SEAT_MOVED: on_teams.seat_moved,
    t.SEAT_CLOSED: on_teams.seat_closed,
    t.TEAM_FORMED: on_teams.team_formed,
    t.SEAT_SETTLED: on_teams.seat_settled,
    t.TEAM_CLOSED: on_teams.team_closed,
    t.TEAMS_FORGOTTEN: _no_rows,
    m.ORDERS_FORGOTTEN: _no_rows,
    m.ORDER_RECALLED: _no_rows,
    m.WITHDRAWALS_FORGOTTEN: _no_rows,
    m.WITHDRAWAL_RECALLED: _no_rows,
    t.TEAM_NEARLY_FULL: _no_rows,
    **on_commission.ROWS,
    **on_risk.ROWS,
}

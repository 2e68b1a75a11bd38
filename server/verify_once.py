"""The ids that a record uses up, for `verify`: none may have a second effect.

An id is unique within its slot and its table only.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from actors.core import commission_records as m
from actors.core import commission_state as c
from actors.core import records as r
from actors.core import relay_records as y
from actors.core import state as s
from actors.core import team_records as t
from actors.core.commission_records import RECORDS as COMMISSION_RECORDS
from actors.core.identity import request_key
from actors.core.refunds import payment_key
from actors.core.team_state import TEAM_FORMING
from server.verify_account_rows import known_order, same_account_row
from server.verify_rows import find, same_row

SAME_ROW: dict[int, Callable[[s.ShardState, s.SlotState, Any], bool]] = {
    r.RESERVATION_RECALLED: same_row,
    m.ORDER_RECALLED: same_account_row,
    m.WITHDRAWAL_RECALLED: same_account_row,
}
"""Record that brings a row back -> whether it is as it was when it was forgotten."""


class Effect(NamedTuple):
    """An id in its table, and whether it had its effect before this entry."""

    table: str
    key: bytes
    taken: bool


def effects(state: s.ShardState, slot: s.SlotState, record: Any) -> Iterator[Effect]:
    """Those of one record; `state` is as it was before the record's entry."""
    kind = record.kind
    if kind in (r.STOCK_RESERVED, t.SEAT_TAKEN):
        yield Effect("reservations", record.key, find(state, slot, record.key) is not None)
    elif kind in (r.STOCK_CHANGED, r.UNITS_RETURNED):
        key = (
            record.request_key
            if kind == r.UNITS_RETURNED
            else request_key(record.caller, record.request_id)
        )
        yield Effect("documents", key, key in slot.documents)
    elif kind == r.TRANSFERRED_OUT:
        yield Effect("transfers", record.transfer_id, record.transfer_id in slot.transfers)
    elif kind == r.TRANSFERRED_IN:
        yield Effect("arrivals", record.transfer_id, record.transfer_id in slot.arrivals)
    elif kind in (r.RESERVATION_CONFIRMED, r.REFUND_FELL_DUE):
        key = payment_key(record.payment_id)
        yield Effect("payments", key, key in slot.payments)
    elif kind == t.TEAM_OPENED:
        yield Effect("teams", record.team_key, record.team_key in slot.teams)
    elif kind in (t.TEAM_FORMED, t.TEAM_CLOSED):
        team = slot.teams.get(record.team_key)
        ended = team is not None and team.state != TEAM_FORMING
        yield Effect("ends of teams", record.team_key, ended)
    elif kind in COMMISSION_RECORDS:
        yield from _of_commission(slot.programme or _NONE, record)
    elif kind == y.FACT_TAKEN:
        incarnation, *stands = state.sources.get(record.source, s.NO_MARK)
        place = [record.source_seq, record.fact_index]
        before = incarnation == record.incarnation and stands >= place
        yield Effect("facts", f"{record.source}:{place}".encode(), before)
    refund = getattr(record, "refund_key", b"") if kind != r.REFUND_REPORTED else b""
    if refund:
        yield Effect("refunds", refund, refund in slot.refunds)


def _of_commission(programme: c.Programme, record: Any) -> Iterator[Effect]:
    """One accrual, and one entry by which it becomes available, per order and level; one reversal
    per order and units that are back."""
    kind = record.kind
    if kind == m.ORDER_ACCRUED:
        taken = known_order(programme, record.key) is not None
        yield Effect("commission orders", record.key, taken)
    elif kind == m.ORDER_REVERSED:
        order = known_order(programme, record.key)
        taken = order is not None and order.returned >= record.returned_total
        key = record.key + record.returned_total.to_bytes(8, "big")
        yield Effect("reversals", key, taken)
    elif kind == m.ORDER_MATURED:
        order = known_order(programme, record.key)
        for level in record.available:
            over = order is not None and any(
                earning.level == level and earning.state == c.AVAILABLE
                for earning in order.earnings
            )
            yield Effect("shares", record.key + bytes([level]), over)
    elif kind == m.STATEMENT_MADE:
        held = programme.distributors.get(record.distributor_id)
        made = held is not None and held.settled_through >= record.month
        yield Effect("statements", f"{record.distributor_id}:{record.month}".encode(), made)
    elif kind == m.WITHDRAWAL_REQUESTED:
        gone = record.key in programme.archived_withdrawals
        yield Effect("withdrawals", record.key, gone or record.key in programme.withdrawals)
    for entry in getattr(record, "entries", ()):
        yield Effect(
            "ledger entries", entry[0].to_bytes(8, "big"), entry[0] <= programme.entry_count
        )


_NONE = c.Programme()
"""Never changed."""

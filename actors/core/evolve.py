"""evolve(state, record): apply what was decided. The only code that changes a shard's state.

Rules
-----
* It decides nothing and refuses nothing. What cannot be is a bug, and raises `Impossible`: the
  primary folds before it appends, so such a process ends with nothing journalled.
* An entry is folded whole by `fold`; its balances are compared with the pools, so a replica that
  diverges stops at the entry that shows it.
* While a fuzzy snapshot is completed (`state.fuzzy` is not None), a row that the snapshot already
  has at or after this entry is left alone, and pools float: the snapshot's end sets them.
* `evolve_stock.py` and `evolve_reservations.py` have a function for each kind of record.
"""

from collections.abc import Callable, Sequence
from typing import Any

from actors.core import evolve_commission as on_commission
from actors.core import evolve_relay as on_relay
from actors.core import evolve_reservations as on_reservations
from actors.core import evolve_risk as on_risk
from actors.core import evolve_stock as on_stock
from actors.core import evolve_teams as on_teams
from actors.core import records as r
from actors.core import relay_records as y
from actors.core import risk_records as k
from actors.core import state as s
from actors.core import team_records as t
from actors.core.state import Impossible

__all__ = ["EVOLVE", "Impossible", "close_entry", "evolve", "fold", "open_entry"]


def evolve(state: s.ShardState, record: Any) -> None:
    """Apply one record of the open entry (`state.seq`, `state.now_ms`)."""
    EVOLVE[record[0]](state, state.slots.get(record[1]) or state.slot(record[1]), record)


def fold(
    state: s.ShardState, seq: int, now_ms: int, records: Sequence[Any], balances: Sequence[Any]
) -> None:
    """Apply a whole entry and compare its balances. Raises Impossible on any difference."""
    open_entry(state, seq, now_ms)
    for record in records:
        evolve(state, record)
    state.advance(now_ms)
    if state.fuzzy is not None:
        return
    for told in balances:
        pool = state.slot(told.slot).pool(told.campaign_id, told.sku_id)
        if pool is None or pool.balance(told.slot, told.generation) != told:
            found = None if pool is None else pool.balance(told.slot, told.generation)
            raise Impossible(f"entry {seq}: the fold has {found}, the entry says {told}")


def open_entry(state: s.ShardState, seq: int, now_ms: int) -> None:
    """The records that follow belong to entry `seq`, decided at `now_ms`."""
    state.seq = seq
    state.now_ms = max(state.now_ms, now_ms)
    state.touched.clear()


def close_entry(state: s.ShardState) -> list[r.Balance]:
    """The open entry has all its records and will be journalled: the balances of the pools that
    it touched. Raises Impossible if one breaks the conservation law."""
    state.advance(state.now_ms)
    balances = []
    for pool, number in state.touched.items():
        broken = pool.broken_law()
        if broken:
            raise Impossible(broken)
        balances.append(pool.balance(number, state.slots[number].generation))
    return balances


EVOLVE: dict[int, Callable[[s.ShardState, s.SlotState, Any], object]] = {
    r.SKU_PUT: on_stock.sku_put,
    r.STOCK_CHANGED: on_stock.stock_changed,
    r.TRANSFERRED_OUT: on_stock.transferred_out,
    r.TRANSFERRED_IN: on_stock.transferred_in,
    r.TRANSFER_ENDED: on_stock.transfer_ended,
    r.CAMPAIGN_PUT: on_stock.campaign_put,
    r.CAMPAIGN_STATE_SET: on_stock.campaign_state_set,
    r.STOCK_RESERVED: on_reservations.stock_reserved,
    r.REQUEST_REFUSED: on_reservations.request_refused,
    r.RESERVATION_CONFIRMED: on_reservations.confirmed,
    r.RESERVATION_RELEASED: on_reservations.released,
    r.RESERVATION_EXPIRED: on_reservations.expired,
    r.PAYMENT_BEGUN: on_reservations.payment_begun,
    r.PAYMENT_FAILED: on_reservations.payment_failed,
    r.REFUND_FELL_DUE: on_reservations.refund_fell_due,
    r.UNITS_RETURNED: on_reservations.units_returned,
    r.FULFILMENT_REPORTED: on_reservations.fulfilment_reported,
    r.REFUND_REPORTED: on_reservations.refund_reported,
    r.RESERVATION_REVOKED: on_reservations.revoked,
    r.RESERVATIONS_FORGOTTEN: on_reservations.forgotten,
    r.RESERVATION_RECALLED: on_reservations.recalled,
    t.TEAM_OPENED: on_teams.team_opened,
    t.SEAT_TAKEN: on_teams.seat_taken,
    t.TEAM_LED: on_teams.team_led,
    t.SEAT_MOVED: on_teams.seat_moved,
    t.SEAT_CLOSED: on_teams.seat_closed,
    t.TEAM_FORMED: on_teams.team_formed,
    t.SEAT_SETTLED: on_teams.seat_settled,
    t.TEAM_CLOSED: on_teams.team_closed,
    t.TEAMS_FORGOTTEN: on_teams.teams_forgotten,
    t.TEAM_NEARLY_FULL: on_teams.team_nearly_full,
    **on_commission.EVOLVE,
    y.FACT_TAKEN: on_relay.fact_taken,
    k.SIGNAL_NOTED: on_risk.signal_noted,
    k.BUYER_FROZEN: on_risk.buyer_frozen,
    k.BUYER_UNFROZEN: on_risk.buyer_unfrozen,
    k.PROFILES_RESTED: on_risk.profiles_rested,
    k.HOLD_NOTED: on_risk.hold_noted,
}

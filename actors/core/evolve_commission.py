"""Applying what was decided on commission.

Part of `evolve.py`, whose rules hold here. While a snapshot is completed each row is changed or
left alone by itself; the sums, and what is counted over the rows, are set at the end.
"""

from collections.abc import Sequence
from sys import intern
from typing import Any

from actors.core import commission_records as r
from actors.core import commission_state as c
from actors.core import state as s
from actors.core.bloom import Forgotten
from actors.core.programme_config import programme_config

BOARD_MONTHS = 2


def distributor_set(state: s.ShardState, slot: s.SlotState, record: r.DistributorSet) -> None:
    programme = state.programme(slot)
    distributor_id = intern(record.distributor_id)
    if _skip(state, slot, "distributors", distributor_id.encode()):
        return
    distributor = programme.distributors.get(distributor_id)
    if distributor is None:
        distributor = c.Distributor()
        distributor.applied_ms = state.now_ms
        programme.distributors.put(distributor_id, distributor)
    distributor.state = record.state
    distributor.share_code = record.share_code
    distributor.changed_ms = state.now_ms
    distributor.seq = state.seq
    if record.share_code:
        programme.codes[record.share_code] = distributor_id
    c.release(programme, distributor_id, distributor)


def distributor_held(state: s.ShardState, slot: s.SlotState, record: r.DistributorHeld) -> None:
    programme = state.programme(slot)
    distributor = _distributor(state, slot, programme, record.distributor_id)
    if distributor is None:
        return
    name = record.distributor_id.encode()
    if distributor.held_until_ms:
        programme.hold_ends.remove(name, distributor.held_until_ms)
    distributor.held_until_ms = record.until_ms
    distributor.held_as_of_ms = record.as_of_ms
    if record.until_ms:
        programme.hold_ends.add(name, record.until_ms, state.now_ms)
    c.release(programme, record.distributor_id, distributor)


def buyer_bound(state: s.ShardState, slot: s.SlotState, record: r.BuyerBound) -> None:
    programme = state.programme(slot)
    distributor = _distributor(state, slot, programme, record.distributor_id)
    if distributor is not None and record.invited:
        distributor.invited += 1
        _count_on_board(
            state, programme, distributor, record.distributor_id, record.month, invited=1
        )
    if state.fuzzy is not None and _skip(state, slot, "bonds", record.buyer_id.encode()):
        return
    bond = c.Bond(record.from_ms, record.until_ms, intern(record.distributor_id))
    first = c.Bonds(state.seq, (bond,))
    if not record.renewed and programme.bonds.add(record.buyer_id, first):
        return
    held = programme.bonds.get(record.buyer_id)
    bonds = [] if held is None else list(held.bonds)
    if record.renewed:
        same = (record.from_ms, record.distributor_id)
        at = [at for at, old in enumerate(bonds) if (old.from_ms, old.distributor_id) == same]
        if not at:
            raise s.Impossible(f"entry {state.seq}: no binding of {record.from_ms} to renew")
        bonds[at[-1]] = bond
    else:
        bonds.append(bond)
        bonds.sort(key=lambda bond: bond.from_ms)
    programme.bonds.put(record.buyer_id, c.Bonds(state.seq, tuple(bonds[-c.BONDS_MAX :])))


def rates_put(state: s.ShardState, slot: s.SlotState, record: r.RatesPut) -> None:
    programme = state.programme(slot)
    key = c.version_key(record.version)
    if state.fuzzy is not None and key in programme.rates:
        return
    version = c.Version(record.version, state.now_ms, programme_config(record.config), state.seq)
    programme.rates.put(key, version)
    if state.fuzzy is not None:
        return
    programme.versions.append(version)
    programme.starts.append(version.from_ms)
    programme.rate_lines += len(version.skus) + len(version.campaigns)


def order_accrued(state: s.ShardState, slot: s.SlotState, record: r.OrderAccrued) -> None:
    programme = state.programme(slot)
    post(state, slot, programme, record.entries)
    referrer = _distributor(state, slot, programme, record.referrer_id)
    if referrer is not None:
        referrer.orders += 1
        referrer.sales_minor += record.base_minor
        brought = (record.referrer_id, record.month)
        _count_on_board(state, programme, referrer, *brought, sales_minor=record.base_minor)
    order = c.Order()
    order.base_minor = record.base_minor
    order.quantity = record.quantity
    order.returned = 0
    order.referrer_id = intern(record.referrer_id)
    order.version = record.version
    order.month = record.month
    order.earned_ms = record.earned_ms
    order.matures_ms = record.matures_ms
    order.delivered = False
    order.seq = state.seq
    order.earnings = tuple(
        [c.Earning(level, intern(who), bps, amount) for level, who, bps, amount in record.shares]
    )
    if not programme.orders.add(record.key, order):
        if state.fuzzy is None:
            raise s.Impossible(f"entry {state.seq}: {record.reservation_id} has earned before")
    elif order.earnings:
        programme.maturing.add(record.key, order.matures_ms, state.now_ms)


def order_reversed(state: s.ShardState, slot: s.SlotState, record: r.OrderReversed) -> None:
    programme = state.programme(slot)
    post(state, slot, programme, record.entries)
    referrer = _distributor(state, slot, programme, record.referrer_id)
    if referrer is not None:
        referrer.sales_minor -= record.sales_minor
        brought = (record.referrer_id, record.sales_month)
        _count_on_board(state, programme, referrer, *brought, sales_minor=-record.sales_minor)
    if _skip(state, slot, "orders", record.key):
        return
    order = _order(state, programme, record)
    if not order.returned < record.returned_total <= order.quantity:
        raise s.Impossible(f"entry {state.seq}: {record.returned_total} units came back before")
    order.returned = record.returned_total
    order.seq = state.seq
    for earning, left_minor in zip(order.earnings, record.left_minor, strict=True):
        earning.amount_minor = left_minor


def order_matured(state: s.ShardState, slot: s.SlotState, record: r.OrderMatured) -> None:
    programme = state.programme(slot)
    post(state, slot, programme, record.entries)
    if _skip(state, slot, "orders", record.key):
        return
    order = _order(state, programme, record)
    order.seq = state.seq
    for earning in order.earnings:
        if earning.level in record.available:
            _become_available(state, programme, record.key, earning)
        elif earning.level in record.waiting:
            if earning.state != c.FROZEN:
                raise s.Impossible(f"entry {state.seq}: {record.reservation_id} waits twice")
            earning.state = c.WAITING
            c.wait(programme, earning.distributor_id, record.key)
    if not order.frozen():
        programme.maturing.remove(record.key, order.matures_ms)


def orders_forgotten(state: s.ShardState, slot: s.SlotState, record: r.OrdersForgotten) -> None:
    programme = state.programme(slot)
    programme.forgotten_ms = max(programme.forgotten_ms, record.earned_ms)
    forgotten = _forgets(state, slot)
    for key in record.keys:
        forgotten.add(key[: c.KEY_BYTES])
        if _skip(state, slot, "orders", key):
            continue
        order = programme.orders.pop(key)
        if order is None or order.open():
            raise s.Impossible(f"entry {state.seq}: {c.reservation_of(key)} is not all available")
        if state.archive is not None:
            programme.archived_orders[key] = order


def order_recalled(state: s.ShardState, slot: s.SlotState, record: r.OrderRecalled) -> None:
    programme = state.programme(slot)
    if record.key in programme.orders:
        if state.fuzzy is None:
            raise s.Impossible(f"entry {state.seq}: {record.reservation_id} is here")
        return
    programme.orders.put(record.key, from_recalled(state, record))
    programme.archived_orders.pop(record.key, None)


def from_recalled(state: s.ShardState, record: r.OrderRecalled) -> c.Order:
    """The order that a record brings, not yet in its table."""
    order = c.Order()
    order.referrer_id = intern(record.referrer_id)
    order.quantity = record.quantity
    order.returned = record.returned
    order.base_minor = record.base_minor
    order.version = record.version
    order.month = record.month
    order.earned_ms = record.earned_ms
    order.matures_ms = record.matures_ms
    order.delivered = record.delivered
    order.seq = state.seq
    order.earnings = tuple([_available(record, *share) for share in record.shares])
    return order


def _available(
    record: r.OrderRecalled, level: int, distributor_id: str, rate_bps: int, full_minor: int
) -> c.Earning:
    earning = c.Earning(level, intern(distributor_id), rate_bps, full_minor)
    earning.amount_minor = full_minor * (record.quantity - record.returned) // record.quantity
    earning.state = c.AVAILABLE
    return earning


def _forgets(state: s.ShardState, slot: s.SlotState) -> Forgotten:
    if slot.forgotten is None:
        slot.forgotten = Forgotten()
    state.forgets = True
    return slot.forgotten


def _order(state: s.ShardState, programme: c.Programme, record: Any) -> c.Order:
    order = programme.orders.get(record.key)
    if order is None:
        raise s.Impossible(f"entry {state.seq}: {record.reservation_id} has earned nothing")
    return order


def _become_available(
    state: s.ShardState, programme: c.Programme, key: bytes, earning: c.Earning
) -> None:
    if earning.state == c.AVAILABLE:
        raise s.Impossible(f"entry {state.seq}: a share became available twice")
    waited = earning.state == c.WAITING
    earning.state = c.AVAILABLE
    distributor = programme.distributors.get(earning.distributor_id)
    if waited and distributor is not None:
        distributor.waiting.pop(key, None)
        c.release(programme, earning.distributor_id, distributor)


def maturity_moved(state: s.ShardState, slot: s.SlotState, record: r.MaturityMoved) -> None:
    if _skip(state, slot, "orders", record.key):
        return
    programme = state.programme(slot)
    order = _order(state, programme, record)
    if not order.frozen():
        raise s.Impossible(f"entry {state.seq}: {record.reservation_id} is not frozen")
    programme.maturing.remove(record.key, order.matures_ms)
    order.matures_ms = record.matures_ms
    order.delivered = True
    order.seq = state.seq
    programme.maturing.add(record.key, order.matures_ms, state.now_ms)


def statement_made(state: s.ShardState, slot: s.SlotState, record: r.StatementMade) -> None:
    programme = state.programme(slot)
    post(state, slot, programme, record.entries)
    distributor = _distributor(state, slot, programme, record.distributor_id)
    if distributor is None:
        return
    sums = distributor.months.pop(record.month, None)
    if sums is None or sums.pack()[:4] != record[7:11]:
        raise s.Impossible(f"entry {state.seq}: a statement of {record.month} that is not its own")
    distributor.closing_minor = record.closing_minor
    distributor.settled_through = record.month
    made = c.Statement(record.month, *record[4:14], state.now_ms)
    distributor.statements = (*distributor.statements, made)[-c.STATEMENTS_KEPT :]
    open_ones = programme.months.get(record.month)
    if open_ones is not None:
        open_ones.pop(record.distributor_id, None)
        if not open_ones:
            del programme.months[record.month]


def _withdrawal_of(
    state: s.ShardState, record: r.WithdrawalRequested | r.WithdrawalRecalled, stage: int
) -> c.Withdrawal:
    """As a record tells of it, at a stage; its times and reference are the caller's."""
    withdrawal = c.Withdrawal()
    withdrawal.distributor_id = intern(record.distributor_id)
    withdrawal.amount_minor = record.amount_minor
    withdrawal.from_settled_minor = record.from_settled_minor
    withdrawal.fingerprint = record.fingerprint
    withdrawal.state = stage
    withdrawal.seq = state.seq
    return withdrawal


def withdrawal_requested(
    state: s.ShardState, slot: s.SlotState, record: r.WithdrawalRequested
) -> None:
    programme = state.programme(slot)
    post(state, slot, programme, record.entries)
    distributor = _distributor(state, slot, programme, record.distributor_id)
    if distributor is not None:
        distributor.open_withdrawals += 1
    if record.key in programme.withdrawals:
        if state.fuzzy is None:
            raise s.Impossible(f"entry {state.seq}: withdrawal {record.key.hex()} was requested")
        return
    withdrawal = _withdrawal_of(state, record, c.REQUESTED)
    withdrawal.requested_ms = withdrawal.changed_ms = state.now_ms
    withdrawal.reference = ""
    programme.withdrawals.put(record.key, withdrawal)


def withdrawal_reviewed(
    state: s.ShardState, slot: s.SlotState, record: r.WithdrawalReviewed
) -> None:
    programme = state.programme(slot)
    post(state, slot, programme, record.entries)
    distributor = _distributor(state, slot, programme, record.distributor_id)
    if distributor is not None and record.state != c.APPROVED:
        distributor.open_withdrawals -= 1
    if _skip(state, slot, "withdrawals", record.key):
        return
    withdrawal = programme.withdrawals.get(record.key)
    if withdrawal is None or record.state not in NEXT_STATES[withdrawal.state]:
        raise s.Impossible(f"entry {state.seq}: withdrawal {record.key.hex()} is closed or unknown")
    withdrawal.state = record.state
    withdrawal.reference = record.reference
    withdrawal.changed_ms = state.now_ms
    withdrawal.seq = state.seq


def withdrawals_forgotten(
    state: s.ShardState, slot: s.SlotState, record: r.WithdrawalsForgotten
) -> None:
    programme, forgotten = state.programme(slot), _forgets(state, slot)
    for key in record.keys:
        forgotten.add(key)
        if _skip(state, slot, "withdrawals", key):
            continue
        withdrawal = programme.withdrawals.pop(key)
        if withdrawal is None or withdrawal.state not in c.FINISHED:
            raise s.Impossible(f"entry {state.seq}: withdrawal {key.hex()} is not finished")
        if state.archive is not None:
            programme.archived_withdrawals[key] = withdrawal


def withdrawal_recalled(
    state: s.ShardState, slot: s.SlotState, record: r.WithdrawalRecalled
) -> None:
    programme = state.programme(slot)
    if record.key in programme.withdrawals:
        if state.fuzzy is None:
            raise s.Impossible(f"entry {state.seq}: withdrawal {record.key.hex()} is here")
        return
    withdrawal = _withdrawal_of(state, record, record.state)
    withdrawal.requested_ms, withdrawal.changed_ms = record.requested_ms, record.changed_ms
    withdrawal.reference = record.reference
    programme.withdrawals.put(record.key, withdrawal)
    programme.archived_withdrawals.pop(record.key, None)


NEXT_STATES = {
    c.REQUESTED: (c.APPROVED, c.DECLINED),
    c.APPROVED: (c.PAID, c.FAILED),
    c.DECLINED: (),
    c.PAID: (),
    c.FAILED: (),
}
"""The state machine of a withdrawal as data."""


def post(
    state: s.ShardState, slot: s.SlotState, programme: c.Programme, entries: Sequence[Any]
) -> None:
    """Apply entries to the balances. Raises Impossible if one does not sum to 0."""
    whole = state.fuzzy is None
    for entry in entries:
        amounts = entry[r.AMOUNTS_FROM :]
        if sum(amounts):
            raise s.Impossible(f"entry {state.seq}: ledger entry {entry[0]} does not sum to 0")
        if whole:
            programme.entry_count += 1
            if entry[0] != programme.entry_count:
                raise s.Impossible(f"entry {state.seq}: ledger entry {entry[0]} out of order")
        # While a snapshot is completed, the newest that it has are followed by newer ones.
        if whole or _newest(programme) < entry[0]:
            programme.recent.append((state.now_ms, *entry))
        distributor = _distributor(state, slot, programme, entry[2])
        if distributor is None:
            continue
        balances, sums = distributor.balances, programme.sums if whole else [0] * 6
        for at, amount in enumerate(amounts):
            if amount:
                balances[at] += amount
                sums[at] += amount
        if whole and (balances[c.FROZEN_AT] < 0 or balances[c.AVAILABLE_AT] < 0):
            raise s.Impossible(f"entry {state.seq}: {entry[2]} has less than nothing")
        if entry[9] or entry[10]:
            _count_in_month(programme, distributor, entry)


def _newest(programme: c.Programme) -> int:
    return int(programme.recent[-1][1]) if programme.recent else 0


def _count_in_month(
    programme: c.Programme, distributor: c.Distributor, entry: Sequence[Any]
) -> None:
    event, distributor_id, month = entry[1], entry[2], entry[6]
    moved_minor = entry[9] + entry[10]
    if not moved_minor:
        return
    sums = distributor.months.get(month)
    if sums is None:
        sums = distributor.months[month] = c.Sums()
        programme.months.setdefault(month, {})[distributor_id] = None
    sums.count += 1
    if event == r.BECAME_AVAILABLE:
        sums.available_minor += moved_minor
    elif event == r.REVERSED:
        sums.reversed_minor -= moved_minor
    elif event == r.WITHDRAWN:
        sums.withdrawn_minor -= moved_minor
    else:
        sums.restored_minor += moved_minor


def _count_on_board(
    state: s.ShardState,
    programme: c.Programme,
    distributor: c.Distributor,
    distributor_id: str,
    month: int,
    *,
    invited: int = 0,
    sales_minor: int = 0,
) -> None:
    board = distributor.board
    at = len(board) - 1
    while at >= 0 and board[at][0] != month:
        at -= 1
    if at < 0:
        if board and month < board[-1][0]:
            return
        board = (*board, (month, 0, 0))[-BOARD_MONTHS:]
        at = len(board) - 1
    _, before, sales = board[at]
    row = (month, before + invited, sales + sales_minor)
    distributor.board = (*board[:at], row, *board[at + 1 :])
    # While a snapshot is completed, boards are counted at its end.
    if state.fuzzy is None:
        place = c.INVITED_AT if invited else c.SALES_AT
        programme.boards.change(month, place, distributor_id, row[place])


def _distributor(
    state: s.ShardState, slot: s.SlotState, programme: c.Programme, distributor_id: str
) -> c.Distributor | None:
    """Its row, to be changed; None if the snapshot that is completed has it as new or newer."""
    if state.fuzzy is not None and _skip(state, slot, "distributors", distributor_id.encode()):
        return None
    distributor = programme.distributors.get(distributor_id)
    if distributor is None:
        raise s.Impossible(f"entry {state.seq}: no distributor {distributor_id}")
    distributor.seq = state.seq
    return distributor


def _skip(state: s.ShardState, slot: s.SlotState, table: str, key: bytes) -> bool:
    """Whether the snapshot that is being completed has the row as it is after this entry."""
    if state.fuzzy is None:
        return False
    if state.fuzzy.get((table, slot.slot, key), -1) >= state.seq:
        return True
    if table not in {"orders", "withdrawals"} or slot.forgotten is None or slot.programme is None:
        return False
    # A row that was forgotten before its turn to be written is not in the snapshot.
    gone = key not in getattr(slot.programme, table)
    return gone and slot.forgotten.may_contain(key[: c.KEY_BYTES])


EVOLVE: dict[int, Any] = {
    r.DISTRIBUTOR_SET: distributor_set,
    r.BUYER_BOUND: buyer_bound,
    r.RATES_PUT: rates_put,
    r.ORDER_ACCRUED: order_accrued,
    r.ORDER_REVERSED: order_reversed,
    r.ORDER_MATURED: order_matured,
    r.MATURITY_MOVED: maturity_moved,
    r.DISTRIBUTOR_HELD: distributor_held,
    r.STATEMENT_MADE: statement_made,
    r.WITHDRAWAL_REQUESTED: withdrawal_requested,
    r.WITHDRAWAL_REVIEWED: withdrawal_reviewed,
    r.ORDERS_FORGOTTEN: orders_forgotten,
    r.ORDER_RECALLED: order_recalled,
    r.WITHDRAWALS_FORGOTTEN: withdrawals_forgotten,
    r.WITHDRAWAL_RECALLED: withdrawal_recalled,
}
"""See `evolve.EVOLVE`."""

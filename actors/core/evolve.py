"""evolve(state, record): apply what was decided. The only code that changes a shard's state.

Rules
-----
* It decides nothing and refuses nothing. What cannot be is a bug, and raises `Impossible`: the
  primary folds before it appends, so such a process ends with nothing journalled.
* An entry is folded whole by `fold`; its balances are compared with the pools, so a replica that
  diverges stops at the entry that shows it.
* While a fuzzy snapshot is completed (`state.fuzzy` is not None), a row that the snapshot already
  has at or after this entry is left alone, and pools float: the snapshot's end sets them.
"""

from collections.abc import Callable, Sequence
from typing import Any

from actors.core import commands as c
from actors.core import records as r
from actors.core import state as s
from actors.core.identity import public_id, request_key
from actors.core.outcomes import Outcome
from actors.core.payments import RefundReason, payment_key


class Impossible(Exception):
    """A record that contradicts the state, or a broken invariant. Never caught, except to die."""


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


def _skip(state: s.ShardState, slot: s.SlotState, key: bytes, table: str = "reservations") -> bool:
    """Whether the snapshot being completed has this row as of this entry or later."""
    fuzzy = state.fuzzy
    return fuzzy is not None and fuzzy.get((table, slot.slot, key), 0) >= state.seq


def _held(state: s.ShardState, slot: s.SlotState, key: bytes) -> s.Reservation:
    held = slot.reservations.get(key)
    if held is None:
        raise Impossible(f"entry {state.seq}: no reservation {public_id(slot.slot, key)}")
    held.seq = state.seq
    state.touched[held.pool] = slot.slot
    return held


def _move_to(held: s.Reservation, new: int) -> None:
    if new not in s.TRANSITIONS[held.state]:
        raise Impossible(f"reservation state {held.state} cannot become {new}")
    held.state = new


def _count(slot: s.SlotState, held: s.Reservation, units: int) -> None:
    """Change what the buyer's limits count, for the pools and campaigns that have limits."""
    pool = held.pool
    if pool.limit_per_buyer:
        _add(pool.buyers, held.buyer_id, units)
    if pool.campaign_id:
        campaign = slot.campaigns[pool.campaign_id]
        if campaign.config.limit_per_buyer:
            _add(campaign.buyers, held.buyer_id, units)


def _add(buyers: Any, buyer_id: str, units: int) -> None:
    count = (buyers.get(buyer_id) or 0) + units
    if count > 0:
        buyers.put(buyer_id, count)
    else:
        buyers.pop(buyer_id)


def _free(state: s.ShardState, slot: s.SlotState, pool: s.Pool, units: int) -> None:
    """Units become available again; what the pool owes is paid first."""
    pool.available += units - _pay_owed(state, pool, units)


def _pay_owed(state: s.ShardState, pool: s.Pool, units: int) -> int:
    """How many of the freed units what is owed takes; they leave the total."""
    paid = min(pool.owed, units)
    pool.owed -= paid
    pool.total -= paid
    if paid and not pool.owed:
        state.debtors.pop(pool, None)
    return paid


def _forgive(state: s.ShardState, pool: s.Pool) -> None:
    """No more can be owed than reservations and orders could still give up, else a receipt of
    goods would pay for units that are in nobody's books any more."""
    pool.owed = min(pool.owed, pool.reserved + pool.sold)
    if not pool.owed:
        state.debtors.pop(pool, None)


def _sku_put(state: s.ShardState, slot: s.SlotState, record: r.SkuPut) -> None:
    sku = slot.skus.get(record.sku_id)
    if sku is None:
        sku = slot.skus[record.sku_id] = s.Sku(s.Pool("", record.sku_id))
    sku.name = record.name
    sku.attributes = record.attributes
    sku.buffer_bps = record.buffer_bps
    sku.currency_code = record.currency_code
    sku.payment_window_ms = record.payment_window_ms
    sku.pool.list_price_minor = sku.pool.unit_price_minor = record.price_minor
    state.touched[sku.pool] = slot.slot


def _pool(state: s.ShardState, slot: s.SlotState, campaign_id: str, sku_id: str) -> s.Pool:
    pool = slot.pool(campaign_id, sku_id)
    if pool is None:
        raise Impossible(f"entry {state.seq}: no pool {campaign_id}/{sku_id}")
    state.touched[pool] = slot.slot
    return pool


def _stock_changed(state: s.ShardState, slot: s.SlotState, record: r.StockChanged) -> None:
    pool = _pool(state, slot, record.campaign_id, record.sku_id)
    pool.available += record.available
    pool.buffer += record.buffer
    pool.scheduled += record.scheduled
    pool.total += record.available + record.buffer + record.scheduled
    pool.owed += record.owed
    if pool.owed > 0:
        if pool not in state.debtors:
            state.debtors[pool] = s.Debt(slot.slot)
    else:
        state.debtors.pop(pool, None)
    slot.documents.put(request_key(record.caller, record.request_id), record.fingerprint)


def _transferred_out(state: s.ShardState, slot: s.SlotState, record: r.TransferredOut) -> None:
    pool = _pool(state, slot, record.from_campaign_id, record.sku_id)
    pool.available -= record.quantity
    pool.in_transit += record.quantity
    if record.from_campaign_id:
        pool.granted -= record.quantity
    if record.transfer_id not in slot.transfers:
        slot.open_transfers.add(record.transfer_id)
        slot.transfers.put(
            record.transfer_id,
            s.Transfer(
                sku_id=record.sku_id,
                from_campaign_id=record.from_campaign_id,
                to_campaign_id=record.to_campaign_id,
                quantity=record.quantity,
                fingerprint=record.fingerprint,
            ),
        )


def _transferred_in(state: s.ShardState, slot: s.SlotState, record: r.TransferredIn) -> None:
    slot.arrivals.put(record.transfer_id, record.arrived)
    if not record.arrived:
        return
    pool = _pool(state, slot, record.to_campaign_id, record.sku_id)
    pool.total += record.quantity
    if record.to_campaign_id:
        pool.granted += record.quantity
    _free(state, slot, pool, record.quantity)


def _transfer_ended(state: s.ShardState, slot: s.SlotState, record: r.TransferEnded) -> None:
    transfer = slot.transfers.get(record.transfer_id)
    if transfer is None:
        raise Impossible(f"entry {state.seq}: no transfer {record.transfer_id.hex()}")
    pool = _pool(state, slot, transfer.from_campaign_id, transfer.sku_id)
    pool.in_transit -= transfer.quantity
    slot.open_transfers.discard(record.transfer_id)
    transfer.state = s.TRANSFER_ARRIVED if record.arrived else s.TRANSFER_TURNED_AWAY
    if record.arrived:
        pool.total -= transfer.quantity
        return
    if transfer.from_campaign_id:
        pool.granted += transfer.quantity
    _free(state, slot, pool, transfer.quantity)


def _campaign_put(state: s.ShardState, slot: s.SlotState, record: r.CampaignPut) -> None:
    if state.fuzzy is not None:
        # The snapshot's end has the campaign with all its lines, and rows refer to those pools.
        return
    config = c.campaign_config(record.config)
    campaign = slot.campaigns.get(record.campaign_id)
    old_limit = 0
    if campaign is None:
        campaign = slot.campaigns[record.campaign_id] = s.Campaign(config)
    else:
        old_limit = campaign.config.limit_per_buyer
        campaign.config = config
    newly_limited = bool(config.limit_per_buyer) and not old_limit
    pools: dict[str, s.Pool] = {}
    for line in config.lines:
        pool = campaign.pools.get(line.sku_id) or s.Pool(record.campaign_id, line.sku_id)
        newly_limited |= bool(line.limit_per_buyer) and not pool.limit_per_buyer
        pool.list_price_minor = line.list_price_minor
        pool.unit_price_minor = line.unit_price_minor
        pool.limit_per_buyer = line.limit_per_buyer
        pools[line.sku_id] = pool
        state.touched[pool] = slot.slot
    campaign.pools = pools
    if newly_limited and slot.reservations:
        recount(slot)


def recount(slot: s.SlotState) -> None:
    """Count anew what limits count, over all reservations of the slot."""
    for campaign in slot.campaigns.values():
        campaign.buyers = type(campaign.buyers)()
    for pool in slot.pools():
        pool.buyers = type(pool.buyers)()
    for held in slot.reservations.values():
        units = counted_units(held)
        if units:
            _count(slot, held, units)


def counted_units(held: s.Reservation) -> int:
    """Units of a reservation that a buyer's limit counts: held or owned, less returned."""
    return held.quantity - held.returned if held.state in (s.RESERVED, s.CONFIRMED) else 0


def _campaign_state_set(state: s.ShardState, slot: s.SlotState, record: r.CampaignStateSet) -> None:
    slot.campaigns[record.campaign_id].state = record.state


def _stock_reserved(state: s.ShardState, slot: s.SlotState, record: r.StockReserved) -> None:
    if state.fuzzy is not None and record.key in slot.reservations:
        return
    pool = slot.pool(record.campaign_id, record.sku_id)
    if pool is None:
        raise Impossible(f"entry {state.seq}: no pool {record.campaign_id}/{record.sku_id}")
    quantity = record.quantity
    held = s.Reservation()
    held.key = record.key
    held.pool = pool
    held.buyer_id = record.buyer_id
    held.quantity = quantity
    held.returned = 0
    held.state = s.RESERVED
    held.stage = 0
    held.fingerprint = record.fingerprint
    held.reserved_ms = state.now_ms
    held.begun = False
    # Equal prices share one object: half of a replica's integers would be copies otherwise.
    price = record.list_price_minor
    held.list_price_minor = pool.list_price_minor if price == pool.list_price_minor else price
    price = record.unit_price_minor
    held.unit_price_minor = pool.unit_price_minor if price == pool.unit_price_minor else price
    price = record.payable_minor
    held.payable_minor = held.unit_price_minor if price == held.unit_price_minor else price
    held.first_deadline_ms = held.deadline_ms = record.deadline_ms
    held.payment = None
    held.seq = state.seq
    slot.reservations.put(record.key, held)
    slot.deadlines.add(record.key, record.deadline_ms)
    pool.available -= quantity
    pool.reserved += quantity
    _count(slot, held, quantity)
    state.touched[pool] = slot.slot


def _request_refused(state: s.ShardState, slot: s.SlotState, record: r.RequestRefused) -> None:
    slot.refusals.put(record.key, record.fingerprint, record.outcome)
    state.refusal_count += 1


def _confirmed(state: s.ShardState, slot: s.SlotState, record: r.ReservationConfirmed) -> None:
    payment_id = record.payment_id
    slot.payments.put(
        payment_key(payment_id),
        (public_id(slot.slot, record.key), record.paid_minor, int(Outcome.CONFIRMED)),
    )
    if _skip(state, slot, record.key):
        return
    held = _held(state, slot, record.key)
    pool = held.pool
    if record.reacquired:
        pool.available -= held.quantity
        _count(slot, held, held.quantity)
    else:
        pool.reserved -= held.quantity
        slot.deadlines.remove(held.key, held.deadline_ms)
    pool.sold += held.quantity
    _move_to(held, s.CONFIRMED)
    held.payment = s.Payment(payment_id, record.payment_channel, record.paid_minor)


def _ended(state: s.ShardState, slot: s.SlotState, key: bytes, new: int) -> None:
    """A reservation that was never paid ends; its units are free and count against nobody."""
    if _skip(state, slot, key):
        return
    held = _held(state, slot, key)
    _move_to(held, new)
    slot.deadlines.remove(key, held.deadline_ms)
    held.pool.reserved -= held.quantity
    _free(state, slot, held.pool, held.quantity)
    _count(slot, held, -held.quantity)


def _released(state: s.ShardState, slot: s.SlotState, record: r.ReservationReleased) -> None:
    _ended(state, slot, record.key, s.RELEASED)


def _expired(state: s.ShardState, slot: s.SlotState, record: r.ReservationExpired) -> None:
    _ended(state, slot, record.key, s.EXPIRED)


def _payment_begun(state: s.ShardState, slot: s.SlotState, record: r.PaymentBegun) -> None:
    if _skip(state, slot, record.key):
        return
    held = _held(state, slot, record.key)
    slot.deadlines.remove(held.key, held.deadline_ms)
    held.deadline_ms = record.deadline_ms
    held.begun = True
    slot.deadlines.add(held.key, held.deadline_ms)


def _payment_failed(state: s.ShardState, slot: s.SlotState, record: r.PaymentFailed) -> None:
    if not _skip(state, slot, record.key):
        _held(state, slot, record.key)


def _put_refund(  # noqa: PLR0917
    state: s.ShardState,
    slot: s.SlotState,
    key: bytes,
    reservation_id: str,
    buyer_id: str,
    payment: tuple[str, str],
    amount_minor: int,
    reason: int,
    compensation: bool,
) -> None:
    if state.fuzzy is not None and key in slot.refunds:
        return
    refund = s.Refund()
    refund.key = key
    refund.reservation_id = reservation_id
    refund.buyer_id = buyer_id
    refund.payment_id, refund.channel = payment
    refund.amount_minor = amount_minor
    refund.reason = reason
    refund.compensation = compensation
    refund.state = s.REFUND_DUE
    refund.attempts = 0
    refund.last_report = b""
    refund.seq = state.seq
    slot.refunds.put(key, refund)


def _refund_fell_due(state: s.ShardState, slot: s.SlotState, record: r.RefundFellDue) -> None:
    slot.payments.put(
        record.refund_key,
        (record.reservation_id, record.amount_minor, int(Outcome.REFUND_DUE)),
    )
    _put_refund(
        state,
        slot,
        record.refund_key,
        record.reservation_id,
        record.buyer_id,
        (record.payment_id, record.payment_channel),
        record.amount_minor,
        record.reason,
        record.compensation,
    )


def _units_returned(state: s.ShardState, slot: s.SlotState, record: r.UnitsReturned) -> None:
    slot.documents.put(record.request_key, record.fingerprint)
    if record.refund_key:
        _put_refund(
            state,
            slot,
            record.refund_key,
            public_id(slot.slot, record.key),
            record.buyer_id,
            (record.payment_id, record.payment_channel),
            record.refund_minor,
            int(RefundReason.RETURN),
            False,
        )
    if _skip(state, slot, record.key):
        return
    held = _held(state, slot, record.key)
    pool = held.pool
    held.returned = record.returned_total
    if held.payment is not None:
        held.payment.refunded_minor += record.refund_minor
    pool.sold -= record.quantity
    if record.restock == c.RESTOCK_AVAILABLE:
        _free(state, slot, pool, record.quantity)
    elif record.restock == c.RESTOCK_SCHEDULED:
        pool.scheduled += record.quantity - _pay_owed(state, pool, record.quantity)
    else:
        pool.total -= record.quantity
        _forgive(state, pool)
    _count(slot, held, -record.quantity)
    if held.returned == held.quantity:
        _move_to(held, s.RETURNED)


def _fulfilment_reported(
    state: s.ShardState, slot: s.SlotState, record: r.FulfilmentReported
) -> None:
    if not _skip(state, slot, record.key):
        _held(state, slot, record.key).stage = record.stage


def _refund_reported(state: s.ShardState, slot: s.SlotState, record: r.RefundReported) -> None:
    refund = slot.refunds.get(record.refund_key)
    if refund is None:
        raise Impossible(f"entry {state.seq}: no refund {record.refund_key.hex()}")
    if _skip(state, slot, record.refund_key, "refunds"):
        return
    refund.attempts = record.attempts
    refund.last_report = record.request_key
    refund.seq = state.seq
    if record.closed:
        refund.state = s.REFUND_CLOSED


def _revoked(state: s.ShardState, slot: s.SlotState, record: r.ReservationRevoked) -> None:
    if record.refund_key:
        _put_refund(
            state,
            slot,
            record.refund_key,
            public_id(slot.slot, record.key),
            record.buyer_id,
            (record.payment_id, record.payment_channel),
            record.refund_minor,
            int(RefundReason.SHORTAGE),
            True,
        )
    if _skip(state, slot, record.key):
        return
    held = _held(state, slot, record.key)
    pool = held.pool
    if held.state == s.RESERVED:
        slot.deadlines.remove(held.key, held.deadline_ms)
        pool.reserved -= record.quantity
    else:
        pool.sold -= record.quantity
    if held.payment is not None:
        held.payment.refunded_minor += record.refund_minor
    _move_to(held, s.REVOKED)
    _free(state, slot, pool, record.quantity)
    _count(slot, held, -record.quantity)


EVOLVE: dict[int, Callable[[s.ShardState, s.SlotState, Any], None]] = {
    r.SKU_PUT: _sku_put,
    r.STOCK_CHANGED: _stock_changed,
    r.TRANSFERRED_OUT: _transferred_out,
    r.TRANSFERRED_IN: _transferred_in,
    r.TRANSFER_ENDED: _transfer_ended,
    r.CAMPAIGN_PUT: _campaign_put,
    r.CAMPAIGN_STATE_SET: _campaign_state_set,
    r.STOCK_RESERVED: _stock_reserved,
    r.REQUEST_REFUSED: _request_refused,
    r.RESERVATION_CONFIRMED: _confirmed,
    r.RESERVATION_RELEASED: _released,
    r.RESERVATION_EXPIRED: _expired,
    r.PAYMENT_BEGUN: _payment_begun,
    r.PAYMENT_FAILED: _payment_failed,
    r.REFUND_FELL_DUE: _refund_fell_due,
    r.UNITS_RETURNED: _units_returned,
    r.FULFILMENT_REPORTED: _fulfilment_reported,
    r.REFUND_REPORTED: _refund_reported,
    r.RESERVATION_REVOKED: _revoked,
}

"""Applying what was decided on reservations, payments and refunds.

Part of `evolve.py`, whose rules hold here.
"""

from sys import intern
from typing import Any

from actors.core import commands as c
from actors.core import records as r
from actors.core import state as s
from actors.core.bloom import Forgotten
from actors.core.evolve_stock import forgive, free, pay_owed
from actors.core.identity import public_id
from actors.core.outcomes import Outcome
from actors.core.refunds import RefundReason, failed_key, payment_key
from actors.core.seats import drop, enter, pay

FAILED = 1
"""What stands in the place of a fingerprint for the report of a failed payment."""


def change_row(state: s.ShardState, slot: s.SlotState, key: bytes) -> s.Reservation:
    held = slot.reservations.get(key)
    if held is None:
        raise s.Impossible(f"entry {state.seq}: no reservation {public_id(slot.slot, key)}")
    held.seq = state.seq
    held.touched_ms = state.now_ms
    state.touched[held.pool] = slot.slot
    return held


def _move_to(held: s.Reservation, new: int) -> None:
    if new not in s.TRANSITIONS[held.state]:
        raise s.Impossible(f"reservation state {held.state} cannot become {new}")
    held.state = new


def stock_reserved(
    state: s.ShardState,
    slot: s.SlotState,
    record: tuple[Any, ...],
    make: type[s.Reservation] = s.Reservation,
) -> s.Reservation | None:
    """A new row of that class; None if the snapshot being completed has it."""
    # Unpacked at once, in the order of the record's fields: half the time of asking each by name.
    key, _, _, mark, campaign_id, sku_id, quantity, buyer_id = record[2:10]
    list_minor, unit_minor, payable_minor, _, deadline_ms = record[10:15]
    if state.fuzzy is not None and key in slot.reservations:
        return None
    pool = slot.pool(campaign_id, sku_id)
    if pool is None:
        raise s.Impossible(f"entry {state.seq}: no pool {campaign_id}/{sku_id}")
    held = make()
    held.key = key
    held.pool = pool
    held.buyer_id = buyer_id
    held.quantity = quantity
    held.returned = 0
    held.state = s.RESERVED
    held.stage = 0
    held.fingerprint = mark
    held.reserved_ms = held.touched_ms = state.now_ms
    held.begun = False
    # Equal prices share one object: half of a replica's integers would be copies otherwise.
    price = pool.list_price_minor
    held.list_price_minor = price if list_minor == price else list_minor
    price = pool.unit_price_minor
    held.unit_price_minor = price if unit_minor == price else unit_minor
    price = held.unit_price_minor
    held.payable_minor = price if payable_minor == price else payable_minor
    held.first_deadline_ms = held.deadline_ms = deadline_ms
    held.payment = None
    held.seq = state.seq
    slot.reservations.put(key, held)
    slot.deadlines.add(key, deadline_ms, state.now_ms)
    pool.available -= quantity
    pool.reserved += quantity
    for counts in pool.counted_in:
        counts.change(buyer_id, quantity)
    state.touched[pool] = slot.slot
    return held


def request_refused(state: s.ShardState, slot: s.SlotState, record: r.RequestRefused) -> None:
    slot.refusals.put(record.key, record.fingerprint, record.outcome)
    state.refusal_count += 1


def confirmed(state: s.ShardState, slot: s.SlotState, record: r.ReservationConfirmed) -> None:
    payment_id = record.payment_id
    slot.payments.put(
        payment_key(payment_id),
        (public_id(slot.slot, record.key), record.paid_minor, int(Outcome.CONFIRMED)),
    )
    if skip(state, slot, record.key):
        return
    held = change_row(state, slot, record.key)
    pool = held.pool
    if record.reacquired:
        pool.available -= held.quantity
        _count(held, held.quantity)
    else:
        pool.reserved -= held.quantity
        slot.deadlines.remove(held.key, held.deadline_ms)
    pool.sold += held.quantity
    _move_to(held, s.CONFIRMED)
    held.payment = s.Payment(payment_id, record.payment_channel, record.paid_minor)
    if type(held) is s.Seat:
        _seat_confirmed(state, slot, held, record.reacquired)


def _seat_confirmed(state: s.ShardState, slot: s.SlotState, seat: s.Seat, reacquired: bool) -> None:
    if state.fuzzy is not None:
        return
    if reacquired:
        enter(state, slot, seat)
    else:
        pay(state, slot, seat)


def _ended(state: s.ShardState, slot: s.SlotState, key: bytes, new: int) -> None:
    """A reservation that was never paid ends; its units are free and count against nobody."""
    if skip(state, slot, key):
        return
    held = change_row(state, slot, key)
    _leave(state, slot, held)
    _move_to(held, new)
    slot.deadlines.remove(key, held.deadline_ms)
    held.pool.reserved -= held.quantity
    free(state, slot, held.pool, held.quantity)
    _count(held, -held.quantity)


def _leave(state: s.ShardState, slot: s.SlotState, held: s.Reservation) -> None:
    """Before a reservation ends: if it is a seat, it leaves its team."""
    if type(held) is s.Seat and state.fuzzy is None:
        drop(state, slot, held)


def released(state: s.ShardState, slot: s.SlotState, record: r.ReservationReleased) -> None:
    _ended(state, slot, record.key, s.RELEASED)


def expired(state: s.ShardState, slot: s.SlotState, record: r.ReservationExpired) -> None:
    _ended(state, slot, record.key, s.EXPIRED)


def payment_begun(state: s.ShardState, slot: s.SlotState, record: r.PaymentBegun) -> None:
    if skip(state, slot, record.key):
        return
    held = change_row(state, slot, record.key)
    slot.deadlines.remove(held.key, held.deadline_ms)
    held.deadline_ms = record.deadline_ms
    held.begun = True
    slot.deadlines.add(held.key, held.deadline_ms, state.now_ms)


def payment_failed(state: s.ShardState, slot: s.SlotState, record: r.PaymentFailed) -> None:
    slot.documents.put(failed_key(public_id(slot.slot, record.key), record.payment_id), FAILED)
    if not skip(state, slot, record.key):
        change_row(state, slot, record.key)


def put_refund(  # noqa: PLR0917
    state: s.ShardState,
    slot: s.SlotState,
    key: bytes,
    reservation_id: str,
    buyer_id: str,
    payment: tuple[str, str],
    amount_minor: int,
    reason: int,
    compensation: bool,
    currency_code: str,
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
    # One object for all of a currency: it was decoded anew for each record.
    refund.currency_code = intern(currency_code)
    refund.state = s.REFUND_DUE
    refund.attempts = 0
    refund.last_report = b""
    refund.seq = state.seq
    slot.refunds.put(key, refund)


def put_refund_of(
    state: s.ShardState, slot: s.SlotState, record: Any, reason: int, *, compensation: bool
) -> None:
    """What a record of a paid reservation owes back of its payment. All that owe name the refund,
    the buyer and the payment alike."""
    put_refund(
        state,
        slot,
        record.refund_key,
        public_id(slot.slot, record.key),
        record.buyer_id,
        (record.payment_id, record.payment_channel),
        record.refund_minor,
        reason,
        compensation,
        record.currency_code,
    )


def refund_fell_due(state: s.ShardState, slot: s.SlotState, record: r.RefundFellDue) -> None:
    slot.payments.put(
        record.refund_key,
        (record.reservation_id, record.amount_minor, int(Outcome.REFUND_DUE)),
    )
    put_refund(
        state,
        slot,
        record.refund_key,
        record.reservation_id,
        record.buyer_id,
        (record.payment_id, record.payment_channel),
        record.amount_minor,
        record.reason,
        record.compensation,
        record.currency_code,
    )


def units_returned(state: s.ShardState, slot: s.SlotState, record: r.UnitsReturned) -> None:
    slot.documents.put(record.request_key, record.fingerprint)
    if record.refund_key:
        put_refund_of(state, slot, record, int(RefundReason.RETURN), compensation=False)
    if skip(state, slot, record.key):
        return
    held = change_row(state, slot, record.key)
    pool = held.pool
    held.returned = record.returned_total
    if held.payment is not None:
        held.payment.refunded_minor += record.refund_minor
    pool.sold -= record.quantity
    if record.restock == c.RESTOCK_AVAILABLE:
        free(state, slot, pool, record.quantity)
    elif record.restock == c.RESTOCK_SCHEDULED:
        pool.scheduled += record.quantity - pay_owed(state, pool, record.quantity)
    else:
        pool.total -= record.quantity
        forgive(state, pool)
    _count(held, -record.quantity)
    if held.returned == held.quantity:
        _move_to(held, s.RETURNED)


def fulfilment_reported(
    state: s.ShardState, slot: s.SlotState, record: r.FulfilmentReported
) -> None:
    if not skip(state, slot, record.key):
        change_row(state, slot, record.key).stage = record.stage


def refund_reported(state: s.ShardState, slot: s.SlotState, record: r.RefundReported) -> None:
    refund = slot.refunds.get(record.refund_key)
    if refund is None:
        raise s.Impossible(f"entry {state.seq}: no refund {record.refund_key.hex()}")
    if skip(state, slot, record.refund_key, "refunds"):
        return
    refund.attempts = record.attempts
    refund.last_report = record.request_key
    refund.seq = state.seq
    if record.closed:
        refund.state = s.REFUND_CLOSED


def revoked(state: s.ShardState, slot: s.SlotState, record: r.ReservationRevoked) -> None:
    if record.refund_key:
        put_refund_of(state, slot, record, int(RefundReason.SHORTAGE), compensation=True)
    if skip(state, slot, record.key):
        return
    held = change_row(state, slot, record.key)
    _leave(state, slot, held)
    pool = held.pool
    if held.state == s.RESERVED:
        slot.deadlines.remove(held.key, held.deadline_ms)
        pool.reserved -= record.quantity
    else:
        pool.sold -= record.quantity
    if held.payment is not None:
        held.payment.refunded_minor += record.refund_minor
    _move_to(held, s.REVOKED)
    free(state, slot, pool, record.quantity)
    _count(held, -record.quantity)


def forgotten(state: s.ShardState, slot: s.SlotState, record: r.ReservationsForgotten) -> None:
    if slot.forgotten is None:
        slot.forgotten = Forgotten()
    state.forgets = True
    for key in record.keys:
        slot.forgotten.add(key)
        if skip(state, slot, key):
            continue
        held = slot.reservations.pop(key)
        if held is None or held.state == s.RESERVED:
            raise s.Impossible(f"entry {state.seq}: {public_id(slot.slot, key)} is not finished")
        units = counted_units(held)
        if units:
            held.pool.forgotten_sold += units
            _count(held, -units)
        if state.archive is not None:
            state.archive.setdefault(slot.slot, {})[key] = held


def from_recalled(
    state: s.ShardState, slot: s.SlotState, record: r.ReservationRecalled
) -> s.Reservation:
    """The row that a record brings, not yet in its table."""
    pool = slot.pool(record.campaign_id, record.sku_id)
    if pool is None:
        raise s.Impossible(f"entry {state.seq}: no pool {record.campaign_id}/{record.sku_id}")
    held = _recalled_row(record)
    held.key = record.key
    held.pool = pool
    held.buyer_id = record.buyer_id
    held.quantity = record.quantity
    held.returned = record.returned
    held.state = record.state
    held.stage = record.stage
    held.fingerprint = record.fingerprint
    held.reserved_ms = record.reserved_ms
    held.first_deadline_ms = record.first_deadline_ms
    held.deadline_ms = record.deadline_ms
    held.begun = record.begun
    held.list_price_minor = record.list_price_minor
    held.unit_price_minor = record.unit_price_minor
    held.payable_minor = record.payable_minor
    held.payment = None
    if record.payment_id:
        held.payment = s.Payment(record.payment_id, record.payment_channel, record.paid_minor)
        held.payment.refunded_minor = record.refunded_minor
    held.seq = state.seq
    held.touched_ms = state.now_ms
    return held


def _recalled_row(record: r.ReservationRecalled) -> s.Reservation:
    if not record.team_key:
        return s.Reservation()
    seat = s.Seat()
    seat.team_key = record.team_key
    seat.new_buyer = record.new_buyer
    seat.settled_minor = record.settled_minor
    seat.joined_ms = record.joined_ms
    return seat


def recalled(state: s.ShardState, slot: s.SlotState, record: r.ReservationRecalled) -> None:
    if record.key in slot.reservations:
        if state.fuzzy is None:
            raise s.Impossible(f"entry {state.seq}: {public_id(slot.slot, record.key)} is here")
        return
    held = from_recalled(state, slot, record)
    slot.reservations.put(record.key, held)
    units = counted_units(held)
    if units:
        held.pool.forgotten_sold -= units
        _count(held, units)
    if state.archive is not None:
        state.archive.get(slot.slot, {}).pop(record.key, None)


def skip(state: s.ShardState, slot: s.SlotState, key: bytes, table: str = "reservations") -> bool:
    """Whether the snapshot being completed has this row as of this entry or later."""
    fuzzy = state.fuzzy
    if fuzzy is None:
        return False
    if fuzzy.get((table, slot.slot, key), 0) >= state.seq:
        return True
    # A row that was forgotten before its turn to be written is not in the snapshot.
    gone = table == "reservations" and key not in slot.reservations
    return gone and slot.forgotten is not None and slot.forgotten.may_contain(key)


def _count(held: s.Reservation, units: int) -> None:
    """Change what limits count of the buyer, for the line and the campaign."""
    for counts in held.pool.counted_in:
        counts.change(held.buyer_id, units)


def counted_units(held: s.Reservation) -> int:
    """Units of a reservation that a buyer's limit counts: held or owned, less returned."""
    return held.quantity - held.returned if held.state in (s.RESERVED, s.CONFIRMED) else 0

"""Deciding on money: confirm, begin, failed attempts, returns, refunds.

A payment is never refused. It is kept (CONFIRMED), or what cannot be kept is a refund due
(REFUND_DUE), by its own refund id; paid = kept + refunded + refund due, per payment id, always.
A payment id has one effect in its slot for ever; a resend is answered from that effect.
"""

from typing import Any

from actors.core import commands as c
from actors.core.identity import buyer_part, fingerprint, parse_public_id, request_key
from actors.core.outcomes import Outcome
from actors.core.records import (
    PAYMENT_BEGUN,
    PAYMENT_FAILED,
    REFUND_FELL_DUE,
    REFUND_REPORTED,
    RESERVATION_CONFIRMED,
    UNITS_RETURNED,
    PaymentBegun,
    PaymentFailed,
    RefundFellDue,
    RefundReported,
    ReservationConfirmed,
    UnitsReturned,
)
from actors.core.refunds import (
    RefundReason,
    failed_key,
    payment_key,
    refund_view,
    return_refund_key,
)
from actors.core.refusals import refuse, refused_before
from actors.core.reservations import (
    AFTER_RESERVED,
    Decision,
    find_reservation,
)
from actors.core.state import (
    CONFIRMED,
    EXPIRED,
    REFUND_CLOSED,
    REFUND_DUE,
    RESERVED,
    RETURNED,
    REVOKED,
    Reservation,
    Seat,
    ShardState,
    SlotState,
)
from actors.core.team_ends import place_for_late, seat_paid, team_of
from actors.core.terms import currency_of, exceeds_limit, window_of


def confirm(state: ShardState, command: c.Confirm, now_ms: int) -> Decision:
    """(CONFIRMED, state, None) or (REFUND_DUE, state, refund). Precedence: PAYMENT_ID_REUSED,
    then the payment's own effect: CONFIRMED or REFUND_DUE."""
    slot = state.slot(command.slot)
    key = payment_key(command.payment_id)
    held = find_reservation(slot, command.reservation_id)
    seen = slot.payments.get(key)
    if seen is not None:
        return _paid_before(slot, command, key, held), ()
    reason = _why_not_kept(slot, held, command.paid_minor)
    if reason is None and held is not None:
        record: Any = ReservationConfirmed(
            RESERVATION_CONFIRMED,
            command.slot,
            held.key,
            buyer_part(held.buyer_id),
            command.payment_id,
            command.payment_channel,
            command.paid_minor,
            held.state == EXPIRED,
            held.pool.campaign_id,
            held.buyer_id,
            held.pool.sku_id,
            held.quantity,
            held.reserved_ms,
            held.list_price_minor,
            currency_of(slot, held.pool),
            type(held) is Seat,
        )
        if type(held) is Seat:
            return (Outcome.CONFIRMED, CONFIRMED, None), seat_paid(slot, held, record, state.now_ms)
        return (Outcome.CONFIRMED, CONFIRMED, None), (record,)
    late = reason is RefundReason.LATE_PAYMENT
    record = RefundFellDue(
        REFUND_FELL_DUE,
        command.slot,
        key,
        command.reservation_id,
        "" if held is None else held.buyer_id,
        command.payment_id,
        command.payment_channel,
        command.paid_minor,
        int(reason or RefundReason.NOT_HELD),
        late,
        "" if held is None else held.pool.campaign_id,
        "" if held is None else currency_of(slot, held.pool),
    )
    view = (
        key,
        command.reservation_id,
        command.payment_id,
        command.payment_channel,
        command.paid_minor,
        record.reason,
        late,
        REFUND_DUE,
        0,
        record.currency_code,
    )
    return (Outcome.REFUND_DUE, 0 if held is None else held.state, view), (record,)


def _paid_before(
    slot: SlotState, command: c.Confirm, key: bytes, held: Reservation | None
) -> tuple[Any, ...]:
    effect = slot.payments.get(key)
    if effect is None or effect[:2] != (command.reservation_id, command.paid_minor):
        return (Outcome.PAYMENT_ID_REUSED, 0 if held is None else held.state, None)
    outcome = Outcome(effect[2])
    if outcome is Outcome.CONFIRMED:
        return (outcome, CONFIRMED, None)
    view = refund_view(slot, slot.refunds.get(key))
    return (outcome, 0 if held is None else held.state, view)


def _why_not_kept(
    slot: SlotState, held: Reservation | None, paid_minor: int
) -> RefundReason | None:
    if held is None:
        return RefundReason.NOT_HELD
    if held.state == CONFIRMED:
        return RefundReason.SECOND_PAYMENT
    if held.state not in (RESERVED, EXPIRED):
        return RefundReason.NOT_HELD
    if paid_minor != held.payable_minor:
        return RefundReason.WRONG_AMOUNT
    if held.state == EXPIRED and not _can_reacquire(slot, held):
        return RefundReason.LATE_PAYMENT
    return None


def _can_reacquire(slot: SlotState, held: Reservation) -> bool:
    if type(held) is Seat:
        return place_for_late(slot, held) is not None
    pool = held.pool
    campaign = slot.campaigns.get(pool.campaign_id)
    return pool.available >= held.quantity and not exceeds_limit(
        campaign, pool, held.buyer_id, held.quantity
    )


def begin_payment(state: ShardState, command: c.BeginPayment, now_ms: int) -> Decision:
    """(PAYMENT_BEGUN, state, deadline_ms). Again, or by another channel: the same deadline.
    Precedence: NOT_FOUND, ALREADY_CONFIRMED, EXPIRED, REVOKED, ALREADY_RELEASED, PAYMENT_BEGUN if
    one was begun before, PAYMENT_ID_REUSED (it had its effect: it cannot begin), PAYMENT_BEGUN."""
    slot = state.slot(command.slot)
    held = find_reservation(slot, command.reservation_id)
    if held is None:
        return (Outcome.NOT_FOUND, 0, 0), ()
    if held.state != RESERVED:
        outcome = AFTER_RESERVED.get(held.state, Outcome.ALREADY_RELEASED)
        return (outcome, held.state, held.deadline_ms), ()
    if held.begun:
        return (Outcome.PAYMENT_BEGUN, held.state, held.deadline_ms), ()
    if slot.payments.get(payment_key(command.payment_id)) is not None:
        return (Outcome.PAYMENT_ID_REUSED, held.state, held.deadline_ms), ()
    deadline_ms = max(held.deadline_ms, now_ms + window_of(slot, held.pool))
    team = team_of(slot, held)
    if team is not None:
        deadline_ms = min(deadline_ms, team.deadline_ms)
    record = PaymentBegun(
        PAYMENT_BEGUN,
        command.slot,
        held.key,
        buyer_part(held.buyer_id),
        command.payment_id,
        command.payment_channel,
        deadline_ms,
        held.pool.campaign_id,
    )
    return (Outcome.PAYMENT_BEGUN, held.state, deadline_ms), (record,)


def report_failed_payment(
    state: ShardState, command: c.ReportFailedPayment, now_ms: int
) -> Decision:
    """(NOTED, state). A failed attempt has no effect on the payment id: it may still succeed. The
    same payment id for the same reservation again is NOTED without a second record.
    Precedence: NOT_FOUND, PAYMENT_ID_REUSED, NOTED."""
    slot = state.slot(command.slot)
    held = find_reservation(slot, command.reservation_id)
    if held is None:
        return (Outcome.NOT_FOUND, 0), ()
    if slot.payments.get(payment_key(command.payment_id)) is not None:
        return (Outcome.PAYMENT_ID_REUSED, held.state), ()
    if failed_key(command.reservation_id, command.payment_id) in slot.documents:
        return (Outcome.NOTED, held.state), ()
    record = PaymentFailed(
        PAYMENT_FAILED,
        command.slot,
        held.key,
        buyer_part(held.buyer_id),
        command.payment_id,
        command.payment_channel,
        command.paid_minor,
        held.pool.campaign_id,
        held.buyer_id,
        held.pool.sku_id,
    )
    return (Outcome.NOTED, held.state), (record,)


def return_units(state: ShardState, command: c.ReturnUnits, now_ms: int) -> Decision:
    """(RETURNED, state, returned in all, refund or None). Precedence: ID_REUSED, NOT_FOUND,
    REVOKED, NOT_CONFIRMED, EXCEEDS_QUANTITY, TEAM_FORMING (leave the team instead), RETURNED."""
    slot = state.slot(command.slot)
    key = request_key(command.caller, command.request_id)
    mark = fingerprint("return", command.reservation_id, command.quantity, command.restock)
    held = find_reservation(slot, command.reservation_id)
    state_now, returned = (0, 0) if held is None else (held.state, held.returned)
    before = slot.documents.get(key)
    if before is not None:
        outcome = Outcome.RETURNED if before == mark else Outcome.ID_REUSED
        refund = slot.refunds.get(return_refund_key(key)) if before == mark else None
        return (outcome, state_now, returned, refund_view(slot, refund)), ()
    refused = refused_before(slot, key, mark)
    if refused is not None:
        return (refused, state_now, returned, None), ()
    broken = _not_returnable(held, command.quantity)
    if broken is None and team_of(slot, held) is not None:
        broken = Outcome.TEAM_FORMING
    if broken is not None or held is None:
        outcome = broken or Outcome.NOT_FOUND
        return refuse(state, command.slot, key, mark, outcome, state_now, returned, None)
    return _returned(slot, command, held, key, mark)


def _not_returnable(held: Reservation | None, quantity: int) -> Outcome | None:
    if held is None:
        return Outcome.NOT_FOUND
    if held.state not in (CONFIRMED, RETURNED):
        return Outcome.REVOKED if held.state == REVOKED else Outcome.NOT_CONFIRMED
    if quantity > held.quantity - held.returned:
        return Outcome.EXCEEDS_QUANTITY
    return None


def _returned(
    slot: SlotState, command: c.ReturnUnits, held: Reservation, key: bytes, mark: int
) -> Decision:
    total = held.returned + command.quantity
    payment = held.payment
    # From the total, so that the parts of a return add up to the cent.
    due = 0
    if payment is not None:
        settled = held.settled_minor if type(held) is Seat else 0
        kept = payment.amount_minor - settled
        due = settled + kept * total // held.quantity - payment.refunded_minor
    refund_key = return_refund_key(key) if due else b""
    payment_id = "" if payment is None else payment.payment_id
    channel = "" if payment is None else payment.channel
    currency = currency_of(slot, held.pool)
    state_now = RETURNED if total == held.quantity else held.state
    record = UnitsReturned(
        UNITS_RETURNED,
        command.slot,
        held.key,
        buyer_part(held.buyer_id),
        key,
        mark,
        command.quantity,
        total,
        command.restock,
        refund_key,
        due,
        payment_id,
        channel,
        held.buyer_id,
        command.reason,
        state_now,
        held.pool.campaign_id,
        currency,
        held.quantity,
    )
    view = None
    if due:
        reason = int(RefundReason.RETURN)
        view = (
            refund_key,
            command.reservation_id,
            payment_id,
            channel,
            due,
            reason,
            False,
            REFUND_DUE,
            0,
            currency,
        )
    return (Outcome.RETURNED, state_now, total, view), (record,)


def report_refund(state: ShardState, command: c.ReportRefund, now_ms: int) -> Decision:
    """(APPLIED, refund): closed by a success; a failure leaves it due and counts the attempt.
    Precedence: NOT_FOUND, ID_REUSED (the last report's id with the other ending), REFUND_CLOSED,
    APPLIED."""
    parsed = parse_public_id(command.refund_id)
    slot = state.slot(command.slot)
    here = parsed is not None and parsed[0] == command.slot
    refund = slot.refunds.get(parsed[1]) if parsed is not None and here else None
    if refund is None:
        return (Outcome.NOT_FOUND, None), ()
    key = request_key(command.caller, command.request_id)
    if refund.last_report == key:
        # A success is the last report of a refund, so its state tells how that report ended.
        same = command.succeeded == (refund.state == REFUND_CLOSED)
        return (Outcome.APPLIED if same else Outcome.ID_REUSED, refund_view(slot, refund)), ()
    if refund.state == REFUND_CLOSED:
        return (Outcome.REFUND_CLOSED, refund_view(slot, refund)), ()
    attempts = refund.attempts + 1
    held = find_reservation(slot, refund.reservation_id)
    record = RefundReported(
        REFUND_REPORTED,
        command.slot,
        refund.key,
        command.succeeded,
        attempts,
        key,
        command.reference,
        refund.reservation_id,
        "" if held is None else held.pool.campaign_id,
    )
    before = refund_view(slot, refund) or ()
    closed = REFUND_CLOSED if command.succeeded else refund.state
    return (Outcome.APPLIED, (*before[:7], closed, attempts, before[9])), (record,)

"""What happens to a reservation after it was made: requests to commands, answers to messages.

A reservation id carries its slot. One that cannot be ours is not known to any shard: that is
NOT_FOUND at once, except that money is never refused, so a payment for it goes to the slot of the
id as text, where it is recorded as a refund due.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from stockray_proto.v1 import inventory_service_pb2, reservation_pb2

from actors.core import commands as c
from actors.core.identity import parse_public_id, public_id
from actors.core.outcomes import Outcome
from actors.core.state import REFUND_DUE
from server.handlers import CallContext
from server.translate.scalars import SLOT_OF_KEY, retry_after
from server.translate.stock import item
from server.validate import LINE_UNITS_MAX, MONEY_MAX_MINOR, Violations, is_id

NOT_FOUND: tuple[Any, ...] = (Outcome.NOT_FOUND,)
"""The answer of nobody, for an id that no shard can have given out."""


def slot_of_public_id(text: str) -> int | None:
    """The slot in a reservation or refund id; None if no id of ours can look like this."""
    parsed = parse_public_id(text)
    return None if parsed is None else parsed[0]


def slot_of_payment(reservation_id: str) -> int:
    """Where money for this reservation is recorded, whatever the id looks like."""
    slot = slot_of_public_id(reservation_id)
    return SLOT_OF_KEY[reservation_id] if slot is None else slot


def payment_violations(line: Any, prefix: str = "") -> Violations:
    """What breaks a rule in a ConfirmLine or a ReportPaymentRequest."""
    wrong = Violations(prefix)
    wrong.id("reservation_id", line.reservation_id)
    wrong.id("payment_id", line.payment_id)
    wrong.money("paid_minor", line.paid_minor)
    wrong.optional_id("payment_channel", line.payment_channel)
    return wrong


def confirm_command(line: Any, *, caller: str, deadline_ms: int) -> c.Confirm:
    """A payment that came in; of a line that is known to be fine."""
    reservation_id = line.reservation_id
    return c.Confirm(
        c.CONFIRM,
        slot_of_payment(reservation_id),
        deadline_ms,
        caller,
        reservation_id,
        line.payment_id,
        line.paid_minor,
        line.payment_channel,
    )


def confirm_commands(
    lines: Iterable[Any], context: CallContext
) -> tuple[list[c.Confirm], dict[int, str]]:
    """The commands of the lines that are fine, and index -> message of those that are not."""
    commands: list[c.Confirm] = []
    refused: dict[int, str] = {}
    for index, line in enumerate(lines):
        channel = line.payment_channel
        fine = (
            is_id(line.reservation_id)
            and is_id(line.payment_id)
            and 0 <= line.paid_minor <= MONEY_MAX_MINOR
            and (not channel or is_id(channel))
        )
        if fine:
            commands.append(
                confirm_command(line, caller=context.caller, deadline_ms=context.deadline_ms)
            )
        else:
            refused[index] = payment_violations(line).message()
    return commands, refused


def confirm_result(command: c.Confirm, answer: Sequence[Any]) -> reservation_pb2.ConfirmResult:
    """The result of one payment."""
    return reservation_pb2.ConfirmResult(
        status=answer[0],
        reservation_id=command.reservation_id,
        payment_id=command.payment_id,
        state=item(answer, 1, 0),
        refund=refund_message(command.slot, item(answer, 2)),
        retry_after=retry_after(answer[0]),
    )


def refund_message(slot: int, view: Sequence[Any] | None) -> reservation_pb2.Refund | None:
    """A refund as a shard knows it (`payments.refund_view`); None for none."""
    if view is None:
        return None
    key, reservation_id, payment_id, channel, amount, reason, compensation = view[:7]
    state, attempts, currency = view[7:]
    return reservation_pb2.Refund(
        refund_id=public_id(slot, key),
        reservation_id=reservation_id,
        payment_id=payment_id,
        payment_channel=channel,
        amount_minor=amount,
        currency_code=currency,
        reason=reason,
        compensation=compensation,
        state=state,
        attempt_count=attempts,
        # A success closes it and is the last attempt; all others failed.
        failed_attempt_count=attempts if state == REFUND_DUE else attempts - 1,
    )


def release_violations(line: Any, prefix: str = "") -> Violations:
    """What breaks a rule in a ReleaseLine."""
    wrong = Violations(prefix)
    wrong.id("reservation_id", line.reservation_id)
    wrong.reason(line.reason)
    return wrong


def release_command(line: Any, context: CallContext) -> c.Release | None:
    """Giving up a reservation; None for an id that no shard can know."""
    slot = slot_of_public_id(line.reservation_id)
    if slot is None:
        return None
    return c.Release(
        c.RELEASE, slot, context.deadline_ms, context.caller, line.reservation_id, line.reason
    )


def release_result(reservation_id: str, answer: Sequence[Any]) -> reservation_pb2.ReleaseResult:
    """The result of one release."""
    return reservation_pb2.ReleaseResult(
        status=answer[0],
        reservation_id=reservation_id,
        state=item(answer, 1, 0),
        retry_after=retry_after(answer[0]),
    )


def begin_payment_command(
    request: inventory_service_pb2.BeginPaymentRequest, context: CallContext
) -> c.BeginPayment | None:
    """BeginPayment; None for an id that no shard can know. Raises CallError."""
    wrong = Violations()
    wrong.id("reservation_id", request.reservation_id)
    wrong.id("payment_id", request.payment_id)
    wrong.optional_id("payment_channel", request.payment_channel)
    wrong.refuse()
    slot = slot_of_public_id(request.reservation_id)
    if slot is None:
        return None
    return c.BeginPayment(
        c.BEGIN_PAYMENT,
        slot,
        context.deadline_ms,
        context.caller,
        request.reservation_id,
        request.payment_id,
        request.payment_channel,
    )


def report_payment_command(
    request: inventory_service_pb2.ReportPaymentRequest, context: CallContext
) -> c.Confirm | c.ReportFailedPayment | None:
    """A success is a Confirm; a failure of an id that no shard can know is None."""
    wrong = payment_violations(request)
    if request.outcome not in (
        reservation_pb2.PAYMENT_OUTCOME_SUCCEEDED,
        reservation_pb2.PAYMENT_OUTCOME_FAILED,
    ):
        wrong.add("outcome", "required: SUCCEEDED or FAILED")
    wrong.refuse()
    if request.outcome == reservation_pb2.PAYMENT_OUTCOME_SUCCEEDED:
        return confirm_command(request, caller=context.caller, deadline_ms=context.deadline_ms)
    slot = slot_of_public_id(request.reservation_id)
    if slot is None:
        return None
    return c.ReportFailedPayment(
        c.REPORT_FAILED_PAYMENT,
        slot,
        context.deadline_ms,
        context.caller,
        request.reservation_id,
        request.payment_id,
        request.paid_minor,
        request.payment_channel,
    )


def return_units_command(
    request: inventory_service_pb2.ReturnUnitsRequest, context: CallContext
) -> c.ReturnUnits | None:
    """ReturnUnits; None for an id that no shard can know. Raises CallError."""
    wrong = Violations()
    wrong.id("request_id", request.request_id)
    wrong.id("reservation_id", request.reservation_id)
    wrong.number("quantity", request.quantity, 1, LINE_UNITS_MAX)
    wrong.known("restock_to", request.restock_to, inventory_service_pb2.RestockTo.Name)
    wrong.reason(request.reason)
    wrong.refuse()
    slot = slot_of_public_id(request.reservation_id)
    if slot is None:
        return None
    return c.ReturnUnits(
        c.RETURN_UNITS,
        slot,
        context.deadline_ms,
        context.caller,
        request.request_id,
        request.reservation_id,
        request.quantity,
        request.restock_to or c.RESTOCK_AVAILABLE,
        request.reason,
    )

"""InventoryService, the part about reservations and money; Grab of SeckillService is the same."""

from collections.abc import Callable, Sequence
from typing import Any

from stockray_proto.v1 import (
    common_pb2,
    inventory_service_pb2,
    seckill_service_pb2,
)

from actors.core import commands as c
from actors.core.outcomes import Outcome
from server.errors import refuse_fields
from server.handlers import CallContext, Calls, Method, QuickCalls
from server.lines import Lines
from server.reply import Reply
from server.translate.payment import (
    NOT_FOUND,
    begin_payment_command,
    confirm_command,
    confirm_commands,
    confirm_result,
    payment_violations,
    refund_message,
    release_command,
    release_result,
    release_violations,
    report_payment_command,
    return_units_command,
)
from server.translate.reservation import (
    get_reservation_command,
    report_fulfilment_command,
    report_refund_command,
    reservation_message,
)
from server.translate.reserve import (
    LineRefused,
    reserve_command,
    reserve_commands,
    reserve_response,
    reserve_results,
)
from server.translate.scalars import age_of, stamp
from server.translate.stock import head, item
from server.validate import Violations

INVENTORY = "/stockray.v1.InventoryService/"
SECKILL = "/stockray.v1.SeckillService/"
GROUP_BUY = "/stockray.v1.GroupBuyService/"


class Reservations:
    """Everything that makes a reservation or happens to one."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    def methods(self) -> list[Method]:
        """The calls of this part."""
        inv, sec = inventory_service_pb2, seckill_service_pb2
        one: QuickCalls = {
            "Reserve": (inv.ReserveRequest, self.reserve),
            "Confirm": (inv.ConfirmRequest, self.confirm),
            "Release": (inv.ReleaseRequest, self.release),
            "BeginPayment": (inv.BeginPaymentRequest, self.begin_payment),
            "ReportPayment": (inv.ReportPaymentRequest, self.report_payment),
            "ReturnUnits": (inv.ReturnUnitsRequest, self.return_units),
            "GetReservation": (inv.GetReservationRequest, self.get_reservation),
            "ReportFulfilment": (inv.ReportFulfilmentRequest, self.report_fulfilment),
            "ReportRefund": (inv.ReportRefundRequest, self.report_refund),
        }
        many: Calls = {
            "ReserveMany": (inv.ReserveManyRequest, self.reserve_many),
            "ConfirmMany": (inv.ConfirmManyRequest, self.confirm_many),
            "ReleaseMany": (inv.ReleaseManyRequest, self.release_many),
        }
        return [
            *(Method(path=INVENTORY + n, request=r, quick=h) for n, (r, h) in one.items()),
            *(
                Method(path=INVENTORY + n, request=r, unary=h, lines_field="lines")
                for n, (r, h) in many.items()
            ),
            Method(path=SECKILL + "Grab", request=sec.GrabRequest, quick=self.grab),
            Method(
                path=SECKILL + "GrabMany",
                request=sec.GrabManyRequest,
                unary=self.grab_many,
                lines_field="lines",
            ),
        ]

    def reserve(
        self, request: inventory_service_pb2.ReserveRequest, context: CallContext, reply: Reply
    ) -> None:
        """One line from a base pool or a campaign."""
        self._reserve_one(request, context, reply, grab=False)

    def grab(
        self, request: seckill_service_pb2.GrabRequest, context: CallContext, reply: Reply
    ) -> None:
        """One line of a campaign."""
        self._reserve_one(request, context, reply, grab=True)

    def _reserve_one(self, request: Any, context: CallContext, reply: Reply, *, grab: bool) -> None:
        require_line(request)
        # Written out, not shared with seats: one more call was 0.3 to 0.6 us of a Grab's 8.
        try:
            command = reserve_command(
                request.line,
                caller=context.caller,
                deadline_ms=context.deadline_ms,
                grab=grab,
                prefix="line.",
            )
        except LineRefused as error:
            refuse_fields(error.violations.found)
        self._lines.put(command, reply.after(reserve_response, command))

    async def reserve_many(
        self, request: inventory_service_pb2.ReserveManyRequest, context: CallContext
    ) -> bytes:
        """Lines, each by itself."""
        return await self._reserve_lines(request.lines, context, grab=False)

    async def grab_many(
        self, request: seckill_service_pb2.GrabManyRequest, context: CallContext
    ) -> bytes:
        """Lines, each by itself."""
        return await self._reserve_lines(request.lines, context, grab=True)

    async def _reserve_lines(self, lines: Any, context: CallContext, *, grab: bool) -> bytes:
        commands, refused = reserve_commands(
            lines, caller=context.caller, deadline_ms=context.deadline_ms, grab=grab
        )
        answers = await self._lines.submit(commands) if commands else ()
        return reserve_results(lines, commands, refused, answers)

    def confirm(
        self, request: inventory_service_pb2.ConfirmRequest, context: CallContext, reply: Reply
    ) -> None:
        """A payment that came in."""
        require_line(request)
        payment_violations(request.line, "line.").refuse()
        command = confirm_command(
            request.line, caller=context.caller, deadline_ms=context.deadline_ms
        )
        self._lines.put(command, reply.after(_confirmed, command))

    async def confirm_many(
        self, request: inventory_service_pb2.ConfirmManyRequest, context: CallContext
    ) -> inventory_service_pb2.ConfirmManyResponse:
        """Payments, each by itself."""
        commands, refused = confirm_commands(request.lines, context)
        answers = await self._lines.submit(commands) if commands else ()
        decided = iter(zip(commands, answers, strict=True))
        response = inventory_service_pb2.ConfirmManyResponse()
        for index, line in enumerate(request.lines):
            if index in refused:
                response.results.add(
                    status=common_pb2.LINE_STATUS_INVALID,
                    reservation_id=line.reservation_id,
                    payment_id=line.payment_id,
                    message=refused[index],
                )
            else:
                response.results.append(confirm_result(*next(decided)))
        return response

    def release(
        self, request: inventory_service_pb2.ReleaseRequest, context: CallContext, reply: Reply
    ) -> None:
        """Give up one reservation."""
        require_line(request)
        release_violations(request.line, "line.").refuse()
        self._put(release_command(request.line, context), reply.after(_released, request))

    async def release_many(
        self, request: inventory_service_pb2.ReleaseManyRequest, context: CallContext
    ) -> inventory_service_pb2.ReleaseManyResponse:
        """Give up reservations, each by itself."""
        commands: list[c.Release] = []
        answers: list[Sequence[Any] | str | None] = []
        for line in request.lines:
            wrong = release_violations(line)
            command = None if wrong.found else release_command(line, context)
            if command is not None:
                commands.append(command)
            answers.append(
                wrong.message() if wrong.found else NOT_FOUND if command is None else None
            )
        decided = iter(await self._lines.submit(commands) if commands else ())
        response = inventory_service_pb2.ReleaseManyResponse()
        for line, known in zip(request.lines, answers, strict=True):
            if isinstance(known, str):
                response.results.add(
                    status=common_pb2.LINE_STATUS_INVALID,
                    reservation_id=line.reservation_id,
                    message=known,
                )
                continue
            answer = next(decided) if known is None else known
            response.results.append(release_result(line.reservation_id, answer))
        return response

    def begin_payment(
        self, request: inventory_service_pb2.BeginPaymentRequest, context: CallContext, reply: Reply
    ) -> None:
        """The buyer is at the cashier."""
        self._put(begin_payment_command(request, context), reply.after(_payment_begun, request))

    def report_payment(
        self,
        request: inventory_service_pb2.ReportPaymentRequest,
        context: CallContext,
        reply: Reply,
    ) -> None:
        """How an attempt to pay ended."""
        command = report_payment_command(request, context)
        self._put(command, reply.after(_payment_reported, (request, command)))

    def return_units(
        self, request: inventory_service_pb2.ReturnUnitsRequest, context: CallContext, reply: Reply
    ) -> None:
        """Confirmed units come back."""
        command = return_units_command(request, context)
        self._put(command, reply.after(_returned, (request, command)))

    def get_reservation(
        self,
        request: inventory_service_pb2.GetReservationRequest,
        context: CallContext,
        reply: Reply,
    ) -> None:
        """Read one, from its shard or from where it went when its shard forgot it."""
        command = get_reservation_command(request, context)
        self._put(command, reply.after(_read, (command, context, context.now_ms())))

    def report_fulfilment(
        self,
        request: inventory_service_pb2.ReportFulfilmentRequest,
        context: CallContext,
        reply: Reply,
    ) -> None:
        """Shipped, delivered or complete."""
        command = report_fulfilment_command(request, context)
        self._put(command, reply.after(_fulfilment_reported, None))

    def report_refund(
        self, request: inventory_service_pb2.ReportRefundRequest, context: CallContext, reply: Reply
    ) -> None:
        """How an attempt to pay a refund back ended."""
        command = report_refund_command(request, context)
        self._put(command, reply.after(_refund_reported, command))

    def _put(self, command: Any | None, on_answer: Callable[[tuple[Any, ...]], None]) -> None:
        """One command; NOT_FOUND at once for the id that no shard can know."""
        if command is None:
            on_answer(NOT_FOUND)
        else:
            self._lines.put(command, on_answer)


def _confirmed(command: Any, answer: tuple[Any, ...]) -> bytes:
    result = confirm_result(command, answer)
    return inventory_service_pb2.ConfirmResponse(result=result).SerializeToString()


def _released(request: Any, answer: tuple[Any, ...]) -> bytes:
    result = release_result(request.line.reservation_id, answer)
    return inventory_service_pb2.ReleaseResponse(result=result).SerializeToString()


def _payment_begun(request: Any, answer: tuple[Any, ...]) -> bytes:
    begun = answer[0] == Outcome.PAYMENT_BEGUN
    return inventory_service_pb2.BeginPaymentResponse(
        **head(answer),
        reservation_id=request.reservation_id,
        payment_id=request.payment_id,
        state=item(answer, 1, 0),
        deadline_time=stamp(answer[2]) if begun else None,
    ).SerializeToString()


def _payment_reported(subject: tuple[Any, Any], answer: tuple[Any, ...]) -> bytes:
    request, command = subject
    return inventory_service_pb2.ReportPaymentResponse(
        **head(answer),
        reservation_id=request.reservation_id,
        payment_id=request.payment_id,
        state=item(answer, 1, 0),
        refund=refund_message(_slot(command), item(answer, 2)),
    ).SerializeToString()


def _returned(subject: tuple[Any, Any], answer: tuple[Any, ...]) -> bytes:
    request, command = subject
    return inventory_service_pb2.ReturnUnitsResponse(
        **head(answer),
        reservation_id=request.reservation_id,
        state=item(answer, 1, 0),
        returned_quantity=item(answer, 2, 0),
        refund=refund_message(_slot(command), item(answer, 3)),
    ).SerializeToString()


def _read(subject: tuple[Any, CallContext, int], answer: tuple[Any, ...]) -> bytes:
    command, context, asked_ms = subject
    response = inventory_service_pb2.GetReservationResponse(**head(answer))
    if command is not None and answer[0] == Outcome.FOUND:
        reservation, payment = reservation_message(command.slot, answer[1])
        response.reservation.CopyFrom(reservation)
        if payment is not None:
            response.payments.append(payment)
        age = age_of(asked_ms, context.now_ms(), common_pb2.DATA_SOURCE_SHARD)
        response.age.CopyFrom(age)
    return response.SerializeToString()


def _fulfilment_reported(_: None, answer: tuple[Any, ...]) -> bytes:
    return inventory_service_pb2.ReportFulfilmentResponse(
        **head(answer), stage=item(answer, 1, 0)
    ).SerializeToString()


def _refund_reported(command: Any, answer: tuple[Any, ...]) -> bytes:
    return inventory_service_pb2.ReportRefundResponse(
        **head(answer), refund=refund_message(_slot(command), item(answer, 1))
    ).SerializeToString()


def _slot(command: Any | None) -> int:
    return 0 if command is None else int(command.slot)


def require_line(request: Any) -> None:
    """Refuses a request without its one line. Raises CallError."""
    if not request.HasField("line"):
        wrong = Violations()
        wrong.add("line", "required")
        wrong.refuse()

"""InventoryService, the part about reservations and money; Grab of SeckillService is the same."""

from collections.abc import Sequence
from typing import Any

from stockray_proto.v1 import (
    common_pb2,
    inventory_service_pb2,
    reservation_pb2,
    seckill_service_pb2,
)

from actors.core import commands as c
from actors.core.outcomes import Outcome
from server.errors import refuse_fields
from server.handlers import CallContext, Calls, Method
from server.lines import Lines
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
    add_results,
    reserve_command,
    reserve_commands,
    reserve_result,
)
from server.translate.scalars import age_of, stamp
from server.translate.stock import head, item
from server.validate import Violations

INVENTORY = "/stockray.v1.InventoryService/"
SECKILL = "/stockray.v1.SeckillService/"


class Reservations:
    """Everything that makes a reservation or happens to one."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    def methods(self) -> list[Method]:
        """The calls of this part."""
        inv, sec = inventory_service_pb2, seckill_service_pb2
        one: Calls = {
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
            *(Method(path=INVENTORY + n, request=r, unary=h) for n, (r, h) in one.items()),
            *(
                Method(path=INVENTORY + n, request=r, unary=h, lines_field="lines")
                for n, (r, h) in many.items()
            ),
            Method(path=SECKILL + "Grab", request=sec.GrabRequest, unary=self.grab),
            Method(
                path=SECKILL + "GrabMany",
                request=sec.GrabManyRequest,
                unary=self.grab_many,
                lines_field="lines",
            ),
        ]

    async def reserve(
        self, request: inventory_service_pb2.ReserveRequest, context: CallContext
    ) -> inventory_service_pb2.ReserveResponse:
        """One line from a base pool or a campaign."""
        result = await self._reserve_one(request, context, grab=False)
        return inventory_service_pb2.ReserveResponse(result=result)

    async def grab(
        self, request: seckill_service_pb2.GrabRequest, context: CallContext
    ) -> seckill_service_pb2.GrabResponse:
        """One line of a campaign."""
        result = await self._reserve_one(request, context, grab=True)
        return seckill_service_pb2.GrabResponse(result=result)

    async def _reserve_one(
        self, request: Any, context: CallContext, *, grab: bool
    ) -> reservation_pb2.ReserveResult:
        _require_line(request)
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
        return reserve_result(command, await self._ask(command))

    async def reserve_many(
        self, request: inventory_service_pb2.ReserveManyRequest, context: CallContext
    ) -> inventory_service_pb2.ReserveManyResponse:
        """Lines, each by itself."""
        response = inventory_service_pb2.ReserveManyResponse()
        await self._reserve_lines(request.lines, response.results, context, grab=False)
        return response

    async def grab_many(
        self, request: seckill_service_pb2.GrabManyRequest, context: CallContext
    ) -> seckill_service_pb2.GrabManyResponse:
        """Lines, each by itself."""
        response = seckill_service_pb2.GrabManyResponse()
        await self._reserve_lines(request.lines, response.results, context, grab=True)
        return response

    async def _reserve_lines(
        self, lines: Any, results: Any, context: CallContext, *, grab: bool
    ) -> None:
        commands, refused = reserve_commands(
            lines, caller=context.caller, deadline_ms=context.deadline_ms, grab=grab
        )
        answers = await self._lines.submit(commands) if commands else ()
        add_results(results, lines, commands, refused, answers)

    async def confirm(
        self, request: inventory_service_pb2.ConfirmRequest, context: CallContext
    ) -> inventory_service_pb2.ConfirmResponse:
        """A payment that came in."""
        _require_line(request)
        payment_violations(request.line, "line.").refuse()
        command = confirm_command(
            request.line, caller=context.caller, deadline_ms=context.deadline_ms
        )
        result = confirm_result(command, await self._ask(command))
        return inventory_service_pb2.ConfirmResponse(result=result)

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

    async def release(
        self, request: inventory_service_pb2.ReleaseRequest, context: CallContext
    ) -> inventory_service_pb2.ReleaseResponse:
        """Give up one reservation."""
        _require_line(request)
        release_violations(request.line, "line.").refuse()
        answer = await self._ask(release_command(request.line, context))
        result = release_result(request.line.reservation_id, answer)
        return inventory_service_pb2.ReleaseResponse(result=result)

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

    async def begin_payment(
        self, request: inventory_service_pb2.BeginPaymentRequest, context: CallContext
    ) -> inventory_service_pb2.BeginPaymentResponse:
        """The buyer is at the cashier."""
        answer = await self._ask(begin_payment_command(request, context))
        begun = answer[0] == Outcome.PAYMENT_BEGUN
        return inventory_service_pb2.BeginPaymentResponse(
            **head(answer),
            reservation_id=request.reservation_id,
            payment_id=request.payment_id,
            state=item(answer, 1, 0),
            deadline_time=stamp(answer[2]) if begun else None,
        )

    async def report_payment(
        self, request: inventory_service_pb2.ReportPaymentRequest, context: CallContext
    ) -> inventory_service_pb2.ReportPaymentResponse:
        """How an attempt to pay ended."""
        command = report_payment_command(request, context)
        answer = await self._ask(command)
        slot = 0 if command is None else command.slot
        return inventory_service_pb2.ReportPaymentResponse(
            **head(answer),
            reservation_id=request.reservation_id,
            payment_id=request.payment_id,
            state=item(answer, 1, 0),
            refund=refund_message(slot, item(answer, 2)),
        )

    async def return_units(
        self, request: inventory_service_pb2.ReturnUnitsRequest, context: CallContext
    ) -> inventory_service_pb2.ReturnUnitsResponse:
        """Confirmed units come back."""
        command = return_units_command(request, context)
        answer = await self._ask(command)
        slot = 0 if command is None else command.slot
        return inventory_service_pb2.ReturnUnitsResponse(
            **head(answer),
            reservation_id=request.reservation_id,
            state=item(answer, 1, 0),
            returned_quantity=item(answer, 2, 0),
            refund=refund_message(slot, item(answer, 3)),
        )

    async def get_reservation(
        self, request: inventory_service_pb2.GetReservationRequest, context: CallContext
    ) -> inventory_service_pb2.GetReservationResponse:
        """Read one from its shard, which keeps all of them in this release."""
        asked_ms = context.now_ms()
        command = get_reservation_command(request, context)
        answer = await self._ask(command)
        response = inventory_service_pb2.GetReservationResponse(**head(answer))
        if command is not None and answer[0] == Outcome.FOUND:
            reservation, payment = reservation_message(command.slot, answer[1])
            response.reservation.CopyFrom(reservation)
            if payment is not None:
                response.payments.append(payment)
            age = age_of(asked_ms, context.now_ms(), common_pb2.DATA_SOURCE_SHARD)
            response.age.CopyFrom(age)
        return response

    async def report_fulfilment(
        self, request: inventory_service_pb2.ReportFulfilmentRequest, context: CallContext
    ) -> inventory_service_pb2.ReportFulfilmentResponse:
        """Shipped, delivered or complete."""
        answer = await self._ask(report_fulfilment_command(request, context))
        return inventory_service_pb2.ReportFulfilmentResponse(
            **head(answer), stage=item(answer, 1, 0)
        )

    async def report_refund(
        self, request: inventory_service_pb2.ReportRefundRequest, context: CallContext
    ) -> inventory_service_pb2.ReportRefundResponse:
        """How an attempt to pay a refund back ended."""
        command = report_refund_command(request, context)
        answer = await self._ask(command)
        slot = 0 if command is None else command.slot
        return inventory_service_pb2.ReportRefundResponse(
            **head(answer), refund=refund_message(slot, item(answer, 1))
        )

    async def _ask(self, command: Any | None) -> tuple[Any, ...]:
        """The answer to one command; NOT_FOUND for the id that no shard can know."""
        if command is None:
            return NOT_FOUND
        (answer,) = await self._lines.submit([command])
        return answer


def _require_line(request: Any) -> None:
    if not request.HasField("line"):
        wrong = Violations()
        wrong.add("line", "required")
        wrong.refuse()

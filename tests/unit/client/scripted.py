"""A real gRPC server on a loopback port whose answers a test scripts.

`server.on("GrabMany", handler)` sets what a call does: `async def handler(request, context)`. Calls
that are not scripted reserve, confirm and release whatever they are asked to. All requests are kept
in `server.calls`, by the RPC's name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message_factory import GetMessageClass
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from stockray_proto.v1 import (
    commission_service_pb2,
    common_pb2,
    event_service_pb2,
    group_buy_service_pb2,
    inventory_service_pb2,
    ops_service_pb2,
    reservation_pb2,
    risk_service_pb2,
    seckill_service_pb2,
)

Handler = Callable[[Any, Any], Awaitable[Any]]
SERVICES = [
    seckill_service_pb2.DESCRIPTOR.services_by_name["SeckillService"],
    inventory_service_pb2.DESCRIPTOR.services_by_name["InventoryService"],
    ops_service_pb2.DESCRIPTOR.services_by_name["OpsService"],
    group_buy_service_pb2.DESCRIPTOR.services_by_name["GroupBuyService"],
    commission_service_pb2.DESCRIPTOR.services_by_name["CommissionService"],
    event_service_pb2.DESCRIPTOR.services_by_name["EventService"],
    risk_service_pb2.DESCRIPTOR.services_by_name["RiskService"],
]


class ScriptedServer:
    """Start it, script it, look at what it was asked."""

    def __init__(self) -> None:
        self.calls: dict[str, list[Any]] = defaultdict(list)
        self.metadata: dict[str, list[dict[str, str]]] = defaultdict(list)
        self.peers: set[str] = set()
        self.address = ""
        self._handlers: dict[str, Handler] = {
            "GrabMany": reserve_all,
            "ReserveMany": reserve_all,
            "ConfirmMany": confirm_all,
            "ReleaseMany": release_all,
        }
        self._server: grpc.aio.Server | None = None

    def on(self, name: str, handler: Handler) -> None:
        """Scripts one RPC."""
        self._handlers[name] = handler

    def lines(self, name: str) -> list[int]:
        """How many lines each call of one RPC had."""
        return [len(request.lines) for request in self.calls[name]]

    async def start(self, port: int = 0, credentials: grpc.ServerCredentials | None = None) -> None:
        self._server = grpc.aio.server()
        for service in SERVICES:
            handlers = {method.name: self._method(method) for method in service.methods}
            handler = grpc.method_handlers_generic_handler(service.full_name, handlers)
            self._server.add_generic_rpc_handlers((handler,))
        if credentials is None:
            bound = self._server.add_insecure_port(f"127.0.0.1:{port}")
        else:
            bound = self._server.add_secure_port(f"127.0.0.1:{port}", credentials)
        self.address = f"127.0.0.1:{bound}"
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)

    def _method(self, method: Any) -> grpc.RpcMethodHandler[Any, Any]:
        read = GetMessageClass(method.input_type).FromString
        write = GetMessageClass(method.output_type).SerializeToString

        async def unary(request: Any, context: Any) -> Any:
            self._keep(method.name, request, context)
            handler = self._handlers.get(method.name)
            if handler is None:
                return GetMessageClass(method.output_type)()
            return await handler(request, context)

        async def stream(request: Any, context: Any) -> Any:
            self._keep(method.name, request, context)
            async for message in await self._handlers[method.name](request, context):
                yield message

        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, read, write)
        return grpc.unary_unary_rpc_method_handler(unary, read, write)

    def _keep(self, name: str, request: Any, context: Any) -> None:
        self.calls[name].append(request)
        self.metadata[name].append(dict(context.invocation_metadata()))
        self.peers.add(context.peer())


async def reserve_all(request: Any, context: Any) -> Any:
    """RESERVED for every line; the reservation id is made of the request id."""
    results = [reserved(line) for line in request.lines]
    return seckill_service_pb2.GrabManyResponse(results=results)


def reserved(line: Any) -> reservation_pb2.ReserveResult:
    """RESERVED for one line."""
    return reservation_pb2.ReserveResult(
        status=common_pb2.LINE_STATUS_RESERVED,
        request_id=line.request_id,
        reservation_id=f"r-{line.buyer.buyer_id}",
        unit_price_minor=9900,
        payable_minor=9900 * line.quantity,
    )


def answered(
    line: Any, status: int, retry_after: timedelta | None = None, message: str = ""
) -> reservation_pb2.ReserveResult:
    """Any other answer to one line."""
    result = reservation_pb2.ReserveResult(
        status=status,  # type: ignore[arg-type]
        request_id=line.request_id,
        message=message,
    )
    if retry_after is not None:
        result.retry_after.FromTimedelta(retry_after)
    return result


async def confirm_all(request: Any, context: Any) -> Any:
    """CONFIRMED for every line."""
    results = [
        reservation_pb2.ConfirmResult(
            status=common_pb2.LINE_STATUS_CONFIRMED,
            reservation_id=line.reservation_id,
            payment_id=line.payment_id,
            state=reservation_pb2.RESERVATION_STATE_CONFIRMED,
        )
        for line in request.lines
    ]
    return inventory_service_pb2.ConfirmManyResponse(results=results)


async def release_all(request: Any, context: Any) -> Any:
    """RELEASED for every line."""
    results = [
        reservation_pb2.ReleaseResult(
            status=common_pb2.LINE_STATUS_RELEASED, reservation_id=line.reservation_id
        )
        for line in request.lines
    ]
    return inventory_service_pb2.ReleaseManyResponse(results=results)


async def refuse(
    context: Any,
    code: grpc.StatusCode,
    reason: str = "",
    *,
    retry_after: timedelta | None = None,
    violations: Sequence[tuple[str, str]] = (),
    message: str = "refused",
) -> NoReturn:
    """Ends the call with a rich error, as the service does."""
    details = []
    if reason:
        details.append(error_details_pb2.ErrorInfo(reason=reason, domain="stockray"))
    if retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromTimedelta(retry_after)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if violations:
        bad = error_details_pb2.BadRequest()
        for field, description in violations:
            bad.field_violations.add(field=field, description=description)
        details.append(bad)
    status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message=message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    await context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("abort_with_status returned")

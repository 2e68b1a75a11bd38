"""The reference front: serves the handler table with grpc.aio.

Rules
-----
* Generic handlers pass bytes through, so that parsing, limits and errors are the table's for all
  fronts alike. Nothing of grpc leaves this file.
* grpcio itself refuses messages above `TRANSPORT_BYTES_MAX` with a bare RESOURCE_EXHAUSTED; up to
  that size the table refuses what is above its limit, with details.
* An error's details travel in the trailers of its own status: `abort` replaces all others.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import grpc
import grpc.aio
from grpc_reflection.v1alpha import reflection

from server.admission import MESSAGE_BYTES_MAX
from server.errors import CallError, unimplemented
from server.handlers import HandlerTable, Invocation, Method

TRANSPORT_BYTES_MAX = 4 * MESSAGE_BYTES_MAX

_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


class GrpcioFront:
    """One grpc.aio server on one port."""

    def __init__(
        self,
        table: HandlerTable,
        *,
        options: Sequence[tuple[str, Any]] = (),
        with_reflection: bool = True,
    ) -> None:
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", TRANSPORT_BYTES_MAX),
                ("grpc.max_send_message_length", TRANSPORT_BYTES_MAX),
                *options,
            ]
        )
        if with_reflection:
            names = [*table.service_names(), reflection.SERVICE_NAME]
            reflection.enable_server_reflection(names, self._server)
        # Last, since it takes every path that nobody before it knows.
        self._server.add_generic_rpc_handlers((_Router(table),))

    def listen(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        """Bind; answers the port (of "127.0.0.1:0", the one that was free). RuntimeError if not."""
        if credentials is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, credentials)

    async def start(self) -> None:
        """Serve from now on."""
        await self._server.start()

    async def stop(self, *, grace_s: float) -> None:
        """Take no new call, wait for those in flight, cancel them after `grace_s`."""
        await self._server.stop(grace_s)


class _Router(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs alone
    """Path -> handler, made once for each call of the table."""

    def __init__(self, table: HandlerTable) -> None:
        self._handlers = {
            path: grpc.unary_unary_rpc_method_handler(_serve_unary(table, method))
            if method.unary
            else grpc.unary_stream_rpc_method_handler(_serve_stream(table, method))
            for path, method in table.methods.items()
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        path = handler_call_details.method
        return self._handlers.get(path) or grpc.stream_stream_rpc_method_handler(_unknown(path))


def _serve_unary(
    table: HandlerTable, method: Method
) -> Callable[[bytes, Context], Awaitable[bytes]]:
    async def serve(data: bytes, context: Context) -> bytes:
        try:
            return await table.call(method, data, _invocation(context))
        except CallError as error:
            await _abort(context, error)
            raise

    return serve


def _serve_stream(
    table: HandlerTable, method: Method
) -> Callable[[bytes, Context], AsyncIterator[bytes]]:
    async def serve(data: bytes, context: Context) -> AsyncIterator[bytes]:
        try:
            async for answer in table.call_stream(method, data, _invocation(context)):
                yield answer
        except CallError as error:
            await _abort(context, error)

    return serve


def _unknown(path: str) -> Callable[[Any, Context], AsyncIterator[bytes]]:
    async def serve(requests: Any, context: Context) -> AsyncIterator[bytes]:
        await _abort(context, unimplemented(path))
        yield b""

    return serve


def _invocation(context: Context) -> Invocation:
    metadata = {
        key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)
    }
    return Invocation(context.peer(), metadata, context.time_remaining())


async def _abort(context: Context, error: CallError) -> None:
    status = error.status
    await context.abort(_CODES[status.code], status.message, status.trailers())

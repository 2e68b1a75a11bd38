"""The reference front: serves the handler table with grpc.aio.

Rules
-----
* Generic handlers pass bytes through, so that parsing, limits and errors are the table's for all
  fronts alike. Nothing of grpc leaves this file.
* grpcio itself refuses messages above `TRANSPORT_BYTES_MAX` with a bare RESOURCE_EXHAUSTED; up to
  that size the table refuses what is above its limit, with details.
* An error's details travel in the trailers of its own status: `abort` replaces all others, so what
  a handler sends beside them goes with them.
* Of its sockets grpcio tells only where it listens; calls are counted by the table.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import grpc
import grpc.aio

from server.admission import MESSAGE_BYTES_MAX
from server.counters import Address, SocketCounters
from server.errors import CallError, unimplemented
from server.handlers import HandlerTable, Invocation, Method

TRANSPORT_BYTES_MAX = 4 * MESSAGE_BYTES_MAX
PENDING_MAX = 8_192
"""Calls that grpcio has read and not begun."""

_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


class GrpcioFront:
    """One grpc.aio server on one port."""

    def __init__(
        self,
        table: HandlerTable,
        *,
        options: Sequence[tuple[str, Any]] = (),
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self.name = "grpcio"
        self._listening: list[SocketCounters] = []
        self._credentials = credentials
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", TRANSPORT_BYTES_MAX),
                ("grpc.max_send_message_length", TRANSPORT_BYTES_MAX),
                # By default grpcio cancels some calls, unseen by us, when 1,000 arrive at once.
                ("grpc.server.max_pending_requests", PENDING_MAX),
                ("grpc.server.max_pending_requests_hard_limit", 2 * PENDING_MAX),
                *options,
            ]
        )
        table.front = self
        self._server.add_generic_rpc_handlers((_Router(table),))

    def listen(self, address: str) -> int:
        """Bind; answers the port (of "127.0.0.1:0", the one that was free). RuntimeError if not."""
        if self._credentials is None:
            port = self._server.add_insecure_port(address)
        else:
            port = self._server.add_secure_port(address, self._credentials)
        if address.startswith("unix:"):
            local = Address(path=address.removeprefix("unix:"))
        else:
            local = Address(address.rpartition(":")[0].strip("[]"), port)
        socket_id = len(self._listening) + 1
        self._listening.append(SocketCounters(socket_id, f"listens on {address}", local))
        return port

    def listening(self) -> Sequence[SocketCounters]:
        """See `FrontCounters`."""
        return self._listening

    def sockets(self, first_id: int, count_max: int) -> Sequence[SocketCounters]:
        """See `FrontCounters`. None: grpcio does not tell of its connections."""
        return ()

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
            path: _method_handler(table, method) for path, method in table.methods.items()
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        path = handler_call_details.method
        return self._handlers.get(path) or grpc.stream_stream_rpc_method_handler(_unknown(path))


def _method_handler(table: HandlerTable, method: Method) -> Any:
    if method.is_unary:
        return grpc.unary_unary_rpc_method_handler(_serve_one(method, table.call))
    if method.stream:
        return grpc.unary_stream_rpc_method_handler(_serve_many(method, table.call_stream))
    if method.client_stream:
        return grpc.stream_unary_rpc_method_handler(_serve_one(method, table.call_client_stream))
    return grpc.stream_stream_rpc_method_handler(_serve_many(method, table.call_bidi))


def _serve_one(
    method: Method, call: Callable[[Method, Any, Invocation], Awaitable[bytes]]
) -> Callable[[Any, Context], Awaitable[bytes]]:
    """Calls that end with one answer. grpcio hands over one request, or an iterator of them."""

    async def serve(request: Any, context: Context) -> bytes:
        invocation = _invocation(context)
        try:
            answer = await call(method, request, invocation)
        except CallError as error:
            await _abort(context, error, invocation)
            raise
        await _send_metadata(context, invocation)
        context.set_trailing_metadata(tuple(invocation.trailing_metadata))
        return answer

    return serve


def _serve_many(
    method: Method, call: Callable[[Method, Any, Invocation], AsyncIterator[bytes]]
) -> Callable[[Any, Context], AsyncIterator[bytes]]:
    """Calls with any number of answers."""

    async def serve(request: Any, context: Context) -> AsyncIterator[bytes]:
        invocation, first = _invocation(context), True
        try:
            async for answer in call(method, request, invocation):
                if first:
                    first = False
                    await _send_metadata(context, invocation)
                elif invocation.compress is False:
                    context.disable_next_message_compression()
                yield answer
        except CallError as error:
            await _abort(context, error, invocation, with_initial=first)
        if first:
            await _send_metadata(context, invocation)
        context.set_trailing_metadata(tuple(invocation.trailing_metadata))

    return serve


def _unknown(path: str) -> Callable[[Any, Context], AsyncIterator[bytes]]:
    async def serve(requests: Any, context: Context) -> AsyncIterator[bytes]:
        await _abort(context, unimplemented(path), _invocation(context))
        yield b""

    return serve


def _invocation(context: Context) -> Invocation:
    metadata = {
        key: value
        for key, value in context.invocation_metadata() or ()
        if isinstance(value, bytes) == key.endswith("-bin")
    }
    return Invocation(context.peer(), metadata, context.time_remaining(), _identity(context))


def _identity(context: Context) -> str:
    """The peer certificate's first URI name (SPIFFE), else its first other name, else its common
    name; '' without a certificate. As the other front has it."""
    told = context.auth_context()
    names = list(told.get("x509_subject_alternative_name") or ())
    uris = [name for name in names if b"://" in name]
    found = (*uris, *names, *(told.get("x509_common_name") or ()), b"")
    return found[0].decode(errors="replace")


async def _send_metadata(context: Context, invocation: Invocation) -> None:
    if invocation.compress:
        context.set_compression(grpc.Compression.Gzip)
    if invocation.initial_metadata:
        await context.send_initial_metadata(tuple(invocation.initial_metadata))


async def _abort(
    context: Context, error: CallError, invocation: Invocation, *, with_initial: bool = True
) -> None:
    if with_initial:
        await _send_metadata(context, invocation)
    status = error.status
    trailers = (*invocation.trailing_metadata, *status.trailers())
    await context.abort(_CODES[status.code], status.message, trailers)

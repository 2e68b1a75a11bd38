"""The fast front: serves the handler table over nghttp2 (`wire/`).

Rules
-----
* Everything that is not bytes, headers and connections is the table's, as on the other front: the
  same calls, limits, errors and details.
* A unary call costs no task: the table is given a callback, and the answers of one round leave
  together.
"""

import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from itertools import islice

from server.counters import Address, SocketCounters
from server.errors import CallError, Code, unimplemented
from server.handlers import HandlerTable, Invocation, Method
from wire.call import CallGone, MethodEntry, ServerCall, Stream
from wire.headers import BadHeader, Metadata
from wire.limits import WireLimits
from wire.server import BACKLOG, WireServer
from wire.server_connection import ServerConnection


class Nghttp2Front:
    """One listener. Make it on the loop that it is to run on."""

    def __init__(
        self,
        table: HandlerTable,
        *,
        limits: WireLimits | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.name = "nghttp2"
        self._entries = {path: _entry(table, method) for path, method in table.methods.items()}
        self._server = WireServer(self._entries.get, limits=limits, tls=tls, unknown=_unknown)
        self._sockets: list[socket.socket] = []
        self._listening: list[SocketCounters] = []
        table.front = self

    def listen(self, address: str) -> int:
        """Bind host:port, shared with other processes that do; answers the port (of port 0, the
        one that was free). Connections wait until `start`. OSError if it cannot be."""
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        bound = socket.create_server(
            (host, int(port)), family=family, backlog=BACKLOG, reuse_port=True
        )
        self._sockets.append(bound)
        local = Address(host, bound.getsockname()[1])
        number = len(self._listening) + 1
        self._listening.append(SocketCounters(number, f"listens on {address}", local))
        return local.port

    async def start(self) -> None:
        """Serve from now on."""
        for bound in self._sockets:
            await self._server.listen_socket(bound)

    async def stop(self, *, grace_s: float) -> None:
        """Take no new call, wait for those in flight, cut them off after `grace_s`."""
        await self._server.drain(grace_s=grace_s)

    def listening(self) -> Sequence[SocketCounters]:
        """See `FrontCounters`."""
        return self._listening

    def sockets(self, first_id: int, count_max: int) -> Sequence[SocketCounters]:
        """See `FrontCounters`."""
        # Numbers of connections begin above those of the sockets that listen.
        above = len(self._listening)
        found = sorted(
            (c for c in self._server.connections if c.number + above >= first_id),
            key=lambda connection: connection.number,
        )
        return [self._told(connection, above) for connection in islice(found, count_max)]

    def _told(self, connection: ServerConnection, above: int) -> SocketCounters:
        counters = connection.counters
        return SocketCounters(
            socket_id=connection.number + above,
            name=connection.peer,
            local=self._listening[0].local if self._listening else Address(),
            remote=_address(connection.peer),
            streams_started=counters.started,
            streams_succeeded=counters.succeeded,
            streams_failed=counters.failed,
            messages_sent=counters.messages_sent,
            messages_received=counters.messages_received,
            keepalives_sent=connection.keepalives_sent,
            identity=connection.identity,
        )


def _entry(table: HandlerTable, method: Method) -> MethodEntry:
    if method.unary or method.quick:
        return MethodEntry(unary=_serve_unary(table, method), keeps_deadline=table.is_quick(method))
    if method.client_stream:
        return MethodEntry(stream=_serve_client_stream(table, method))
    return MethodEntry(stream=_serve_stream(table, method))


def _serve_unary(table: HandlerTable, method: Method) -> Callable[[ServerCall, bytes], None]:
    begin = table.begin

    def serve(call: ServerCall, data: bytes) -> None:
        invocation = _invocation(call)
        if invocation is None:
            return

        def done(result: bytes | CallError) -> None:
            if isinstance(result, bytes):
                _reply(call, invocation, result)
            else:
                _fail(call, invocation, result)

        call.on_cancel = begin(method, data, invocation, done)

    return serve


def _serve_stream(table: HandlerTable, method: Method) -> Stream:
    async def serve(call: ServerCall) -> None:
        invocation = _invocation(call)
        if invocation is None:
            return
        first = True
        try:
            async with aclosing(await _answers(table, method, call, invocation)) as answers:
                async for answer in answers:
                    if first:
                        first = False
                        _prepare(call, invocation)
                    await call.send(answer, compress=invocation.compress)
        except CallError as error:
            _fail(call, invocation, error)
            return
        if first:
            _prepare(call, invocation)
        call.finish(invocation.trailing_metadata)

    return serve


async def _answers(
    table: HandlerTable, method: Method, call: ServerCall, invocation: Invocation
) -> AsyncGenerator[bytes, None]:
    if method.bidi:
        return table.call_bidi(method, _requests(call), invocation)
    return table.call_stream(method, await _only_request(call), invocation)


def _serve_client_stream(table: HandlerTable, method: Method) -> Stream:
    async def serve(call: ServerCall) -> None:
        invocation = _invocation(call)
        if invocation is None:
            return
        try:
            answer = await table.call_client_stream(method, _requests(call), invocation)
        except CallError as error:
            _fail(call, invocation, error)
            return
        _reply(call, invocation, answer)

    return serve


async def _requests(call: ServerCall) -> AsyncGenerator[bytes, None]:
    while (message := await call.read()) is not None:
        yield message


async def _only_request(call: ServerCall) -> bytes:
    """A server stream has one request. CallGone, with the status sent, if it has not."""
    message = await call.read()
    if message is None:
        call.fail(Code.UNIMPLEMENTED, "a server stream has one request, and none came")
        raise CallGone
    if await call.read() is not None:
        call.fail(Code.UNIMPLEMENTED, "a server stream has one request, and more came")
        raise CallGone
    return message


def _invocation(call: ServerCall) -> Invocation | None:
    """What the table is told of a call; None if that cannot be, and the caller was told so."""
    try:
        invocation = Invocation(call.peer, call.metadata, call.timeout_s, call.identity)
    except BadHeader as error:
        call.fail(Code.INTERNAL, str(error))
        return None
    invocation.request_compressed = call.sent_gzip
    return invocation


def _prepare(call: ServerCall, invocation: Invocation) -> None:
    """What is sent before the first answer."""
    if invocation.initial_metadata:
        call.initial_metadata = invocation.initial_metadata
    call.compress = call.sent_gzip if invocation.compress is None else invocation.compress


def _reply(call: ServerCall, invocation: Invocation, answer: bytes) -> None:
    _prepare(call, invocation)
    call.reply(answer, trailers=invocation.trailing_metadata, compress=call.compress)


def _fail(call: ServerCall, invocation: Invocation, error: CallError) -> None:
    status = error.status
    if invocation.initial_metadata:
        call.initial_metadata = invocation.initial_metadata
    trailers = (*invocation.trailing_metadata, *status.trailers())
    call.fail(status.code, status.message, trailers)


def _unknown(path: str) -> tuple[int, str, Metadata]:
    status = unimplemented(path).status
    return status.code, status.message, status.trailers()


def _address(peer: str) -> Address:
    kind, _, rest = peer.partition(":")
    if kind == "unix":
        return Address(path=rest)
    host, _, port = rest.rpartition(":")
    return Address(host.strip("[]"), int(port))

"""A connection on the serving end: streams of HTTP/2 become calls, and calls become answers.

Rules
-----
* What is wrong with a call ends that call with the status that gRPC gives it; what is wrong with
  the connection ends the connection. Nothing waits for a peer without a limit (`look` is called
  every second and enforces the times of `WireLimits`).
* A connection that is drained says GOAWAY twice: first that no call should begin, then, when a PING
  has made the way there and back, which calls were the last. Those go on; then it closes.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast

import ngh2
import structlog
from ngh2 import ErrorCode

from wire.call import (
    CANCELLED,
    DEADLINE_EXCEEDED,
    INTERNAL,
    RESOURCE_EXHAUSTED,
    TOO_LATE,
    UNAVAILABLE,
    UNIMPLEMENTED,
    UNKNOWN,
    CallGone,
    MethodEntry,
    ServerCall,
    Stream,
)
from wire.counters import CallCounters, ListenerCounters
from wire.crowd import Crowd
from wire.endpoint import KEEPALIVE_PING, TINY_UPDATE_BYTES, Endpoint, peer_name
from wire.framing import ENCODINGS, BadFraming
from wire.headers import (
    CONTENT_TYPES,
    OK_HEADERS,
    BadHeader,
    Metadata,
    Pair,
    is_grpc,
    parse_timeout,
    status_trailers,
)
from wire.limits import WireLimits
from wire.log_gate import LogGate
from wire.tls import identity_of
from wire.watch import Watch

log = structlog.get_logger()

DRAIN_PING = b"lastcall"
DRAIN_ROUND_TRIP_S = 1.0
READS_WHILE_FULL_BYTES = 256 * 1024
_TEXT: Pair = (b"content-type", b"text/plain")
_NOT_POST: tuple[Pair, ...] = ((b":status", b"405"), (b"allow", b"POST"), _TEXT)
_NOT_GRPC: tuple[Pair, ...] = ((b":status", b"415"), (b"accept-post", b"application/grpc"), _TEXT)
_ONLY_GRPC = b"This port speaks gRPC: POST with content-type application/grpc.\n"


class Owner(Protocol):
    """The listener, as far as its connections need it."""

    limits: WireLimits
    counters: ListenerCounters
    log_gate: LogGate
    upload_bytes: int
    calls_open: int
    numbers: Iterator[int]

    def route(self, path: bytes) -> MethodEntry | None:
        """What serves a path."""

    def unknown(self, path: bytes) -> tuple[int, str, Metadata]:
        """Code, message and trailers for a path that nothing serves."""

    def came(self, connection: "ServerConnection") -> bool:
        """Whether one more connection is taken."""

    def went(self, connection: "ServerConnection") -> None:
        """It is over."""


class ServerConnection(Endpoint):
    """One accepted connection."""

    reads_while_full_bytes = READS_WHILE_FULL_BYTES

    def __init__(self, owner: Owner) -> None:
        super().__init__(ngh2.Role.SERVER, owner.limits, owner.log_gate)
        self.owner = owner
        self.identity = ""
        self.calls: dict[int, ServerCall] = {}
        self.counters = CallCounters()
        self.number = next(owner.numbers)
        self.keepalives_sent = 0
        self.draining = False
        self.opened_at = self._loop.time()
        self._crowd = Crowd(self._loop, self.flush)
        self._unwanted: list[int] = []
        """Streams that were answered before their request had ended."""
        self._said_last = False
        self._watch = Watch(self.opened_at)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See Endpoint. TLS without ALPN h2 is not for us."""
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            if self.log_gate.allow():
                log.warning(
                    "connection_refused",
                    peer=peer_name(cast(asyncio.Transport, transport)),
                    reason="TLS without ALPN h2",
                    withheld=self.log_gate.withheld,
                )
            self.closed = True
            transport.close()
            return
        self.identity = identity_of(transport.get_extra_info("peercert"))
        super().connection_made(transport)
        if not self.owner.came(self):
            self.closed = True
            self.abort()

    def on_events(self, events: Sequence[Any]) -> None:
        """See Endpoint."""
        for event in events:
            kind = type(event)
            if kind is ngh2.DataReceived:
                self._data(event)
            elif kind is ngh2.RequestReceived:
                self._request(event)
            elif kind is ngh2.StreamClosed:
                self._stream_closed(event.stream_id)
            else:
                self._other(kind, event)

    def on_gone(self, error: Exception | None) -> None:
        """See Endpoint."""
        self.let_go()
        self.owner.counters.cut_off += self.was_cut_off
        self.owner.went(self)

    def let_go(self) -> None:
        """See Endpoint."""
        calls, self.calls = self.calls, {}
        self.owner.calls_open -= len(calls)
        for call in calls.values():
            self._uncount(call)
            if not call.closed:
                self._count(ok=False)
            call.gone()
        self._crowd.clear()
        self._unwanted.clear()

    def on_room(self) -> None:
        """See Endpoint."""
        if self._write_paused or not (self._unwanted or self._crowd):
            return
        if not self._crowd.may_look(len(self._unwanted)):
            return
        if self._unwanted:
            self._end_unwanted()
        self._crowd.let_on(self.h2, self.limits.stream_backlog_bytes)

    def wants_room(self, call: ServerCall) -> None:
        """See Carrier."""
        self._crowd.join(call)

    def answered(self, call: ServerCall, ok: bool) -> None:
        """See Carrier."""
        self._count(ok)
        if not call.request_ended:
            self._unwanted.append(call.stream_id)
        self.counters.messages_sent += ok
        self.owner.counters.calls.messages_sent += ok

    def drain(self) -> None:
        """Let no call begin, let those that have begun end, then close."""
        if self.draining or self.ending:
            return
        self.draining = True
        if not self.greeted:
            self.close()
            return
        try:
            self.h2.send_shutdown_notice()
        except ngh2.NGH2Error:
            # It is ending already.
            return
        self.ping(DRAIN_PING)
        self.later(DRAIN_ROUND_TRIP_S, self._say_last)

    def cut_calls(self) -> None:
        """The time of grace is over: end what is left."""
        for call in list(self.calls.values()):
            call.expire(UNAVAILABLE, "the server is going away")
        self.flush()
        self.close()

    def look(self, now: float, pause_s: float) -> None:
        """Enforce the limits of time. Called every `pause_s` seconds."""
        if not self.ending:
            self.refill(pause_s)
            self._watch.look(self, now, pause_s)

    def ask(self) -> None:
        """See Watched."""
        self.keepalives_sent += 1
        self.owner.counters.keepalives_sent += 1
        self.ping(KEEPALIVE_PING)

    def silent(self) -> None:
        """See Watched."""
        if self.log_gate.allow():
            log.info("connection_silent", peer=self.peer, withheld=self.log_gate.withheld)
        self.abort()

    def give_up(self) -> None:
        """See Watched. Also for a connection that takes too little of too much."""
        if self.log_gate.allow():
            log.warning("connection_stuck", peer=self.peer, withheld=self.log_gate.withheld)
        self.was_cut_off = True
        self.abort()

    def grow_old(self) -> None:
        """See Watched."""
        self.drain()
        self.later(self.limits.age_grace_ms / 1000, self._cut_if_open)

    def _end_unwanted(self) -> None:
        """Tell callers to send no more. Only once their answer is out: nghttp2 sends a reset first
        and drops what it has for the stream."""
        h2, unwanted = self.h2, self._unwanted
        self._unwanted = [stream for stream in unwanted if h2.queued_body_size(stream)]
        for stream in unwanted:
            if not h2.queued_body_size(stream):
                self.reset(stream, ErrorCode.NO_ERROR)
        self.flush_soon()

    def _request(self, event: Any) -> None:
        path = b""
        size = 0
        timeout_s: float | None = None
        encoding = b"identity"
        method = content_type = b""
        headers = event.headers
        stream_id = event.stream_id
        try:
            for name, value in headers:
                if name == b":path":
                    path = value
                elif name == b":method":
                    method = value
                elif name == b"content-type":
                    content_type = value
                elif name == b"grpc-timeout":
                    timeout_s = parse_timeout(value)
                elif name == b"grpc-encoding":
                    encoding = value
                else:
                    size += len(name) + len(value)
        except BadHeader as error:
            self._reject(event, INTERNAL, str(error))
            return
        if size > self.limits.header_bytes_max or len(headers) > self.limits.header_count_max:
            self._reject(event, RESOURCE_EXHAUSTED, "too many or too large headers")
            return
        if method != b"POST":
            self._reject_http(event, _NOT_POST, _ONLY_GRPC)
            return
        if content_type not in CONTENT_TYPES and not is_grpc(content_type):
            self._reject_http(event, _NOT_GRPC, _ONLY_GRPC)
            return
        entry = self.owner.route(path)
        if entry is None:
            self._reject(event, *self.owner.unknown(path))
            return
        coding = encoding.decode("latin-1")
        if coding not in ENCODINGS:
            self._reject(event, UNIMPLEMENTED, f"grpc-encoding {coding[:20]!r} is not supported")
            return
        if self.ending:
            self._reject(event, UNAVAILABLE, "the connection is ending")
            return
        if self.owner.calls_open >= self.limits.calls_max:
            self._reject(event, RESOURCE_EXHAUSTED, "too many calls are open")
            return
        self._begin(
            ServerCall(
                carrier=self,
                stream_id=stream_id,
                path=path.decode("latin-1"),
                entry=entry,
                headers=headers,
                timeout_s=timeout_s,
                encoding=coding,
            ),
            ended=event.end_stream,
        )

    def _begin(self, call: ServerCall, *, ended: bool) -> None:
        self.earn()
        self.calls[call.stream_id] = call
        self.owner.calls_open += 1
        self.counters.started += 1
        self.owner.counters.calls.started += 1
        if call.timeout_s is not None and not call.entry.keeps_deadline:
            call.timer = self._loop.call_later(call.timeout_s, self._expire, call)
        if call.entry.stream is not None:
            call.task = self._loop.create_task(self._run(call, call.entry.stream))
        if ended:
            self._take(call, b"", ended=True)

    async def _run(self, call: ServerCall, serve: Stream) -> None:
        """A streaming handler to its end, however it ends."""
        try:
            await serve(call)
            call.finish()
        except CallGone:
            call.fail(CANCELLED, "cancelled")
        except asyncio.CancelledError:
            call.fail(CANCELLED, "cancelled")
            raise
        except Exception:  # A handler's bug ends its call, not the connection.
            log.exception("stream_failed", path=call.path)
            call.fail(UNKNOWN, "the handler failed")
        finally:
            call.task = None

    def _data(self, event: Any) -> None:
        call = self.calls.get(event.stream_id)
        data: bytes = event.data
        if not data and not event.end_stream:
            self.spend()
        if call is None or call.closed:
            self.acknowledge(len(data), event.stream_id)
            if call is not None and event.end_stream:
                call.end_request()
            return
        self._take(call, data, ended=event.end_stream)

    def _take(self, call: ServerCall, data: bytes, *, ended: bool) -> None:
        owner = self.owner
        try:
            messages = call.feed(data, ended)
        except BadFraming as error:
            self.acknowledge(len(data), call.stream_id)
            self._refuse(call, error.code, str(error))
            return
        if ended:
            owner.upload_bytes -= call.counted_bytes
            call.counted_bytes = 0
        elif (pending := call.pending_bytes) != call.counted_bytes:
            owner.upload_bytes += pending - call.counted_bytes
            call.counted_bytes = pending
            if owner.upload_bytes > self.limits.upload_bytes_max:
                self.acknowledge(len(data), call.stream_id)
                self._refuse(call, RESOURCE_EXHAUSTED, "too many requests are being received")
                return
        if messages:
            self.counters.messages_received += len(messages)
            self.owner.counters.calls.messages_received += len(messages)
        if call.entry.stream is not None:
            call.queue(messages, len(data))
            return
        self.acknowledge(len(data), call.stream_id)
        if ended:
            self._take_unary(call)

    def _refuse(self, call: ServerCall, code: int, message: str) -> None:
        """End a call whose request cannot be taken."""
        self._uncount(call)
        call.drop()
        call.expire(code, message)

    def _take_unary(self, call: ServerCall) -> None:
        """Hand over a request: its stream has ended."""
        message, call.request = call.request, None
        if message is None:
            call.expire(UNIMPLEMENTED, "a unary call has one message, and none came")
            return
        handler = call.entry.unary
        assert handler is not None
        try:
            handler(call, message)
        except Exception:  # A handler's bug ends its call, not the connection.
            log.exception("call_failed", path=call.path)
            call.fail(UNKNOWN, "the handler failed")

    def _uncount(self, call: ServerCall) -> None:
        """Forget what has come of a request in part."""
        if call.counted_bytes:
            self.owner.upload_bytes -= call.counted_bytes
            call.drop()

    def _stream_closed(self, stream_id: int) -> None:
        call = self.calls.pop(stream_id, None)
        if call is None:
            return
        self.owner.calls_open -= 1
        self._uncount(call)
        if not call.closed:
            self._count(ok=False)
            call.gone()
        call.release()
        if self._said_last and not self.calls:
            self._loop.call_soon(self._close_if_done)

    def _other(self, kind: type, event: Any) -> None:
        if kind is ngh2.TrailersReceived:
            # A client that ends its request with trailers; what they say is nothing to gRPC.
            call = self.calls.get(event.stream_id)
            if call is not None and not call.closed:
                self._take(call, b"", ended=True)
        elif kind is ngh2.WindowUpdated:
            if event.increment < TINY_UPDATE_BYTES:
                self.spend()
            else:
                self.took = True
        elif kind is ngh2.SettingsReceived:
            self.greeted = True
            self.spend()
        elif kind is ngh2.PingReceived:
            self.spend()
        elif kind is ngh2.PingAcknowledged:
            if event.opaque_data == DRAIN_PING:
                # Calls that came in the same read count as taken, and are still to begin.
                self._loop.call_soon(self._say_last)
        elif kind is ngh2.ConnectionClosed:
            self._loop.call_soon(self.hang_up)

    def _reject(self, event: Any, code: int, message: str, trailers: Metadata = ()) -> None:
        """End a call that never began, with a gRPC status alone."""
        self._reject_http(event, (*OK_HEADERS, *status_trailers(code, message, trailers)))

    def _reject_http(self, event: Any, pairs: Sequence[Pair], body: bytes = b"") -> None:
        self.counters.started += 1
        self.owner.counters.calls.started += 1
        self._count(ok=False)
        try:
            self.h2.send_response(event.stream_id, pairs, end_stream=not body)
            if body:
                self.h2.send_data(event.stream_id, body, end_stream=True)
        except TOO_LATE:
            return
        if not event.end_stream:
            self._unwanted.append(event.stream_id)

    def _count(self, ok: bool) -> None:
        if ok:
            self.counters.succeeded += 1
            self.owner.counters.calls.succeeded += 1
        else:
            self.counters.failed += 1
            self.owner.counters.calls.failed += 1

    def _expire(self, call: ServerCall) -> None:
        call.expire(DEADLINE_EXCEEDED, "the deadline has passed")

    def _say_last(self) -> None:
        if self._said_last or self.ending:
            return
        self._said_last = True
        try:
            self.h2.send_goaway()
        except ngh2.NGH2Error:
            # It is ending already.
            return
        self.flush()
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self.calls or self.transport is None or self.ending:
            return
        self.flush()
        self.hang_up()

    def _cut_if_open(self) -> None:
        if not self.ending:
            self.cut_calls()

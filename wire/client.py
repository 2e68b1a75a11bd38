"""A connection on the calling end: unary calls, many at once, each answered by a callback.

Rules
-----
* Every call that was started is answered exactly once, at the latest when the connection is gone:
  then with UNAVAILABLE, and nothing is known of what was done.
* Calls leave in the order in which they were started, and what is started in one turn of the loop
  leaves in one write.
* A closed connection is known at once (`closed`); a silent one within the keepalive's times.
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Self

import ngh2
import structlog
from ngh2 import ErrorCode, Setting

from wire.call import CANCELLED, INTERNAL, RESOURCE_EXHAUSTED, UNAVAILABLE, UNIMPLEMENTED, UNKNOWN
from wire.endpoint import KEEPALIVE_PING, Endpoint
from wire.framing import ENCODINGS, BadFraming, Decoder, frame
from wire.headers import (
    Metadata,
    Pair,
    decode_message,
    encode_metadata,
    format_timeout,
    header_of,
)
from wire.limits import WireLimits, passed
from wire.log_gate import LogGate

log = structlog.get_logger()

Done = Callable[[int, bytes, str], None]
LOOK_EVERY_S = 0.5
CONNECT_TIMEOUT_S = 5.0
_OF_RESET = {
    ErrorCode.REFUSED_STREAM: UNAVAILABLE,
    ErrorCode.CANCEL: CANCELLED,
    ErrorCode.ENHANCE_YOUR_CALM: RESOURCE_EXHAUSTED,
}


class WireError(Exception):
    """A call ended with a status that is not OK."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"gRPC code {code}: {message}")
        self.code = code
        self.message = message


class _Call:
    __slots__ = ("code", "decoder", "detail", "done", "messages")

    def __init__(self, done: Done, limit: int) -> None:
        self.done = done
        self.decoder = Decoder(limit)
        self.messages: list[bytes] = []
        self.code = -1
        self.detail = ""


class WireClient(Endpoint):
    """One connection to a server. Make it with `connect_tcp` or `connect_unix`."""

    def __init__(self, authority: str, limits: WireLimits, scheme: bytes) -> None:
        super().__init__(ngh2.Role.CLIENT, limits, LogGate())
        self.gone: asyncio.Future[None] = self._loop.create_future()
        """Done as soon as the connection is over."""
        self._calls: dict[int, _Call] = {}
        self._heads: dict[str, list[Pair]] = {}
        self._authority = authority.encode()
        self._scheme = scheme
        self._refusing = ""
        self.refused_alpn = False
        """The server speaks TLS, and not HTTP/2 in it."""
        self._asked_at = 0.0
        self._heard_at = self._loop.time()
        self._looking: asyncio.TimerHandle | None = None

    @classmethod
    async def connect_tcp(
        cls,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
        limits: WireLimits | None = None,
    ) -> Self:
        """OSError if nobody is there within `CONNECT_TIMEOUT_S`, or TLS fails."""
        loop = asyncio.get_running_loop()
        scheme = b"http" if tls is None else b"https"
        name = None if tls is None else server_name or host
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, made = await loop.create_connection(
                lambda: cls(f"{host}:{port}", limits or WireLimits(), scheme),
                host,
                port,
                ssl=tls,
                server_hostname=name,
            )
        if made.refused_alpn:
            raise ConnectionRefusedError(f"{host}:{port} did not agree on h2 by ALPN")
        return made

    @classmethod
    async def connect_unix(cls, path: str, *, limits: WireLimits | None = None) -> Self:
        """OSError if nobody listens there."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, made = await loop.create_unix_connection(
                lambda: cls("localhost", limits or WireLimits(), b"http"), path
            )
        return made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See Endpoint. TLS without ALPN h2 is not for us."""
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self.refused_alpn = True
            transport.close()
            return
        self._looking = self._loop.call_later(LOOK_EVERY_S, self._look)
        super().connection_made(transport)

    def settings(self) -> dict[Setting, int]:
        """See Endpoint."""
        return super().settings() | {Setting.ENABLE_PUSH: 0}

    @property
    def in_flight(self) -> int:
        """Calls that are not answered."""
        return len(self._calls)

    def start(
        self,
        path: str,
        message: bytes,
        done: Done,
        *,
        timeout_ms: int | None = None,
        metadata: Metadata = (),
    ) -> int:
        """Begin a call; answers its stream's number, 0 if it could not begin. `done(code, message,
        detail)` is called once: now if it could not begin, else on the loop."""
        if self.ending or self._refusing or not self.h2.can_send_request:
            done(UNAVAILABLE, b"", self._refusing or "the connection is over")
            return 0
        if len(self._calls) >= self.limits.streams_max:
            done(RESOURCE_EXHAUSTED, b"", f"{self.limits.streams_max} calls are in flight")
            return 0
        head = self._head(path)
        if timeout_ms is not None or metadata:
            head = [*head, *encode_metadata(metadata)]
            if timeout_ms is not None:
                head.append((b"grpc-timeout", format_timeout(timeout_ms)))
        try:
            stream_id = self.h2.send_request(head)
            self.h2.send_data(stream_id, frame(message), end_stream=True)
        except ngh2.NGH2Error as error:
            done(UNAVAILABLE, b"", str(error))
            return 0
        self._calls[stream_id] = _Call(done, self.limits.message_bytes_max)
        self.flush_soon()
        return stream_id

    async def call(
        self,
        path: str,
        message: bytes,
        *,
        timeout_ms: int | None = None,
        metadata: Metadata = (),
    ) -> bytes:
        """The answer of a call. WireError. Cancelling it resets the call."""
        answer: asyncio.Future[bytes] = self._loop.create_future()

        def done(code: int, body: bytes, detail: str) -> None:
            if answer.done():
                return
            if code:
                answer.set_exception(WireError(code, detail))
            else:
                answer.set_result(body)

        stream_id = self.start(path, message, done, timeout_ms=timeout_ms, metadata=metadata)
        try:
            return await answer
        except asyncio.CancelledError:
            self.cancel(stream_id)
            raise

    def cancel(self, stream_id: int) -> None:
        """Reset a call; its `done` says CANCELLED, unless it was answered already."""
        call = self._calls.pop(stream_id, None)
        if call is None or self.closed:
            return
        self.reset(stream_id, ErrorCode.CANCEL)
        self.flush_soon()
        _answer(call.done, CANCELLED, b"", "cancelled")

    def on_events(self, events: Sequence[Any]) -> None:
        """See Endpoint."""
        for event in events:
            kind = type(event)
            if kind is ngh2.DataReceived:
                self._data(event)
            elif kind is ngh2.ResponseReceived:
                self._response(event)
            elif kind is ngh2.TrailersReceived:
                self._status(event.stream_id, event.headers)
            elif kind is ngh2.StreamClosed:
                self._stream_closed(event)
            elif kind is ngh2.SettingsReceived:
                self.greeted = True
            elif kind is ngh2.GoAwayReceived:
                self._refusing = "the server is going away"
            elif kind is ngh2.ConnectionClosed:
                self._loop.call_soon(self.close)

    def on_gone(self, error: Exception | None) -> None:
        """See Endpoint."""
        if self._looking is not None:
            self._looking.cancel()
        if not self.gone.done():
            self.gone.set_result(None)
        self.let_go()

    def let_go(self) -> None:
        """See Endpoint."""
        calls, self._calls = self._calls, {}
        for call in calls.values():
            _answer(call.done, UNAVAILABLE, b"", "the connection is lost")

    def on_room(self) -> None:
        """See Endpoint. Nobody waits to send here."""

    def hang_up(self) -> None:
        """See Endpoint. Who waits for `gone` is to know at once; nothing here must still arrive."""
        self.flush()
        self.close()

    def _head(self, path: str) -> list[Pair]:
        head = self._heads.get(path)
        if head is None:
            head = self._heads[path] = [
                (b":method", b"POST"),
                (b":scheme", self._scheme),
                (b":path", path.encode()),
                (b":authority", self._authority),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
                (b"grpc-accept-encoding", b"identity,gzip"),
            ]
        return head

    def _response(self, event: Any) -> None:
        call = self._calls.get(event.stream_id)
        if call is None:
            return
        status = header_of(event.headers, b":status") or b""
        if status != b"200":
            self._give_up(event.stream_id, UNKNOWN, f"HTTP status {status.decode('latin-1')}")
            return
        coding = (header_of(event.headers, b"grpc-encoding") or b"identity").decode("latin-1")
        if coding not in ENCODINGS:
            self._give_up(event.stream_id, UNIMPLEMENTED, f"grpc-encoding {coding[:20]!r}")
            return
        if coding != ENCODINGS[0]:
            call.decoder = Decoder(self.limits.message_bytes_max, coding)
        if event.end_stream:
            self._status(event.stream_id, event.headers)

    def _data(self, event: Any) -> None:
        data: bytes = event.data
        self.acknowledge(len(data), event.stream_id)
        call = self._calls.get(event.stream_id)
        if call is None:
            return
        try:
            call.messages += call.decoder.feed(data)
            if len(call.messages) > 1:
                raise BadFraming(INTERNAL, "a unary answer of several messages")
        except BadFraming as error:
            self._give_up(event.stream_id, error.code, str(error))

    def _give_up(self, stream_id: int, code: int, detail: str) -> None:
        """End a call whose answer cannot be read, whatever of it is still to come."""
        call = self._calls.pop(stream_id)
        self.reset(stream_id, ErrorCode.CANCEL)
        _answer(call.done, code, b"", detail)

    def _status(self, stream_id: int, headers: tuple[Pair, ...]) -> None:
        call = self._calls.get(stream_id)
        if call is None or call.code >= 0:
            return
        status = header_of(headers, b"grpc-status")
        if status is None or not status.isdigit():
            call.code, call.detail = UNKNOWN, "an answer without a grpc-status"
            return
        call.code = int(status)
        call.detail = decode_message(header_of(headers, b"grpc-message") or b"")

    def _stream_closed(self, event: Any) -> None:
        call = self._calls.pop(event.stream_id, None)
        if call is None:
            return
        if call.code < 0:
            code = _OF_RESET.get(event.error_code, INTERNAL)
            detail = f"the call was reset with HTTP/2 code {event.error_code}"
            _answer(call.done, code, b"", detail)
        elif call.code == 0 and not call.messages:
            _answer(call.done, INTERNAL, b"", "status OK without a message")
        else:
            body = call.messages[0] if call.messages else b""
            _answer(call.done, call.code, body, call.detail)

    def _look(self) -> None:
        """Ask a silent peer whether it is there, and give up if it does not say."""
        self._looking = self._loop.call_later(LOOK_EVERY_S, self._look)
        now = self._loop.time()
        if self.heard:
            self.heard, self._heard_at = False, now
        if self.ending:
            return
        if self._asked_at > self._heard_at:
            if passed(now, self._asked_at, self.limits.keepalive_timeout_ms):
                self.abort()
        elif passed(now, self._heard_at, self.limits.keepalive_ms):
            self._asked_at = now
            self.ping(KEEPALIVE_PING)


def _answer(done: Done, code: int, message: bytes, detail: str) -> None:
    """Answer one caller; what it makes of it is not the others' affair."""
    try:
        done(code, message, detail)
    except Exception:  # A caller's bug ends neither the connection nor other calls.
        log.exception("answer_failed", code=code)

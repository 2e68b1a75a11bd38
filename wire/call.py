"""One call as its handler sees it, on the serving end.

Rules
-----
* A unary handler gets the whole request and answers with `reply` or `fail`, once, whenever it can.
  A streaming handler runs in a task: `read`, `send`, and at the end `finish` or `fail`.
* A call that is gone (reset, cut off, past its deadline) is told once through `on_cancel`; what its
  handler says afterwards is dropped.
* `send` waits while the caller does not take what was sent, so a stream that nobody reads holds
  `stream_backlog_bytes` and one message. While the handler has messages that it has not read, the
  caller's window stays closed.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import ngh2
import structlog

from wire.framing import (
    GZIP,
    BadFraming,
    Decoder,
    MessageTooLarge,
    Packed,
    frame,
    frame_gzip,
    unpack,
)
from wire.headers import (
    GZIP_HEADER,
    OK_HEADERS,
    OK_TRAILERS,
    Metadata,
    Pair,
    accepts_gzip,
    encode_metadata,
    header_of,
    metadata_value,
    status_trailers,
)
from wire.limits import WireLimits

CANCELLED, UNKNOWN, DEADLINE_EXCEEDED = 1, 2, 4
RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 8, 12, 13, 14

log = structlog.get_logger()

SMALL_ANSWER_BYTES = 16 * 1024
"""An answer up to this size is taken however many wait: `streams_max` bounds them."""
TOO_LATE = (ngh2.StreamProtocolError, ngh2.ConnectionStateError, ngh2.ConnectionClosingError)
"""What nghttp2 says to words for a stream that was reset, or a connection that ended, in this same
turn; the event is on the way."""

_NOT_METADATA = frozenset(
    {b"content-type", b"te", b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding"}
)


class CallGone(Exception):
    """The caller is gone or the call has ended; nothing more can be read or sent."""


class Carrier(Protocol):
    """The connection of a call, as far as a call needs it."""

    h2: ngh2.Connection
    limits: WireLimits
    peer: str
    identity: str

    def flush_soon(self) -> None:
        """What was said leaves this turn."""

    def answered(self, call: "ServerCall", ok: bool) -> None:
        """The call's last word was said. What its caller still sends is for nobody."""

    def waiting_bytes(self) -> int:
        """Of answers that the peer has not taken."""

    def wants_room(self, call: "ServerCall") -> None:
        """Call `call.room()` when something was taken."""


Stream = Callable[["ServerCall"], Coroutine[Any, Any, None]]
"""What serves a call that is not unary."""


@dataclass(frozen=True, slots=True)
class MethodEntry:
    """What serves a path: exactly one of the two."""

    unary: Callable[["ServerCall", bytes], None] | None = None
    """Called on the loop with the whole request; must not wait."""
    stream: Stream | None = None
    """Runs in a task of the call's own, which is cancelled when the call is gone."""
    keeps_deadline: bool = False
    """The handler answers by the deadline itself, and no timer is set for it."""


class ServerCall:
    """One call that a peer made."""

    __slots__ = (
        "_carrier",
        "_decoder",
        "_ended",
        "_gzip",
        "_headers",
        "_messages",
        "_readable",
        "_roomy",
        "_started",
        "_unacknowledged",
        "closed",
        "compress",
        "counted_bytes",
        "entry",
        "idle_looks",
        "initial_metadata",
        "looks",
        "on_cancel",
        "path",
        "request",
        "sent_gzip",
        "stream_id",
        "task",
        "timeout_s",
        "timer",
    )

    def __init__(
        self,
        *,
        carrier: Carrier,
        stream_id: int,
        path: str,
        entry: MethodEntry,
        headers: tuple[Pair, ...],
        timeout_s: float | None,
        encoding: str,
    ) -> None:
        self.stream_id = stream_id
        self.path = path
        self.entry = entry
        self.timeout_s = timeout_s
        """What the caller's `grpc-timeout` said; None without one."""
        self.sent_gzip = encoding == GZIP
        """Whether the caller said that its own messages are compressed."""
        self.closed = False
        """The last word was said, or the caller is gone."""
        self.compress = False
        """Messages go compressed if the caller takes gzip. Set before the first one."""
        self.initial_metadata: Metadata = ()
        """Sent before the first message. Set before it."""
        self.on_cancel: Callable[[], None] | None = None
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.request: bytes | None = None
        """The connection's: a unary call's message, until its stream has ended."""
        self.counted_bytes = 0
        """The connection's: of a request in part, as its listener has counted them."""
        self.looks = self.idle_looks = 0
        self._carrier = carrier
        self._headers = headers
        lazy = entry.stream is not None
        self._decoder = Decoder(carrier.limits.message_bytes_max, encoding, lazy=lazy)
        self._messages: deque[bytes] = deque()
        self._readable: asyncio.Future[None] | None = None
        self._roomy: asyncio.Future[None] | None = None
        self._unacknowledged = 0
        self._started = False
        self._gzip = False
        """The headers said so: only then may a message go compressed."""
        self._ended = False

    @property
    def peer(self) -> str:
        """As gRPC names it, for example "ipv4:127.0.0.1:5000"."""
        return self._carrier.peer

    @property
    def identity(self) -> str:
        """Who the peer's certificate says it is; '' without one."""
        return self._carrier.identity

    @property
    def metadata(self) -> Mapping[str, str | bytes]:
        """What the caller sent along; of a repeated key the last. BadHeader for bad base64."""
        found: dict[str, str | bytes] = {}
        for name, value in self._headers:
            if name[0] != 0x3A and name not in _NOT_METADATA:
                key = name.decode("latin-1")
                found[key] = metadata_value(key, value)
        return found

    @property
    def takes_gzip(self) -> bool:
        """Whether the caller takes compressed messages."""
        return accepts_gzip(header_of(self._headers, b"grpc-accept-encoding") or b"")

    @property
    def request_ended(self) -> bool:
        """The caller has sent all it will."""
        return self._ended

    @property
    def pending_bytes(self) -> int:
        """Of a request, or a stream's message, that has not come whole."""
        request = self.request
        return self._decoder.pending + (len(request) if request else 0)

    def reply(self, message: bytes, *, trailers: Metadata = (), compress: bool = False) -> None:
        """The answer of a unary call, with status OK. Dropped if the call is gone."""
        if self.closed:
            return
        carrier, stream_id = self._carrier, self.stream_id
        h2 = carrier.h2
        size = len(message)
        large = size > SMALL_ANSWER_BYTES or size > carrier.limits.message_bytes_max
        if large and not self._may_send(size):
            return
        pairs = OK_TRAILERS if not trailers else status_trailers(0, "", trailers)
        try:
            if compress or self.initial_metadata:
                self._start(compress)
            elif not self._started:
                h2.send_response(stream_id, OK_HEADERS)
            zipped = compress and self._gzip
            h2.send_data(stream_id, frame_gzip(message) if zipped else frame(message))
            h2.send_trailers(stream_id, pairs)
        except TOO_LATE:
            return
        self._last_word(ok=True)

    def fail(self, code: int, message: str, trailers: Metadata = ()) -> None:
        """End the call with an error status. Dropped if the call is gone."""
        if self.closed:
            return
        h2, stream_id = self._carrier.h2, self.stream_id
        pairs = status_trailers(code, message, trailers)
        try:
            if self.initial_metadata and not self._started:
                # In one block with the status it would be taken for trailing metadata.
                self._start(compress=False)
            if self._started:
                h2.send_trailers(stream_id, pairs)
            else:
                h2.send_response(stream_id, [*OK_HEADERS, *pairs], end_stream=True)
        except TOO_LATE:
            return
        self._last_word(ok=False)

    def finish(self, trailers: Metadata = ()) -> None:
        """End a stream with status OK. Dropped if the call is gone."""
        if self.closed:
            return
        try:
            if not self._started:
                self._start(self.compress)
            pairs = OK_TRAILERS if not trailers else status_trailers(0, "", trailers)
            self._carrier.h2.send_trailers(self.stream_id, pairs)
        except TOO_LATE:
            return
        self._last_word(ok=True)

    def start(self) -> None:
        """Send the headers now, before there is a first message."""
        if self.closed or self._started:
            return
        try:
            self._start(self.compress)
        except ngh2.NGH2Error:
            return
        self._carrier.flush_soon()

    async def read(self) -> bytes | None:
        """The next message of a stream; None when the caller has sent all. CallGone."""
        while not self._messages:
            if self.closed:
                raise CallGone
            if self._ended:
                return None
            self._readable = asyncio.get_running_loop().create_future()
            await self._readable
        message = self._messages.popleft()
        if not self._messages:
            self._acknowledge()
        if type(message) is Packed:
            try:
                return unpack(message, self._carrier.limits.message_bytes_max)
            except BadFraming as error:
                self.fail(error.code, str(error))
                raise CallGone from error
        return message

    async def send(self, message: bytes, *, compress: bool | None = None) -> None:
        """A message of a stream. Waits while the caller does not take what was sent before.
        CallGone when it is gone. `compress` None means as `self.compress` says; a stream that did
        not begin with `self.compress` stays uncompressed."""
        if self.closed:
            raise CallGone
        carrier, size = self._carrier, len(message)
        if size > carrier.limits.message_bytes_max:
            self._refuse_to_send(size)
            raise CallGone
        while size > SMALL_ANSWER_BYTES and self._would_overfill(size):
            await self._wait_for_room()
        try:
            if not self._started:
                self._start(self.compress)
            zipped = (self.compress if compress is None else compress) and self._gzip
            carrier.h2.send_data(self.stream_id, frame_gzip(message) if zipped else frame(message))
        except TOO_LATE:
            raise CallGone from None
        carrier.flush_soon()
        while self._overfull():
            await self._wait_for_room()

    def feed(self, data: bytes, ended: bool) -> list[bytes]:
        """The connection's: bytes came. Answers the messages that are whole now. BadFraming."""
        self.idle_looks = 0
        messages = self._decoder.feed(data) if data else []
        if messages and self.entry.unary is not None:
            if self.request is not None or len(messages) > 1:
                raise BadFraming(UNIMPLEMENTED, "a unary call has one message, and more came")
            self.request = messages[0]
        if ended:
            self._ended = True
            if self._decoder.pending:
                raise BadFraming(INTERNAL, "the request ends in the middle of a message")
        return messages

    def end_request(self) -> None:
        """The connection's: the caller of a call that is over has sent its last."""
        self._ended = True

    def drop(self) -> None:
        """The connection's: forget what has come in part."""
        self._decoder = Decoder(0)
        self.request = None
        self.counted_bytes = 0

    def queue(self, messages: list[bytes], size: int) -> None:
        """The connection's: messages for `read`, of a frame of `size` bytes."""
        self._messages.extend(messages)
        self._unacknowledged += size
        if not self._messages:
            self._acknowledge()
        self.wake()

    def wake(self) -> None:
        """The connection's: let `read` look again."""
        readable = self._readable
        if readable is not None and not readable.done():
            readable.set_result(None)

    def room(self) -> None:
        """The connection's: let `send` look again."""
        if self._roomy is not None and not self._roomy.done():
            self._roomy.set_result(None)

    def gone(self) -> None:
        """The connection's: the caller is not there any more. Tells the handler, once."""
        if self.closed:
            return
        self.closed = True
        self._let_go()
        self._tell()

    def expire(self, code: int, message: str) -> None:
        """The connection's: no more of this call, by deadline or limit. The caller gets the status,
        the handler is told."""
        if not self.closed:
            self.fail(code, message)
            self._tell()

    def release(self) -> None:
        """The connection's: the stream is over; what was not read is dropped."""
        self._messages.clear()
        self._acknowledge()
        # It may lead back to this call: a circle that only the garbage collector would find.
        self.on_cancel = None

    def _start(self, compress: bool) -> None:
        head = OK_HEADERS
        if self.initial_metadata or compress:
            self._gzip = compress and self.takes_gzip
            extra = encode_metadata(self.initial_metadata)
            head = (*head, *extra, *((GZIP_HEADER,) if self._gzip else ()))
        self._carrier.h2.send_response(self.stream_id, head)
        self._started = True

    def _acknowledge(self) -> None:
        if self._unacknowledged:
            size, self._unacknowledged = self._unacknowledged, 0
            with contextlib.suppress(*TOO_LATE):
                self._carrier.h2.acknowledge_received_data(size, self.stream_id)
            self._carrier.flush_soon()

    def _may_send(self, size: int) -> bool:
        """Whether a large answer can be sent. If not the call ends with RESOURCE_EXHAUSTED."""
        if size > self._carrier.limits.message_bytes_max:
            self._refuse_to_send(size)
            return False
        if self._would_overfill(size):
            self.fail(RESOURCE_EXHAUSTED, "too many answers wait to be taken")
            return False
        return True

    def _overfull(self) -> bool:
        try:
            waiting = self._carrier.h2.queued_body_size(self.stream_id)
        except ngh2.NGH2Error:
            return True
        return waiting > self._carrier.limits.stream_backlog_bytes

    def _would_overfill(self, size: int) -> bool:
        waiting = self._carrier.waiting_bytes()
        return waiting > 0 and waiting + size > self._carrier.limits.outbound_bytes_max

    async def _wait_for_room(self) -> None:
        self._roomy = asyncio.get_running_loop().create_future()
        self._carrier.wants_room(self)
        await self._roomy
        if self.closed:
            raise CallGone

    def _refuse_to_send(self, size: int) -> None:
        limit = self._carrier.limits.message_bytes_max
        self.fail(RESOURCE_EXHAUSTED, str(MessageTooLarge(size, limit, "a sent")))

    def _tell(self) -> None:
        self.wake()
        self.room()
        if self.task is not None:
            self.task.cancel()
        on_cancel, self.on_cancel = self.on_cancel, None
        if on_cancel is not None:
            try:
                on_cancel()
            except Exception:  # A handler's bug is not its connection's.
                log.exception("call_failed", path=self.path)

    def _last_word(self, ok: bool) -> None:
        self.closed = True
        self._let_go()
        self._carrier.answered(self, ok)
        self._carrier.flush_soon()

    def _let_go(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

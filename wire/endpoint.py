"""One end of one HTTP/2 connection: nghttp2 between a transport and what its role does with events.

How it works
------------
Bytes go into nghttp2, events come out, what nghttp2 has to say goes to the transport: once at the
end of each read, and once per turn of the loop for what was said in between, so that the answers
to a whole round of calls leave in one write.

Rules
-----
* The transport's buffer is bounded: while it is full, nothing more is taken from nghttp2, and only
  `write_buffer_bytes` more are read from the peer: most frames make nghttp2 say something, which it
  would have to keep.
* Frames that carry nothing are counted; a peer that chatters is told GOAWAY and closed.
* Whatever nghttp2 refuses ends this connection and nothing else. While it ends a connection it
  refuses everything: what is said then is for nobody, and no error.
* A connection that is over leaves no timer behind, so that it is forgotten at once.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, cast

import ngh2
import structlog
from ngh2 import ErrorCode, Setting

from wire.limits import WINDOW_MAX_BYTES, WireLimits
from wire.log_gate import LogGate

log = structlog.get_logger()

CHATTER_A_CALL = 4
"""Frames that carry nothing, allowed for each call beside those allowed for time."""
TINY_UPDATE_BYTES = 256
HARD_HEADERS = 4
"""A block of headers this many times the limit costs its peer the connection."""
LINGER_S = 1.0
"""A connection that has said its last word waits this long for its peer to close."""
KEEPALIVE_PING = b"stillup?"


class Endpoint(asyncio.Protocol):
    """What both roles share. A role implements the methods that begin with `on_`, and
    `let_go`."""

    reads_while_full_bytes = WINDOW_MAX_BYTES
    """What is still read while the peer takes nothing."""

    def __init__(self, role: ngh2.Role, limits: WireLimits, log_gate: LogGate) -> None:
        self.limits = limits
        self.log_gate = log_gate
        self.h2 = ngh2.Connection(role, _configuration(limits))
        self.closed = False
        self.peer = ""
        self.transport: asyncio.Transport | None = None
        self.greeted = False
        """The peer's first SETTINGS have come."""
        self.heard = True
        """Something has come since the last look."""
        self.took = False
        """The peer has made room for more since the last look."""
        self.was_cut_off = False
        """It broke a rule or a limit."""
        self._loop = asyncio.get_running_loop()
        self._reading = False
        self._flush_due = False
        self._write_paused = False
        self._read_paused = False
        self._closing = False
        self._hung_up = False
        self._chatter_left = limits.chatter_burst
        self._read_while_full = 0
        self._timers: list[asyncio.TimerHandle] = []

    def settings(self) -> dict[Setting, int]:
        """The settings this end begins with."""
        return {
            Setting.MAX_CONCURRENT_STREAMS: self.limits.streams_max,
            Setting.INITIAL_WINDOW_SIZE: self.limits.stream_window_bytes,
            Setting.MAX_HEADER_LIST_SIZE: self.limits.header_bytes_max,
            Setting.NO_RFC7540_PRIORITIES: 1,
        }

    def on_events(self, events: Sequence[Any]) -> None:
        """Events of the role. May say things to `h2`; they are flushed afterwards."""
        raise NotImplementedError

    def let_go(self) -> None:
        """Nothing is said or heard any more: whoever waits on this connection is told."""
        raise NotImplementedError

    def on_gone(self, error: Exception | None) -> None:
        """The connection is over; called once, when `let_go` may have been called or not."""
        raise NotImplementedError

    def on_room(self) -> None:
        """Something was taken from nghttp2: who waited to send may look again."""
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        # uvloop's transports are no subclasses of asyncio's.
        self.transport = transport = cast(asyncio.Transport, transport)
        self.peer = peer_name(transport)
        transport.set_write_buffer_limits(high=self.limits.write_buffer_bytes)
        self.h2.initiate_connection(self.settings())
        self.h2.set_local_window_size(self.limits.connection_window_bytes)
        self.flush()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self.closed or self._hung_up:
            return
        self.heard = True
        self._reading = True
        if self._write_paused:
            self._read_while_full += len(data)
        try:
            self.h2.receive_data(data)
            self._take_events()
        except ngh2.ConnectionStateError:
            # It has come to its end, in good order or not, and the peer does not know yet.
            self.hang_up()
            return
        except ngh2.NGH2Error as error:
            self._refused(error)
            return
        finally:
            self._reading = False
        self.flush()

    def eof_received(self) -> bool:
        """See asyncio.Protocol. Half-open connections are no use to anybody here."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self.transport = None
        if not self.closed:
            self.closed = True
            self.on_gone(error)

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._write_paused = False
        self._read_while_full = 0
        self.took = True
        self.flush()

    def flush_soon(self) -> None:
        """What was said to `h2` leaves at the end of this turn of the loop, in one write."""
        if not self._flush_due and not self._reading:
            self._flush_due = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Hand to the transport what nghttp2 may send, as long as there is room for it."""
        self._flush_due = False
        transport = self.transport
        if transport is None or self.closed or self._hung_up or transport.is_closing():
            return
        h2, most = self.h2, self.limits.write_buffer_bytes
        try:
            while not self._write_paused:
                out = h2.data_to_send(most)
                if out:
                    transport.write(out)
                self._take_events()
                if len(out) < most:
                    break
            self.on_room()
        except ngh2.NGH2Error as error:
            self._refused(error)
            return
        self._hold_back()

    def abort(self) -> None:
        """End now; what is in flight is lost."""
        if self.transport is not None:
            self.transport.abort()

    def terminate(self, code: ErrorCode, reason: str) -> None:
        """Say GOAWAY with a code, and close once it is out."""
        if self.closed or self._closing:
            return
        self._closing = self.was_cut_off = True
        if self.log_gate.allow():
            log.warning(
                "connection_ended",
                peer=self.peer,
                code=code.name,
                reason=reason,
                withheld=self.log_gate.withheld,
            )
        try:
            self.h2.send_goaway(code, debug_data=reason.encode()[:64])
            out = self.h2.data_to_send(self.limits.write_buffer_bytes)
        except ngh2.NGH2Error as error:
            self._refused(error)
            return
        if self.transport is not None:
            self.transport.write(out)
        self.close()

    def close(self) -> None:
        """Close once what was handed to the transport is out; a peer that does not take it is not
        waited for."""
        transport = self.transport
        if transport is not None and not self.closed:
            self._closing = True
            transport.close()
            self.later(self.limits.keepalive_timeout_ms / 1000, self._end_if_open)

    def hang_up(self) -> None:
        """Close after a last word. A socket that is closed with something unread in it is reset,
        and its peer may lose what it has not read: so let the peer close, for a moment."""
        self.flush()
        transport = self.transport
        if transport is None or self.ending or transport.is_closing():
            return
        self._hung_up = True
        self.let_go()
        if transport.can_write_eof():
            transport.write_eof()
        self.later(LINGER_S, self.close)

    def later(self, delay_s: float, act: Callable[[], None]) -> None:
        """Call `act` once, unless the connection is over by then."""
        self._timers.append(self._loop.call_later(delay_s, act))

    def spend(self) -> None:
        """Count one frame that carries nothing."""
        self._chatter_left -= 1
        if self._chatter_left == 0:
            self.terminate(ErrorCode.ENHANCE_YOUR_CALM, "too_many_pings")

    def earn(self) -> None:
        """A call came: its peer may chatter about it. grpc's own clients send a PING and window
        updates with every few calls, thousands a second when they are busy."""
        if 0 < self._chatter_left < self.limits.chatter_burst:
            self._chatter_left += CHATTER_A_CALL

    def refill(self, seconds: float) -> None:
        """Time has passed for the count of `spend`."""
        limits = self.limits
        if self._chatter_left > 0:
            more = self._chatter_left + int(limits.chatter_per_s * seconds)
            self._chatter_left = min(limits.chatter_burst, more)

    @property
    def ending(self) -> bool:
        """No call begins here any more."""
        return self.closed or self._closing or self._hung_up

    def acknowledge(self, size: int, stream_id: int) -> None:
        """Data was taken: its sender may send as much again."""
        if size:
            try:
                self.h2.acknowledge_received_data(size, stream_id)
            except ngh2.NGH2Error:
                return

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """End a stream, if it has not ended."""
        try:
            self.h2.reset_stream(stream_id, code)
        except ngh2.NGH2Error:
            return

    def ping(self, data: bytes) -> None:
        """Ask the peer, now."""
        try:
            self.h2.ping(data)
        except ngh2.NGH2Error:
            return
        self.flush()

    def waiting_bytes(self) -> int:
        """Of bodies that the peer has not taken."""
        try:
            return self.h2.queued_body_size()
        except ngh2.NGH2Error:
            return 0

    @property
    def stuck(self) -> bool:
        """The peer takes nothing though something waits for it."""
        return self._write_paused or self.waiting_bytes() > 0

    def _take_events(self) -> None:
        events = self.h2.events()
        if events:
            self.on_events(events)

    def _hold_back(self) -> None:
        """Read no more calls from a peer that does not take its answers."""
        transport, most = self.transport, self.limits.outbound_bytes_max
        if transport is None or transport.is_closing():
            return
        # A closed flow-control window opens only by reading on: only a full socket stops that.
        # A caller's end reads on for longer, lest two full ends wait for each other.
        full = self._read_while_full > self.reads_while_full_bytes
        if self._write_paused and (full or self.waiting_bytes() > most):
            if not self._read_paused:
                self._read_paused = True
                transport.pause_reading()
        elif self._read_paused:
            self._read_paused = False
            transport.resume_reading()

    def _refused(self, error: ngh2.NGH2Error) -> None:
        """nghttp2 cannot go on with this connection. Its last words, if it has any, say why."""
        if not self._closing and self.log_gate.allow():
            log.warning(
                "connection_refused",
                peer=self.peer,
                reason=str(error),
                withheld=self.log_gate.withheld,
            )
        self.was_cut_off = True
        out = b""
        with contextlib.suppress(ngh2.NGH2Error):
            out = self.h2.data_to_send(self.limits.write_buffer_bytes)
        if out and self.transport is not None:
            self.transport.write(out)
            self.hang_up()
        else:
            self._closing = True
            self.abort()

    def _end_if_open(self) -> None:
        if not self.closed:
            self.abort()


def peer_name(transport: asyncio.Transport) -> str:
    """As gRPC names peers: "ipv4:127.0.0.1:5000", "ipv6:[::1]:5000", "unix:"."""
    address = transport.get_extra_info("peername")
    if not isinstance(address, tuple):
        return "unix:"
    host, port = address[0], address[1]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"


def _configuration(limits: WireLimits) -> ngh2.Configuration:
    return ngh2.Configuration(
        auto_window_update=False,
        stream_reset_rate_limit=(limits.resets_burst, limits.resets_per_s),
        # Beyond these nghttp2 ends the connection; up to them only the call is refused.
        max_inbound_header_list_size=HARD_HEADERS * limits.header_bytes_max,
        max_inbound_header_count=HARD_HEADERS * limits.header_count_max,
        max_continuations=8,
    )

"""One connection of the load generator: so many unary calls in flight, each answer makes the next.

Rules
-----
* Sans-I/O: `ngh2` in its client role, driven by an asyncio protocol. No task, future or message
  object per call: the answers of one read make their successors, and all leave in one write.
* Nothing is hidden: a reset stream, a missing status, a lost connection and an answer that never
  came are each counted under a gRPC code, as a gRPC client would report them.
* A call that was in flight when its connection went is UNAVAILABLE and not sent again: another
  request takes its place, on a new connection.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from hdrh.histogram import HdrHistogram
from ngh2 import (
    Configuration,
    Connection,
    DataReceived,
    GoAwayReceived,
    Header,
    NGH2Error,
    ResponseReceived,
    Role,
    Setting,
    StreamClosed,
    StreamReset,
    TrailersReceived,
)

from server.load_calls import Calls

OK, CANCELLED, UNKNOWN, RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE = 0, 1, 2, 8, 13, 14
LATENCY_US_MAX = 60_000_000
WINDOW_BYTES = 1 << 20
"""Of a connection and of each stream: an answer is small, so nothing ever waits for it."""
STREAMS_BEFORE_SETTINGS = 100

_RESET_CODES = {0x07: UNAVAILABLE, 0x08: CANCELLED, 0x0B: RESOURCE_EXHAUSTED, 0x0C: 7}
"""RST_STREAM's error codes as gRPC statuses; all others are INTERNAL."""
_HTTP_CODES = {b"400": INTERNAL, b"401": 16, b"403": 7, b"404": 12} | dict.fromkeys(
    (b"429", b"502", b"503", b"504"), UNAVAILABLE
)
"""HTTP statuses of an answer without a gRPC status; all others are UNKNOWN."""
_GRPC_OK = (b"grpc-status", b"0")
_OF_A_CALL = frozenset(
    (DataReceived, TrailersReceived, ResponseReceived, StreamReset, StreamClosed)
)


class Tally:
    """What became of the calls of one run."""

    def __init__(self) -> None:
        self.calls = 0
        self.latency_us = HdrHistogram(1, LATENCY_US_MAX, 3)
        self.statuses: Counter[int] = Counter()
        """By LineStatus, of the calls that gRPC calls OK."""
        self.errors: Counter[int] = Counter()
        """By gRPC code, of the others."""
        self.lost_connections = 0


class Flight:
    """One call that is not answered yet."""

    __slots__ = ("frame", "headers", "number", "reset", "started", "trailers")

    def __init__(self, number: int, started: float) -> None:
        self.number = number
        self.started = started
        self.frame = b""
        self.headers: tuple[Header, ...] = ()
        self.trailers: tuple[Header, ...] = ()
        self.reset = -1

    def code(self) -> int:
        """The gRPC status that the peer gave, or that stands for what it did instead."""
        if _GRPC_OK in self.trailers:
            return OK
        for name, value in (*self.trailers, *self.headers):
            if name == b"grpc-status":
                return int(value) if value.isdigit() else UNKNOWN
        if self.reset >= 0:
            return _RESET_CODES.get(self.reset, INTERNAL)
        http = dict(self.headers).get(b":status", b"")
        return UNKNOWN if http == b"200" else _HTTP_CODES.get(http, UNKNOWN)


class LoadConnection(asyncio.Protocol):
    """One connection, which may run several loops one after the other."""

    def __init__(self, calls: Calls, numbers: Iterator[int], headers: list[Header]) -> None:
        self.lost = False
        self._calls = calls
        self._numbers = numbers
        self._headers = headers
        self._tally = Tally()
        self._until = 0.0
        self._stopped: asyncio.Future[None] | None = None
        self._going_away = False
        self._flights: dict[int, Flight] = {}
        self._transport: Any = None
        self._http2 = Connection(
            Role.CLIENT, Configuration(peer_max_concurrent_streams=STREAMS_BEFORE_SETTINGS)
        )

    def run(self, in_flight: int, tally: Tally, until: float) -> asyncio.Future[None]:
        """Start so many calls, and for each answer another, until `time.perf_counter()` says
        `until` or there is no further number. Done when none is in flight any more, or with the
        connection lost."""
        self._tally = tally
        self._until = until
        stopped = self._stopped = asyncio.get_running_loop().create_future()
        if self.lost:
            self._stop()
            return stopped
        now = time.perf_counter()
        for _ in range(in_flight):
            self._start(now)
        self._flush()
        if not self._flights:
            self._settle()
        return stopped

    def close(self) -> None:
        """Close the connection; what was in flight is counted as UNAVAILABLE."""
        if self._transport is not None:
            self._transport.abort()

    def abandon(self) -> int:
        """Take back what is still unanswered, without waiting: how many calls that were."""
        left = len(self._flights)
        self._flights.clear()
        self._stopped = None
        self.close()
        return left

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's: the handshake leaves."""
        self._transport = transport  # uvloop's transports are no subclasses of asyncio's.
        self._http2.initiate_connection(
            {Setting.ENABLE_PUSH: 0, Setting.INITIAL_WINDOW_SIZE: WINDOW_BYTES}
        )
        self._http2.set_local_window_size(WINDOW_BYTES)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """asyncio's: answers, each of which starts the next call."""
        try:
            self._http2.receive_data(data)
        except NGH2Error:
            self._take_events()
            self.close()
            return
        self._take_events()
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        """asyncio's: every call in flight has failed."""
        self.lost = True
        now = time.perf_counter()
        flights = list(self._flights.values())
        self._flights.clear()
        for flight in flights:
            self._tally.errors[UNAVAILABLE] += 1
            self._record(flight, now)
        if self._stopped is not None:
            self._tally.lost_connections += 1
        self._stop()

    def _take_events(self) -> None:
        now = time.perf_counter()
        flights = self._flights
        for event in self._http2.events():
            # By exact type, the most frequent first: isinstance costs more than all the rest.
            kind: Any = type(event)
            if kind not in _OF_A_CALL:
                self._take_other(event)
                continue
            call: Any = event
            flight = flights.get(call.stream_id)
            if flight is None:
                continue
            if kind is DataReceived:
                flight.frame = flight.frame + call.data if flight.frame else call.data
            elif kind is TrailersReceived:
                flight.trailers = call.headers
            elif kind is ResponseReceived:
                flight.headers = call.headers
            elif kind is StreamReset:
                flight.reset = call.error_code
            else:
                del flights[call.stream_id]
                self._finish(flight, call.error_code, now)

    def _take_other(self, event: Any) -> None:
        """A GOAWAY ends the connection when what the peer accepted is answered."""
        if isinstance(event, GoAwayReceived):
            self._going_away = True
            if not self._flights:
                self.close()

    def _finish(self, flight: Flight, error_code: int, now: float) -> None:
        if error_code and flight.reset < 0:
            flight.reset = error_code
        code = flight.code()
        tally = self._tally
        if code == OK:
            tally.statuses[self._calls.read(flight.number, flight.frame)] += 1
        else:
            tally.errors[code] += 1
        self._record(flight, now)
        if now < self._until and not self._going_away:
            self._start(now)
        if not self._flights:
            self._settle()

    def _start(self, now: float) -> None:
        number = next(self._numbers, -1)
        if number < 0:
            return
        http2 = self._http2
        try:
            stream_id = http2.send_request(self._headers)
            http2.send_data(stream_id, self._calls.request(number), end_stream=True)
        except NGH2Error:
            # Of 2**30 stream numbers none is left, or the connection is closing: on to a new one.
            self._going_away = True
            return
        self._flights[stream_id] = Flight(number, now)

    def _record(self, flight: Flight, now: float) -> None:
        tally = self._tally
        tally.calls += 1
        took_us = int((now - flight.started) * 1e6)
        tally.latency_us.record_value(min(max(1, took_us), LATENCY_US_MAX))

    def _flush(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            data = self._http2.data_to_send()
            if data:
                self._transport.write(data)

    def _settle(self) -> None:
        """Nothing is in flight and nothing follows."""
        if self._going_away:
            self.close()
        else:
            self._stop()

    def _stop(self) -> None:
        stopped, self._stopped = self._stopped, None
        if stopped is not None and not stopped.done():
            stopped.set_result(None)

"""A serving connection's limits of time: what it is looked at for, once a second.

Rules
-----
* Time is an argument; nothing here asks for it, and no call or connection has a timer for this.
* A peer that greets, sends, reads or answers PINGs too slowly loses its call or its connection;
  which, and when, `WireLimits` says.
"""

from typing import Protocol

from ngh2 import ErrorCode

from wire.call import DEADLINE_EXCEEDED, ServerCall
from wire.counters import CallCounters
from wire.limits import WireLimits, passed


class Watched(Protocol):
    """The connection, as far as its watch needs it."""

    limits: WireLimits
    calls: dict[int, ServerCall]
    counters: CallCounters
    greeted: bool
    heard: bool
    took: bool
    draining: bool
    opened_at: float

    @property
    def stuck(self) -> bool:
        """Something waits for the peer, and it takes nothing."""

    def waiting_bytes(self) -> int:
        """Of answers that the peer has not taken."""

    def terminate(self, code: ErrorCode, reason: str) -> None:
        """Say GOAWAY, and close."""

    def ask(self) -> None:
        """Send a PING."""

    def silent(self) -> None:
        """Close: the PING was not answered."""

    def give_up(self) -> None:
        """Close: nothing is taken."""

    def grow_old(self) -> None:
        """Drain: idle or old."""


class Watch:
    """Of one connection. Made when it is."""

    __slots__ = (
        "_asked_at",
        "_calls_at_look",
        "_heard_at",
        "_idle_since",
        "_taken_at",
        "_waiting_bytes",
    )

    def __init__(self, now: float) -> None:
        self._idle_since = self._heard_at = self._taken_at = now
        self._asked_at = 0.0
        self._calls_at_look = 0
        self._waiting_bytes = 0

    def look(self, connection: Watched, now: float, pause_s: float) -> None:
        """Enforce the limits. Called every `pause_s` seconds."""
        limits = connection.limits
        if connection.heard:
            connection.heard, self._heard_at = False, now
        if not connection.greeted:
            if passed(now, connection.opened_at, limits.handshake_ms):
                connection.terminate(ErrorCode.SETTINGS_TIMEOUT, "no SETTINGS in time")
            return
        for call in list(connection.calls.values()):
            _look_at_request(call, limits, pause_s)
        if self._kept_alive(connection, now) and self._taking(connection, now):
            self._look_at_age(connection, now)

    def _kept_alive(self, connection: Watched, now: float) -> bool:
        """Ask a silent peer whether it is there. False if it is not."""
        limits = connection.limits
        silent_since = max(self._heard_at, self._asked_at)
        if self._asked_at > self._heard_at:
            if passed(now, self._asked_at, limits.keepalive_timeout_ms):
                connection.silent()
                return False
        elif passed(now, silent_since, limits.keepalive_ms):
            self._asked_at = now
            connection.ask()
        return True

    def _taking(self, connection: Watched, now: float) -> bool:
        """Give up on a peer that takes nothing of what waits for it, even if it takes answers to
        its PINGs. False if so."""
        waiting, before = connection.waiting_bytes(), self._waiting_bytes
        self._waiting_bytes = waiting
        if not connection.stuck or connection.took or waiting < before:
            connection.took, self._taken_at = False, now
        elif passed(now, self._taken_at, connection.limits.write_stall_ms):
            connection.give_up()
            return False
        return True

    def _look_at_age(self, connection: Watched, now: float) -> None:
        limits = connection.limits
        if connection.calls or self._calls_at_look != connection.counters.started:
            self._idle_since = now
            self._calls_at_look = connection.counters.started
        idle = passed(now, self._idle_since, limits.idle_ms)
        old = passed(now, connection.opened_at, limits.age_ms)
        if not connection.draining and (idle or old):
            connection.grow_old()


def _look_at_request(call: ServerCall, limits: WireLimits, pause_s: float) -> None:
    """The request of a unary call, and a message that has begun, must go on coming."""
    streams = call.entry.stream is not None
    if call.request_ended or call.closed or (streams and not call.pending_bytes):
        call.looks = 0
        return
    call.looks += 1
    call.idle_looks += 1
    stalled_ms, taken_ms = call.idle_looks * pause_s * 1000, call.looks * pause_s * 1000
    if 0 < limits.upload_stall_ms <= stalled_ms:
        call.expire(DEADLINE_EXCEEDED, "the request stopped coming")
    elif 0 < limits.upload_ms <= taken_ms:
        call.expire(DEADLINE_EXCEEDED, "the request takes too long to come")

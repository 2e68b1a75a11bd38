"""The shard's time. Wall time is an argument everywhere else; only this file reads a clock."""

import time
from typing import Protocol

TRUSTED_SKEW_MS = 5_000
"""A shard follows its own wall clock only this close to what gateways' rounds say."""


class Clock(Protocol):
    """Where wall time comes from; a simulated one stands in for it in tests."""

    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC."""


class WallClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC."""
        return time.time_ns() // 1_000_000


class ShardTime:
    """A shard's `now`: never goes back, and follows no clock that jumped ahead, neither its own nor
    a gateway's.

    While the wall clock is within 5 s of the newest send time seen on a round, it counts. When that
    round is older, its time counts: it may have been stuck on its way, and what protects its lines
    (refusals that are remembered) must not age before it is decided. When it is newer, one of the
    two clocks is wrong, and a third tells which: the time of the last entry and how long ago that
    was, by a clock that cannot be set; the middle one counts. A shard that has decided nothing yet
    has only the last entry's time, so the earlier of the two counts: late is mended by the next
    round, but what expired or ended an hour early stays so.

    Safety never rests on it: deadlines and phases do."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_ms = 0
        self._decided_at_s: float | None = None

    def raise_to(self, journalled_ms: int) -> None:
        """The journal says it was at least this late."""
        self._last_ms = max(self._last_ms, journalled_ms)

    def now_ms(self, sent_ms: int, steady_s: float) -> int:
        """Now, given the newest send time of the rounds at hand (0: none, follow the wall) and a
        clock of this process that only runs on."""
        now_ms = self._clock.now_ms()
        if sent_ms and now_ms - sent_ms > TRUSTED_SKEW_MS:
            now_ms = sent_ms
        elif sent_ms - now_ms > TRUSTED_SKEW_MS:
            expected_ms = self._last_ms
            if self._decided_at_s is not None:
                expected_ms += int((steady_s - self._decided_at_s) * 1000)
            now_ms = sorted((now_ms, sent_ms, expected_ms))[1]
        self._last_ms = max(self._last_ms, now_ms)
        self._decided_at_s = steady_s
        return self._last_ms

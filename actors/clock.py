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
    """A shard's `now`: never goes back, and does not follow a wall clock that jumped.

    The wall clock counts only while it is within 5 s of the newest send time seen on a round, else
    that send time does. Safety never rests on it: deadlines and phases do."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_ms = 0

    def raise_to(self, journalled_ms: int) -> None:
        """The journal says it was at least this late."""
        self._last_ms = max(self._last_ms, journalled_ms)

    def now_ms(self, sent_ms: int) -> int:
        """Now, given the newest send time of the rounds at hand (0: none, follow the wall)."""
        wall_ms = self._clock.now_ms()
        if sent_ms and abs(wall_ms - sent_ms) > TRUSTED_SKEW_MS:
            wall_ms = sent_ms
        self._last_ms = max(self._last_ms, wall_ms)
        return self._last_ms

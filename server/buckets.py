"""Token buckets by key in bounded memory: so many at once, so many a second, then wait.

A bucket is one number, the time at which it will be full again; one that is full is not kept. Keys
live in two generations. A generation that is as old as an empty bucket takes to fill is dropped
whole: what it had is full by now. When there are too many keys it is dropped early, and who was in
it may take a whole burst again: memory is bounded before anybody's rate is.
"""

from typing import NamedTuple


class Rate(NamedTuple):
    """What a key may take."""

    per_s: float
    burst: int
    """At once, from a full bucket."""


class Buckets:
    """The buckets of one kind of key. Times are seconds of a clock that never goes back."""

    __slots__ = ("_began", "_current", "_interval", "_keys_max", "_previous", "_slack", "_window")

    def __init__(self, rate: Rate, *, keys_max: int) -> None:
        """`keys_max` in both generations together."""
        self._interval = 1 / rate.per_s
        self._slack = (rate.burst - 1) * self._interval
        """A bucket that is full again within this has a token left."""
        self._window = rate.burst * self._interval
        self._keys_max = keys_max // 2
        self._current: dict[str, float] = {}
        self._previous: dict[str, float] = {}
        self._began = float("-inf")

    def wait(self, key: str, now: float) -> float:
        """0 if the key may take a token now, else for how long it may not."""
        full_at = self._current.get(key)
        if full_at is None:
            full_at = self._previous.get(key, 0.0)
        return max(0.0, full_at - now - self._slack)

    def take(self, key: str, now: float) -> None:
        """Takes one; to be called if `wait` said 0."""
        current = self._current
        full_at = current.get(key)
        if full_at is None:
            self._turn(now)
            current = self._current
            full_at = self._previous.get(key, 0.0)
        current[key] = (full_at if full_at > now else now) + self._interval

    def _turn(self, now: float) -> None:
        """A key comes to the current generation: it may be time for the next."""
        if now - self._began >= self._window or len(self._current) >= self._keys_max:
            self._previous, self._current = self._current, {}
            self._began = now

    def __len__(self) -> int:
        return len(self._current) + len(self._previous)

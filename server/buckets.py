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
    """The buckets of one kind of key. Times are seconds of a clock that never goes back.

    Who takes tokens of several kinds at once does in line what `take` does, between turns: three
    calls a line, each with its own look at the turn, cost three times as much."""

    __slots__ = ("_began", "_keys_max", "_window", "current", "interval", "previous", "slack")

    def __init__(self, rate: Rate, *, keys_max: int) -> None:
        """`keys_max` in both generations together."""
        self.interval = 1 / rate.per_s
        """How long a token takes to come."""
        self.slack = (rate.burst - 1) * self.interval
        """A bucket that is full again within this has a token left."""
        self.current: dict[str, float] = {}
        self.previous: dict[str, float] = {}
        self._window = rate.burst * self.interval
        self._keys_max = keys_max // 2
        self._began = float("-inf")

    def take(self, key: str, now: float) -> float:
        """0 if the key had a token, which is taken; else for how long it must wait."""
        self.turn(now, 1)
        full_at = self.current.get(key)
        if full_at is None:
            full_at = self.previous.get(key, now)
        wait = full_at - now - self.slack
        if wait > 0:
            return wait
        self.current[key] = (full_at if full_at > now else now) + self.interval
        return 0.0

    def turn(self, now: float, keys: int) -> None:
        """So many keys come to the current generation at most: it may be time for the next."""
        if now >= self.turns_at or keys > self.room:
            self.previous, self.current = self.current, {}
            self._began = now

    @property
    def turns_at(self) -> float:
        """When the current generation is old enough to be the previous one."""
        return self._began + self._window

    @property
    def room(self) -> int:
        """Keys for which the current generation has room."""
        return self._keys_max - len(self.current)

    def __len__(self) -> int:
        return len(self.current) + len(self.previous)

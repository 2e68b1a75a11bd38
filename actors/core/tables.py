"""Tables that never stall: dicts split by hash, refusals by age, deadlines by when they are due.

CPython resizes a dict in one go: 57-140 ms for a million entries. Nothing here lets one dict grow
past some 32,768 entries before the table as a whole holds 8 million, and everything that is thrown
away in crowds is thrown away in slices.
"""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Generic, TypeVar

PART_COUNT = 256
HEAP_SLACK = 64
"""So many names of buckets that are gone may stay in a heap of deadlines, beside as many again."""
SPLIT_AT = 16_384
"""A table starts as one dict and is dealt into 256 when it reaches this size (about 3 ms, once)."""

K = TypeVar("K", bytes, str)
V = TypeVar("V")


class SplitDict(Generic[K, V]):
    """A dict in up to 256 parts. Keys: bytes whose first byte is a hash, or strings."""

    __slots__ = ("parts", "size")

    def __init__(self) -> None:
        self.parts: list[dict[K, V]] = [{}]
        self.size = 0

    def part(self, key: K) -> dict[K, V]:
        """The part that holds `key` or would."""
        parts = self.parts
        if len(parts) == 1:
            return parts[0]
        return parts[key[0] if type(key) is bytes else hash(key) & 255]

    def get(self, key: K) -> V | None:
        """The value, or None."""
        # `part` written out, here and in `put` and `change`: the hot path comes by often.
        parts = self.parts
        if len(parts) == 1:
            return parts[0].get(key)
        return parts[key[0] if type(key) is bytes else hash(key) & 255].get(key)

    def put(self, key: K, value: V) -> None:
        """Insert or replace."""
        parts = self.parts
        if len(parts) == 1:
            part = parts[0]
        else:
            part = parts[key[0] if type(key) is bytes else hash(key) & 255]
        before = len(part)
        part[key] = value
        self.size += len(part) - before
        if len(parts) == 1 and self.size >= SPLIT_AT:
            self._split()

    def add(self, key: K, value: V) -> bool:
        """Insert, unless there is one already; answers whether there was none."""
        part = self.part(key)
        if key in part:
            return False
        part[key] = value
        self.size += 1
        if len(self.parts) == 1 and self.size >= SPLIT_AT:
            self._split()
        return True

    def pop(self, key: K) -> V | None:
        """Remove; answers the value, or None."""
        value = self.part(key).pop(key, None)
        if value is not None:
            self.size -= 1
            if not self.size:
                # A dict never shrinks: that of a campaign that ended would stay as large for ever.
                self.parts = [{}]
        return value

    def values(self) -> Iterator[V]:
        """All values; do not change the table meanwhile."""
        for part in self.parts:
            yield from part.values()

    def items(self) -> Iterator[tuple[K, V]]:
        """All pairs; do not change the table meanwhile."""
        for part in self.parts:
            yield from part.items()

    def _split(self) -> None:
        old = self.parts[0]
        self.parts = [{} for _ in range(PART_COUNT)]
        for key, value in old.items():
            self.part(key)[key] = value

    def __len__(self) -> int:
        return self.size

    def __contains__(self, key: K) -> bool:
        return key in self.part(key)


class Counts(SplitDict[str, int]):
    """How many of something by name; who has none is not in it."""

    __slots__ = ()

    def change(self, name: str, units: int) -> None:
        """`units` more, or with a negative number fewer."""
        parts = self.parts
        part = parts[0] if len(parts) == 1 else parts[hash(name) & 255]
        count = part.get(name, 0) + units
        if count > 0:
            before = len(part)
            part[name] = count
            if len(part) != before:
                self.size += 1
                if len(parts) == 1 and self.size >= SPLIT_AT:
                    self._split()
        elif part.pop(name, 0):
            self.size -= 1
            if not self.size:
                self.parts = [{}]

    def copy(self) -> "Counts":
        """Another table with the same counts (22 ms for a million names)."""
        made = Counts()
        made.parts = [part.copy() for part in self.parts]
        made.size = self.size
        return made


class Refusals:
    """Refused request ids with their outcome, kept for at least the retry window.

    Two generations: the current one, and the one before, dropped whole when the current one is a
    window old; so an entry outlives the window, and is gone with the second entry of the journal
    that comes a window or more after the last turn. A turn never drops the current generation,
    however old: its newest entry may be of this very moment. Replicas may forget at different
    entries of the journal, none of them early."""

    __slots__ = ("_dying", "began_ms", "current", "previous", "window_ms")

    def __init__(self, window_ms: int) -> None:
        self.window_ms = window_ms
        self.began_ms = 0
        self.current: SplitDict[bytes, int] = SplitDict()
        self.previous: SplitDict[bytes, int] = SplitDict()
        self._dying: list[dict[bytes, int]] = []

    def get(self, key: bytes) -> tuple[int, int] | None:
        """(fingerprint, outcome), or None."""
        packed = self.current.get(key) if self.current.size else None
        if packed is None and self.previous.size:
            packed = self.previous.get(key)
        return None if packed is None else (packed >> 8, packed & 255)

    def put(self, key: bytes, fingerprint: int, outcome: int) -> None:
        """Remember one."""
        self.current.put(key, fingerprint << 8 | outcome)

    def advance(self, now_ms: int) -> None:
        """Forget what is older than a window, by generations, a slice at a time."""
        del self._dying[-8:]
        if now_ms - self.began_ms < self.window_ms:
            return
        self._dying.extend(self.previous.parts)
        self.previous = self.current
        self.current = SplitDict()
        self.began_ms = now_ms

    def __len__(self) -> int:
        return self.current.size + self.previous.size


class Deadlines:
    """Which keys are due when. A key stands in exactly one bucket, or in none.

    Rules
    -----
    * A bucket is named by its end, and holds what is due at some time up to it: a tenth of a second
      for what is near when it is added, a second for what is more than half an hour away. So a
      window of 24 hours makes no more than 105,000 buckets, nothing is ever early, what was near
      is 100 ms late at most and what was far 1 s.
    * A second that has 16,384 keys sends the next ones to its tenths, so no set grows past some
      32,768 keys at 300,000 a second.
    * Buckets are sets, not lists, so that confirming takes the key out at once on every replica; a
      lone key stands by itself, for a set of one would weigh more than all else that it costs.
    * An emptied bucket goes at once. Its name stays in the heap, until names without a bucket are
      more than those with one: then the heap is made anew (5 ms for the largest).

    Replicas may have a key in buckets of different width: only a primary asks what is due, and what
    it then decides is a record."""

    FAR_AWAY_MS = 30 * 60_000
    FAR_KEYS_MAX = 16_384
    __slots__ = ("_heap", "_size", "buckets")

    def __init__(self) -> None:
        self.buckets: dict[int, bytes | set[bytes]] = {}
        self._heap: list[int] = []
        self._size = 0

    def add(self, key: bytes, at_ms: int, now_ms: int) -> None:
        """Due at `at_ms`; `now_ms` says how far that is. The key is in no bucket."""
        end_ms = at_ms + -at_ms % 100
        if at_ms - now_ms > self.FAR_AWAY_MS:
            far_ms = at_ms + -at_ms % 1_000
            far = self.buckets.get(far_ms)
            if type(far) is not set or len(far) < self.FAR_KEYS_MAX:
                end_ms = far_ms
        self._put(key, end_ms)

    def remove(self, key: bytes, at_ms: int) -> None:
        """Take it out again; `at_ms` is what it was added with. Nothing for a key not there."""
        end_ms = at_ms + -at_ms % 100
        if not self._take(key, end_ms) and end_ms % 1_000:
            self._take(key, at_ms + -at_ms % 1_000)

    def _put(self, key: bytes, end_ms: int) -> None:
        keys = self.buckets.get(end_ms)
        self._size += 1
        if type(keys) is set:
            keys.add(key)
        elif keys is None:
            self.buckets[end_ms] = key
            heappush(self._heap, end_ms)
        else:
            self.buckets[end_ms] = {keys, key}  # type: ignore[arg-type]

    def _take(self, key: bytes, end_ms: int) -> bool:
        keys = self.buckets.get(end_ms)
        if keys is None:
            return False
        if type(keys) is set:
            if key not in keys:
                return False
            keys.remove(key)
            self._size -= 1
            if keys:
                return True
        elif keys == key:
            self._size -= 1
        else:
            return False
        del self.buckets[end_ms]
        if len(self._heap) > 2 * len(self.buckets) + HEAP_SLACK:
            self._heap = list(self.buckets)
            heapify(self._heap)
        return True

    def due(self, now_ms: int, limit: int) -> list[bytes]:
        """Up to `limit` keys that are due. They stay until they are removed."""
        found: list[bytes] = []
        looked: list[int] = []
        heap = self._heap
        while heap and heap[0] <= now_ms and len(found) < limit:
            end_ms = heappop(heap)
            keys = self.buckets.get(end_ms)
            # A bucket that went and came again has its name in the heap twice.
            if keys is None or (looked and looked[-1] == end_ms):
                continue
            looked.append(end_ms)
            if type(keys) is bytes:
                found.append(keys)
            else:
                found.extend(islice(keys, limit - len(found)))  # type: ignore[arg-type]
        for end_ms in looked:
            heappush(heap, end_ms)
        return found

    def __len__(self) -> int:
        return self._size


class Seconds(Deadlines):
    """Deadlines to find the first of, all by the second: a key that often moves from one of these
    to another need not find out how wide its bucket is."""

    __slots__ = ()

    def add(self, key: bytes, at_ms: int, now_ms: int) -> None:
        """As there."""
        self._put(key, at_ms + -at_ms % 1_000)

    def remove(self, key: bytes, at_ms: int) -> None:
        """As there."""
        self._take(key, at_ms + -at_ms % 1_000)

    def move(self, key: bytes, at_ms: int, other: "Seconds") -> None:
        """Out of here, into another."""
        end_ms = at_ms + -at_ms % 1_000
        # `_take` and `_put` written out for sets that stay: joins in a crowd come by here.
        keys = self.buckets.get(end_ms)
        if type(keys) is set and len(keys) > 1:
            keys.remove(key)
            self._size -= 1
        else:
            self._take(key, end_ms)
        keys = other.buckets.get(end_ms)
        if type(keys) is set:
            keys.add(key)
            other._size += 1
        else:
            other._put(key, end_ms)

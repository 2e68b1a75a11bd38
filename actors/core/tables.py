"""Tables that never stall: dicts split by hash, refusals by age, deadlines by tenth of a second.

CPython resizes a dict in one go: 57-140 ms for a million entries. Nothing here lets one dict grow
past some 32,768 entries before the table as a whole holds 8 million, and everything that is thrown
away in crowds is thrown away in slices.
"""

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Generic, TypeVar

PART_COUNT = 256
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
        return self.part(key).get(key)

    def put(self, key: K, value: V) -> None:
        """Insert or replace."""
        part = self.part(key)
        before = len(part)
        part[key] = value
        self.size += len(part) - before
        if self.size >= SPLIT_AT and len(self.parts) == 1:
            self._split()

    def pop(self, key: K) -> V | None:
        """Remove; answers the value, or None."""
        value = self.part(key).pop(key, None)
        if value is not None:
            self.size -= 1
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
        packed = self.current.get(key) or self.previous.get(key)
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
    """Which keys are due when. A key stands in exactly one bucket of 100 ms, or in none.

    Buckets are sets, not lists, so that confirming takes the key out at once on every replica and
    nothing is left to sweep; a bucket of 100 ms stays below 32,768 keys at 300,000 a second."""

    BUCKET_MS = 100
    __slots__ = ("_heap", "buckets")

    def __init__(self) -> None:
        self.buckets: dict[int, set[bytes]] = {}
        self._heap: list[int] = []

    def add(self, key: bytes, at_ms: int) -> None:
        """Due at `at_ms`, rounded up to the next bucket: never early."""
        bucket = -(-at_ms // self.BUCKET_MS)
        keys = self.buckets.get(bucket)
        if keys is None:
            keys = self.buckets[bucket] = set()
            heappush(self._heap, bucket)
        keys.add(key)

    def remove(self, key: bytes, at_ms: int) -> None:
        """Take it out again; `at_ms` is what it was added with."""
        keys = self.buckets.get(-(-at_ms // self.BUCKET_MS))
        if keys is not None:
            keys.discard(key)

    def due(self, now_ms: int, limit: int) -> list[bytes]:
        """Up to `limit` keys that are due. They stay until removed; empty past buckets go."""
        found: list[bytes] = []
        ahead: list[int] = []
        heap, bucket_now = self._heap, now_ms // self.BUCKET_MS
        while heap and heap[0] <= bucket_now and len(found) < limit:
            bucket = heap[0]
            keys = self.buckets[bucket]
            if not keys:
                del self.buckets[heappop(heap)]
                continue
            for key in keys:
                if len(found) == limit:
                    break
                found.append(key)
            ahead.append(heappop(heap))
        for bucket in ahead:
            heappush(heap, bucket)
        return found

    def __len__(self) -> int:
        return sum(len(keys) for keys in self.buckets.values())

"""Which keys were forgotten: a Bloom filter that grows, about two bytes a key.

Rules
-----
* Keys are 16 bytes that are a hash already, so their own bits choose the bits of the filter, and
  every replica that adds the same keys in the same order has the same filter.
* A key that was added is always found. Of others, one in some 1,700 is taken for it by each full
  segment: who asks must be able to bear that, at the price of a look into SQL.
* A key that the filter has already, or seems to have, is not added again. So entries that are
  replayed over a filter that has them change nothing.
"""

from collections.abc import Iterator

FIRST_KEYS = 1_024
SEGMENT_KEYS = 65_536
"""A full segment is 128 KiB, which fits into a chunk of a snapshot."""
BITS_A_KEY = 16
PROBES = 8


class Segment:
    """One filter of a fixed size."""

    __slots__ = ("bits", "count", "mask")

    def __init__(self, bits: bytearray, count: int) -> None:
        self.bits = bits
        self.count = count
        """Keys added."""
        self.mask = len(bits) * 8 - 1

    @property
    def full(self) -> bool:
        """Whether it has all keys that its size is for."""
        return self.count * BITS_A_KEY > self.mask


class Forgotten:
    """Segments of growing size, up to `SEGMENT_KEYS`; only the last one changes."""

    __slots__ = ("segments",)

    def __init__(self) -> None:
        self.segments: list[Segment] = []

    def add(self, key: bytes) -> None:
        """Remember a key."""
        if self.may_contain(key):
            return
        last = self.segments[-1] if self.segments else None
        if last is None or last.full:
            keys = FIRST_KEYS if last is None else min(SEGMENT_KEYS, 2 * last.count)
            last = Segment(bytearray(keys * BITS_A_KEY // 8), 0)
            self.segments.append(last)
        bits = last.bits
        for at in _probes(key, last.mask):
            bits[at >> 3] |= 1 << (at & 7)
        last.count += 1

    def may_contain(self, key: bytes) -> bool:
        """False: never added. True: added, or one of the few that look like it."""
        first, step = _halves(key)
        for segment in self.segments:
            bits, mask, at = segment.bits, segment.mask, first
            for _ in range(PROBES):
                place = at & mask
                if not bits[place >> 3] >> (place & 7) & 1:
                    break
                at += step
            else:
                return True
        return False

    def load(self, count: int, bits: bytes) -> None:
        """The next segment of a filter that is read from a snapshot."""
        self.segments.append(Segment(bytearray(bits), count))


def _halves(key: bytes) -> tuple[int, int]:
    return int.from_bytes(key[:8]), int.from_bytes(key[8:]) | 1


def _probes(key: bytes, mask: int) -> Iterator[int]:
    at, step = _halves(key)
    for _ in range(PROBES):
        yield at & mask
        at += step

"""Request ids that are made for the caller: UUID version 7, so that they sort by time.

One maker belongs to one client and its loop. A millisecond and a 12-bit count make an id unique
within the maker, 62 random bits unique among makers. The bits are drawn anew each millisecond, not
for each id: that would cost more than the rest of the id, and nobody needs ids that cannot be
guessed.
"""

from __future__ import annotations

import os
import random
import time


class IdMaker:
    """Makes ids that are unique, and ascending within the maker."""

    __slots__ = ("_count", "_head", "_millis", "_random", "_tail")

    def __init__(self) -> None:
        self._random = random.Random(os.urandom(32))
        self._millis = 0
        self._count = 0
        self._head = ""
        self._tail = ""

    def __call__(self) -> str:
        millis = time.time_ns() // 1_000_000
        if millis > self._millis:
            self._open(millis)
        self._count += 1
        # 12 bits count within a millisecond; when they run out the maker's clock runs ahead.
        if self._count > 0xFFF:
            self._open(self._millis + 1)
        return f"{self._head}{self._count:03x}{self._tail}"

    def _open(self, millis: int) -> None:
        head = f"{millis:012x}"
        tail = f"{self._random.getrandbits(62) | 1 << 63:016x}"
        self._millis = millis
        self._head = f"{head[:8]}-{head[8:]}-7"
        self._tail = f"-{tail[:4]}-{tail[4:]}"
        self._count = 0

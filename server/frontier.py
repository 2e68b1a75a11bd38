"""Whose turn it is: what the relay tells of bindings and orders of several stock shards, in order.

An order pays whom its buyer was bound to when it was reserved, and of two touches the first may
count. The binding and the order may be of different stock shards, whose journals are followed side
by side, and one may be behind. So a shard's facts wait, where they must, for those of the others.

Rules
-----
* An entry by which an order earns waits until every other shard has told all that bound anybody
  before the order was reserved: its buyer, or the distributor above. An entry that may bind a buyer
  waits until every other shard has told what may have bound the same buyer before.
* When is what the journals say. Their times never fall, so of a shard that was read up to an
  instant nothing older comes. If it was not read so far, it must have been looked at since the
  entry was first seen, and read to the end that it had then: what comes later was not acknowledged
  when the entry was decided. No clock is asked, and no two need to agree.
* A shard waits at the first entry that has to, and for older ones alone, so no two wait for each
  other: the oldest entry that waits, waits for nobody who waits.
* Whoever shows no progress for `patience_ms` and waits for nobody (its journal cannot be read, its
  facts are not taken) is waited for no more until it does: others' commission must not hang on it.
  What it tells then may be too late for orders that were told meanwhile; the log and the status of
  who went on say so. A shard that was never looked at is behind like any other.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple

import structlog

from actors.core.facts import ORDER_BOUND, ORDER_EARNED

log = structlog.get_logger()

END = 1 << 62
"""After every entry."""
LOOKS_MAX = 64
"""Remembered of one journal. Beyond, what was seen last counts as seen a little later."""

GRACE_PART = 0.2
"""Of the patience: after account shards answered, who waited for them has so long to go on."""


class Claim(NamedTuple):
    """An entry that waits for others, or that others wait for."""

    seq: int
    at_ms: int
    buyers: frozenset[str]
    """Whom it may bind."""
    reserved_ms: int
    """When the newest of the orders was reserved that earn by it; 0 if none does."""


def claim_of(seq: int, at_ms: int, facts: Iterable[Any]) -> Claim | None:
    """What an entry's facts have to wait for, and others for them; None: nothing."""
    buyers, reserved_ms = set(), 0
    for fact in facts:
        if fact.kind == ORDER_BOUND:
            buyers.add(fact.buyer_id)
        elif fact.kind == ORDER_EARNED:
            # Never later than its own entry, or two could wait for each other.
            reserved_ms = max(reserved_ms, min(fact.reserved_ms, at_ms))
    if not buyers and not reserved_ms:
        return None
    return Claim(seq, at_ms, frozenset(buyers), reserved_ms)


class Board:
    """The frontiers of all stock shards that one relay follows."""

    def __init__(self, patience_ms: int, now_s: Callable[[], float] | None = None) -> None:
        """`now_s`: a clock that cannot be set; the running loop's."""
        self.patience_s = patience_ms / 1000
        self.grace_s = self.patience_s * GRACE_PART
        self.now_s = now_s or _loop_s
        self.frontiers: list[Frontier] = []
        self._ticks = 0
        self._change = asyncio.Event()

    def join(self, shard: int) -> "Frontier":
        """A shard is followed from now on, and behind."""
        self.frontiers.append(Frontier(self, shard))
        return self.frontiers[-1]

    def tick(self) -> int:
        """The number of this moment: what happens later has a higher one."""
        self._ticks += 1
        return self._ticks

    def changed(self) -> None:
        """Whoever waits may look again."""
        self._change.set()
        self._change = asyncio.Event()

    async def change(self, within_s: float | None) -> None:
        """Until something has changed, or so long."""
        try:
            async with asyncio.timeout(within_s):
                await self._change.wait()
        except TimeoutError:
            return


def _loop_s() -> float:
    return asyncio.get_running_loop().time()


class Frontier:
    """How far one stock shard has told, and what it waits for."""

    def __init__(self, board: Board, shard: int) -> None:
        self.shard = shard
        self.waits_for: Sequence[int] = ()
        """Shards that are to tell first."""
        self.without: set[int] = set()
        """Shards that were waited for in vain."""
        self._board = board
        self._progress_s = 0.0
        self._began = 0
        """When the look began that is read now, and where it found the end."""
        self._end_seq = 0
        self.begin()

    def begin(self) -> None:
        """All that is known of the journal is asked for anew."""
        self.without.clear()
        self._read_ms = -1
        """Of the newest entry that was read: what is not read is no older."""
        self._looked = 0
        """When the newest look began whose end was read."""
        self._looks: deque[tuple[int, int]] = deque()
        """(End of the journal, when that was seen) of what is not told, both rising."""
        self._mine: deque[Claim] = deque()
        """What was read and not told."""
        self._binding: deque[Claim] = deque()
        """What of it may bind anybody."""
        self._bound: dict[str, tuple[int, ...]] = {}
        """Buyer -> times of such entries."""

    @property
    def alone(self) -> bool:
        """There is no other shard."""
        return len(self._board.frontiers) == 1

    def look(self) -> None:
        """The end of the journal is asked for now."""
        self._began = self._board.tick()

    def found(self, end_seq: int, told_seq: int) -> None:
        """The answer, and what of it is told already."""
        self._end_seq = end_seq
        if end_seq <= told_seq:
            self._looked = self._began
            self._advance()
        else:
            self._saw(end_seq)

    def read(self, claims: Iterable[Claim], newest_ms: int, to_seq: int) -> None:
        """What was read in place of what was read before: all entries up to `to_seq`, the newest
        of `newest_ms` (-1: unknown)."""
        # More may have come between the look and the reading.
        self._saw(to_seq)
        self._mine.clear()
        for claim in claims:
            # Should the times of a journal ever fall, two must still not wait for each other.
            self._read_ms = max(self._read_ms, claim.at_ms)
            self._mine.append(claim._replace(at_ms=self._read_ms))
        self._binding = deque([claim for claim in self._mine if claim.buyers])
        self._bound.clear()
        for claim in self._binding:
            for buyer in claim.buyers:
                self._bound[buyer] = (*self._bound.get(buyer, ()), claim.at_ms)
        self._read_ms = max(self._read_ms, newest_ms)
        if to_seq >= self._end_seq:
            self._looked = self._began
        self._board.changed()

    def _saw(self, end_seq: int) -> None:
        if self._looks and end_seq <= self._looks[-1][0]:
            return
        if len(self._looks) == LOOKS_MAX:
            self._looks.pop()
        self._looks.append((end_seq, self._board.tick()))

    def told(self, seq: int) -> None:
        """All entries up to this one were taken."""
        while self._mine and self._mine[0].seq <= seq:
            self._mine.popleft()
        while self._binding and self._binding[0].seq <= seq:
            for buyer in self._binding.popleft().buyers:
                later = self._bound.pop(buyer)[1:]
                if later:
                    self._bound[buyer] = later
        while self._looks and self._looks[0][0] <= seq:
            self._looks.popleft()
        self._advance()

    async def turn(self, seq: int, ask: Callable[[], Awaitable[Any]]) -> int:
        """Waits until the next entry, `seq`, may be told; answers up to which others may be. `ask`
        raises if account shards do not answer: then nobody waits in vain but for them."""
        since_s, asked_s = self._board.now_s(), -1.0
        try:
            while True:
                free_seq, before = self.free()
                if free_seq >= seq:
                    return free_seq
                self.waits_for = [other.shard for other in before]
                silent, left_s = self._silent(before, since_s)
                if silent and asked_s < 0:
                    await ask()
                    asked_s = self._board.now_s()
                elif silent and self._board.now_s() - asked_s >= self._board.grace_s:
                    self._go_on_without(silent)
                else:
                    await self._board.change(self._board.grace_s if silent else left_s)
        finally:
            if self.waits_for:
                self.waits_for = ()
                self._advance()

    def free(self) -> tuple[int, "Sequence[Frontier]"]:
        """The last entry that may be told now, and whose turn is before the next one's."""
        others = [
            other
            for other in self._board.frontiers
            if other is not self and other.shard not in self.without
        ]
        for claim in self._mine if others else ():
            seen = self._seen(claim.seq)
            before = [other for other in others if other.may_precede(claim, seen)]
            if before:
                return claim.seq - 1, before
        return END, ()

    def may_precede(self, claim: Claim, seen: int) -> bool:
        """Whether something is to be told here before an entry of another shard that was first
        seen at `seen`, or may be found."""
        until_ms = claim.at_ms if claim.buyers else claim.reserved_ms
        if self._read_ms < until_ms and self._looked < seen:
            return True
        if not self._binding or self._binding[0].at_ms >= until_ms:
            return False
        if self._binding[0].at_ms < claim.reserved_ms:
            return True
        bound = [self._bound[buyer][0] for buyer in claim.buyers if buyer in self._bound]
        return bool(bound) and min(bound) < claim.at_ms

    def _seen(self, seq: int) -> int:
        """When it was first seen that the journal has an entry."""
        return next(seen for end_seq, seen in self._looks if end_seq >= seq)

    def _silent(
        self, before: "Sequence[Frontier]", since_s: float
    ) -> "tuple[Sequence[Frontier], float | None]":
        """Those who have shown no progress for too long, and wait for nobody; and how long until
        there may be more of them."""
        now_s, silent, left_s = self._board.now_s(), [], []
        for other in before:
            if other.waits_for:
                continue
            left = max(other._progress_s, since_s) + self._board.patience_s - now_s
            if left <= 0:
                silent.append(other)
            else:
                left_s.append(left)
        return silent, min(left_s, default=None)

    def _go_on_without(self, silent: "Iterable[Frontier]") -> None:
        for other in silent:
            log.warning("relay_goes_on_without", shard=self.shard, without=other.shard)
            self.without.add(other.shard)

    def _advance(self) -> None:
        self._progress_s = self._board.now_s()
        for other in self._board.frontiers:
            other.without.discard(self.shard)
        self._board.changed()

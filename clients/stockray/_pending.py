"""Lines that wait for their results: one by one, or as a group that is answered as a whole.

A line is settled once; whatever comes later for it (a waiter that was cancelled, a deadline that
passed first) is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Generic, TypeVar

from stockray.errors import StockrayError

R = TypeVar("R")


class Line(Generic[R]):
    """One line and what is known of it so far."""

    __slots__ = (
        "attempts",
        "deadline",
        "frame",
        "key",
        "lost",
        "note",
        "slot",
        "target",
        "wait",
    )

    def __init__(
        self,
        key: tuple[str, ...],
        frame: bytes,
        deadline: float,
        target: asyncio.Future[R] | Group[R],
        slot: int = 0,
    ) -> None:
        self.key = key
        """What the result repeats; the last is the line's id."""
        self.frame = frame
        self.deadline = deadline
        self.target = target
        """Who is told: a waiter, or the group and the line's slot in it."""
        self.slot = slot
        self.lost = False
        """True once an attempt ended without an answer, or with UNKNOWN: it may have applied."""
        self.attempts = 0
        self.note = ""
        """Why it is not decided yet, for people."""
        self.wait: timedelta | None = None

    @property
    def done(self) -> bool:
        """True when nobody waits for it any more."""
        target = self.target
        return target.holds(self.slot) if isinstance(target, Group) else target.done()

    def settle(self, result: R) -> None:
        """Gives the result to whoever waits."""
        target = self.target
        if isinstance(target, Group):
            target.put(self.slot, result)
        elif not target.done():
            target.set_result(result)

    def fail(self, error: StockrayError) -> None:
        """Gives an error instead."""
        mine = error.copy_for(self.key[-1:], maybe_applied=self.lost)
        target = self.target
        if isinstance(target, Group):
            target.put(self.slot, mine)
        elif not target.done():
            target.set_exception(mine)


class Group(Generic[R]):
    """The lines of one call of `*_many`: answered when the last of them is."""

    __slots__ = ("_left", "_results", "future")

    def __init__(self, size: int, future: asyncio.Future[Sequence[R | StockrayError]]) -> None:
        self.future = future
        self._results: list[R | StockrayError | None] = [None] * size
        self._left = size

    def holds(self, slot: int) -> bool:
        """True when the line has its result, or nobody waits for the group."""
        return self._results[slot] is not None or self.future.done()

    def put(self, slot: int, outcome: R | StockrayError) -> None:
        """Keeps what became of one line, and answers the group with the last."""
        if self._results[slot] is not None:
            return
        self._results[slot] = outcome
        self._left -= 1
        if not self._left and not self.future.done():
            self.future.set_result([found for found in self._results if found is not None])

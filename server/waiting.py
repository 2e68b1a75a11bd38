"""A line on its way to a shard, and the submit that waits for it."""

import asyncio
from typing import Any

from actors.core.outcomes import Outcome

Answer = tuple[Any, ...]
RETRY: Answer = (Outcome.RETRY,)
UNKNOWN: Answer = (Outcome.UNKNOWN,)
INTERNAL: Answer = (Outcome.INTERNAL,)


class Line:
    """One command on its way, and where its answer goes."""

    __slots__ = ("deadline_ms", "deaths", "group", "index", "lost", "packed", "sent")

    def __init__(self, packed: bytes, deadline_ms: int, group: "Group", index: int) -> None:
        self.packed = packed
        self.deadline_ms = deadline_ms
        self.group = group
        self.index = index
        self.deaths = 0
        self.sent = False
        self.lost = False
        """A round with it got no answer, so it may have been done."""

    def answer(self, answer: Answer) -> None:
        """Deliver, once; a later answer of a resent line is dropped."""
        self.group.put(self.index, answer)

    @property
    def answered(self) -> bool:
        """Whether it has its answer, if only that its time was up: nobody waits for another."""
        return self.group.answers[self.index] is not None

    def undone(self) -> None:
        """Deliver that this attempt did nothing: UNKNOWN if an earlier one may have."""
        self.answer(UNKNOWN if self.lost else RETRY)


class Group:
    """The lines of one submit; done when all are answered."""

    __slots__ = ("answers", "done", "missing")

    def __init__(self, size: int) -> None:
        self.answers: list[Answer | None] = [None] * size
        self.missing = size
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def put(self, index: int, answer: Answer) -> None:
        """Answer one line; a second answer to it changes nothing."""
        if self.answers[index] is not None:
            return
        self.answers[index] = answer
        self.missing -= 1
        if not self.missing and not self.done.done():
            self.done.set_result(None)

"""What a sender's tasks wait for: a bell for new lines, and a round in flight with its time limit.

Both are cheaper forms of what asyncio has, for the path of every round. An `asyncio.Event` wakes
all tasks that wait, where there is work for one; an `asyncio.timeout` makes and cancels a timer for
every round, where one sweep that runs anyway can look at all of them.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from server.waiting import Waiting

T = TypeVar("T")


class Bell:
    """Wakes one waiting task, and no second one before the first has run."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []
        self._woken = False

    async def wait(self) -> None:
        """Until somebody rings; a bell that rang while nobody waited is not heard."""
        heard: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(heard)
        try:
            await heard
        finally:
            if heard in self._waiting:
                self._waiting.remove(heard)
            else:
                self._woken = False

    def ring(self) -> None:
        """There is work. Who is woken looks for all there is, and rings for what it leaves."""
        if self._waiting and not self._woken:
            self._woken = True
            heard = self._waiting.pop()
            if not heard.done():
                heard.set_result(None)


class Flight:
    """A round in flight."""

    __slots__ = ("_given_up", "_task", "began", "lines")

    def __init__(self, lines: Sequence[Waiting], began: float) -> None:
        self.lines = lines
        self.began = began
        """Of the loop's clock."""
        self._task: asyncio.Task[object] | None = None
        self._given_up = False

    async def land(self, answer: Awaitable[T]) -> T:
        """The answer. TimeoutError if the flight was given up before it came."""
        self._task = asyncio.current_task()
        try:
            return await answer
        except asyncio.CancelledError:
            # Cancelled for another reason as well, the task ends.
            if self._given_up and self._task is not None and self._task.uncancel() == 0:
                raise TimeoutError from None
            raise
        finally:
            self._task = None

    def give_up(self) -> None:
        """Its time is up. Nothing if the answer is there."""
        if self._task is not None and not self._given_up:
            self._given_up = True
            self._task.cancel()

"""Calls that wait until their peer takes something, and how often they are looked through.

A peer makes a server look with a frame of thirteen bytes; to look through two thousand streams
each time would be a lever. So a large crowd is looked through at a pace, the larger the slower.
"""

import asyncio
from collections.abc import Callable

import ngh2

from wire.call import ServerCall

SMALL = 64
PAUSE_S = 10e-6
"""For each of a crowd that is not small."""


class Crowd:
    """Those of one connection. `look` is what to call when it is time to look again."""

    __slots__ = ("_look", "_loop", "_next_s", "_timer", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, look: Callable[[], None]) -> None:
        self._waiting: list[ServerCall] = []
        self._loop = loop
        self._look = look
        self._next_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def join(self, call: ServerCall) -> None:
        """Wake this call when it has room."""
        self._waiting.append(call)

    def may_look(self, others: int) -> bool:
        """Whether it is time, with `others` to look through besides. If not, `look` is called when
        it is."""
        many = len(self._waiting) + others
        if many <= SMALL:
            return True
        now_s = self._loop.time()
        if now_s >= self._next_s:
            self._next_s = now_s + many * PAUSE_S
            return True
        if self._timer is None:
            self._timer = self._loop.call_at(self._next_s, self._time_is_up)
        return False

    def let_on(self, h2: ngh2.Connection, backlog_bytes: int) -> None:
        """Wake those that have room."""
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            if call.closed or h2.queued_body_size(call.stream_id) <= backlog_bytes:
                call.room()
            else:
                self._waiting.append(call)

    def clear(self) -> None:
        """The connection is over: let go of it, so that no circle keeps it."""
        self._waiting.clear()
        self._look = _nobody_looks
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_is_up(self) -> None:
        self._timer = None
        self._look()


def _nobody_looks() -> None:
    """What a crowd calls once its connection is over."""

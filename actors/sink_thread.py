"""The thread on which write-behind works: it yields to the sale until somebody is in a hurry.

Rules
-----
* One call at a time, in the order of the calls, whichever thread makes it.
* While nobody is in a hurry the thread is of SCHED_IDLE: it runs in time that nobody else wants.
* A thread that has gone there cannot come back without privileges. So a hurry begins with a new
  thread, which has the priority of the process because an ordinary thread starts it. A call that
  runs at that moment ends as it began; the new thread waits for it.
* Where SCHED_IDLE is not to be had, the thread has the priority of the process, always.
"""

import asyncio
import os
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import structlog

log = structlog.get_logger()
T = TypeVar("T")


def yield_to_all() -> None:
    """Run the calling thread only when nothing else wants its core. Nothing where the system has
    no such thing, or does not allow it."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (AttributeError, OSError) as error:
        log.info("sink_thread_cannot_yield", error=str(error))


class SinkThread:
    """Runs blocking calls on one thread. All methods are called on the loop's thread."""

    def __init__(self, give_way: Callable[[], None] = yield_to_all) -> None:
        self._give_way = give_way
        self._hurried: set[Hashable] = set()
        self._executor: ThreadPoolExecutor | None = None
        self._yields = False

    def __call__(self, call: Callable[[], T]) -> "asyncio.Future[T]":
        """Awaitable result of `call`."""
        if self._executor is None or self._yields == self.hurried:
            # Made for this call, so that its thread starts now, and from this one.
            self._yields = not self.hurried
            begin = partial(_begin, self._executor, self._give_way if self._yields else None)
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="sink", initializer=begin)
        return asyncio.get_running_loop().run_in_executor(self._executor, call)

    @property
    def hurried(self) -> bool:
        """Whether calls made from now on run at the priority of the process."""
        return bool(self._hurried)

    def hurry(self, who: Hashable, wanted: bool) -> None:
        """`who` is in a hurry, or is no longer. The thread yields when nobody is."""
        before = self.hurried
        (self._hurried.add if wanted else self._hurried.discard)(who)
        if self.hurried != before:
            log.info("sink_thread_changed", hurried=self.hurried, who=who)

    def close(self) -> None:
        """Wait for the calls that were made, and end the thread."""
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None


def _begin(after: ThreadPoolExecutor | None, give_way: Callable[[], None] | None) -> None:
    """The first that a new thread does: wait for the one before it, then go to its own place."""
    if after is not None:
        after.shutdown()
    if give_way is not None:
        give_way()

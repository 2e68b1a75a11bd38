"""An asyncio loop whose time jumps to the next timer: waiting is free, runs are deterministic.

A test takes part by `@in_virtual_time`. Nothing in it may wait for a thread or a socket: when no
timer is set and nothing is ready, nothing can ever happen again, and the loop says so instead of
hanging.
"""

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

P = ParamSpec("P")


class NothingWillHappen(AssertionError):
    """All tasks wait for each other."""


class _Selector(selectors.DefaultSelector):  # type: ignore[misc, valid-type, unused-ignore]
    """Passes the time that asyncio would sleep."""

    passed: Callable[[float], None]

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise NothingWillHappen("no timer is set and nothing is ready")
        self.passed(timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Starts at 1,000 s, so that ages counted from 0 are old."""

    def __init__(self) -> None:
        selector = _Selector()
        self._virtual_s = 1_000.0
        selector.passed = self._pass
        super().__init__(selector)

    def time(self) -> float:
        return self._virtual_s

    def _pass(self, length_s: float) -> None:
        # A step below the float's resolution would never reach the timer.
        self._virtual_s += max(length_s, 1e-6)


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """A test, or the body of a property, that runs on a loop of its own in virtual time."""

    @functools.wraps(test)
    def run(*arguments: P.args, **named: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(test(*arguments, **named))

    return run


async def until(holds: Callable[[], Any], *, within_s: float = 30.0) -> None:
    """Returns when `holds()` is true; fails when it is not within so much virtual time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while not holds():
        assert loop.time() < end, f"did not come true within {within_s} s"
        await asyncio.sleep(0.001)


async def ticks(count: int = 20) -> None:
    """Let everything run that is ready; no time passes."""
    for _ in range(count):
        await asyncio.sleep(0)

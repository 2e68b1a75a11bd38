"""Virtual time, and processes in it: each an asyncio loop that can be killed, stopped and resumed.

Rules
-----
* One heap of timers and one queue for all processes, so a run is a function of its seed. Within a
  process callbacks run in the order asyncio promises; across processes delays decide.
* kill -9 is exact: a dead process runs nothing any more, no `finally`, no `except`.
* A stopped process (SIGSTOP) runs nothing until it is resumed; then everything that came meanwhile,
  its timers too, is there at once.
* What belongs to no process (the wire, the stores, the people) runs in `world.root`.
"""

import asyncio
import random
from asyncio.events import _set_running_loop
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from heapq import heappop, heappush
from typing import Any, TypeVar

T = TypeVar("T")

START_S = 1_000.0
"""Where virtual time begins, so that ages counted from 0 are old."""
START_MS = 1_701_388_798_500
"""One and a half seconds before a month ends in UTC."""
CALLBACKS_MAX = 300_000
"""A seed takes some ten thousand; one that takes so many will never end."""

RUNNING, STOPPED, DEAD = 1, 2, 3


class NeverEnds(AssertionError):
    """Callbacks without end, and no time passes."""


class Handle:
    """A callback that will run, or was cancelled."""

    __slots__ = ("_arguments", "_callback", "_process")

    def __init__(
        self, process: "Process", callback: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> None:
        self._process = process
        self._callback: Callable[..., Any] | None = callback
        self._arguments = arguments

    def cancel(self) -> None:
        self._callback = None
        self._arguments = ()

    def cancelled(self) -> bool:
        return self._callback is None


class World:
    """Time, the queue of what is ready, the heap of what will be, and chance."""

    def __init__(self, seed: int) -> None:
        self.now = START_S
        self.seed = seed
        self.chance = random.Random(seed)
        self.story: list[str] | None = None
        self.harm: Counter[str] = Counter()
        """What faults did to whom: messages lost, calls refused, callbacks held up ..."""
        self._ready: deque[Handle] = deque()
        self._heap: list[tuple[float, int, Handle]] = []
        self._count = 0
        self._ran = 0
        self.processes: list[Process] = []
        """All there ever were: what a dead one was about to do is not cleaned up meanwhile."""
        self.root = Process(self, "world")

    def tell(self, who: str, what: str, *details: object) -> None:
        """A line of the story, if one is told."""
        if self.story is not None:
            text = what % details if details else what
            self.story.append(f"{(self.now - START_S) * 1000:9.1f} ms  {who:<12} {text}")

    def after(self, delay_s: float, callback: Callable[..., Any], *arguments: Any) -> Handle:
        """A call outside all processes."""
        return self.schedule(self.now + delay_s, Handle(self.root, callback, arguments))

    def schedule(self, at_s: float, handle: Handle) -> Handle:
        self._count += 1
        heappush(self._heap, (at_s, self._count, handle))
        return handle

    def run(self, until: Callable[[], bool], end_s: float) -> bool:
        """Let time pass until the condition holds. False if it does not by `end_s`."""
        ready, heap, current = self._ready, self._heap, None
        try:
            while True:
                while ready:
                    handle = ready.popleft()
                    callback, process = handle._callback, handle._process
                    if callback is None or process.status is DEAD:
                        continue
                    if process.status is STOPPED:
                        process.held.append(handle)
                        self.harm["held"] += 1
                        continue
                    if process is not current:
                        _set_running_loop(process)  # type: ignore[arg-type]
                        current = process
                    self._ran += 1
                    callback(*handle._arguments)
                if self._ran > CALLBACKS_MAX:
                    raise NeverEnds(f"{self._ran} callbacks by {self.now:.3f} s")
                if until():
                    return True
                if not heap or heap[0][0] > end_s:
                    self.now = max(self.now, end_s)
                    return False
                at_s, _, handle = heappop(heap)
                if handle._callback is not None:
                    self.now = at_s
                    ready.append(handle)
        finally:
            _set_running_loop(None)


class Process:
    """A process: as much of an event loop as tasks, futures, sleeps and timeouts need."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.status = RUNNING
        self.held: list[Handle] = []
        self.jump_ms = 0
        """By how much its wall clock is off."""
        self.tasks: list[asyncio.Task[Any]] = []
        self._ready = world._ready
        world.processes.append(self)

    @property
    def alive(self) -> bool:
        return self.status is not DEAD

    def kill(self) -> None:
        self.world.harm["killed"] += self.status is not DEAD
        self.status = DEAD
        self.held.clear()

    def stop(self) -> None:
        if self.status is RUNNING:
            self.status = STOPPED

    def resume(self) -> None:
        if self.status is STOPPED:
            self.status = RUNNING
            self._ready.extend(self.held)
            self.held.clear()

    def now_ms(self) -> int:
        """Its wall clock (`actors.clock.Clock`)."""
        if self.jump_ms:
            self.world.harm["wrong time"] += 1
        return START_MS + round((self.world.now - START_S) * 1000) + self.jump_ms

    def after(self, delay_s: float, callback: Callable[..., Any], *arguments: Any) -> Handle:
        """A call in this process, if it lives then."""
        return self.world.schedule(self.world.now + delay_s, Handle(self, callback, arguments))

    # What asyncio asks of a loop.

    def time(self) -> float:
        return self.world.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(self, callback: Callable[..., Any], *arguments: Any, context: Any = None) -> Any:
        handle = Handle(self, callback, arguments)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self, delay: float, callback: Callable[..., Any], *arguments: Any, context: Any = None
    ) -> Handle:
        world = self.world
        return world.schedule(world.now + delay, Handle(self, callback, arguments))

    def call_at(
        self, when: float, callback: Callable[..., Any], *arguments: Any, context: Any = None
    ) -> Handle:
        return self.world.schedule(when, Handle(self, callback, arguments))

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)  # type: ignore[arg-type]

    def create_task(
        self, coroutine: Coroutine[Any, Any, T], *, name: str | None = None, context: Any = None
    ) -> "asyncio.Task[T]":
        task = asyncio.Task(coroutine, loop=self, name=name or "")  # type: ignore[arg-type]
        # Tasks of a dead process are never finished, and that is as it should be.
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        self.tasks.append(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Errors nobody asked for, of a process that ended: its main task has told its own."""

    def run_in_executor(
        self, executor: Any, call: Callable[..., T], *arguments: Any
    ) -> "asyncio.Future[T]":
        """On a thread that takes a while. `call` may say by itself how it fails."""
        future = self.create_future()
        delay_s = self.world.chance.random() * 0.02

        def run() -> None:
            try:
                answer, error = call(*arguments), None
            except Exception as raised:  # noqa: BLE001 - as a thread would hand it over
                answer, error = None, raised
            self.after(0, settle, future, answer, error)

        self.world.after(delay_s, run)
        return future


def settle(future: "asyncio.Future[Any]", answer: Any, error: BaseException | None = None) -> None:
    """Give a future its end, unless its waiter has gone."""
    if future.done():
        return
    if error is None:
        future.set_result(answer)
    else:
        future.set_exception(error)

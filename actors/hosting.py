"""A process that hosts one asyncio program, beside Ray.

Ray calls land on threads of Ray's; the program has a thread and a loop of its own, so that it is
the same program with and without Ray. When the program ends or fails, the process ends with it, and
Ray starts a new one: nothing half-dead goes on answering. It also ends when its parent does, which
under Ray is the node's raylet: Ray means to see to that, and does not always. An actor without its
node is one too many, since Ray has started another of its name, and nobody can ask it for anything.
"""

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import structlog
import uvloop

log = structlog.get_logger()
T = TypeVar("T")

STARTED_AFTER_S = 3.0
"""By then a program has imported what it imports late."""
COLLECT_EVERY_S = 0.1
COLLECT_ALL_EVERY_S = 20.0
"""Circles that connections, page reads and status calls leave. The next young collection that their
own number would bring is half an hour away, and a hundred megabytes."""
PARENT_EVERY_S = 0.5
"""How often a program looks whether its parent is still there."""


def new_loop() -> asyncio.AbstractEventLoop:
    """The kind of loop that every program of ours runs on: libuv's, which takes a third less CPU
    for a thread's answer or a socket's bytes than asyncio's own."""
    return uvloop.new_event_loop()


class Host:
    """Runs `main()` on a loop in a thread of its own; `call` runs coroutines beside it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._parent = os.getppid()
        self._loop = new_loop()
        self._thread = threading.Thread(target=self._turn, name=name, daemon=True)

    def start(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start the loop, and the program on it."""
        self._main = main
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Run a coroutine on the loop and wait for it, from any other thread."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result(timeout_s)

    def _collect_all(self) -> None:
        collect_all()
        self._loop.call_later(COLLECT_ALL_EVERY_S, self._collect_all)

    def _turn(self) -> None:
        try:
            set_aside()
            self._loop.call_later(STARTED_AFTER_S, set_aside)
            self._loop.call_later(COLLECT_ALL_EVERY_S, self._collect_all)
            self._mind_parent()
            self._loop.run_until_complete(self._main())
        except BaseException as error:
            log.error("process_failed", name=self._name, exc_info=error)
            end_process(self._name, repr(error))
        end_process(self._name, "ended")

    def _mind_parent(self) -> None:
        if os.getppid() != self._parent:
            end_process(self._name, "its node has ended")
        self._loop.call_later(PARENT_EVERY_S, self._mind_parent)


def end_process(name: str, reason: str) -> NoReturn:
    """End at once, without clean-up that could still write or answer."""
    log.error("process_ends", name=name, reason=reason, pid=os.getpid())
    os._exit(70)


def process_identity(pid: int | None = None) -> str:
    """`boot id:pid:start time`: names a process for ever, on this machine and until it reboots.
    '' if there is no such process."""
    pid = os.getpid() if pid is None else pid
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # The command's name may hold spaces and brackets; fields count from the last bracket.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return f"{boot_id}:{pid}:{fields[19]}"


def kill_process(identity: str) -> bool:
    """kill -9 the process of this identity, if it is another one, alive, and on this machine."""
    boot_id, _, rest = identity.partition(":")
    pid_text, _, _ = rest.partition(":")
    if not boot_id or not pid_text.isdigit() or int(pid_text) == os.getpid():
        return False
    pid = int(pid_text)
    if process_identity(pid) != identity:
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def memory_bytes() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


YOUNG_OBJECTS = 100_000
"""A young collection after so many objects more than there were. By default it is 700: with 64
calls in flight, 30 objects each, an eighth of a gateway's time went to calls that are alive."""


def set_aside() -> None:
    """Keep what there is by now out of every later garbage collection.

    A process of ours has some 300,000 objects of modules, classes and descriptors, and a full
    collection walks all of them: 80 ms, every two seconds in a busy gateway. Nothing is done where
    the collector is stopped."""
    if gc.isenabled():
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS)


def collect_all() -> None:
    """Collect what was not set aside: a millisecond for 10,000 objects. Nothing is done where the
    collector is stopped."""
    if gc.isenabled():
        gc.collect()


def stop_collector() -> None:
    """No automatic garbage collection: over a million live rows one run stalls 140-320 ms."""
    gc.disable()


async def keep_collecting() -> None:
    """Collect what is new ten times a second, for a process whose collector is stopped. Once a
    second is too seldom: 20,000 new rows stall it for 10-25 ms."""
    while True:
        await asyncio.sleep(COLLECT_EVERY_S)
        collect_young()


def collect_young() -> None:
    """Collect what is new, and set aside for good what survives. 6 ms for 100,000 new objects."""
    gc.collect(0)
    gc.freeze()

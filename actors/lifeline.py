"""Word of a process's death before the kernel has cleared up after it.

The kernel closes the connections of a killed process after it has taken its memory back: 70 ms for
500 MB on an idle machine, and several times that on a busy one. But a thread with a table of open
files of its own has these closed as soon as it ends itself, and all threads of a killed process end
within a fraction of a millisecond. So one thread of a replica holds a listening socket and the
connections to it in such a table, and whoever is connected sees the end of file at once.

Rules
-----
* Nothing but a death closes a lifeline: callers above `CALLERS_MAX` wait in the socket's queue.
* Nothing is ever sent, and nothing rests on it: who has none learns of the death a little later, by
  the road's connection. That is also how it is if this thread happens to end last.
* A number of a file means another file to this thread than to the others. So it runs no code that
  could close theirs: the collector, which runs in any thread, must be stopped.
* Systems without `unshare`, or that forbid it, have no lifelines.
"""

import asyncio
import ctypes
import gc
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

CLONE_FILES = 0x400
CALLERS_MAX = 256
BACKLOG = 128
REFUSED_PAUSE_S = 0.1
"""After an accept that failed, for want of memory."""
STANDARD_FILES = 3


def lifeline_path(road_path: str) -> str:
    """Where the lifeline of the process is that takes rounds at this Unix socket."""
    return road_path.removesuffix(".sock") + "-life.sock"


def hold_lifeline(path: str) -> str:
    """Listen at `path` until this process ends. Answers '' or why there can be none."""
    if gc.isenabled():
        raise RuntimeError("a lifeline needs the collector to be stopped")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(path)
            listener.listen(BACKLOG)
            told: SimpleQueue[str] = SimpleQueue()
            hold = threading.Thread(
                target=_hold, args=(listener.fileno(), told), name="lifeline", daemon=True
            )
            hold.start()
            # The thread has its own copy by now: this one would keep the socket open to the end.
            return told.get()
    except OSError as error:
        return str(error)


def _hold(number: int, told: "SimpleQueue[str]") -> None:
    trouble = _leave_all_but(number)
    told.put(trouble)
    if trouble:
        return
    listener = socket.socket(fileno=number)
    listener.setblocking(False)
    callers: dict[int, socket.socket] = {}
    waiting = select.poll()
    waiting.register(number, select.POLLIN)
    while True:
        for ready, _ in waiting.poll():
            if ready != number:
                # Nobody sends anything, so this one has gone.
                waiting.unregister(ready)
                callers.pop(ready).close()
            elif caller := _accepted(listener):
                callers[caller.fileno()] = caller
                waiting.register(caller.fileno(), select.POLLIN)
        # A socket that is not looked at keeps its callers in the queue.
        waiting.modify(number, select.POLLIN if len(callers) < CALLERS_MAX else 0)


def _leave_all_but(number: int) -> str:
    """A table of files for this thread alone, with this one in it. '' or why not."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_FILES) != 0:
            return f"unshare: {os.strerror(ctypes.get_errno())}"
        others = [int(name) for name in os.listdir("/proc/thread-self/fd")]
    except (AttributeError, OSError) as error:
        return str(error)
    for other in others:
        if other >= STANDARD_FILES and other != number:
            os.closerange(other, other + 1)
    return ""


def _accepted(listener: socket.socket) -> socket.socket | None:
    try:
        caller, _ = listener.accept()
    except BlockingIOError:
        return None
    except OSError:
        time.sleep(REFUSED_PAUSE_S)
        return None
    return caller


class Lifeline:
    """A gateway's end of one. `on_end` is called when the process at the other end is dying."""

    def __init__(self, path: str, on_end: Callable[[], None]) -> None:
        """Raises OSError where there is none."""
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise
        self._loop.add_reader(self._socket.fileno(), self._ended)

    def close(self) -> None:
        """Listen no more. Idempotent."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _ended(self) -> None:
        self.close()
        self._on_end()

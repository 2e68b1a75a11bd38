"""The processes of a local stack, told by where they work: in the stack's own directory.

Parents do not tell: a worker whose parent was killed belongs to the system, and a title or an
environment can be overwritten. Only Linux shows where a process works (/proc), and only of the
processes of the same user.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection
from pathlib import Path

__all__ = ["alive", "end_all", "ended", "processes_in"]

POLL_S = 0.02


def processes_in(directory: str | os.PathLike[str]) -> frozenset[int]:
    """Living processes that work in the directory or below it."""
    inside = os.fspath(directory)
    found = set()
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            place = os.readlink(process / "cwd").removesuffix(" (deleted)")
        except OSError:
            continue  # Gone meanwhile, a zombie, or another user's.
        if place == inside or place.startswith(f"{inside}/"):
            found.add(int(process.name))
    return frozenset(found)


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def ended(pid: int, timeout_s: float) -> bool:
    """Whether the process ends in time; returns as soon as it has."""
    deadline = time.monotonic() + timeout_s
    while alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def end_all(
    directory: str | os.PathLike[str], *, but: Collection[int] = (), timeout_s: float = 15.0
) -> frozenset[int]:
    """kill -9 whatever works in the directory, again and again until nothing is left, since what
    dies may have been starting something. Answers what is still there after the time."""
    deadline = time.monotonic() + timeout_s
    spared = {*but, os.getpid()}
    while left := processes_in(directory) - spared:
        if time.monotonic() > deadline:
            return left
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_S)
    return frozenset()

"""A dying process is known to be dying; a living one never is. In real processes: a thread that
shares no files with the rest has no place in that of the tests."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from actors.lifeline import CALLERS_MAX, Lifeline, hold_lifeline, lifeline_path
from tests.helpers.services import require

HOLDER = """
import sys, threading, time
from actors import lifeline
from actors.hosting import stop_collector
stop_collector()
lifeline.CALLERS_MAX = int(sys.argv[2])
for _ in range(20):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
trouble = lifeline.hold_lifeline(sys.argv[1])
held = b"x" * int(sys.argv[3])
print(trouble or "held", flush=True)
sys.stdin.read()
"""
MEMORY_BYTES = 300_000_000
TRIES = 20
"""Now and then the thread with the lifeline is the last one to end, or we are slow to hear of it:
then nothing is known early."""


@contextmanager
def holder(path: Path, *, callers_max: int = CALLERS_MAX, memory_bytes: int = 0) -> Iterator[int]:
    """A process that holds a lifeline there."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), str(callers_max), str(memory_bytes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        require(said == "held", f"no lifeline on this machine: {said}")
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def clears_up(pid: int) -> bool:
    """Whether the child is dying, and not dead: not all of its threads have ended."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


class Watched:
    """A lifeline, and whether its process was still clearing up when it ended."""

    def __init__(self, path: Path, pid: int) -> None:
        self.ended = asyncio.Event()
        self.early = False
        self._pid = pid
        self.lifeline = Lifeline(str(path), self._end)

    def _end(self) -> None:
        self.early = clears_up(self._pid)
        self.ended.set()


async def test_a_killed_process_is_known_before_its_memory_is_given_back(tmp_path: Path) -> None:
    for number in range(TRIES):
        path = tmp_path / f"{number}.sock"
        with holder(path, memory_bytes=MEMORY_BYTES) as pid:
            watched = Watched(path, pid)
            os.kill(pid, signal.SIGKILL)
            async with asyncio.timeout(10):
                await watched.ended.wait()
        if watched.early:
            return
    pytest.fail("known when all was over, each time")


async def test_who_stops_listening_is_told_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with holder(path) as pid:
        left, stays = Watched(path, pid), Watched(path, pid)
        left.lifeline.close()
        left.lifeline.close()
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            await stays.ended.wait()
        assert not left.ended.is_set()


async def test_a_stopped_process_is_not_a_dead_one(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with holder(path) as pid:
        os.kill(pid, signal.SIGSTOP)
        watched = Watched(path, pid)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await watched.ended.wait()
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            await watched.ended.wait()


def test_callers_above_the_limit_wait_for_those_that_go(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with holder(path, callers_max=2) as pid:
        callers = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(5)]
        for caller in callers:
            caller.connect(str(path))
            caller.settimeout(0.05)
        for caller in callers[:2]:
            caller.close()
        for caller in callers[2:]:
            with pytest.raises(TimeoutError):
                caller.recv(1)
        os.kill(pid, signal.SIGKILL)
        for caller in callers[2:]:
            caller.settimeout(10)
            assert ended(caller)
            caller.close()


def ended(caller: socket.socket) -> bool:
    """One that waited in the queue is reset."""
    try:
        return caller.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_process_that_collects_holds_no_lifeline(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="collector"):
        hold_lifeline(str(tmp_path / "a.sock"))


def test_a_path_that_is_too_long_is_told(tmp_path: Path) -> None:
    code = HOLDER.replace("sys.stdin.read()", "")
    path = str(tmp_path / ("a" * 120))
    done = subprocess.run(
        [sys.executable, "-c", code, path, "2", "0"], capture_output=True, text=True, check=True
    )
    assert "too long" in done.stdout


def test_a_lifeline_stands_beside_its_road() -> None:
    assert lifeline_path("/tmp/d/shard-0000-a-12.sock") == "/tmp/d/shard-0000-a-12-life.sock"

"""`stockray serve` as a child process: started, watched until ready, drained, or killed whole.

The demo, the benchmark and the tests use the service from outside, as everybody does.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from persistence.private import dying_with_us

READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 90.0


class ChildFailed(Exception):
    """The child ended, or did not become ready. Carries the end of what it printed."""

    def __init__(self, message: str, *, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ServeChild:
    """One `stockray serve`. Its messages go to `log`; `environment` comes on top of ours."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        dies_with_us: bool = False,
    ) -> None:
        """`dies_with_us`: also when this process, or the thread that started it, is killed."""
        command = [sys.executable, "-m", "stockray.cli", "serve", "-o", "json", *arguments]
        self.listen = ""
        self.ready: dict[str, Any] = {}
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._stderr = log.open("ab")
        # A flag on the command line beats the environment, so nothing outside decides.
        self._process = subprocess.Popen(
            dying_with_us(command) if dies_with_us else command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env={**os.environ, **(environment or {})},
        )

    @property
    def pid(self) -> int:
        """Of the serving process itself; Ray's processes are its descendants."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def wait_ready(self) -> "ServeChild":
        """Returns when it answers. ChildFailed if it ends before."""
        if self._process.stdout is None:
            raise ChildFailed("the child has no standard output")
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait(STOP_TIMEOUT_S)
            raise ChildFailed(self.log_tail(), exit_code=code)
        self.ready = json.loads(line)
        self.listen = self.ready["listen"]
        return self

    def terminate(self) -> int:
        """Ask it to drain and stop (SIGTERM); answers its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill_tree()
            raise ChildFailed(f"did not stop in {STOP_TIMEOUT_S:.0f} s") from None

    def kill_tree(self) -> None:
        """kill -9 the child and all its descendants, at once."""
        family = [self._process.pid, *descendants(self._process.pid)]
        for pid in family:
            kill_quietly(pid)
        self._process.wait(STOP_TIMEOUT_S)
        deadline = time.monotonic() + 10
        while any(alive(pid) for pid in family) and time.monotonic() < deadline:
            time.sleep(0.02)

    def log_tail(self) -> str:
        """The last lines that it printed."""
        self._stderr.flush()
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-10:])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self.kill_tree()
        self._stderr.close()


def descendants(pid: int) -> list[int]:
    """All processes below `pid`, parents first."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                below = [int(child) for child in children.read_text().split()]
            except OSError:
                continue
            found.extend(below)
            waiting.extend(below)
    return found


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill_quietly(pid: int) -> None:
    """kill -9; a process that is gone already is fine."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return

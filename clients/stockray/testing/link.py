"""The link to the process that runs a local stack: JSON lines over its standard streams.

That process comes with the service distribution, which names it in the entry point group
`stockray.testing`; nothing of the service is imported here. It runs in a session of its own, so a
Ctrl-C at the terminal reaches only the test run, and it ends with its stack when the pipe closes.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import entry_points
from typing import IO, Any

__all__ = ["Link", "LocalClusterError", "NotOffered", "ServiceMissing"]

GROUP = "stockray.testing"
DISTRIBUTION = "stockray-server"
PROTOCOL = 1
READ_BYTES = 65_536
CLOSE_TIMEOUT_S = 60.0
LOG_TAIL_BYTES = 4_000


class LocalClusterError(Exception):
    """The local cluster did not start, did not do what was asked, or is not running."""


class ServiceMissing(LocalClusterError):
    """The service is not installed here, so there is nothing to start."""


class NotOffered(LocalClusterError):
    """A fault that the cluster's stores cannot have. Says which can."""


class Link:
    """One such process. Calls from several threads go one after another."""

    def __init__(self) -> None:
        """Starts it. ServiceMissing; LocalClusterError when it does not come up."""
        self._lock = threading.Lock()
        self._buffer = bytearray()
        self._complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - `close` does
        self._process = subprocess.Popen(
            # -P: a folder `server` in the caller's working directory is not the service.
            [sys.executable, "-P", "-c", _program()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            start_new_session=True,
        )
        hello = self._answer("start", time.monotonic() + CLOSE_TIMEOUT_S)
        if hello != {"protocol": PROTOCOL}:
            self.close()
            raise LocalClusterError(
                f"{DISTRIBUTION} speaks another protocol ({hello}) than this client ({PROTOCOL}): "
                f"install releases of both that belong together"
            )

    @property
    def pid(self) -> int:
        """Of the process at the other end."""
        return self._process.pid

    def call(self, act: str, timeout_s: float, /, **arguments: Any) -> Any:
        """Have it do something; answers what it says. ValueError for a wish that cannot be,
        NotOffered, or LocalClusterError, also when no answer comes in time."""
        request = json.dumps({"act": act, "with": arguments}).encode() + b"\n"
        with self._lock:
            if self._process.stdin is None or self._process.stdin.closed:
                raise LocalClusterError("the local cluster is closed")
            try:
                self._process.stdin.write(request)
                self._process.stdin.flush()
            except BrokenPipeError as error:
                raise LocalClusterError(self._ended()) from error
            return self._answer(act, time.monotonic() + timeout_s)

    def close(self) -> None:
        """End it; with it ends its stack. Idempotent."""
        with self._lock:
            if self._process.stdin is not None and not self._process.stdin.closed:
                self._process.stdin.close()
            try:
                self._process.wait(CLOSE_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._complaints.close()

    def _answer(self, act: str, deadline: float) -> Any:
        answer = json.loads(self._next_line(act, deadline))
        if "error" not in answer:
            return answer["ok"]
        kind, message = answer["error"], answer["message"]
        if kind == "wish":
            raise ValueError(message)
        raise (NotOffered if kind == "not offered" else LocalClusterError)(message)

    def _next_line(self, act: str, deadline: float) -> bytes:
        output = self._process.stdout
        if output is None or output.closed:
            raise LocalClusterError("the local cluster is closed")
        poll = select.poll()
        poll.register(output, select.POLLIN)
        while not self._buffer.endswith(b"\n"):
            left_ms = (deadline - time.monotonic()) * 1_000
            if left_ms <= 0 or not poll.poll(left_ms):
                # An answer that comes later would be taken for that of the next request. Asked to
                # end, and not killed, it clears up.
                if self._process.stdin is not None:
                    self._process.stdin.close()
                self._process.terminate()
                raise LocalClusterError(f"{act}: no answer in time; the local cluster was ended")
            data = output.read1(READ_BYTES)  # type: ignore[attr-defined]
            if not data:
                raise LocalClusterError(self._ended())
            self._buffer += data
        line, self._buffer = bytes(self._buffer), bytearray()
        return line

    def _ended(self) -> str:
        code = self._process.wait(CLOSE_TIMEOUT_S)
        self._complaints.seek(0, 2)
        self._complaints.seek(max(0, self._complaints.tell() - LOG_TAIL_BYTES))
        said = self._complaints.read().decode(errors="replace")
        return f"the local cluster's process ended with exit code {code}:\n{said}"


def _program() -> str:
    """What the process runs: the function that the service distribution names."""
    points = sorted(entry_points(group=GROUP))
    if not points:
        raise ServiceMissing(
            f"the service is not installed beside the client: pip install {DISTRIBUTION}"
        )
    module, _, function = points[0].value.partition(":")
    return f"from {module} import {function}; {function}()"

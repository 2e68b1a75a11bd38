"""The process that runs a local stack for a test process: requests in, answers out, as JSON lines.

Started by `stockray.testing` through the entry point of the same name. To a request `{"act": name,
"with": arguments}` the answer is `{"ok": value}` or `{"error": kind, "message": text}`; one at a
time. The first line out says which protocol this is.

Rules
-----
* Whatever ends the test process ends the stack: its end of the pipe closes, or, if a fork keeps
  that open, this process gets another parent.
* Standard output is for answers alone: what anybody else prints goes to standard error.
"""

import json
import os
import select
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from persistence.errors import StorageError
from persistence.private import ServerFailedError
from persistence.tcp_proxy import ProxyError
from server.bootstrap import CannotStart
from server.children import ChildFailed
from server.settings import PREFIX
from server.testing import BadWish, LocalStack, NotOffered, ServiceEnded, Wish

PROTOCOL = 1
LOOK_EVERY_MS = 500
"""How often the parent is looked at."""
READ_BYTES = 65_536
_KINDS: Mapping[type[Exception], str] = {
    BadWish: "wish",
    ProxyError: "wish",
    NotOffered: "not offered",
}
_FAILURES = (ServerFailedError, ServiceEnded, ChildFailed, CannotStart, StorageError, OSError)


class Host:
    """Answers requests until it is told to close, or nobody is there any more."""

    def __init__(self, requests: int, answers: TextIO) -> None:
        """`requests` is a file descriptor to read."""
        self._requests = requests
        self._answers = answers
        self._buffer = bytearray()
        self._parent = os.getppid()
        self._stack: LocalStack | None = None

    def run(self) -> None:
        """Until the end; the stack is gone then."""
        try:
            self._answer({"ok": {"protocol": PROTOCOL}})
            while (line := self._next_line()) and self._serve(json.loads(line)):
                pass
        except BrokenPipeError:
            return
        finally:
            if self._stack is not None:
                self._stack.close()

    def _next_line(self) -> bytes:
        """b"" when there is nobody to send one."""
        poll = select.poll()
        poll.register(self._requests, select.POLLIN)
        while b"\n" not in self._buffer[-READ_BYTES:]:
            if not poll.poll(LOOK_EVERY_MS):
                if os.getppid() != self._parent:
                    return b""
                continue
            data = os.read(self._requests, READ_BYTES)
            if not data:
                return b""
            self._buffer += data
        # One request at a time: nothing follows the line.
        line, self._buffer = bytes(self._buffer), bytearray()
        return line

    def _serve(self, request: Mapping[str, Any]) -> bool:
        """Whether there may be more requests."""
        act = request["act"]
        if act == "close":
            if self._stack is not None:
                self._stack.close()
                self._stack = None
            self._answer({"ok": None})
            return False
        try:
            answer = {"ok": self._acts()[act](**request["with"])}
        except tuple(_KINDS) as error:
            answer = {"error": _KINDS[type(error)], "message": str(error)}
        except _FAILURES as error:
            answer = {"error": "failed", "message": str(error)}
        self._answer(answer)
        return True

    def _acts(self) -> Mapping[str, Callable[..., Any]]:
        stack = self._stack
        if stack is None:
            return {"open": self._open}
        return {
            "start": stack.start,
            "facts": stack.facts,
            "stop": stack.stop,
            "kill": stack.kill,
            "shard_of": stack.shard_of,
            "pids": stack.pids,
            "projectors": stack.projectors,
            "relays": stack.relays,
            "stall_journal": stack.stall_journal,
            "delay_journal": stack.delay_journal,
            "lock_journal": stack.lock_journal,
            "free_journal": stack.free_journal,
            "act_on_store": stack.act_on_store,
            "verify": stack.verify,
        }

    def _open(self, **wish: Any) -> dict[str, Any]:
        self._stack = LocalStack(Wish(**wish))
        return self._stack.facts()

    def _answer(self, answer: Mapping[str, Any]) -> None:
        self._answers.write(json.dumps(answer) + "\n")
        self._answers.flush()


def main() -> None:
    """The program behind the entry point."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # Settings of other servers: a stack has those of its wish, whatever the environment says.
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    # A test run that is interrupted by its terminal is closed by its own hand or by its end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Host(0, answers).run()

"""Where the answer of a quick call goes: see `HandlerTable.begin`.

A quick handler puts one line and says how its answer becomes bytes (`after`), or refuses by raising
CallError. One object a call, and no other: it holds what the call took of admission, gives it back
exactly once, and lets nothing out of the answer's making but bytes or a CallError.
"""

from collections.abc import Callable
from typing import Any

import structlog

from server.admission import Admission
from server.counters import CallCounters
from server.errors import CallError, internal

log = structlog.get_logger("server.handlers")

Answer = tuple[Any, ...]
Done = Callable[[bytes | CallError], None]
Make = Callable[[Any, Answer], bytes]
"""The subject and a line's answer -> the bytes of the response."""


def logged_fault(path: str, error: Exception) -> CallError:
    """An exception that nobody expected: its text goes to the log, never to the caller."""
    log.exception("call_failed", path=path, exc_info=error)
    return internal()


class Reply:
    """One quick call that is going on."""

    __slots__ = (
        "_admission",
        "_bytes",
        "_counters",
        "_done",
        "_lines",
        "_make",
        "_path",
        "_subject",
        "over",
    )

    _make: Make
    _subject: Any

    def __init__(self, path: str, admission: Admission, counters: CallCounters, done: Done) -> None:
        self.over = False
        self._path = path
        self._admission = admission
        self._counters = counters
        self._done = done
        self._bytes = -1
        self._lines = 0

    def take_message(self, size_bytes: int) -> None:
        """See `Admission`; given back at the end."""
        self._admission.take_message(size_bytes)
        self._bytes = size_bytes

    def take_line(self) -> None:
        """See `Admission`; given back at the end."""
        self._admission.take_lines(1)
        self._lines = 1

    def after(self, make: Make, subject: Any) -> Callable[[Answer], None]:
        """What a line's answer is to be given to: the call ends with `make(subject, answer)`. A
        CallError that it raises ends the call, any other exception ends it INTERNAL."""
        self._make = make
        self._subject = subject
        return self._answered

    def _answered(self, answer: Answer) -> None:
        if self.over:
            return
        try:
            outcome: bytes | CallError = self._make(self._subject, answer)
        except CallError as error:
            outcome = error
        except Exception as error:  # noqa: BLE001 - it would end the sender; it is logged.
            outcome = logged_fault(self._path, error)
        self.finish(outcome)

    def finish(self, outcome: bytes | CallError) -> None:
        """End the call; nothing if it has ended."""
        if self.over:
            return
        self._leave()
        if isinstance(outcome, bytes):
            self._counters.succeeded += 1
        else:
            self._counters.failed += 1
        self._done(outcome)

    def cancel(self) -> None:
        """Nobody waits any more: `done` is not called. What was put commits all the same."""
        if not self.over:
            self._leave()
            self._counters.failed += 1

    def _leave(self) -> None:
        self.over = True
        admission = self._admission
        if self._bytes >= 0:
            admission.give_message(self._bytes)
            admission.give_lines(self._lines)

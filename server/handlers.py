"""The handler table: every call of the service, written once, for any front to serve.

Rules
-----
* A front hands over the bytes of one request with what it knows of the call (`Invocation`), and
  gets bytes back, or a `CallError` that says everything the wire must say. It decides nothing.
* A handler sees a parsed message and a `CallContext`, never a front.
* What is the same for all calls is done here: admission, size and line limits, parsing, the
  deadline, and that no unknown exception leaves with its text.
* A cancelled call cancels its handler; whatever was submitted commits all the same (`lines.py`).
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import structlog
from google.protobuf.message import DecodeError, Message

from server.admission import LINES_A_CALL_MAX, Admission
from server.errors import (
    CallError,
    StockrayStatus,
    Violation,
    internal,
    malformed_message,
    refuse_fields,
    too_many_lines,
)
from server.validate import is_id

CALLER_KEY = "stockray-caller"
"""Metadata that names the calling backend; request ids are unique within a caller and slot."""
DEFAULT_CALLER = "default"
OWN_CALLER = "stockray"
"""The service's own name as a caller, of allocations and returns; nobody else may use it."""
DEADLINE_MAX_MS = 10_000

log = structlog.get_logger("server.handlers")


def wall_ms() -> int:
    """Milliseconds since 1970, UTC, by this machine's clock."""
    return time.time_ns() // 1_000_000


class Invocation(NamedTuple):
    """What a front knows of a call besides its bytes."""

    peer: str
    metadata: Mapping[str, str]
    timeout_s: float | None
    """What is left of the caller's deadline; None when it set none."""


class CallContext:
    """What a handler may know of its call."""

    __slots__ = ("_now_ms", "caller", "deadline_ms", "metadata", "peer")

    def __init__(
        self,
        *,
        caller: str,
        deadline_ms: int,
        peer: str = "",
        metadata: Mapping[str, str] | None = None,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self.caller = caller
        """The calling backend, `stockray-caller` of the metadata."""
        self.deadline_ms = deadline_ms
        """Wall-clock milliseconds: the caller's deadline, at most 10 s after the call began."""
        self.peer = peer
        self.metadata: Mapping[str, str] = metadata or {}
        self._now_ms = now_ms

    def now_ms(self) -> int:
        """The gateway's wall clock."""
        return self._now_ms()

    def time_remaining_s(self) -> float:
        """Seconds until the deadline, never negative."""
        return max(0, self.deadline_ms - self._now_ms()) / 1_000

    def abort(self, status: StockrayStatus) -> NoReturn:
        """End the call with an RPC error."""
        raise CallError(status)


Handler = Callable[[Any, CallContext], Awaitable[Message]]
StreamHandler = Callable[[Any, CallContext], AsyncIterator[Message]]
Calls = Mapping[str, tuple[type[Message], Handler]]
"""Name of a call -> its request class and handler."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One call. Exactly one of `unary` and `stream` is set."""

    path: str
    """As on the wire, for example "/stockray.v1.InventoryService/Reserve"."""
    request: type[Message]
    unary: Handler | None = None
    stream: StreamHandler | None = None
    lines_field: str = ""
    """The repeated field whose length is limited and counted; '' counts the call as one line."""
    always: bool = False
    """Answered in every phase and under any load, and not counted: health."""


class HandlerTable:
    """All calls by their path."""

    def __init__(
        self,
        methods: Iterable[Method],
        admission: Admission,
        *,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self.methods: dict[str, Method] = {method.path: method for method in methods}
        self.admission = admission
        self._now_ms = now_ms

    def service_names(self) -> list[str]:
        """The full names of all services of the table, sorted."""
        return sorted({path.split("/")[1] for path in self.methods})

    async def call(self, method: Method, data: bytes, invocation: Invocation) -> bytes:
        """One unary call. Raises CallError, and nothing else but a cancellation."""
        handler = method.unary
        if handler is None:
            raise TypeError(f"{method.path} is a stream")
        admission = self.admission
        size_bytes, lines = len(data), 0
        if not method.always:
            admission.take_message(size_bytes)
        try:
            message = _parse(method, data)
            context = self._context(invocation)
            if not method.always:
                lines = _count_lines(method, message)
                admission.take_lines(lines)
            try:
                answer = await handler(message, context)
                return answer.SerializeToString()
            finally:
                admission.give_lines(lines)
        except CallError:
            raise
        except Exception as error:
            raise _logged(method.path) from error
        finally:
            if not method.always:
                admission.give_message(size_bytes)

    async def call_stream(
        self, method: Method, data: bytes, invocation: Invocation
    ) -> AsyncIterator[bytes]:
        """One server stream. Raises as `call`; ends when the handler does."""
        handler = method.stream
        if handler is None:
            raise TypeError(f"{method.path} is not a stream")
        if not method.always:
            self.admission.take_message(len(data))
            self.admission.give_message(len(data))
            self.admission.take_stream()
        try:
            async for answer in handler(_parse(method, data), self._context(invocation)):
                yield answer.SerializeToString()
        except CallError:
            raise
        except Exception as error:
            raise _logged(method.path) from error
        finally:
            if not method.always:
                self.admission.give_stream()

    def _context(self, invocation: Invocation) -> CallContext:
        now_ms = self._now_ms()
        timeout_s = invocation.timeout_s
        left_ms = DEADLINE_MAX_MS if timeout_s is None else int(timeout_s * 1_000)
        return CallContext(
            caller=_caller(invocation.metadata),
            deadline_ms=now_ms + max(0, min(left_ms, DEADLINE_MAX_MS)),
            peer=invocation.peer,
            metadata=invocation.metadata,
            now_ms=self._now_ms,
        )


def _logged(path: str) -> CallError:
    """An exception nobody expected: its text goes to the log, never to the caller."""
    log.exception("call_failed", path=path)
    return internal()


def _parse(method: Method, data: bytes) -> Message:
    try:
        return method.request.FromString(data)
    except DecodeError:
        raise malformed_message(method.request.DESCRIPTOR.full_name) from None


def _count_lines(method: Method, message: Message) -> int:
    field = method.lines_field
    if not field:
        return 1
    count = len(getattr(message, field))
    if not 0 < count <= LINES_A_CALL_MAX:
        raise too_many_lines(field, LINES_A_CALL_MAX)
    return count


def _caller(metadata: Mapping[str, str]) -> str:
    caller = metadata.get(CALLER_KEY, DEFAULT_CALLER)
    if caller == OWN_CALLER or not is_id(caller):
        allowed = f"1-128 printable characters without spaces, and not '{OWN_CALLER}'"
        refuse_fields([Violation(f"(metadata) {CALLER_KEY}", allowed)])
    return caller

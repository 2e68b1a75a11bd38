"""The handler table: every call of the service, written once, for any front to serve.

Rules
-----
* A front hands over the bytes of one request, or an iterator of them, with what it knows of the
  call (`Invocation`), and gets bytes back, or a `CallError` that says everything the wire must say.
  It decides nothing. Metadata that a handler sends is in the `Invocation` when the front needs it:
  the initial before the first answer, the trailing at the end, whatever the end is.
* A handler sees a parsed message and a `CallContext`, never a front.
* What is the same for all calls is done here: admission, size and line limits, parsing, the
  deadline, counting, and that no unknown exception leaves with its text.
* A cancelled call cancels its handler; whatever was submitted commits all the same (`lines.py`).
* A call that is one line has a `quick` handler: no task, future or coroutine is made for it. It
  puts its line and leaves; its `Reply` (`reply.py`) makes the answer when the line has its own.
"""

import asyncio
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from google.protobuf.message import DecodeError, Message

from server.admission import LINES_A_CALL_MAX, Admission
from server.counters import CallCounters, FrontCounters
from server.errors import (
    CallError,
    StockrayStatus,
    Violation,
    internal,
    malformed_message,
    refuse_fields,
    too_many_lines,
)
from server.reply import Done, Reply, logged_fault
from server.validate import is_id

CALLER_KEY = "stockray-caller"
"""Metadata that names the calling backend; request ids are unique within a caller and slot."""
DEFAULT_CALLER = "default"
OWN_CALLER = "stockray"
"""The service's own name as a caller, of allocations and returns; nobody else may use it."""
DEADLINE_MAX_MS = 10_000

Metadata = list[tuple[str, str | bytes]]
"""Pairs to send: text under ASCII keys, bytes under keys that end in "-bin"."""


def wall_ms() -> int:
    """Milliseconds since 1970, UTC, by this machine's clock."""
    return time.time_ns() // 1_000_000


class Invocation:
    """What a front knows of a call besides its bytes, and what it is to send besides answers."""

    __slots__ = (
        "compress",
        "identity",
        "initial_metadata",
        "metadata",
        "peer",
        "request_compressed",
        "timeout_s",
        "trailing_metadata",
    )

    def __init__(
        self,
        peer: str,
        metadata: Mapping[str, str | bytes],
        timeout_s: float | None,
        identity: str = "",
    ) -> None:
        self.peer = peer
        self.metadata = metadata
        """Text under ASCII keys, bytes under keys that end in "-bin"."""
        self.timeout_s = timeout_s
        """What is left of the caller's deadline; None when it set none."""
        self.identity = identity
        """Who the peer is by its TLS certificate; '' if it showed none."""
        self.initial_metadata: Metadata = []
        """To be sent before the first answer, or with the end if there is none."""
        self.trailing_metadata: Metadata = []
        """To be sent with the status, beside what an error has of its own."""
        self.compress: bool | None = None
        """Whether answers go compressed, if the caller takes that; None: as the request came."""
        self.request_compressed: bool | None = None
        """Whether the caller said that its messages are compressed; None if nobody can say."""


class CallContext:
    """What a handler may know of its call."""

    __slots__ = ("_invocation", "_now_ms", "caller", "deadline_ms")

    def __init__(
        self,
        *,
        caller: str,
        deadline_ms: int,
        invocation: Invocation | None = None,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self.caller = caller
        """The calling backend, `stockray-caller` of the metadata."""
        self.deadline_ms = deadline_ms
        """Wall-clock milliseconds: the caller's deadline, at most 10 s after the call began."""
        self._invocation = invocation or Invocation("", {}, None)
        self._now_ms = now_ms

    @property
    def peer(self) -> str:
        """The other end's address, as the front writes it."""
        return self._invocation.peer

    @property
    def identity(self) -> str:
        """Who the peer is by its TLS certificate; '' if it showed none."""
        return self._invocation.identity

    @property
    def metadata(self) -> Mapping[str, str | bytes]:
        """As it came: text under ASCII keys, bytes under keys that end in "-bin"."""
        return self._invocation.metadata

    @property
    def initial_metadata(self) -> Metadata:
        """To be appended to before the first answer; later changes are not sent."""
        return self._invocation.initial_metadata

    @property
    def trailing_metadata(self) -> Metadata:
        """To be appended to before the handler ends; sent with the status, an error's too."""
        return self._invocation.trailing_metadata

    @property
    def request_compressed(self) -> bool | None:
        """Whether the caller said that its messages are compressed; None if the front cannot say
        (grpcio)."""
        return self._invocation.request_compressed

    def compress(self, wanted: bool) -> None:
        """Whether answers go compressed from now on, if the caller takes that. A stream that is
        ever to compress says so before its first answer."""
        self._invocation.compress = wanted

    def now_ms(self) -> int:
        """The gateway's wall clock."""
        return self._now_ms()

    def time_remaining_s(self) -> float:
        """Seconds until the deadline, never negative."""
        return max(0, self.deadline_ms - self._now_ms()) / 1_000

    def abort(self, status: StockrayStatus) -> NoReturn:
        """End the call with an RPC error."""
        raise CallError(status)


Handler = Callable[[Any, CallContext], Awaitable[Message | bytes]]
"""Answers a message, or the bytes of one where that is quicker."""
QuickHandler = Callable[[Any, CallContext, Reply], None]
StreamHandler = Callable[[Any, CallContext], AsyncIterator[Message]]
ClientStreamHandler = Callable[[AsyncIterator[Any], CallContext], Awaitable[Message]]
BidiHandler = Callable[[AsyncIterator[Any], CallContext], AsyncIterator[Message]]
Calls = Mapping[str, tuple[type[Message], Handler]]
"""Name of a call -> its request class and handler."""
QuickCalls = Mapping[str, tuple[type[Message], QuickHandler]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One call. Exactly one of the five handlers is set."""

    path: str
    """As on the wire, for example "/stockray.v1.InventoryService/Reserve"."""
    request: type[Message]
    unary: Handler | None = None
    quick: QuickHandler | None = None
    """Of a unary call that is one line. It may not wait, and counts as one line."""
    stream: StreamHandler | None = None
    client_stream: ClientStreamHandler | None = None
    bidi: BidiHandler | None = None
    lines_field: str = ""
    """The repeated field whose length is limited and counted; '' counts the call as one line."""
    always: bool = False
    """Answered in every phase and under any load, and not held against the limits: health."""

    def __post_init__(self) -> None:
        handlers = (self.unary, self.quick, self.stream, self.client_stream, self.bidi)
        if sum(handler is not None for handler in handlers) != 1:
            raise ValueError(f"{self.path} must have one handler")
        if self.quick and (self.lines_field or self.always):
            raise ValueError(f"{self.path} is quick: it is one line, and counted")

    @property
    def is_unary(self) -> bool:
        """Whether one message is answered by one."""
        return self.unary is not None or self.quick is not None


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
        self.counters = CallCounters()
        self.front: FrontCounters | None = None
        """The front that serves this table, once there is one; for channelz."""
        self._now_ms = now_ms
        self._tasks: set[asyncio.Task[bytes]] = set()
        """Calls that `begin` runs; no more than admission and the front's streams let in."""

    def add(self, methods: Iterable[Method]) -> None:
        """More calls, of services that tell of the table itself. Before a front is made of it."""
        self.methods.update({method.path: method for method in methods})

    def service_names(self) -> list[str]:
        """The full names of all services of the table, sorted."""
        return sorted({path.split("/")[1] for path in self.methods})

    def is_quick(self, method: Method) -> bool:
        """Whether the call answers by its deadline without a timer of the front's."""
        return method.quick is not None

    def begin(
        self, method: Method, data: bytes, invocation: Invocation, done: Done
    ) -> Callable[[], None] | None:
        """One unary call, for a front that waits for nobody. `done` is called exactly once, now or
        later on the loop, with the answer's bytes or a CallError, and must not raise; by then the
        invocation has all metadata. What is returned cancels: then `done` is not called any more,
        and what was put commits all the same. None: it is done already."""
        handler = method.quick
        if handler is None:
            task = asyncio.get_running_loop().create_task(self.call(method, data, invocation))
            self._tasks.add(task)
            task.add_done_callback(partial(self._ended, done))
            return partial(_cancel, task)
        now_ms = self._now_ms()
        self.counters.begin(now_ms)
        reply = Reply(method.path, self.admission, self.counters, done)
        try:
            reply.take_message(len(data))
            message = _parse(method, data)
            context = self._context(invocation, now_ms)
            reply.take_line()
            handler(message, context, reply)
        except CallError as error:
            reply.finish(error)
        except Exception as error:  # noqa: BLE001 - as in `call`, and it is logged.
            reply.finish(logged_fault(method.path, error))
        return None if reply.over else reply.cancel

    def _ended(self, done: Done, task: "asyncio.Task[bytes]") -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            done(task.result())
        else:
            done(error if isinstance(error, CallError) else internal())

    async def call(self, method: Method, data: bytes, invocation: Invocation) -> bytes:
        """One unary call. Raises CallError, and nothing else but a cancellation."""
        if method.quick is not None:
            return await self._call_quick(method, data, invocation)
        handler = method.unary
        if handler is None:
            raise TypeError(f"{method.path} is no unary call")
        admission = self.admission
        size_bytes, lines = len(data), 0
        with self._counted(method):
            if not method.always:
                admission.take_message(size_bytes)
            try:
                message = _parse(method, data)
                context = self._context(invocation, self._now_ms())
                if not method.always:
                    lines = _count_lines(method, message)
                    admission.take_lines(lines)
                try:
                    answer = await handler(message, context)
                    return answer if isinstance(answer, bytes) else answer.SerializeToString()
                finally:
                    admission.give_lines(lines)
            finally:
                if not method.always:
                    admission.give_message(size_bytes)
        raise AssertionError("unreachable")

    async def _call_quick(self, method: Method, data: bytes, invocation: Invocation) -> bytes:
        """For a front that waits."""
        told: asyncio.Future[bytes | CallError] = asyncio.get_running_loop().create_future()

        def tell(outcome: bytes | CallError) -> None:
            if not told.done():
                told.set_result(outcome)

        cancel = self.begin(method, data, invocation, tell)
        try:
            outcome = await told
        except asyncio.CancelledError:
            if cancel is not None:
                cancel()
            raise
        if isinstance(outcome, CallError):
            raise outcome
        return outcome

    async def call_stream(
        self, method: Method, data: bytes, invocation: Invocation
    ) -> AsyncGenerator[bytes, None]:
        """One server stream. Raises as `call`; ends when the handler does."""
        handler = method.stream
        if handler is None:
            raise TypeError(f"{method.path} is no server stream")
        with self._counted(method), self._streaming(method, len(data)):
            async for answer in handler(
                _parse(method, data), self._context(invocation, self._now_ms())
            ):
                yield answer.SerializeToString()

    async def call_client_stream(
        self, method: Method, requests: AsyncIterator[bytes], invocation: Invocation
    ) -> bytes:
        """One client stream. Raises as `call`, and what `requests` raises as INTERNAL. The handler
        may answer before all requests have come."""
        handler = method.client_stream
        if handler is None:
            raise TypeError(f"{method.path} is no client stream")
        with self._counted(method), self._streaming(method):
            async with aclosing(self._parsed(method, requests)) as messages:
                answer = await handler(messages, self._context(invocation, self._now_ms()))
                return answer.SerializeToString()
        raise AssertionError("unreachable")

    async def call_bidi(
        self, method: Method, requests: AsyncIterator[bytes], invocation: Invocation
    ) -> AsyncGenerator[bytes, None]:
        """One stream both ways. Raises as `call_client_stream`."""
        handler = method.bidi
        if handler is None:
            raise TypeError(f"{method.path} is no stream both ways")
        with self._counted(method), self._streaming(method):
            async with aclosing(self._parsed(method, requests)) as messages:
                async for answer in handler(messages, self._context(invocation, self._now_ms())):
                    yield answer.SerializeToString()

    @contextmanager
    def _counted(self, method: Method) -> Iterator[None]:
        """Counts the call and how it ended; an exception that nobody expected becomes INTERNAL."""
        counters = self.counters
        counters.begin(self._now_ms())
        try:
            yield
        except CallError:
            counters.failed += 1
            raise
        except Exception as error:
            counters.failed += 1
            raise logged_fault(method.path, error) from error
        except BaseException:
            counters.failed += 1
            raise
        counters.succeeded += 1

    @contextmanager
    def _streaming(self, method: Method, size_bytes: int = 0) -> Iterator[None]:
        """Holds a place among the open streams."""
        if method.always:
            yield
            return
        admission = self.admission
        admission.take_message(size_bytes)
        admission.give_message(size_bytes)
        admission.take_stream()
        try:
            yield
        finally:
            admission.give_stream()

    async def _parsed(
        self, method: Method, requests: AsyncIterator[bytes]
    ) -> AsyncGenerator[Message, None]:
        """The messages of a stream. Each is held against the limit until the next is asked for."""
        async for data in requests:
            size_bytes = len(data)
            self.admission.take_bytes(size_bytes)
            try:
                yield _parse(method, data)
            finally:
                self.admission.give_bytes(size_bytes)

    def _context(self, invocation: Invocation, now_ms: int) -> CallContext:
        timeout_s = invocation.timeout_s
        left_ms = DEADLINE_MAX_MS if timeout_s is None else int(timeout_s * 1_000)
        return CallContext(
            caller=_caller(invocation.metadata),
            deadline_ms=now_ms + max(0, min(left_ms, DEADLINE_MAX_MS)),
            invocation=invocation,
            now_ms=self._now_ms,
        )


def _cancel(task: "asyncio.Task[bytes]") -> None:
    task.cancel()


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


def _caller(metadata: Mapping[str, str | bytes]) -> str:
    caller = metadata.get(CALLER_KEY)
    if caller is None:
        return DEFAULT_CALLER
    if caller == OWN_CALLER or not isinstance(caller, str) or not is_id(caller):
        allowed = f"1-128 printable characters without spaces, and not '{OWN_CALLER}'"
        refuse_fields([Violation(f"(metadata) {CALLER_KEY}", allowed)])
    return caller

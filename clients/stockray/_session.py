"""What all verbs of the asynchronous client stand on: its life, its loop, and calls of one request.

Rules
* A client is bound to the loop of its first use and to its process; another loop or a forked child
  gets ClientClosed with the reason instead of a hang.
* A request that is sent again is the same bytes, so the same ids. It has one finite deadline for
  all its attempts. When time is up, an answer of RETRY or UNKNOWN is returned as a value (UNKNOWN
  if any attempt was lost, whatever the edge says of a later one); a request whose last attempt had
  no answer raises DeadlineExceeded.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar, Unpack

import grpc
from google.protobuf.message import Message

from stockray._batcher import Batcher
from stockray._channel import Connections, Method
from stockray._codec import read, span
from stockray._failures import Failure, read_failure
from stockray._fork import generation
from stockray._ids import IdMaker
from stockray._retry import EDGE, REPEAT_MIN_S, UNDECIDED, UNKNOWN, pause_s
from stockray._seats import JOIN
from stockray._verbs import CONFIRM, GRAB, RELEASE, RESERVE
from stockray.enums import Status
from stockray.errors import ClientClosed, DeadlineExceeded
from stockray.group_buy import SeatResult
from stockray.options import ClientOptions, OptionChanges
from stockray.results import Answer, ConfirmResult, ReleaseResult, ReserveResult

A = TypeVar("A", bound=Answer)
T = TypeVar("T")
M = TypeVar("M", bound=Message)
TIMEOUT_MS_MAX = 600_000


class _Open:
    """What exists while a client is in use on a loop."""

    def __init__(self, target: str, options: ClientOptions) -> None:
        self.loop = asyncio.get_running_loop()
        self.connections = Connections(target, options)
        self.grab: Batcher[ReserveResult] = Batcher(GRAB, self.connections, options)
        self.reserve: Batcher[ReserveResult] = Batcher(RESERVE, self.connections, options)
        self.confirm: Batcher[ConfirmResult] = Batcher(CONFIRM, self.connections, options)
        self.release: Batcher[ReleaseResult] = Batcher(RELEASE, self.connections, options)
        self.join: Batcher[SeatResult] = Batcher(JOIN, self.connections, options)
        self.many_slots = asyncio.Semaphore(options.in_flight_per_verb * options.connections)

    @property
    def batchers(self) -> tuple[Batcher[Any], ...]:
        return self.grab, self.reserve, self.confirm, self.release, self.join


class Session:
    """Base of the asynchronous client; not used by itself."""

    def __init__(
        self,
        target: str = "127.0.0.1:7443",
        options: ClientOptions | None = None,
        **changes: Unpack[OptionChanges],
    ) -> None:
        """Makes a client of the gateway at `target`; connects at the first call.

        `target` is any gRPC target, for example "host:port" or "dns:///stock:7443". Single fields
        of `ClientOptions` may be given by name, over those of `options`.
        """
        self._target = target
        self._options = dataclasses.replace(options or ClientOptions(), **changes)
        self._timeout_s = self._options.timeout_ms / 1_000
        self._generation = generation()
        self._open: _Open | None = None
        self._closed = False
        self._under_way = 0
        self._idle = asyncio.Event()
        self._make_id = IdMaker()

    @property
    def options(self) -> ClientOptions:
        """The settings in force."""
        return self._options

    async def close(self) -> None:
        """Lets everything that was asked for come to its end, then closes the connections.

        Takes no longer than the longest deadline of what is under way. New calls raise
        ClientClosed from now on. Closing a closed client does nothing.
        """
        if self._closed:
            return
        if self._open is None:
            self._closed = True
            return
        opened = self._ready()
        self._closed = True
        try:
            while self._under_way:
                self._idle.clear()
                await self._idle.wait()
            for batcher in opened.batchers:
                await batcher.drain()
        finally:
            for batcher in opened.batchers:
                batcher.stop()
            await opened.connections.close()

    # For the verbs.

    def _ready(self) -> _Open:
        """What is open, opened at the first use; raises ClientClosed where it must not be used."""
        opened = self._open
        if self._closed:
            raise ClientClosed("the client is closed")
        if self._generation != generation():
            raise ClientClosed("the process was forked since the client was made; make a new one")
        if opened is None:
            opened = self._open = _Open(self._target, self._options)
        elif opened.loop is not asyncio.get_running_loop():
            raise ClientClosed("the client is bound to another event loop; make one for each loop")
        return opened

    def _deadline(self, opened: _Open, timeout_ms: int | None) -> float:
        """The instant on the loop's clock at which a verb that starts now has to be over."""
        if timeout_ms is None:
            return opened.loop.time() + self._timeout_s
        if not 0 < timeout_ms <= TIMEOUT_MS_MAX:
            raise ValueError(f"timeout_ms: must be from 1 to 600,000, not {timeout_ms!r}")
        return opened.loop.time() + timeout_ms / 1_000

    @asynccontextmanager
    async def _counted(self) -> AsyncIterator[_Open]:
        """Counts a call that closing waits for."""
        opened = self._ready()
        self._under_way += 1
        try:
            yield opened
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def _ask(
        self,
        answer_type: type[A],
        method: Method[Any],
        request: Message,
        *,
        ids: Sequence[str] = (),
        timeout_ms: int | None = None,
    ) -> A:
        """One request about one thing, sent until it is decided or time is up."""
        async with self._counted() as opened:
            message, lost = await self._send(opened, method, request, ids, timeout_ms)
        answer = read(answer_type, message)
        if lost:
            return dataclasses.replace(answer, status=Status.UNKNOWN)
        return answer

    async def _fetch(
        self, method: Method[M], request: Message, *, timeout_ms: int | None = None
    ) -> M:
        """One request that only reads, and whose answer has no status of its own."""
        async with self._counted() as opened:
            message, _ = await self._send(opened, method, request, (), timeout_ms)
        return message

    async def _send(
        self,
        opened: _Open,
        method: Method[M],
        request: Message,
        ids: Sequence[str],
        timeout_ms: int | None,
    ) -> tuple[M, bool]:
        """The last answer, and whether it leaves open what an attempt before it did."""
        deadline = self._deadline(opened, timeout_ms)
        payload = request.SerializeToString()
        attempts, lost = 0, False
        while True:
            attempts += 1
            answer: M | None = None
            failure: Failure | None = None
            wait = None
            try:
                left = max(deadline - opened.loop.time(), 0.001)
                answer = await opened.connections.call(method, payload, left)
            except grpc.aio.AioRpcError as failed:
                failure = read_failure(failed)
                lost = lost or failure.lost
                if not failure.resend:
                    raise failure.error.copy_for(ids, maybe_applied=lost) from failed
                wait = failure.error.retry_after
            if answer is not None:
                status = getattr(answer, "status", 0)
                if status not in UNDECIDED and not (lost and status in EDGE):
                    return answer, False
                lost = lost or status == UNKNOWN
                wait = span(answer.retry_after)  # type: ignore[attr-defined]
            pause = pause_s(self._options, attempts, wait)
            if opened.loop.time() + pause + REPEAT_MIN_S < deadline:
                await asyncio.sleep(pause)
            elif answer is not None:
                return answer, lost
            elif failure is not None:
                raise _time_up(failure, ids, lost, attempts) from failure.error


def _time_up(failure: Failure, ids: Sequence[str], lost: bool, attempts: int) -> DeadlineExceeded:
    last = failure.error
    return DeadlineExceeded(
        f"no answer in time, {attempts} attempts; last: {type(last).__name__}: {last}",
        reason=last.reason,
        domain=last.domain,
        metadata=last.metadata,
        grpc_code=last.grpc_code,
        retry_after=last.retry_after,
        maybe_applied=lost,
        ids=ids,
    )

"""Gathers the single calls of one verb into RPCs, without a timer, and sees every line to its end.

Rules
* A first call flies at the end of the loop's tick. While `in_flight_per_verb` calls fly on every
  connection, lines gather; what waits when one lands makes the next. So a lone caller waits for
  nothing, and a thousand callers share a call.
* Result i answers line i of its call. A line answered RETRY or UNKNOWN, and every line of a call
  that failed in a way that can be sent again, rests and is sent again: the same bytes, so the same
  id.
* `Line.lost` is set when an attempt may have been applied without an answer, and stays. Time up, a
  lost line is UNKNOWN, any other RETRY. Only a shard's decision ends a lost line otherwise: what
  the edge says of one attempt says nothing of the one before.
* A waiter that is cancelled leaves; its line flies on, or is dropped if it has not flown yet.
* The service refuses a call whole when it cannot read one line of it. Callers that were gathered
  must not fail for each other, so such a call is halved until the culprit is alone.
* Every line has a deadline and one alarm for all watches them, so no waiter waits for ever.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Generic, TypeVar

import grpc

from stockray._channel import Connections
from stockray._codec import span
from stockray._failures import Failure, read_failure
from stockray._pending import Group, Line
from stockray._retry import EDGE, REPEAT_MIN_S, UNDECIDED, UNKNOWN, pause_s
from stockray._verbs import STATUS, Verb
from stockray.enums import Status
from stockray.errors import ClientClosed, InvalidRequest, Overloaded, ServerError, StockrayError
from stockray.options import ClientOptions

R = TypeVar("R")


class Batcher(Generic[R]):
    """One verb of one client, on the client's loop."""

    def __init__(self, verb: Verb[R], connections: Connections, options: ClientOptions) -> None:
        self._verb = verb
        self._connections = connections
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Line[R]] = deque()
        self._groups: deque[list[Line[R]]] = deque()
        self._group_next = False
        self._resting: dict[int, list[Line[R]]] = {}
        self._resting_count = 0
        self._rests = itertools.count()
        self._flights: dict[asyncio.Task[None], list[Line[R]]] = {}
        self._flying_max = options.in_flight_per_verb * options.connections
        self._pump_due = False
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf
        self._drained: asyncio.Future[None] | None = None

    def submit(self, key: tuple[str, ...], frame: bytes, deadline: float) -> asyncio.Future[R]:
        """Takes one line; `deadline` is of the loop's clock. Raises Overloaded when full."""
        if len(self._queue) + self._resting_count >= self._options.pending_lines_max:
            raise Overloaded(
                f"{self._options.pending_lines_max:,} lines of {self._verb.name} wait already",
                reason="PENDING_LINES_MAX",
                ids=key[-1:],
            )
        if len(frame) > self._options.message_bytes_max:
            raise InvalidRequest("the line is larger than message_bytes_max", ids=key[-1:])
        future: asyncio.Future[R] = self._loop.create_future()
        self._queue.append(Line(key, frame, deadline, future))
        if not self._pump_due or deadline < self._alarm_at:
            self._wake_up(deadline)
        return future

    def submit_group(
        self, lines: Sequence[tuple[tuple[str, ...], bytes]], deadline: float
    ) -> asyncio.Future[Sequence[R | StockrayError]]:
        """Takes the lines of one RPC, to be answered together in their order."""
        future: asyncio.Future[Sequence[R | StockrayError]] = self._loop.create_future()
        group: Group[R] = Group(len(lines), future)
        self._groups.append(
            [Line(key, frame, deadline, group, slot) for slot, (key, frame) in enumerate(lines)]
        )
        self._wake_up(deadline)
        return future

    async def drain(self) -> None:
        """Returns when every line that was taken is settled: at the latest at its deadline."""
        if self._busy():
            self._drained = self._drained or self._loop.create_future()
            await asyncio.shield(self._drained)

    def stop(self) -> None:
        """Fails what is left and forgets it; the alarm rings no more."""
        for lines in self._open_lines():
            for line in lines:
                line.fail(ClientClosed("the client was closed before the line was decided"))
        for task in list(self._flights):
            task.cancel()
        self._queue.clear()
        self._groups.clear()
        self._resting.clear()
        if self._alarm is not None:
            self._alarm.cancel()

    # Sending.

    def _wake_up(self, deadline: float) -> None:
        if not self._pump_due:
            self._pump_due = True
            self._loop.call_soon(self._pump)
        if deadline < self._alarm_at:
            self._set_alarm(deadline)

    def _pump(self) -> None:
        self._pump_due = False
        while len(self._flights) < self._flying_max:
            batch, gathered = self._take()
            if not batch:
                return
            task = self._loop.create_task(self._fly(batch, gathered))
            self._flights[task] = batch
            task.add_done_callback(self._landed)

    def _take(self) -> tuple[list[Line[R]], bool]:
        """The lines of the next call, and whether they are of callers who do not know each other.

        Groups and gathered lines take turns, so that neither starves the other.
        """
        if self._groups and (self._group_next or not self._queue):
            self._group_next = False
            return self._groups.popleft(), False
        self._group_next = True
        batch: list[Line[R]] = []
        queue, room = self._queue, self._options.gathered_bytes_max
        while queue and len(batch) < self._options.gathered_lines_max:
            line = queue[0]
            room -= len(line.frame)
            if room < 0 and batch:
                break
            queue.popleft()
            if not line.done:
                batch.append(line)
        return batch, True

    async def _fly(self, batch: list[Line[R]], gathered: bool) -> None:
        now = self._loop.time()
        timeout_s = max(line.deadline for line in batch) - now
        if timeout_s <= 0:
            self._expire(batch)
            return
        payload = b"".join([line.frame for line in batch])
        try:
            answer = await self._connections.call(self._verb.method, payload, timeout_s)
        except grpc.aio.AioRpcError as failed:
            failure = read_failure(failed)
        except Exception as fault:  # noqa: BLE001 A bug must fail its waiters, not strand them.
            error = ServerError(f"the call could not be made or read: {fault!r}")
            error.__cause__ = fault
            failure = Failure(error, resend=False, lost=True)
        else:
            failure_or_none = self._answered(batch, answer.results)
            if failure_or_none is None:
                return
            failure = failure_or_none
        if gathered and len(batch) > 1 and isinstance(failure.error, InvalidRequest):
            half = len(batch) // 2
            await self._fly(batch[:half], True)
            await self._fly(batch[half:], True)
            return
        self._failed(batch, failure)

    def _landed(self, task: asyncio.Task[None]) -> None:
        del self._flights[task]
        self._pump()
        self._tell_drained()

    # Answers.

    def _answered(self, batch: list[Line[R]], results: Sequence[Any]) -> Failure | None:
        if len(results) != len(batch):
            text = f"{len(results):,} results answer {len(batch):,} lines"
            return Failure(ServerError(text, reason="NOT_DENSE"), resend=False, lost=True)
        decode = self._verb.decode
        undecided: list[Line[R]] = []
        # The hot loop: plain numbers, because an enum's hash is a call into Python, and a waiter is
        # told here, because a call of settle() costs as much as what it does.
        for line, message in zip(batch, results, strict=True):
            number = message.status
            if number in UNDECIDED or (line.lost and number in EDGE):
                self._note(line, message, number)
                undecided.append(line)
                continue
            result = decode(message, STATUS.get(number) or Status(number))
            target = line.target
            if isinstance(target, Group):
                target.put(line.slot, result)
            elif not target.done():
                target.set_result(result)
        if undecided:
            self._rest(undecided)
        return None

    def _note(self, line: Line[R], message: Any, number: int) -> None:
        line.lost = line.lost or number == UNKNOWN
        line.wait = span(message.retry_after) if message.HasField("retry_after") else None
        line.note = f"{Status(number).name} {message.message}".rstrip()

    def _failed(self, batch: list[Line[R]], failure: Failure) -> None:
        for line in batch:
            line.lost = line.lost or failure.lost
            if not failure.resend:
                line.fail(failure.error)
                continue
            line.wait = failure.error.retry_after
            line.note = f"{type(failure.error).__name__}: {failure.error}"
        if failure.resend:
            self._rest(batch)

    # Resting and time.

    def _rest(self, lines: list[Line[R]]) -> None:
        """Sends again after a pause; lines that share their history share the pause."""
        now = self._loop.time()
        alike: dict[tuple[int, timedelta | None], list[Line[R]]] = {}
        for line in lines:
            line.attempts += 1
            alike.setdefault((line.attempts, line.wait), []).append(line)
        for (attempts, wait), resting in alike.items():
            pause = pause_s(self._options, attempts, wait)
            ready = now + pause + REPEAT_MIN_S
            self._expire([line for line in resting if line.deadline <= ready])
            again = [line for line in resting if not line.done]
            if again:
                rest = next(self._rests)
                self._resting[rest] = again
                self._resting_count += len(again)
                self._loop.call_later(pause, self._rested, rest)

    def _rested(self, rest: int) -> None:
        lines = self._resting.pop(rest, None)
        if lines is None:
            return
        self._resting_count -= len(lines)
        self._queue.extendleft(reversed(lines))
        self._pump()
        self._tell_drained()

    def _expire(self, lines: Sequence[Line[R]]) -> None:
        for line in lines:
            if line.done:
                continue
            status = Status.UNKNOWN if line.lost else Status.RETRY
            text = f"not decided in time; last: {line.note or 'no attempt was answered'}"
            line.settle(self._verb.blank(line.key, status, text, line.wait))

    def _set_alarm(self, deadline: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(deadline, self._ring)
        self._alarm_at = deadline

    def _ring(self) -> None:
        """Ends every line whose time is up, and sets the alarm for the next one."""
        self._alarm = None
        self._alarm_at = math.inf
        now = self._loop.time()
        for batch in self._flights.values():
            for line in batch:
                line.lost = line.lost or line.deadline <= now
        earliest: float | None = None
        for lines in self._open_lines():
            self._expire([line for line in lines if line.deadline <= now])
            for line in lines:
                if not line.done and (earliest is None or line.deadline < earliest):
                    earliest = line.deadline
        if earliest is not None:
            self._set_alarm(earliest)
        self._tell_drained()

    def _open_lines(self) -> list[Sequence[Line[R]]]:
        found: list[Sequence[Line[R]]] = [self._queue, *self._groups]
        found.extend(self._resting.values())
        found.extend(self._flights.values())
        return found

    def _busy(self) -> bool:
        return bool(self._flights) or any(
            not line.done for lines in self._open_lines() for line in lines
        )

    def _tell_drained(self) -> None:
        if self._drained is not None and not self._drained.done() and not self._busy():
            self._drained.set_result(None)

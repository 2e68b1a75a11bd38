"""Buyers on every shard, through the real client, with every answer written down.

How it works
------------
Each shard has goods and callers of its own, so that a shard that stands still stops nobody else. A
caller asks for one thing at a time and waits its turn before each, which bounds the rate. What it
does is drawn from the seed; what it meets is not. Steady callers only reserve what lasts: their
acknowledgements are the pulse by which gaps are measured. The others lead reservations through
their lives, read, ask for too much, ask with deadlines that are too short, and repeat old requests
with their old ids.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Any, NamedTuple, Self

from stockray import AsyncClient, PaymentOutcome, ReserveResult, StockrayError

from actors.core.identity import parse_public_id
from server.chaos.goods import LIMIT_PER_BUYER, PRICE_MINOR, Line
from server.chaos.history import (
    OK,
    OPERATIONS_MAX,
    UNKNOWN,
    History,
    Operation,
    begin_mark,
    failed_mark,
    outcome_of,
    outcome_of_error,
    payment_mark,
    release_mark,
    request_mark,
)

TIMEOUT_MS, SHORT_TIMEOUT_MS, PATIENT_TIMEOUT_MS = 3_000, 60, 8_000
SHORT_SHARE = 0.15
"""Of calls that give up so early that a fault leaves them in doubt."""
RPC_TIMEOUT_MS = 1_500
BACKOFF_MAX_MS = 100
"""Short, so that a gap is the service's own and not the client's pause."""
ASKED_AGAIN_MAX = 3
REFUSAL_REPEAT_S = 5.0
"""A refused id is repeated no later than so long after it was first asked for: it is remembered for
15 s, and then is a new one."""
HISTORY_SHARE = 0.8
"""Of the history that the planned time may fill; faults that take longer need room, too."""
REMEMBERED = 64
"""Old requests that a caller may repeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """The size of a load. Rates are calls a second on each shard, all callers together."""

    seed: int
    seconds: float
    """How long the campaigns have to stay open, at least."""
    steady_rate: float = 60.0
    busy_rate: float = 60.0
    steady_callers: int = 3
    busy_callers: int = 8


class Asked(NamedTuple):
    """A call before it is made: what `Operation` says of it."""

    verb: str
    line: Line
    buyer_id: str
    quantity: int
    mark: str
    reservation_id: str = ""


class Remembered(NamedTuple):
    """An old request that was decided."""

    asked: Asked
    request_id: str
    began_s: float
    reserved: bool


Call = Callable[[int], Awaitable[Any]]
"""Makes the call with this timeout, in milliseconds."""
Told = Callable[[Any], tuple[Any, ...]]
"""What of a result must be the same for a repeat, or what a read saw."""


class Load:
    """All callers; an `async with` block begins them, and its end waits for what is in flight."""

    def __init__(self, address: str, plan: LoadPlan, lines: list[list[Line]]) -> None:
        self.history = History(len(lines))
        self.stopping = False
        self.client = AsyncClient(
            address,
            timeout_ms=TIMEOUT_MS,
            rpc_timeout_ms=RPC_TIMEOUT_MS,
            backoff_max_ms=BACKOFF_MAX_MS,
            connections=2,
        )
        self._plan = plan
        self._lines = lines
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def going(self) -> bool:
        """Whether callers go on asking."""
        return not self.stopping and not self.history.full

    @property
    def slower(self) -> float:
        """Part of the planned rate at which a long run still fits into its history."""
        plan = self._plan
        wanted = len(self._lines) * (plan.steady_rate + plan.busy_rate) * plan.seconds
        return min(1.0, HISTORY_SHARE * OPERATIONS_MAX / wanted)

    async def __aenter__(self) -> Self:
        plan, slower = self._plan, self.slower
        for shard, lines in enumerate(self._lines):
            for number in range(plan.steady_callers + plan.busy_callers):
                steady = number < plan.steady_callers
                rate = slower * (plan.steady_rate if steady else plan.busy_rate)
                callers = plan.steady_callers if steady else plan.busy_callers
                caller = Caller(
                    self, lines, name=f"{plan.seed}-{shard}-{number}", pause_s=callers / rate
                )
                run = caller.sell_steadily() if steady else caller.live()
                self._tasks.append(asyncio.create_task(run))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stopping = True
        if error is not None:
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=error is not None)
        await self.client.close()

    def check_callers(self) -> None:
        """Raises what ended a caller early: a fault of the load itself."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()


class Caller:
    """One caller, its line of requests, and what it remembers of them."""

    def __init__(self, load: Load, lines: list[Line], *, name: str, pause_s: float) -> None:
        self._load = load
        self._client = load.client
        self._history = load.history
        self._lines = lines
        self._name = name
        self._pause_s = pause_s
        self._random = Random(name)
        self._next_s = 0.0
        self._count = 0
        self._old: deque[Remembered] = deque(maxlen=REMEMBERED)

    async def sell_steadily(self) -> None:
        """Reserve one unit of what lasts, for ever a new buyer."""
        line = next(line for line in self._lines if not line.scarce)
        while self._load.going:
            await self._reserve(line, self._new("buyer"), 1)

    async def live(self) -> None:
        """Reservations through their lives."""
        while self._load.going:
            line = self._random.choice(self._lines)
            buyer_id, quantity = self._new("buyer"), self._random.choice((1, 1, 1, 2))
            held = await self._reserve(line, buyer_id, quantity)
            if held.outcome == OK and line.campaign_id and self._random.random() < 0.1:
                await self._reserve(line, buyer_id, LIMIT_PER_BUYER + 1 - quantity)
            if held.outcome == OK:
                await self._go_on(line, held)
            if self._random.random() < 0.3:
                await self._read_pool(line)
            if self._old and self._random.random() < 0.15:
                await self._repeat(self._random.choice(self._old))

    def _new(self, what: str) -> str:
        self._count += 1
        return f"{what}-{self._name}-{self._count}"

    async def _turn(self) -> None:
        """Wait until this caller may ask again."""
        now = time.monotonic()
        wait_s = self._next_s - now
        self._next_s = max(now, self._next_s) + self._pause_s
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    async def _ask(self, asked: Asked, call: Call, told: Told) -> Operation:
        """Make a call, and again with the same ids while it is not known what became of it."""
        short = self._random.random() < SHORT_SHARE
        operation = await self._once(asked, call, told, SHORT_TIMEOUT_MS if short else TIMEOUT_MS)
        for _ in range(ASKED_AGAIN_MAX):
            if operation.outcome != UNKNOWN or self._random.random() < 0.25:
                break
            operation = await self._once(asked, call, told, PATIENT_TIMEOUT_MS)
        return operation

    async def _once(self, asked: Asked, call: Call, told: Told, timeout_ms: int) -> Operation:
        await self._turn()
        number = self._history.number()
        answer: tuple[Any, ...] = ()
        reservation_id = asked.reservation_id
        began_s = time.monotonic()
        try:
            result = await call(timeout_ms)
        except StockrayError as error:
            ended_s = time.monotonic()
            outcome, status = outcome_of_error(error), type(error).__name__
        else:
            ended_s = time.monotonic()
            outcome, status = outcome_of(result.status), result.status.name
            answer = told(result) if outcome == OK else ()
            reservation_id = getattr(result, "reservation_id", "") or reservation_id
        line = asked.line
        operation = Operation(
            number,
            asked.verb,
            line.shard,
            line.campaign_id,
            line.sku_id,
            asked.buyer_id,
            asked.quantity,
            asked.mark,
            reservation_id,
            began_s,
            ended_s,
            outcome,
            status,
            answer,
        )
        self._history.add(operation)
        return operation

    async def _reserve(self, line: Line, buyer_id: str, quantity: int) -> Operation:
        request_id = self._new("request")
        verb = "grab" if line.campaign_id else "reserve"
        mark = request_mark(line.slot, request_id)
        asked = Asked(verb, line, buyer_id, quantity, mark)
        began_s = time.monotonic()
        told = await self._ask(asked, self._reserving(asked, request_id), _reserved)
        if told.definite:
            self._old.append(Remembered(asked, request_id, began_s, told.outcome == OK))
        return told

    async def _repeat(self, old: Remembered) -> None:
        """The same request once more. A refusal is repeated early and once only: past its window
        the same id is a new request."""
        late = time.monotonic() - old.began_s > REFUSAL_REPEAT_S
        if old.reserved or not late:
            await self._once(
                old.asked, self._reserving(old.asked, old.request_id), _reserved, TIMEOUT_MS
            )

    def _reserving(self, asked: Asked, request_id: str) -> Call:
        client, line = self._client, asked.line
        if line.campaign_id:
            return lambda timeout_ms: client.grab(
                line.campaign_id,
                line.sku_id,
                buyer_id=asked.buyer_id,
                quantity=asked.quantity,
                request_id=request_id,
                timeout_ms=timeout_ms,
            )
        return lambda timeout_ms: client.reserve(
            line.sku_id,
            buyer_id=asked.buyer_id,
            quantity=asked.quantity,
            request_id=request_id,
            timeout_ms=timeout_ms,
        )

    async def _go_on(self, line: Line, held: Operation) -> None:
        """What becomes of a reservation. Scarce units come back soon, so that the next refusal and
        the next sale are never far."""
        draw = self._random.random()
        paid, released = (0.15, 0.97) if line.scarce else (0.5, 0.85)
        if self._random.random() < 0.2:
            await self._read_reservation(line, held.reservation_id)
        if draw < paid:
            await self._pay(line, held)
        elif draw < released:
            await self._release(line, held)
        if self._random.random() < 0.2:
            await self._read_reservation(line, held.reservation_id)

    async def _pay(self, line: Line, held: Operation) -> None:
        random, client, reservation_id = self._random, self._client, held.reservation_id
        if random.random() < 0.4:
            await self._begin(line, held)
        if random.random() < 0.15:
            await self._report_failed(line, held)
        payment_id = self._new("payment")
        due_minor = held.answer[1]
        wrong = random.random() < 0.05
        paid_minor = due_minor - 1 if wrong else due_minor
        asked = self._of(line, held, "confirm", payment_mark(line.slot, payment_id))
        for _ in range(2 if random.random() < 0.15 else 1):
            paid = await self._ask(
                asked,
                lambda timeout_ms: client.confirm(
                    reservation_id,
                    payment_id=payment_id,
                    paid_minor=paid_minor,
                    timeout_ms=timeout_ms,
                ),
                _refund_told,
            )
        if paid.status == "CONFIRMED" and (line.scarce or random.random() < 0.3):
            await self._return(line, held)

    async def _begin(self, line: Line, held: Operation) -> None:
        client, payment_id = self._client, self._new("payment")
        await self._ask(
            self._of(line, held, "begin", begin_mark(held.reservation_id)),
            lambda timeout_ms: client.begin_payment(
                held.reservation_id, payment_id=payment_id, timeout_ms=timeout_ms
            ),
            _nothing,
        )

    async def _report_failed(self, line: Line, held: Operation) -> None:
        client, payment_id = self._client, self._new("payment")
        await self._ask(
            self._of(line, held, "report_failed", failed_mark(held.reservation_id, payment_id)),
            lambda timeout_ms: client.report_payment(
                held.reservation_id,
                payment_id=payment_id,
                outcome=PaymentOutcome.FAILED,
                paid_minor=PRICE_MINOR,
                timeout_ms=timeout_ms,
            ),
            _nothing,
        )

    async def _return(self, line: Line, held: Operation) -> None:
        """One unit comes back, or all; sometimes more are said to than there are."""
        client, request_id = self._client, self._new("return")
        quantity = held.quantity if line.scarce else 1
        if self._random.random() < 0.1:
            quantity = held.quantity + 1
        parsed = parse_public_id(held.reservation_id)
        slot = parsed[0] if parsed else line.slot
        await self._ask(
            self._of(line, held, "return", request_mark(slot, request_id)),
            lambda timeout_ms: client.return_units(
                held.reservation_id,
                quantity=quantity,
                request_id=request_id,
                timeout_ms=timeout_ms,
            ),
            _refund_told,
        )

    async def _release(self, line: Line, held: Operation) -> None:
        client = self._client
        asked = self._of(line, held, "release", release_mark(held.reservation_id))
        for _ in range(2 if self._random.random() < 0.1 else 1):
            await self._ask(
                asked,
                lambda timeout_ms: client.release(held.reservation_id, timeout_ms=timeout_ms),
                _nothing,
            )

    def _of(self, line: Line, held: Operation, verb: str, mark: str) -> Asked:
        return Asked(verb, line, held.buyer_id, held.quantity, mark, held.reservation_id)

    async def _read_pool(self, line: Line) -> None:
        client = self._client
        await self._once(
            Asked("get_stock", line, "", 0, ""),
            lambda timeout_ms: client.get_stock(
                line.sku_id, campaign_id=line.campaign_id, timeout_ms=timeout_ms
            ),
            _stock_told,
            TIMEOUT_MS,
        )

    async def _read_reservation(self, line: Line, reservation_id: str) -> None:
        client = self._client
        await self._once(
            Asked("get_reservation", line, "", 0, "", reservation_id),
            lambda timeout_ms: client.get_reservation(reservation_id, timeout_ms=timeout_ms),
            _reservation_told,
            TIMEOUT_MS,
        )


def _reserved(result: ReserveResult) -> tuple[Any, ...]:
    deadline = result.deadline_time
    told = None if deadline is None else deadline.isoformat()
    return (result.reservation_id, result.payable_minor, result.unit_price_minor, told)


def _refund_told(result: Any) -> tuple[Any, ...]:
    refund = result.refund
    return () if refund is None else (refund.refund_id, refund.amount_minor)


def _stock_told(result: Any) -> tuple[Any, ...]:
    s = result.stock
    return (
        s.total_count,
        s.available_count,
        s.reserved_count,
        s.sold_count,
        s.in_transit_count,
    )


def _reservation_told(result: Any) -> tuple[Any, ...]:
    found = result.reservation
    return (found.state.name, found.returned_quantity)


def _nothing(result: Any) -> tuple[Any, ...]:
    return ()

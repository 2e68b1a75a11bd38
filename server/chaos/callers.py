"""One caller of a chaos run: its line of requests, what it remembers, and what it was told.

A caller asks for one thing at a time and waits its turn before each. What becomes of a call that
ended in doubt is asked again with the same ids; all of it is written down.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, NamedTuple, Protocol

from stockray import AsyncClient, PaymentOutcome, ReserveResult, StockrayError

from actors.core.identity import parse_public_id
from server.chaos.goods import LIMIT_PER_BUYER, PRICE_MINOR, Line
from server.chaos.history import (
    OK,
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
from server.chaos.referrals import Referrals, attribution_of

TIMEOUT_MS, SHORT_TIMEOUT_MS, PATIENT_TIMEOUT_MS = 3_000, 60, 8_000
SHORT_SHARE = 0.15
"""Of calls that give up so early that a fault leaves them in doubt."""
ASKED_AGAIN_MAX = 3
REFUSAL_REPEAT_S = 5.0
"""A refused id is repeated no later than so long after it was first asked for: it is remembered for
15 s, and then is a new one."""
REMEMBERED = 64
"""Old requests that a caller may repeat."""


class Market(Protocol):
    """The load that a caller is part of."""

    client: AsyncClient
    history: History
    referrals: Referrals
    frozen: list[tuple[str, float]]
    """(Buyer, when its account said that it is frozen)."""

    @property
    def going(self) -> bool:
        """Whether callers go on asking."""


class Asked(NamedTuple):
    """A call before it is made: what `Operation` says of it."""

    verb: str
    line: Line
    buyer_id: str
    quantity: int
    mark: str
    reservation_id: str = ""
    team_id: str = ""
    new_buyer: bool = False
    share_code: str = ""
    """That the reservation carries."""


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


class Caller:
    """One caller, its line of requests, and what it remembers of them."""

    def __init__(self, load: Market, lines: list[Line], *, name: str, pause_s: float) -> None:
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
            asked.team_id,
        )
        self._history.add(operation)
        return operation

    async def _reserve(self, line: Line, buyer_id: str, quantity: int) -> Operation:
        request_id = self._new("request")
        verb = "grab" if line.campaign_id else "reserve"
        mark = request_mark(line.slot, request_id)
        code = self._load.referrals.code_of(buyer_id)
        asked = Asked(verb, line, buyer_id, quantity, mark, share_code=code)
        return await self._take(asked, request_id)

    async def _take(self, asked: Asked, request_id: str) -> Operation:
        """Ask for units by a new id, and remember it."""
        began_s = time.monotonic()
        told = await self._ask(asked, self._reserving(asked, request_id), reserved_told)
        if told.definite:
            self._old.append(Remembered(asked, request_id, began_s, told.outcome == OK))
        return told

    async def _repeat(self, old: Remembered) -> None:
        """The same request once more. A refusal is repeated early and once only: past its window
        the same id is a new request."""
        late = time.monotonic() - old.began_s > REFUSAL_REPEAT_S
        if old.reserved or not late:
            await self._once(
                old.asked, self._reserving(old.asked, old.request_id), reserved_told, TIMEOUT_MS
            )

    def _reserving(self, asked: Asked, request_id: str) -> Call:
        client, line = self._client, asked.line
        by = attribution_of(asked.share_code)
        if line.campaign_id:
            return lambda timeout_ms: client.grab(
                line.campaign_id,
                line.sku_id,
                buyer_id=asked.buyer_id,
                quantity=asked.quantity,
                request_id=request_id,
                attribution=by,
                timeout_ms=timeout_ms,
            )
        return lambda timeout_ms: client.reserve(
            line.sku_id,
            buyer_id=asked.buyer_id,
            quantity=asked.quantity,
            request_id=request_id,
            attribution=by,
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
        paid = await self._confirm(line, held)
        if paid.status == "CONFIRMED" and (line.scarce or self._random.random() < 0.3):
            await self._return(line, held)

    async def _confirm(self, line: Line, held: Operation) -> Operation:
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
                refund_told,
            )
        return paid

    async def _begin(self, line: Line, held: Operation) -> None:
        client, payment_id = self._client, self._new("payment")
        await self._ask(
            self._of(line, held, "begin", begin_mark(held.reservation_id)),
            lambda timeout_ms: client.begin_payment(
                held.reservation_id, payment_id=payment_id, timeout_ms=timeout_ms
            ),
            nothing_told,
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
            nothing_told,
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
            refund_told,
        )

    async def _release(self, line: Line, held: Operation) -> None:
        client = self._client
        asked = self._of(line, held, "release", release_mark(held.reservation_id))
        for _ in range(2 if self._random.random() < 0.1 else 1):
            await self._ask(
                asked,
                lambda timeout_ms: client.release(held.reservation_id, timeout_ms=timeout_ms),
                nothing_told,
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


def reserved_told(result: ReserveResult) -> tuple[Any, ...]:
    deadline = result.deadline_time
    told = None if deadline is None else deadline.isoformat()
    return (result.reservation_id, result.payable_minor, result.unit_price_minor, told)


def refund_told(result: Any) -> tuple[Any, ...]:
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


def nothing_told(result: Any) -> tuple[Any, ...]:
    return ()

"""A sale that goes on and on: buyers who reserve, pay, give up, forget, return, and ask again.

How it works
------------
* A bounded number of callers share one pace. Each turn is one call: the next step of an order that
  has become due, or a new order. Steps to come stand in a bounded list, by time.
* Everything comes round: what is released or expires is sold again, what is sold is supplied again,
  campaigns are opened and ended all the time. So whatever goes on growing was forgotten by someone.
* Counts of what was done (`done`) are what growth is judged by; the sale itself keeps no more than
  a bounded sample of what it was told.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from random import Random
from typing import Any, NamedTuple

from stockray import (
    AsyncClient,
    FulfilmentStage,
    PaymentOutcome,
    RefundOutcome,
    ReserveResult,
    Status,
    StockrayError,
)

from actors.core.identity import request_key, slot_of
from server.sale import CALLER, DEFINITE_REFUSALS
from server.soak.goods import Goods, Line
from server.verify import Ack

CALLERS = 192
"""Calls in flight at most."""
STEPS_MAX = 20_000
"""Steps to come; beyond it an order is left to expire."""
BEHIND_MAX_S = 0.5
"""What a slow machine did not get done in time is made up for by so much, and then forgotten."""
BUYERS = 50_000
OLD_MAX = 4_096
OLD_EVERY = 25
"""One order of so many is kept to be asked for again, much later."""
ACKS_MAX = 30_000
TIMEOUT_MS = 8_000
ACKS_EVERY = 8
"""One answer of so many is kept, to be looked for in the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """What becomes of a reservation, as parts of all; the rest is left to expire."""

    paid: float = 0.35
    begun: float = 0.10
    """Begins to pay, then pays; some of the attempts fail first."""
    released: float = 0.25
    late: float = 0.03
    """Pays after the window: late money is an order, or is paid back."""
    returned: float = 0.25
    """Of those that paid."""


class Order(NamedTuple):
    """A reservation, as far as its next steps need it."""

    line: Line
    buyer_id: str
    quantity: int
    request_id: str
    reservation_id: str
    due_minor: int


Step = Callable[[], Awaitable[None]]


class Pace:
    """Turns, so many a second for all who ask."""

    def __init__(self, rate: float) -> None:
        self._every_s = 1 / rate
        self._next_s = 0.0

    async def turn(self) -> None:
        """Returns when it is the caller's turn."""
        now_s = asyncio.get_running_loop().time()
        self._next_s = max(self._next_s, now_s - BEHIND_MAX_S) + self._every_s
        if self._next_s > now_s:
            await asyncio.sleep(self._next_s - now_s)


class Market:
    """All callers of one sale."""

    def __init__(self, client: AsyncClient, goods: Goods, *, rate: float, seed: int) -> None:
        self.done: Counter[str] = Counter()
        """By kind: calls, sales, payments, refunds, documents, refusals, transfers, campaigns."""
        self.statuses: Counter[str] = Counter()
        self.acks: list[Ack] = []
        self.wrong: list[str] = []
        """Answers that cannot be; the first few."""
        self.stopping = False
        self._client = client
        self._goods = goods
        self._pace = Pace(rate)
        self._seed = seed
        self._random = Random(seed)
        self._shares = Shares()
        self._count = 0
        self._steps: list[tuple[float, int, Step]] = []
        self._old: deque[Order] = deque(maxlen=OLD_MAX)

    async def run(self) -> None:
        """Until `stopping` is set. Raises what ends a caller: a fault of the load itself."""
        async with asyncio.TaskGroup() as callers:
            for _ in range(CALLERS):
                callers.create_task(self._go_on())

    async def _go_on(self) -> None:
        while not self.stopping:
            await self._pace.turn()
            self.done["calls"] += 1
            try:
                await self._next()()
            except StockrayError as error:
                if not error.retriable:
                    raise
                self.statuses[type(error).__name__] += 1

    def _next(self) -> Step:
        now_s = asyncio.get_running_loop().time()
        if self._steps and self._steps[0][0] <= now_s:
            return heappop(self._steps)[2]
        draw = self._random.random()
        if draw < 0.05:
            return self._read
        if draw < 0.06 and self._old:
            return self._ask_again
        return self._reserve

    def _later(self, least_s: float, most_s: float, step: Step) -> None:
        if len(self._steps) < STEPS_MAX:
            at_s = asyncio.get_running_loop().time() + self._random.uniform(least_s, most_s)
            heappush(self._steps, (at_s, self._number(), step))

    def _number(self) -> int:
        self._count += 1
        return self._count

    def _new(self, kind: str) -> str:
        return f"{kind}-{self._seed}-{self._number()}"

    def _told(self, verb: str, result: Any) -> Status:
        status: Status = result.status
        self.statuses[f"{verb} {status.name}"] += 1
        return status

    async def _reserve(self) -> None:
        random = self._random
        line = self._goods.draw(random)
        order = Order(
            line,
            f"buyer-{random.randrange(BUYERS)}",
            1 if random.random() < 0.9 else 2,
            self._new("order"),
            "",
            0,
        )
        answer = await self._ask_for(order)
        status = self._told("reserve", answer)
        if status is Status.RESERVED:
            self.done["sales"] += 1
            order = order._replace(
                reservation_id=answer.reservation_id, due_minor=answer.payable_minor
            )
            self._plan(order)
        elif status in DEFINITE_REFUSALS:
            self.done["refusals"] += 1
        else:
            return
        self._keep(order, reserved=status is Status.RESERVED)

    async def _ask_for(self, order: Order) -> ReserveResult:
        line = order.line
        if line.campaign_id:
            return await self._client.grab(
                line.campaign_id,
                line.sku_id,
                buyer_id=order.buyer_id,
                quantity=order.quantity,
                request_id=order.request_id,
            )
        return await self._client.reserve(
            line.sku_id,
            buyer_id=order.buyer_id,
            quantity=order.quantity,
            request_id=order.request_id,
        )

    def _keep(self, order: Order, *, reserved: bool) -> None:
        if self._count % ACKS_EVERY == 0 and len(self.acks) < ACKS_MAX:
            slot = slot_of(order.line.campaign_id or order.line.sku_id)
            key = request_key(CALLER, order.request_id)
            self.acks.append(Ack(slot, key, reserved, order.request_id))
        # A refusal is remembered for 15 s, and a reservation for ever.
        if reserved and self._count % OLD_EVERY == 0:
            self._old.append(order)

    def _plan(self, order: Order) -> None:
        """What becomes of it."""
        shares, draw = self._shares, self._random.random()
        window_s = self._goods.window_s
        if draw < shares.paid:
            self._later(0.1, window_s * 0.6, lambda: self._pay(order))
        elif draw < (part := shares.paid + shares.begun):
            self._later(0.1, window_s * 0.5, lambda: self._begin(order))
        elif draw < (part := part + shares.released):
            self._later(0.1, window_s * 0.6, lambda: self._release(order))
        elif draw < part + shares.late:
            self._later(window_s * 2, window_s * 3, lambda: self._pay(order))

    async def _begin(self, order: Order) -> None:
        payment_id = self._new("payment")
        begun = await self._client.begin_payment(order.reservation_id, payment_id=payment_id)
        if self._told("begin", begun) is Status.PAYMENT_BEGUN:
            self.done["begun"] += 1
        if self._random.random() < 0.3:
            self._later(0.05, 0.2, lambda: self._fail(order, payment_id))
        self._later(0.2, self._goods.window_s * 0.4, lambda: self._pay(order))

    async def _fail(self, order: Order, payment_id: str) -> None:
        noted = await self._client.report_payment(
            order.reservation_id,
            payment_id=payment_id,
            outcome=PaymentOutcome.FAILED,
            paid_minor=order.due_minor,
        )
        if self._told("fail", noted) is Status.NOTED:
            self.done["documents"] += 1

    async def _pay(self, order: Order) -> None:
        paid = await self._client.confirm(
            order.reservation_id, payment_id=self._new("payment"), paid_minor=order.due_minor
        )
        status = self._told("confirm", paid)
        if status in (Status.CONFIRMED, Status.REFUND_DUE):
            self.done["payments"] += 1
        if status is Status.CONFIRMED:
            draw = self._random.random()
            if draw < self._shares.returned:
                self._later(0.2, 2.0, lambda: self._return(order))
            elif draw < self._shares.returned + 0.1:
                self._later(0.2, 2.0, lambda: self._ship(order))
        elif paid.refund is not None:
            self._owe(paid.refund.refund_id)

    async def _release(self, order: Order) -> None:
        self._told("release", await self._client.release(order.reservation_id))

    async def _ship(self, order: Order) -> None:
        shipped = await self._client.report_fulfilment(
            order.reservation_id, stage=FulfilmentStage.SHIPPED
        )
        self._told("ship", shipped)

    async def _return(self, order: Order) -> None:
        returned = await self._client.return_units(
            order.reservation_id, quantity=order.quantity, request_id=self._new("return")
        )
        if self._told("return", returned) is Status.RETURNED:
            self.done["documents"] += 1
        if returned.refund is not None:
            self._owe(returned.refund.refund_id)

    def _owe(self, refund_id: str) -> None:
        self.done["refunds"] += 1
        self._later(0.1, 1.0, lambda: self._pay_back(refund_id))

    async def _pay_back(self, refund_id: str) -> None:
        outcome = RefundOutcome.FAILED if self._random.random() < 0.05 else RefundOutcome.SUCCEEDED
        told = await self._client.report_refund(
            refund_id, outcome=outcome, request_id=self._new("report")
        )
        self._told("refund", told)
        if outcome is RefundOutcome.FAILED:
            self._later(0.1, 1.0, lambda: self._pay_back(refund_id))

    async def _read(self) -> None:
        line = self._goods.draw(self._random)
        if self._old and self._random.random() < 0.5:
            order = self._random.choice(self._old)
            found = await self._client.get_reservation(order.reservation_id)
            self._told("get_reservation", found)
            return
        stock = await self._client.get_stock(line.sku_id, campaign_id=line.campaign_id)
        self._told("get_stock", stock)

    async def _ask_again(self) -> None:
        """An old request, which has left memory by now or not: the answer is the same."""
        order = self._random.choice(self._old)
        answer = await self._ask_for(order)
        status = self._told("again", answer)
        if status in (Status.RETRY, Status.UNKNOWN):
            return
        same = status is Status.RESERVED and answer.reservation_id == order.reservation_id
        if not same and len(self.wrong) < 10:
            self.wrong.append(f"{order.request_id}: reserved, and then {status.name}")

"""Callers of a chaos run who come by distributors: bound early, bound late, and frozen.

Whoever is bound before the reservation earns the distributor something, whatever code the
reservation carries; whoever is bound after it, nothing. Three failed payments at different shards
freeze a buyer, who is refused from then on, and pays for what is held already.
"""

import asyncio
import time
from typing import Any

from stockray import FulfilmentStage, StockrayError

from server.chaos.callers import TIMEOUT_MS, Asked, Caller, Market, nothing_told
from server.chaos.goods import Line
from server.chaos.history import BINDING, OK, Operation, bind_mark, delivery_mark
from server.chaos.referrals import rates_of

FAILURES = 3
FROZEN_WITHIN_S = 5.0
"""How long a caller waits to see the freeze; a fault may keep it from it."""
LOOK_S = 0.1
PULLED_S = 1.0
"""Until every gateway knows, if no fault keeps it from it."""
NEW_RATES_AFTER = 4
"""Rounds of the first caller."""


class Promoter(Caller):
    """One caller of all shards' lasting goods."""

    def __init__(self, load: Market, lines: list[Line], *, name: str, pause_s: float) -> None:
        lasting = [line for line in lines if not line.scarce and not line.campaign_id]
        super().__init__(load, lasting, name=name, pause_s=pause_s)
        self._all_lines = lines

    async def promote(self, *, first: bool) -> None:
        """Buyers through their lives. The `first` caller begins with a freeze, and has new rates
        stand soon."""
        rounds = 0
        while self._load.going:
            rounds += 1
            if first and rounds == NEW_RATES_AFTER:
                await self._put_rates()
            draw = self._random.random()
            if (first and rounds == 1) or draw < 0.15:
                await self._fail_to_pay()
            elif draw < 0.6:
                await self._come_bound()
            else:
                await self._be_bound_late()

    async def _come_bound(self) -> None:
        """First touch: the binding counts, and not the code that the reservation carries."""
        buyer_id = self._new("bound")
        await self._bind(buyer_id)
        await self._buy(buyer_id)

    async def _be_bound_late(self) -> None:
        buyer_id = self._new("late")
        if await self._buy(buyer_id):
            await self._bind(buyer_id)

    async def _buy(self, buyer_id: str) -> bool:
        """Reserve and pay; some is delivered, some comes back."""
        line = self._random.choice(self._lines)
        held = await self._reserve(line, buyer_id, self._random.choice((1, 2, 3)))
        if held.outcome != OK:
            return False
        paid = await self._confirm(line, held)
        if paid.status == "CONFIRMED" and self._random.random() < 0.4:
            await self._deliver(line, held)
        if paid.status == "CONFIRMED" and self._random.random() < 0.4:
            await self._return(line, held)
        return True

    async def _bind(self, buyer_id: str) -> None:
        client = self._client
        distributor, code = self._random.choice(list(self._load.referrals.codes.items()))
        line = Line(0, "", distributor, False)
        asked = Asked(BINDING, line, buyer_id, 0, bind_mark(buyer_id))
        await self._ask(
            asked,
            lambda timeout_ms: client.bind_referrer(buyer_id, code, timeout_ms=timeout_ms),
            _bound_told,
        )

    async def _deliver(self, line: Line, held: Operation) -> None:
        client, name = self._client, held.reservation_id
        await self._ask(
            self._of(line, held, "deliver", delivery_mark(name)),
            lambda timeout_ms: client.report_fulfilment(
                name, stage=FulfilmentStage.DELIVERED, timeout_ms=timeout_ms
            ),
            nothing_told,
        )

    async def _fail_to_pay(self) -> None:
        """Until the buyer is frozen; then a refusal, and a payment all the same."""
        buyer_id = self._new("failing")
        first = self._random.randrange(len(self._lines))
        held = []
        for number in range(FAILURES):
            line = self._lines[(first + number) % len(self._lines)]
            one = await self._reserve(line, buyer_id, 1)
            if one.outcome == OK:
                held.append((line, one))
        for number in range(FAILURES):
            if held:
                await self._report_failed(*held[number % len(held)])
        if held and await self._is_frozen(buyer_id):
            line, one = held[0]
            await self._reserve(line, buyer_id, 1)
            await self._confirm(line, one)

    async def _is_frozen(self, buyer_id: str) -> bool:
        """Whether the buyer's account says so in time; a moment later gateways know it."""
        deadline = time.monotonic() + FROZEN_WITHIN_S
        while time.monotonic() < deadline and self._load.going:
            await self._turn()
            try:
                told = await self._client.get_profile(buyer_id, timeout_ms=TIMEOUT_MS)
            except StockrayError as error:
                if not error.retriable:
                    raise
            else:
                if told.profile is not None and told.profile.frozen:
                    self._load.frozen.append((buyer_id, time.monotonic()))
                    await asyncio.sleep(PULLED_S)
                    return True
            await asyncio.sleep(LOOK_S)
        return False

    async def _put_rates(self) -> None:
        """Over and over until they stand: the same content makes one version."""
        rates = rates_of(self._all_lines, 1)
        while self._load.going:
            try:
                told = await self._client.put_rates(rates, reason="chaos", timeout_ms=TIMEOUT_MS)
            except StockrayError as error:
                if not error.retriable:
                    raise
            else:
                if told.ok:
                    return
            await self._turn()


def _bound_told(result: Any) -> tuple[Any, ...]:
    binding = result.binding
    return () if binding is None else (binding.distributor_id,)

"""What a soak sells: base pools that are supplied again, and campaigns that come and go.

A campaign is opened every few seconds with units of three SKUs, one of them scarce, and ends by
itself or by an operator's hand; what it did not sell goes home. Nothing is ever given up for good
but what buyers keep, and that is received anew.
"""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import NamedTuple

from stockray import AsyncClient, Campaign, CampaignLine, PoolKey, Sku, Status, StockrayError

CURRENCY = "CNY"
PRICE_MINOR = 9_900
SKUS = 8
LINES_OF_CAMPAIGN = 3
OPEN_CAMPAIGNS = 4
CAMPAIGN_EVERY_S = 4.0
LIMIT_PER_BUYER = 3
CAMPAIGN_SHARE = 0.6
"""Of orders that go to a campaign."""
SUPPLY_EVERY_S = 2.0
VISIT_S = 3.0
"""Between two visits, and of one visit at most."""


class Line(NamedTuple):
    """A pool to reserve from; without a campaign a base pool."""

    campaign_id: str
    sku_id: str


class Goods:
    """What is on sale now, and who keeps it so."""

    def __init__(self, client: AsyncClient, address: str, *, rate: float, seed: int) -> None:
        """`rate`: calls a second, by which pools are as large as they have to be."""
        self.window_s = 3.0
        """Payment window."""
        self.done: Counter[str] = Counter()
        self._client = client
        self._address = address
        self._name = f"soak-{seed}"
        self._skus = [f"{self._name}-sku-{number}" for number in range(SKUS)]
        self._target = max(200, int(rate * 10))
        self._allocation = max(20, int(rate * 0.4))
        self._open: deque[str] = deque()
        self._campaigns = 0
        self._documents = 0
        self._lines: dict[str, list[Line]] = {}

    def draw(self, random: Random) -> Line:
        """A pool for an order."""
        if self._open and random.random() < CAMPAIGN_SHARE:
            return random.choice(self._lines[random.choice(self._open)])
        return Line("", random.choice(self._skus))

    async def prepare(self) -> None:
        """SKUs, their first units, and the first campaigns. Raises on any refusal."""
        for sku_id in self._skus:
            sku = Sku(
                sku_id=sku_id,
                name=sku_id,
                buffer_bps=0,
                list_price_minor=PRICE_MINOR * 2,
                currency_code=CURRENCY,
                payment_window=timedelta(seconds=self.window_s),
            )
            (await self._client.put_sku(sku)).raise_for_status()
            await self._receive(sku_id, self._target)
        for _ in range(OPEN_CAMPAIGNS):
            await self._open_one()

    async def run(self) -> None:
        """Until it is cancelled. Raises what is wrong with the load itself."""
        async with asyncio.TaskGroup() as keepers:
            keepers.create_task(self._again(SUPPLY_EVERY_S, self._supply))
            keepers.create_task(self._again(CAMPAIGN_EVERY_S, self._turn_campaigns))
            keepers.create_task(self._again(VISIT_S, self._visit))

    async def _again(self, every_s: float, act: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(every_s)
            try:
                await act()
            except StockrayError as error:
                if not error.retriable:
                    raise

    async def _receive(self, sku_id: str, quantity: int) -> None:
        self._documents += 1
        received = await self._client.receive_stock(
            sku_id, quantity=quantity, request_id=f"{self._name}-delivery-{self._documents}"
        )
        received.raise_for_status()
        self.done["documents"] += 1

    async def _supply(self) -> None:
        """Receive what was sold, and move a few units by hand."""
        for sku_id in self._skus:
            found = (await self._client.get_stock(sku_id)).stock
            if found is not None and found.available_count < self._target // 2:
                await self._receive(sku_id, self._target - found.available_count)
        if self._open:
            line = self._lines[self._open[-1]][0]
            moved = await self._client.transfer_stock(
                line.sku_id, quantity=2, to_campaign_id=line.campaign_id
            )
            self.done["transfers"] += int(moved.ok)

    async def _turn_campaigns(self) -> None:
        await self._open_one()
        if len(self._open) > OPEN_CAMPAIGNS:
            oldest = self._open.popleft()
            del self._lines[oldest]
            # Every second one is ended early; the others end by their own time.
            if self._campaigns % 2:
                await self._client.end_campaign(oldest)

    async def _open_one(self) -> None:
        self._campaigns += 1
        campaign_id = f"{self._name}-campaign-{self._campaigns}"
        first = self._campaigns % SKUS
        skus = [self._skus[(first + n) % SKUS] for n in range(LINES_OF_CAMPAIGN)]
        now = datetime.now(UTC)
        answer = await self._client.put_campaign(
            Campaign(
                campaign_id=campaign_id,
                title=campaign_id,
                currency_code=CURRENCY,
                start_time=now - timedelta(seconds=1),
                end_time=now + timedelta(seconds=CAMPAIGN_EVERY_S * (OPEN_CAMPAIGNS + 1)),
                payment_window=timedelta(seconds=self.window_s),
                limit_per_buyer=LIMIT_PER_BUYER,
                lines=tuple(
                    CampaignLine(
                        sku_id=sku_id,
                        allocation_count=self._allocation // (20 if number == 0 else 1),
                        list_price_minor=PRICE_MINOR * 2,
                        unit_price_minor=PRICE_MINOR,
                        limit_per_buyer=LIMIT_PER_BUYER - 1,
                    )
                    for number, sku_id in enumerate(skus)
                ),
            )
        )
        if answer.status is not Status.APPLIED:
            return
        self._lines[campaign_id] = [Line(campaign_id, sku_id) for sku_id in skus]
        self._open.append(campaign_id)
        self.done["campaigns"] += 1

    async def _visit(self) -> None:
        """A caller who comes, looks, follows a few pools for a moment, and goes."""
        async with AsyncClient(self._address) as visitor:
            await visitor.list_reservations(page_size=50).pages().__anext__()
            pools = [PoolKey(sku_id=sku_id) for sku_id in self._skus]
            seen = 0
            changes = visitor.watch_stock(pools, interval=timedelta(milliseconds=100))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(VISIT_S):
                    async for _ in changes:
                        seen += 1
                        if seen > 2 * SKUS:
                            break
        self.done["visits"] += 1

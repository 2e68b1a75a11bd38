"""A sale that goes on in the background of a fault, and remembers every answer that it got."""

import asyncio
import itertools
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

from stockray import (
    AsyncClient,
    Attribution,
    Campaign,
    CampaignLine,
    ReserveResult,
    Sku,
    Status,
    StockrayError,
)

from server.sale import DEFINITE_REFUSALS
from tests.helpers.stack import SHARDS, Stack, on_shard, within

PLENTY, FEW = 50_000, 5
BUYERS_AT_ONCE = 4
PAUSE_S = 0.01
"""Between two requests of one buyer: a load of some hundreds a second that every box carries."""
PRICE_MINOR = 9_900
UNDECIDED = (Status.RETRY, Status.UNKNOWN)


class BackgroundSale:
    """One campaign on each shard, each with a SKU that lasts and one that sells out at once.

    An `async with` block opens the campaigns and sells until its end, which waits for every answer
    in flight."""

    def __init__(self, stack: Stack, client: AsyncClient, name: str, share_code: str = "") -> None:
        self.campaigns = [on_shard(shard, f"{name}-{stack.kind}") for shard in range(SHARDS)]
        self.confirmed: Counter[str] = Counter()
        self.doubtful: Counter[str] = Counter()
        """Payments and releases without a definite answer, by campaign."""
        self.statuses: Counter[str] = Counter()
        self.winners: dict[str, tuple[str, str]] = {}
        """Request id -> (campaign, reservation id)."""
        self.changed: list[str] = []
        self.longest_gap_s = dict.fromkeys(self.campaigns, 0.0)
        self._last_answer = dict.fromkeys(self.campaigns, 0.0)
        self._stack = stack
        self._client = client
        self._attribution = Attribution(share_code=share_code) if share_code else None
        self._numbers = itertools.count()
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for campaign_id in self.campaigns:
            await self._open(campaign_id)
        self._last_answer = dict.fromkeys(self.campaigns, time.monotonic())
        self._tasks = [
            asyncio.create_task(self._buy_on(campaign_id))
            for campaign_id in self.campaigns
            for _ in range(BUYERS_AT_ONCE)
        ]
        await self.goes_on()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping = True
        if error is not None:
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=error is not None)

    @property
    def acks(self) -> int:
        """Definite answers so far."""
        return sum(n for status, n in self.statuses.items() if Status[status] not in UNDECIDED)

    async def goes_on(self, timeout_s: float = 30.0) -> None:
        """Returns when both campaigns have reserved some more. AssertionError if they do not."""
        before = Counter(campaign for campaign, _ in self.winners.values())

        def more() -> bool:
            now = Counter(campaign for campaign, _ in self.winners.values())
            return all(now[campaign] >= before[campaign] + 10 for campaign in self.campaigns)

        assert await within(timeout_s, more), f"the sale stands still: {self.statuses}"

    async def check(self) -> None:
        """The pools hold exactly what buyers were told, and winners asked again are told the same.
        Afterwards nobody may be selling."""
        assert not self.changed, self.changed
        for campaign_id in self.campaigns:
            sold = 0
            for sku_id in (f"{campaign_id}-plenty", f"{campaign_id}-few"):
                stock = (await self._client.get_stock(sku_id, campaign_id=campaign_id)).stock
                assert stock is not None
                assert stock.sold_count + stock.reserved_count <= stock.total_count
                sold += stock.sold_count
            low = self.confirmed[campaign_id]
            assert low <= sold <= low + self.doubtful[campaign_id], (campaign_id, self.statuses)
        assert self.statuses["RESERVED"] > 0
        assert self.statuses["SOLD_OUT"] > 0
        for request_id in list(self.winners)[-40:]:
            await self._ask_again(request_id)

    async def _ask_again(self, request_id: str) -> None:
        campaign_id, reservation_id = self.winners[request_id]
        again = await self._grab(campaign_id, request_id)
        assert (again.status, again.reservation_id) == (Status.RESERVED, reservation_id), again

    async def _buy_on(self, campaign_id: str) -> None:
        while not self._stopping:
            await self._buy(campaign_id, next(self._numbers))
            await asyncio.sleep(PAUSE_S)

    async def _buy(self, campaign_id: str, number: int) -> None:
        request_id = f"{campaign_id}:{number}"
        try:
            answer = await self._grab(campaign_id, request_id)
        except StockrayError as error:
            if not error.retriable:
                raise
            self.statuses["UNKNOWN"] += 1
            return
        self.statuses[answer.status.name] += 1
        if answer.status in UNDECIDED:
            return
        assert answer.ok or answer.status in DEFINITE_REFUSALS, answer
        self._stack.acks.append((campaign_id, answer))
        now = time.monotonic()
        gap_s = now - self._last_answer[campaign_id]
        self.longest_gap_s[campaign_id] = max(self.longest_gap_s[campaign_id], gap_s)
        self._last_answer[campaign_id] = now
        if answer.ok:
            self.winners[request_id] = (campaign_id, answer.reservation_id)
            await self._go_on(campaign_id, number, answer)

    async def _grab(self, campaign_id: str, request_id: str) -> ReserveResult:
        number = int(request_id.rpartition(":")[2])
        sku_id = f"{campaign_id}-{'few' if number % 3 == 0 else 'plenty'}"
        return await self._client.grab(
            campaign_id,
            sku_id,
            buyer_id=f"buyer-{number}",
            quantity=1,
            request_id=request_id,
            attribution=self._attribution,
        )

    async def _go_on(self, campaign_id: str, number: int, answer: ReserveResult) -> None:
        """Half of the winners pay; some of the rest give up."""
        if number % 2:
            return await self._pay(campaign_id, number, answer)
        if number % 8:
            return None
        try:
            released = await self._client.release(answer.reservation_id)
        except StockrayError as error:
            if not error.retriable:
                raise
            return None
        assert released.ok or released.status in UNDECIDED, released
        return None

    async def _pay(self, campaign_id: str, number: int, answer: ReserveResult) -> None:
        try:
            paid = await self._client.confirm(
                answer.reservation_id,
                payment_id=f"payment-{campaign_id}-{number}",
                paid_minor=answer.payable_minor,
            )
        except StockrayError as error:
            if not error.retriable:
                raise
            self.doubtful[campaign_id] += 1
            return
        if paid.ok:
            self.confirmed[campaign_id] += 1
            return
        assert paid.status in UNDECIDED, paid
        self.doubtful[campaign_id] += 1

    async def _open(self, campaign_id: str) -> None:
        client = self._client
        lines = [(f"{campaign_id}-plenty", PLENTY), (f"{campaign_id}-few", FEW)]
        for sku_id, units in lines:
            sku = Sku(sku_id=sku_id, name=sku_id, buffer_bps=0, currency_code="CNY")
            (await client.put_sku(sku)).raise_for_status()
            received = await client.receive_stock(
                sku_id, quantity=units, request_id=f"delivery-{sku_id}"
            )
            received.raise_for_status()
        now = datetime.now(UTC)
        campaign = Campaign(
            campaign_id=campaign_id,
            title=campaign_id,
            currency_code="CNY",
            start_time=now - timedelta(seconds=1),
            end_time=now + timedelta(hours=1),
            payment_window=timedelta(minutes=30),
            lines=tuple(
                CampaignLine(
                    sku_id=sku_id,
                    allocation_count=units,
                    list_price_minor=PRICE_MINOR,
                    unit_price_minor=PRICE_MINOR,
                    limit_per_buyer=1,
                )
                for sku_id, units in lines
            ),
        )
        (await client.put_campaign(campaign)).raise_for_status()

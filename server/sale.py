"""A scripted flash sale: many buyers, few units, and an exact record of every answer they got.

Everything that a buyer does is drawn from the seed before the sale begins. Every definite answer is
kept, so that `verify` can hold the system to its word: what was acknowledged is there, once; what
was refused is not.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import NamedTuple

from hdrh.histogram import HdrHistogram
from stockray import (
    AsyncClient,
    Attribution,
    Campaign,
    CampaignLine,
    GroupCampaign,
    ReserveResult,
    Sku,
    Status,
)

from actors.core.identity import request_key, slot_of
from server.verify import Ack

CALLER = "default"
CURRENCY = "CNY"
DEFINITE_REFUSALS = frozenset(
    {
        Status.SOLD_OUT,
        Status.LIMIT_EXCEEDED,
        Status.NOT_STARTED,
        Status.ENDED,
        Status.PAUSED,
        Status.NOT_FOUND,
        Status.NOT_ELIGIBLE,
    }
)


class Line(NamedTuple):
    """What is on sale."""

    campaign_id: str
    sku_id: str
    units: int
    price_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The size of a sale. Shares are of buyers, from 0 to 1."""

    units: int = 10_000
    buyers: int = 100_000
    seed: int = 1
    limit_per_buyer: int = 2
    payment_window_ms: int = 6_000
    concurrency: int = 512
    hot_share: float = 0.5
    retry_share: float = 0.05
    """Buyers that send their request again with the same id after they have the answer."""
    greedy_share: float = 0.03
    """Buyers that ask once more with a new id, beyond their limit."""
    confirm_share: float = 0.7
    """Of winners; the next share gives up, the rest lets the payment window pass."""
    release_share: float = 0.15


class Buyer(NamedTuple):
    """What one buyer is going to do."""

    number: int
    line: Line
    quantity: int
    retries: bool
    greedy: bool
    then: str
    attribution: Attribution | None = None

    @property
    def name(self) -> str:
        """The buyer's id."""
        return f"buyer-{self.number}"


class Order(NamedTuple):
    """What a buyer has paid for and was told is confirmed."""

    reservation_id: str
    buyer_id: str
    campaign_id: str
    sku_id: str
    quantity: int
    paid_minor: int
    attribution: Attribution | None = None
    returned_quantity: int = 0
    of_team: bool = False


@dataclass(slots=True)
class Tally:
    """What happened, as the buyers saw it."""

    statuses: Counter[str] = field(default_factory=Counter)
    confirmed: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Units that a buyer paid for and was told CONFIRMED, by campaign and SKU."""
    orders: list[Order] = field(default_factory=list)
    reserved_by: Counter[tuple[str, Attribution]] = field(default_factory=Counter)
    """Reservations that carried a share code, by campaign and what they carried."""
    released: int = 0
    left_to_expire: int = 0
    retried: int = 0
    changed_answers: list[str] = field(default_factory=list)
    """A repeated request id was answered differently."""
    unexpected: Counter[str] = field(default_factory=Counter)
    acks: list[Ack] = field(default_factory=list)
    requests: int = 0
    began_at: float = 0.0
    ended_at: float = 0.0
    latency_us: HdrHistogram = field(default_factory=lambda: HdrHistogram(1, 60_000_000, 3))

    @property
    def rate_per_s(self) -> float:
        """Requests answered a second, all kinds."""
        took = self.ended_at - self.began_at
        return self.requests / took if took > 0 else 0.0

    def latency_ms(self, percentile: float) -> float:
        """A percentile of a grab's latency as a buyer saw it."""
        return float(self.latency_us.get_value_at_percentile(percentile)) / 1000


class GapMeter:
    """The longest silence on one campaign after a fault: what its buyers feel of a failover."""

    def __init__(self) -> None:
        self.gaps_ms: list[float] = []
        self._since: float | None = None
        self._last = 0.0
        self._longest = 0.0

    def fault(self) -> None:
        """A fault happens now."""
        self.settle()
        self._since = self._last = time.perf_counter()
        self._longest = 0.0

    def answered(self) -> None:
        """The campaign answered somebody now."""
        if self._since is None:
            return
        now = time.perf_counter()
        self._longest = max(self._longest, now - self._last)
        self._last = now

    def settle(self) -> None:
        """The fault is over: keep its gap."""
        if self._since is not None:
            self.gaps_ms.append(self._longest * 1000)
            self._since = None


def lines_of(plan: Plan) -> list[Line]:
    """One hot SKU with 40 % of the units, seven others, in two campaigns of different shards."""
    hot = plan.units * 2 // 5
    rest = (plan.units - hot) // 7
    lines = [Line("flash-sale", "sku-hot", plan.units - 7 * rest, 9_900)]
    lines += [Line("flash-sale", f"sku-{n}", rest, 1_000 * n + 900) for n in range(1, 4)]
    lines += [Line("evening-sale", f"sku-{n}", rest, 1_000 * n + 900) for n in range(4, 8)]
    return lines


def buyers_of(plan: Plan, lines: Sequence[Line]) -> list[Buyer]:
    """Everything that all buyers will do, in the order in which they come."""
    random = Random(plan.seed)
    buyers = []
    for number in range(plan.buyers):
        hot = random.random() < plan.hot_share
        line = lines[0] if hot else lines[random.randrange(1, len(lines))]
        draw = random.random()
        then = "leave"
        if draw < plan.confirm_share:
            then = "confirm"
        elif draw < plan.confirm_share + plan.release_share:
            then = "release"
        buyers.append(
            Buyer(
                number,
                line,
                1 if random.random() < 0.85 else 2,
                random.random() < plan.retry_share,
                random.random() < plan.greedy_share,
                then,
            )
        )
    return buyers


async def prepare(client: AsyncClient, plan: Plan, lines: Sequence[Line]) -> None:
    """SKUs, their units, and the campaigns with their allocations. Raises on any refusal."""
    now = datetime.now(UTC)
    for line in lines:
        await stock_up(client, line)
    for campaign_id in dict.fromkeys(line.campaign_id for line in lines):
        campaign = Campaign(
            campaign_id=campaign_id,
            title=campaign_id,
            currency_code=CURRENCY,
            start_time=now - timedelta(seconds=1),
            end_time=now + timedelta(hours=1),
            payment_window=timedelta(milliseconds=plan.payment_window_ms),
            lines=tuple(
                CampaignLine(
                    sku_id=line.sku_id,
                    allocation_count=line.units,
                    list_price_minor=line.price_minor * 2,
                    unit_price_minor=line.price_minor,
                    limit_per_buyer=plan.limit_per_buyer,
                )
                for line in lines
                if line.campaign_id == campaign_id
            ),
        )
        answer = await client.put_campaign(campaign)
        answer.raise_for_status()
        require_allocated(answer.campaign)


async def stock_up(client: AsyncClient, line: Line) -> None:
    """A line's SKU, at twice the price of the sale, and its units. Raises on any refusal."""
    sku = Sku(
        sku_id=line.sku_id,
        name=line.sku_id,
        buffer_bps=0,
        list_price_minor=line.price_minor * 2,
        currency_code=CURRENCY,
    )
    (await client.put_sku(sku)).raise_for_status()
    received = await client.receive_stock(
        line.sku_id, quantity=line.units, request_id=f"delivery-{line.sku_id}"
    )
    received.raise_for_status()


def require_allocated(campaign: Campaign | GroupCampaign | None) -> None:
    """RuntimeError, with the reason, unless each line of a campaign got all its units."""
    for put in campaign.lines if campaign else ():
        if put.allocated_count != put.allocation_count:
            raise RuntimeError(f"{put.sku_id}: {put.allocation_message}")


class Rush:
    """The sale itself."""

    def __init__(
        self,
        client: AsyncClient,
        plan: Plan,
        buyers: Sequence[Buyer],
        *,
        gap: GapMeter,
        watched_campaign: str,
        on_progress: Callable[[int, int], None],
    ) -> None:
        self.tally = Tally()
        self.done = 0
        self._client = client
        self.plan = plan
        self._buyers = iter(buyers)
        self.gap = gap
        self._watched = watched_campaign
        self._on_progress = on_progress
        self._reserved = 0

    async def run(self) -> Tally:
        """All buyers, so many at a time."""
        tally = self.tally
        tally.began_at = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self.plan.concurrency):
                tasks.create_task(self._serve_buyers())
        tally.ended_at = time.perf_counter()
        self.gap.settle()
        return tally

    async def _serve_buyers(self) -> None:
        for buyer in self._buyers:
            await self._buy(buyer)
            self.done += 1
            if self.done % 500 == 0:
                self._on_progress(self.done, self._reserved)

    async def _buy(self, buyer: Buyer) -> None:
        request_id = f"request-{self.plan.seed}-{buyer.number}"
        answer = await self._grab(buyer, request_id)
        if buyer.retries:
            self.tally.retried += 1
            again = await self._grab(buyer, request_id)
            self._compare(request_id, answer, again)
        if answer.status is Status.RESERVED:
            self._reserved += 1
            if buyer.attribution is not None:
                self.tally.reserved_by[buyer.line.campaign_id, buyer.attribution] += 1
            if buyer.greedy:
                await self._ask_for_more(buyer)
            await self._go_on(buyer, answer)

    async def _grab(self, buyer: Buyer, request_id: str, quantity: int = 0) -> ReserveResult:
        line = buyer.line
        started = time.perf_counter()
        answer = await self._client.grab(
            line.campaign_id,
            line.sku_id,
            buyer_id=buyer.name,
            quantity=quantity or buyer.quantity,
            request_id=request_id,
            attribution=buyer.attribution,
        )
        tally = self.tally
        tally.latency_us.record_value(max(1, int((time.perf_counter() - started) * 1e6)))
        tally.requests += 1
        tally.statuses[answer.status.name] += 1
        definite = answer.status is Status.RESERVED or answer.status in DEFINITE_REFUSALS
        if definite:
            reserved = answer.status is Status.RESERVED
            key = request_key(CALLER, request_id)
            tally.acks.append(Ack(slot_of(line.campaign_id), key, reserved, request_id))
            if line.campaign_id == self._watched:
                self.gap.answered()
        return answer

    def _compare(self, request_id: str, first: ReserveResult, again: ReserveResult) -> None:
        """Same id, same answer; an answer that was not definite claims nothing."""
        unsettled = (Status.RETRY, Status.UNKNOWN)
        if first.status in unsettled or again.status in unsettled:
            return
        same = first[:2] == again[:2] and first[2:8] == again[2:8]
        if not same:
            self.tally.changed_answers.append(f"{request_id}: {first.status} then {again.status}")

    async def _ask_for_more(self, buyer: Buyer) -> None:
        quantity = self.plan.limit_per_buyer + 1 - buyer.quantity
        more = await self._grab(buyer, f"more-{self.plan.seed}-{buyer.number}", max(1, quantity))
        if more.status is Status.RESERVED:
            self.tally.unexpected["over the limit"] += 1

    async def _go_on(self, buyer: Buyer, answer: ReserveResult) -> None:
        tally = self.tally
        if buyer.then == "confirm":
            paid = await self._client.confirm(
                answer.reservation_id,
                payment_id=f"payment-{self.plan.seed}-{buyer.number}",
                paid_minor=answer.payable_minor,
                payment_channel="demo",
            )
            tally.statuses[f"confirm {paid.status.name}"] += 1
            if paid.ok:
                line = buyer.line
                tally.confirmed[line.campaign_id, line.sku_id] += buyer.quantity
                tally.orders.append(
                    Order(
                        answer.reservation_id,
                        buyer.name,
                        line.campaign_id,
                        line.sku_id,
                        buyer.quantity,
                        answer.payable_minor,
                        buyer.attribution,
                    )
                )
        elif buyer.then == "release":
            given_up = await self._client.release(answer.reservation_id)
            tally.statuses[f"release {given_up.status.name}"] += 1
            tally.released += int(given_up.ok)
        else:
            tally.left_to_expire += 1

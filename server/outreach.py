"""Distributors of a scripted sale: who they are, whom they bring, and what an order earns them.

They are buyers themselves, and stand in a tree, so orders earn on two levels. Before the doors open
some buyers meet a share code; at the doors most carry one on their reservation, often another's
than they met: the first touch counts. Who earns from whom is drawn from the seed; what they earn is
reckoned here from the rates that were put, not asked of the service that is judged.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random
from typing import NamedTuple, TypeVar

from stockray import (
    AsyncClient,
    Attribution,
    BindingPolicy,
    CampaignRate,
    DistributorAct,
    Rates,
    SkuRate,
)

from server.group_sale import CAMPAIGN_ID, Shopper
from server.sale import CURRENCY, Buyer, Order

BUYERS_A_DISTRIBUTOR, DISTRIBUTORS_MIN, DISTRIBUTORS_MAX = 500, 8, 400
"""So many that one answer has the whole funnel of a campaign."""
BELOW_EACH, ROOT_EVERY = 3, 4
SUSPENDED = 1
"""Which distributor is suspended before the sale; it has others below it."""
MET_SHARE, CARRY_SHARE = 0.15, 0.7
"""Of buyers: who met a share code before the sale, and who carries one on the reservation."""
CHANNELS = ("app", "live")
ASKED_AT_ONCE = 64
FULL_BPS = 10_000
SALE_RATES = Rates(
    currency_code=CURRENCY,
    time_zone="Asia/Shanghai",
    level_bps=(500, 200),
    campaigns=(CampaignRate(campaign_id="evening-sale", level_bps=(800, 300)),),
    skus=(
        SkuRate(sku_id="sku-hot", level_bps=(300, 100)),
        # The second level gets what the first leaves of the margin.
        SkuRate(sku_id="sku-3", level_bps=(1_000, 500), margin_minor=450),
    ),
    freeze=timedelta(seconds=2),
    freeze_max=timedelta(seconds=4),
    binding_policy=BindingPolicy.FIRST_TOUCH,
)
"""Of the flash sale: what it earns is available before the demo ends."""
GROUP_RATES = replace(
    SALE_RATES,
    campaigns=(
        CampaignRate(campaign_id="evening-sale", level_bps=(900, 400)),
        CampaignRate(campaign_id=CAMPAIGN_ID, level_bps=(700, 333)),
    ),
    skus=(
        SkuRate(sku_id="sku-hot", level_bps=(400, 200)),
        SkuRate(sku_id="sku-teapot", level_bps=(1_000,)),
    ),
    freeze=timedelta(days=7),
    freeze_max=timedelta(days=30),
)
"""Of the group-buy: what it earns stays frozen. Orders of the flash sale do not change by it."""
Item = TypeVar("Item")
Guest = TypeVar("Guest", Buyer, Shopper)


class Way(NamedTuple):
    """How a buyer came."""

    met: str
    """The distributor whose code it met before the sale; '' for none."""
    carries: str
    """The distributor whose code its reservation carries; '' for none."""
    channel: str


NOBODYS = Way("", "", "")
"""Of who came by no distributor."""


class Share(NamedTuple):
    """What one level gets of an order."""

    level: int
    distributor_id: str
    amount_minor: int


@dataclass(slots=True, kw_only=True)
class Outreach:
    """The distributors, and all who may come by them."""

    distributors: Sequence[str]
    ways: Mapping[str, Way]
    """By buyer; of a distributor, `met` is who stands above it."""
    suspended: str
    codes: dict[str, str] = field(default_factory=dict)
    """Distributor -> share code, once they are approved."""
    rates: dict[int, Rates] = field(default_factory=dict)
    """By version, once they are put."""

    def attribution(self, buyer_id: str) -> Attribution | None:
        """What the buyer's reservation carries."""
        way = self.ways[buyer_id]
        if not way.carries:
            return None
        return Attribution(share_code=self.codes[way.carries], channel=way.channel)

    def send(self, guests: Sequence[Guest]) -> list[Guest]:
        """The same, each with what its reservation carries."""
        return [one._replace(attribution=self.attribution(one.name)) for one in guests]

    def referrer(self, buyer_id: str) -> str:
        """Who earns from what the buyer reserves; '' for nobody."""
        way = self.ways.get(buyer_id, NOBODYS)
        if way.met:
            return way.met
        return "" if way.carries in (buyer_id, self.suspended) else way.carries

    def shares(self, order: Order, version: int) -> list[Share]:
        """Who earns what from an order, before anything of it comes back."""
        rates, referrer = self.rates[version], self.referrer(order.buyer_id)
        level_bps, left_minor = _rate_of(rates, order)
        above = "" if referrer in ("", self.suspended) else self.ways[referrer].met
        found = []
        for level, (name, bps) in enumerate(zip((referrer, above), level_bps, strict=False), 1):
            amount_minor = min(order.paid_minor * bps // FULL_BPS, left_minor)
            if name and name != order.buyer_id and amount_minor:
                found.append(Share(level, name, amount_minor))
                left_minor -= amount_minor
        return found


def _rate_of(rates: Rates, order: Order) -> tuple[tuple[int, ...], int]:
    """The levels, and what all of them together may have at most."""
    for sku in rates.skus:
        if sku.sku_id == order.sku_id:
            margin_minor = sku.margin_minor
            most = order.paid_minor if margin_minor is None else margin_minor * order.quantity
            return sku.level_bps, most
    for campaign in rates.campaigns:
        if campaign.campaign_id == order.campaign_id:
            return campaign.level_bps, order.paid_minor
    return rates.level_bps, order.paid_minor


def outreach_of(buyers: Sequence[Buyer], shoppers: Sequence[Shopper], seed: int) -> Outreach:
    """Everybody's way, drawn from the seed."""
    random = Random(seed)
    wanted = len(buyers) // BUYERS_A_DISTRIBUTOR
    count = min(DISTRIBUTORS_MAX, max(DISTRIBUTORS_MIN, wanted))
    names = [buyers[at * len(buyers) // count].name for at in range(count)]
    ways = {
        name: _way(random, names)
        for name in (*(one.name for one in buyers), *(one.name for one in shoppers))
    }
    for at, name in enumerate(names):
        above = names[(at - 1) // BELOW_EACH] if at % ROOT_EVERY else ""
        ways[name] = Way(above, name, CHANNELS[0])
    return Outreach(distributors=names, ways=ways, suspended=names[SUSPENDED])


def _way(random: Random, names: Sequence[str]) -> Way:
    """Few distributors bring many buyers."""
    met, carried = (names[int(len(names) * random.random() ** 2)] for _ in range(2))
    return Way(
        met if random.random() < MET_SHARE else "",
        carried if random.random() < CARRY_SHARE else "",
        random.choice(CHANNELS),
    )


async def open_programme(client: AsyncClient, outreach: Outreach) -> None:
    """Rates, and distributors who apply and are approved. Raises on any refusal."""
    await put_rates(client, outreach, SALE_RATES)

    async def join(name: str) -> None:
        (await client.apply_distributor(name)).raise_for_status()
        approved = await client.approve_distributor(name, reason="demo")
        approved.raise_for_status()
        found = (await client.get_distributor(name)).distributor
        outreach.codes[name] = "" if found is None else found.share_code

    await each(outreach.distributors, join)


async def warm_up(client: AsyncClient, outreach: Outreach) -> int:
    """Buyers meet share codes; then one distributor is suspended. Answers how many were bound."""
    met = [(name, way.met) for name, way in outreach.ways.items() if way.met]

    async def bind(pair: tuple[str, str]) -> None:
        buyer_id, distributor_id = pair
        bound = await client.bind_referrer(buyer_id, outreach.codes[distributor_id])
        bound.raise_for_status()

    await each(met, bind)
    suspended = await client.approve_distributor(
        outreach.suspended, act=DistributorAct.SUSPEND, reason="demo"
    )
    suspended.raise_for_status()
    return len(met)


async def put_rates(client: AsyncClient, outreach: Outreach, rates: Rates) -> int:
    """A new version, which orders have that are reserved from now on."""
    answer = await client.put_rates(rates, reason="demo")
    answer.raise_for_status()
    outreach.rates[answer.version] = rates
    return answer.version


async def each(
    items: Iterable[Item],
    act: Callable[[Item], Awaitable[None]],
    *,
    at_once: int = ASKED_AT_ONCE,
) -> None:
    """One act for each item, so many at a time."""
    left = iter(items)

    async def worker() -> None:
        for item in left:
            await act(item)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(worker())

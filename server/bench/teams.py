"""Teams with seats enough for what is measured with joins.

Each row gets teams of its own before it begins, as many as the fastest machine could fill: teams of
the most people that there may be, so that opening them takes no time beside the row.
"""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from stockray import AsyncClient, GroupCampaign, GroupLine, GroupRules, Sku, Tier

from actors.core.identity import slot_of
from server.bench.result import CAMPAIGN

SKU = "bench-team-sku"
UNITS = 100_000_000
PEOPLE = 500
JOINS_A_SECOND_MAX = 60_000
OPENED_AT_ONCE = 64


def team_campaign(shards: int) -> str:
    """A campaign of the shard that decides on the benchmark's own."""
    wanted = slot_of(CAMPAIGN) % shards
    names = (f"{CAMPAIGN}-teams-{number}" for number in range(1_000 * shards))
    return next(name for name in names if slot_of(name) % shards == wanted)


async def prepare_teams(client: AsyncClient, campaign_id: str) -> None:
    """A group campaign with stock for ever."""
    now = datetime.now(UTC)
    sku = Sku(sku_id=SKU, buffer_bps=0, list_price_minor=9_900, currency_code="CNY")
    (await client.put_sku(sku)).raise_for_status()
    (await client.receive_stock(SKU, quantity=UNITS)).raise_for_status()
    tiers = (Tier(people=2, unit_price_minor=4_900), Tier(people=PEOPLE, unit_price_minor=3_900))
    campaign = GroupCampaign(
        campaign_id=campaign_id,
        currency_code="CNY",
        start_time=now - timedelta(seconds=1),
        end_time=now + timedelta(hours=5),
        payment_window=timedelta(hours=1),
        lines=(GroupLine(sku_id=SKU, allocation_count=UNITS, limit_per_buyer=2, tiers=tiers),),
        rules=GroupRules(window=timedelta(hours=4)),
    )
    (await client.put_group_campaign(campaign)).raise_for_status()


async def open_teams(
    client: AsyncClient, campaign_id: str, numbers: Iterator[int], seconds: float
) -> list[str]:
    """Teams with seats for so many seconds, each led by a buyer who has paid. Refused, if the
    service does not open one."""
    wanted = 1 + int(JOINS_A_SECOND_MAX * seconds) // (PEOPLE - 1)
    buyers = [f"l-{next(numbers)}" for _ in range(wanted)]
    teams: list[str] = []
    for at in range(0, wanted, OPENED_AT_ONCE):
        some = buyers[at : at + OPENED_AT_ONCE]
        teams += await asyncio.gather(*(_open(client, campaign_id, buyer) for buyer in some))
    return teams


async def _open(client: AsyncClient, campaign_id: str, buyer_id: str) -> str:
    seat = await client.open_team(campaign_id, SKU, buyer_id=buyer_id)
    seat.raise_for_status()
    paid = await client.confirm(
        seat.reservation_id, payment_id=f"p-{buyer_id}", paid_minor=seat.payable_minor
    )
    paid.raise_for_status()
    return seat.team_id

"""What a chaos run sells: on each shard a campaign and base pools, lasting ones and scarce ones.

Ids are found so that each belongs to the shard that it is meant for, by the map of a new cluster.
"""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from stockray import AsyncClient, Campaign, CampaignLine, Sku

from actors.core.identity import slot_of

CURRENCY = "CNY"
PRICE_MINOR = 9_900
LASTING_UNITS, SCARCE_UNITS = 10_000_000, 4
"""So few that half of the busy callers hold them all, and refusals are frequent."""
LIMIT_PER_BUYER = 2
PAYMENT_WINDOW_S = 20


class Line(NamedTuple):
    """A pool to reserve from; without a campaign a base pool."""

    shard: int
    campaign_id: str
    sku_id: str
    scarce: bool

    @property
    def slot(self) -> int:
        """Where it is decided."""
        return slot_of(self.campaign_id or self.sku_id)


def id_on(shard: int, shards: int, name: str) -> str:
    """An id like `name` that belongs to the shard of a new cluster."""
    number = 0
    while slot_of(f"{name}-{number}") % shards != shard:
        number += 1
    return f"{name}-{number}"


def lines_of(shards: int) -> list[list[Line]]:
    """By shard, what is on sale."""
    found = []
    for shard in range(shards):
        campaign_id = id_on(shard, shards, "sale")
        lines = [
            Line(shard, campaign_id, f"{campaign_id}-lasting", False),
            Line(shard, campaign_id, f"{campaign_id}-scarce", True),
            Line(shard, "", id_on(shard, shards, "lasting"), False),
            Line(shard, "", id_on(shard, shards, "scarce"), True),
        ]
        found.append(lines)
    return found


async def prepare(client: AsyncClient, lines: list[Line], *, seconds: float) -> None:
    """One shard's SKUs, units and campaign. Raises on any refusal."""
    for line in lines:
        sku = Sku(
            sku_id=line.sku_id,
            name=line.sku_id,
            buffer_bps=0,
            list_price_minor=PRICE_MINOR,
            currency_code=CURRENCY,
            payment_window=timedelta(seconds=PAYMENT_WINDOW_S),
        )
        (await client.put_sku(sku)).raise_for_status()
        units = SCARCE_UNITS if line.scarce else LASTING_UNITS
        received = await client.receive_stock(
            line.sku_id, quantity=units, request_id=f"delivery-{line.sku_id}"
        )
        received.raise_for_status()
    sold_in = [line for line in lines if line.campaign_id]
    now = datetime.now(UTC)
    campaign = Campaign(
        campaign_id=sold_in[0].campaign_id,
        title=sold_in[0].campaign_id,
        currency_code=CURRENCY,
        start_time=now - timedelta(days=1),
        # Clocks are set an hour off during the run; no shard may come to see it as ended.
        end_time=now + timedelta(days=2, seconds=seconds),
        payment_window=timedelta(seconds=PAYMENT_WINDOW_S),
        lines=tuple(
            CampaignLine(
                sku_id=line.sku_id,
                allocation_count=SCARCE_UNITS if line.scarce else LASTING_UNITS,
                list_price_minor=PRICE_MINOR,
                unit_price_minor=PRICE_MINOR,
                limit_per_buyer=LIMIT_PER_BUYER,
            )
            for line in sold_in
        ),
    )
    answer = await client.put_campaign(campaign)
    answer.raise_for_status()
    for put in answer.campaign.lines if answer.campaign else ():
        if put.allocated_count != put.allocation_count:
            raise RuntimeError(f"{put.sku_id}: {put.allocation_message}")

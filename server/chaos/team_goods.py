"""What a chaos run sells to teams: on each shard group campaigns one after the other.

A campaign is ended by hand when its time is over, and that ends its teams: some form at a tier, the
others fail, and late payers come to a campaign that sells no more. Every second one is scarce.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from stockray import (
    AsyncClient,
    GroupCampaign,
    GroupLine,
    GroupRules,
    Sku,
    Status,
    StockrayError,
    Tier,
)

from server.chaos.goods import CURRENCY, Line, id_on

TIERS = (Tier(people=2, unit_price_minor=8_900), Tier(people=4, unit_price_minor=6_666))
LIST_PRICE_MINOR = 9_900
UNITS, SCARCE_UNITS = 100_000, 40
TEAMS_PER_BUYER = 1
DISCOUNT_BPS = 333
PAYMENT_WINDOW_S = 3
"""Short, so that some pay late."""
CAMPAIGNS_MAX = 40
OPEN_TEAMS_MAX = 8
"""Of a shard, that callers other than the opener come to know."""
END_PAUSE_S = 0.25
END_TIMEOUT_S = 60.0


class GroupGoods:
    """One shard's group campaigns, of which the callers use the current one."""

    def __init__(self, shard: int, shards: int, *, seconds: float, each_s: float) -> None:
        count = max(2, min(CAMPAIGNS_MAX, int(seconds / each_s)))
        sku_id = id_on(shard, shards, "shared")
        self.lines = [
            Line(shard, id_on(shard, shards, f"group-{number}"), sku_id, bool(number % 2))
            for number in range(count)
        ]
        self.open_teams: deque[tuple[Line, str]] = deque(maxlen=OPEN_TEAMS_MAX)
        """Teams for whoever joins those of others, with their campaign."""
        self._each_s = max(each_s, seconds / count)
        self._now = 0

    @property
    def line(self) -> Line:
        """On sale now."""
        return self.lines[self._now]

    def over(self, line: Line, team_id: str) -> None:
        """Nobody need come to this team any more."""
        with contextlib.suppress(ValueError):
            self.open_teams.remove((line, team_id))

    async def prepare(self, client: AsyncClient, *, seconds: float) -> None:
        """The SKU, its units and all campaigns. Raises on any refusal."""
        sku_id = self.lines[0].sku_id
        sku = Sku(
            sku_id=sku_id,
            name=sku_id,
            buffer_bps=0,
            list_price_minor=LIST_PRICE_MINOR,
            currency_code=CURRENCY,
        )
        (await client.put_sku(sku)).raise_for_status()
        units = sum(_units(line) for line in self.lines)
        received = await client.receive_stock(
            sku_id, quantity=units, request_id=f"delivery-{sku_id}"
        )
        received.raise_for_status()
        for line in self.lines:
            answer = await client.put_group_campaign(_campaign(line, seconds))
            answer.raise_for_status()
            for put in answer.campaign.lines if answer.campaign else ():
                if put.allocated_count != put.allocation_count:
                    raise RuntimeError(f"{put.sku_id}: {put.allocation_message}")

    async def end_in_turn(self, client: AsyncClient, going: Callable[[], bool]) -> None:
        """End each campaign but the last when its time is over, while the load goes on."""
        for number, line in enumerate(self.lines[:-1], 1):
            over_s = time.monotonic() + self._each_s
            while time.monotonic() < over_s:
                await asyncio.sleep(END_PAUSE_S)
                if not going():
                    return
            self._now = number
            self.open_teams.clear()
            await end(client, line, going)

    async def end_all(self, client: AsyncClient) -> None:
        """After the load: no team is left forming. TimeoutError if one cannot be ended."""
        async with asyncio.timeout(END_TIMEOUT_S):
            for line in self.lines:
                await end(client, line, lambda: True)


async def end(client: AsyncClient, line: Line, going: Callable[[], bool]) -> None:
    """End a campaign, over and over until it is, while `going`."""
    while going():
        try:
            answer = await client.end_campaign(line.campaign_id, reason="its time is over")
        except StockrayError as error:
            if not error.retriable:
                raise
        else:
            if answer.status is Status.APPLIED:
                return
        await asyncio.sleep(END_PAUSE_S)


def _units(line: Line) -> int:
    return SCARCE_UNITS if line.scarce else UNITS


def _campaign(line: Line, seconds: float) -> GroupCampaign:
    now = datetime.now(UTC)
    return GroupCampaign(
        campaign_id=line.campaign_id,
        title=line.campaign_id,
        currency_code=CURRENCY,
        start_time=now - timedelta(days=1),
        # As with the others, clocks are set an hour off; windows are a day.
        end_time=now + timedelta(days=3, seconds=seconds),
        payment_window=timedelta(seconds=PAYMENT_WINDOW_S),
        lines=(
            GroupLine(
                sku_id=line.sku_id,
                allocation_count=_units(line),
                list_price_minor=LIST_PRICE_MINOR,
                tiers=TIERS,
            ),
        ),
        rules=GroupRules(
            new_buyer_count=1,
            teams_per_buyer=TEAMS_PER_BUYER,
            leader_discount_bps=DISCOUNT_BPS,
            virtual_completion=True,
        ),
    )

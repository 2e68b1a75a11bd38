"""Who brings the buyers of a chaos run: distributors two levels deep, their share codes and rates.

Rates are put before the load and once more in the middle of it. Freezes are seconds, so that much
of what was earned becomes available while the faults go on. One distributor is suspended from the
start, and one is frozen: what that one earns is held.
"""

from collections.abc import Sequence
from datetime import timedelta
from zlib import crc32

from stockray import (
    AsyncClient,
    Attribution,
    CampaignRate,
    DistributorAct,
    Rates,
    SkuRate,
)

from server.chaos.goods import CURRENCY, Line

ROOTS, BELOW_EACH = 3, 3
FREEZE_S, FREEZE_MAX_S = 2, 5
CARRY_PERCENT = 60
"""Of buyers who come by a share code."""
CHANNEL = "app"
FROZEN_FOR = timedelta(days=7)
"""Longer than any run and any shifted clock."""


class Referrals:
    """The distributors of a run, and by whose code a buyer comes."""

    def __init__(self) -> None:
        self.roots = [f"root-{number}" for number in range(ROOTS)]
        self.above = {
            f"seller-{root}-{number}": self.roots[root]
            for root in range(ROOTS)
            for number in range(BELOW_EACH)
        }
        self.suspended = "seller-0-0"
        self.frozen = "seller-1-0"
        self.codes: dict[str, str] = {}
        """Distributor -> share code, once approved."""

    @property
    def names(self) -> list[str]:
        """All distributors."""
        return [*self.roots, *self.above]

    def code_of(self, buyer_id: str) -> str:
        """By which share code a buyer comes, always the same; '' by none."""
        draw = crc32(buyer_id.encode())
        if not self.codes or draw % 100 >= CARRY_PERCENT:
            return ""
        return list(self.codes.values())[draw // 100 % len(self.codes)]

    async def prepare(self, client: AsyncClient, lines: Sequence[Line]) -> None:
        """Rates, distributors, and who stands above whom. Raises on any refusal."""
        (await client.put_rates(rates_of(lines, 0), reason="chaos")).raise_for_status()
        codes = {name: await _join(client, name) for name in self.roots}
        for name, above in self.above.items():
            (await client.bind_referrer(name, codes[above])).raise_for_status()
        # Before it applies: from its first order on, what it earns is held.
        frozen = await client.freeze(self.frozen, reason="chaos", length=FROZEN_FOR)
        frozen.raise_for_status()
        codes |= {name: await _join(client, name) for name in self.above}
        suspended = await client.approve_distributor(
            self.suspended, act=DistributorAct.SUSPEND, reason="chaos"
        )
        suspended.raise_for_status()
        self.codes = codes


async def _join(client: AsyncClient, name: str) -> str:
    """A buyer becomes a distributor; answers the share code."""
    (await client.apply_distributor(name)).raise_for_status()
    (await client.approve_distributor(name, reason="chaos")).raise_for_status()
    found = (await client.get_distributor(name)).distributor
    return "" if found is None else found.share_code


def attribution_of(share_code: str) -> Attribution | None:
    """As a reservation carries it."""
    return Attribution(share_code=share_code, channel=CHANNEL) if share_code else None


def rates_of(lines: Sequence[Line], number: int) -> Rates:
    """Of one campaign each, of one SKU with a margin that cuts the second level, and for the rest;
    `number` makes another version of them."""
    more = 100 * number
    campaigns = [line.campaign_id for line in lines if line.campaign_id and not line.scarce]
    skus = [line.sku_id for line in lines if not line.campaign_id and not line.scarce]
    return Rates(
        currency_code=CURRENCY,
        time_zone="Asia/Shanghai",
        level_bps=(500 + more, 233),
        campaigns=tuple(CampaignRate(campaign_id=x, level_bps=(777, 300)) for x in campaigns[:1]),
        skus=tuple(
            SkuRate(sku_id=x, level_bps=(1_000, 500 + more), margin_minor=1_111) for x in skus[:1]
        ),
        freeze=timedelta(seconds=FREEZE_S),
        freeze_max=timedelta(seconds=FREEZE_MAX_S),
    )

"""What an operator says about a campaign, as it travels and is journalled: nested arrays.

Fields are only ever added at the end, with a default: journals keep the configurations of older
releases.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple


class Tier(NamedTuple):
    """What a unit costs each member of a team of so many paid seats."""

    people: int
    unit_price_minor: int


class CampaignLine(NamedTuple):
    """One SKU of a campaign."""

    sku_id: str
    allocation: int
    list_price_minor: int
    unit_price_minor: int
    limit_per_buyer: int
    """Units a buyer may hold and own of this line; 0 is no limit."""
    tiers: tuple[Tier, ...] = ()
    """Of a line that teams buy: people strictly rising, price strictly falling. `unit_price_minor`
    is then what it costs alone; 0: it is not sold alone."""


class GroupRules(NamedTuple):
    """What holds for all teams of a campaign. Cannot change once a team was opened."""

    window_ms: int
    """From a team's opening to its deadline, which never is later than the campaign's end."""
    new_buyer_seats: int
    """So many seats of each team are for new buyers."""
    teams_per_buyer: int
    """Teams that a buyer opened and that are still forming; at least 1."""
    leader_discount_bps: int
    """Off the leader's unit price, rounded down to the minor unit."""
    nearly_full_seats: int
    """A payment that leaves so many seats unpaid is a fact of its own; 0: none is."""
    virtual_completion: bool
    """Whether an operator may complete a team with virtual seats."""


class CampaignConfig(NamedTuple):
    """All that an operator says about a campaign; compared whole for idempotency."""

    name: str
    currency_code: str
    starts_ms: int
    ends_ms: int
    payment_window_ms: int
    limit_per_buyer: int
    """Units a buyer may hold and own over all lines; 0 is no limit."""
    required_claims: tuple[str, ...]
    lines: tuple[CampaignLine, ...]
    group: GroupRules | None = None
    """None: a campaign without teams; then no line has tiers."""
    min_score: int = 0
    """That a buyer's conduct must have, at most what gateways know (`risk_state.LOW_SCORE`)."""


def campaign_config(fields: Sequence[Any]) -> CampaignConfig:
    """A CampaignConfig from the nested arrays that it travels and is journalled as."""
    config = CampaignConfig(*fields)
    return config._replace(
        required_claims=tuple(config.required_claims),
        lines=tuple(_line(line) for line in config.lines),
        group=None if config.group is None else GroupRules._make(config.group),
    )


def _line(fields: Sequence[Any]) -> CampaignLine:
    # Called, not made by `_make`: journals of before teams have lines without tiers.
    line = CampaignLine(*fields)
    return line._replace(tiers=tuple(Tier._make(tier) for tier in line.tiers))

"""What an operator says about the commission programme, as it travels and is journalled.

Nested arrays; fields are only ever added at the end, with a default, for journals keep the versions
of older releases. A version is put whole, stands from the instant when it was put, and is never
changed: an order keeps the version that stood when it was reserved.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

FIRST_TOUCH, LAST_TOUCH = 1, 2
"""Binding policies, numbered as `stockray.v1.BindingPolicy`: who came first keeps the buyer while
the binding is valid, or whoever came last takes the buyer over once the protection has passed."""

LEVELS_MAX = 2
"""The law's limit: a rate is a pair, so that a third level cannot be said."""
VERSIONS_MAX = 10_000
VERSION_LINES_MAX = 1_000
"""Rates of campaigns and SKUs in one version."""
RATE_LINES_MAX = 200_000
"""The same over all versions together."""
FULL_BPS = 10_000


class CampaignRate(NamedTuple):
    """What an order of a campaign earns where its SKU has no rate."""

    campaign_id: str
    level1_bps: int
    level2_bps: int


class SkuRate(NamedTuple):
    """What an order of a SKU earns, in whatever campaign."""

    sku_id: str
    level1_bps: int
    level2_bps: int
    margin_minor: int = -1
    """Of one unit: all levels together never get more. -1: not given, so there is no cap."""


class ProgrammeConfig(NamedTuple):
    """All that an operator says about the programme; compared whole for idempotency."""

    currency_code: str
    """Of the ledger; orders in another currency earn nothing. Cannot change."""
    time_zone: str
    """IANA name: months of statements and boards are calendar months there. Cannot change."""
    level1_bps: int
    level2_bps: int
    campaigns: tuple[CampaignRate, ...] = ()
    skus: tuple[SkuRate, ...] = ()
    freeze_ms: int = 7 * 86_400_000
    """From delivery where it is reported, else from the order's payment."""
    freeze_max_ms: int = 30 * 86_400_000
    """From the order's payment: no later delivery holds the money for longer."""
    policy: int = FIRST_TOUCH
    validity_ms: int = 0
    """For how long a binding earns; 0: for ever."""
    protection_ms: int = 0
    """LAST_TOUCH: for how long another touch does not take the buyer over."""
    new_buyers_only: bool = False
    approve_at_once: bool = False
    """Whether who applies is a distributor without anybody's review."""


def programme_config(fields: Sequence[Any]) -> ProgrammeConfig:
    """A ProgrammeConfig from the nested arrays that it travels and is journalled as."""
    config = ProgrammeConfig(*fields)
    return config._replace(
        campaigns=tuple(CampaignRate(*rate) for rate in config.campaigns),
        skus=tuple(SkuRate(*rate) for rate in config.skus),
    )

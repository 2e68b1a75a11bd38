"""Rates and rules of the commission programme: a put to its configuration, and back."""

from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo

from stockray_proto.v1 import commission_service_pb2

from actors.core import commission_commands as d
from actors.core.identity import PROGRAMME_SLOT
from actors.core.programme_config import (
    FIRST_TOUCH,
    FULL_BPS,
    LAST_TOUCH,
    LEVELS_MAX,
    VERSION_LINES_MAX,
    CampaignRate,
    ProgrammeConfig,
    SkuRate,
)
from server.handlers import CallContext
from server.translate.scalars import duration, stamp
from server.validate import Violations

DAY_MS = 86_400_000
FREEZE_MAX_MS = 365 * DAY_MS
FREEZE_DEFAULT_MS = 7 * DAY_MS
FREEZE_LIMIT_DEFAULT_MS = 30 * DAY_MS
BINDING_MAX_MS = 3_650 * DAY_MS
TIME_ZONE_LENGTH_MAX = 64
NO_MARGIN = -1


def put_rates_command(
    request: commission_service_pb2.PutRatesRequest, context: CallContext
) -> d.PutRates:
    """PutRates, with defaults filled in. Raises CallError."""
    rates, wrong = request.rates, Violations()
    if not request.HasField("rates"):
        wrong.add("rates", "required")
        wrong.refuse()
    wrong.currency("rates.currency_code", rates.currency_code, required=True)
    _check_time_zone(rates.time_zone, wrong)
    level1_bps, level2_bps = _levels(rates.level_bps, "rates.level_bps", wrong)
    freeze_ms, freeze_max_ms = _freeze(rates, wrong)
    validity_ms = protection_ms = 0
    if rates.HasField("validity"):
        validity_ms = wrong.duration("rates.validity", rates.validity, 1_000, BINDING_MAX_MS)
    if rates.HasField("protection"):
        protection_ms = wrong.duration("rates.protection", rates.protection, 0, BINDING_MAX_MS)
    if rates.binding_policy not in (0, FIRST_TOUCH, LAST_TOUCH):
        wrong.add("rates.binding_policy", "a policy that this release knows")
    _check_count(rates, wrong)
    campaigns = tuple(_campaign_rates(rates.campaigns, wrong))
    skus = tuple(_sku_rates(rates.skus, wrong))
    wrong.reason(request.reason)
    wrong.refuse()
    config = ProgrammeConfig(
        currency_code=rates.currency_code,
        time_zone=rates.time_zone,
        level1_bps=level1_bps,
        level2_bps=level2_bps,
        campaigns=campaigns,
        skus=skus,
        freeze_ms=freeze_ms,
        freeze_max_ms=freeze_max_ms,
        policy=rates.binding_policy or FIRST_TOUCH,
        validity_ms=validity_ms,
        protection_ms=protection_ms,
        new_buyers_only=rates.new_buyers_only,
        approve_at_once=rates.approve_at_once,
    )
    head = (d.PUT_RATES, PROGRAMME_SLOT, context.deadline_ms, context.caller)
    return d.PutRates(*head, config, request.reason)


def _check_time_zone(name: str, wrong: Violations) -> None:
    try:
        known = 0 < len(name) <= TIME_ZONE_LENGTH_MAX and ZoneInfo(name).key == name
    except (LookupError, ValueError, OSError):
        known = False  # OSError: also the name of a folder of zones.
    if not known:
        wrong.add("rates.time_zone", 'required: an IANA name, for example "Asia/Shanghai"')


def _levels(levels: Sequence[int], field: str, wrong: Violations) -> tuple[int, int]:
    """Both levels; a level that is not given earns nothing."""
    if not 1 <= len(levels) <= LEVELS_MAX:
        wrong.add(field, f"1 to {LEVELS_MAX} levels; the law allows no third")
        return 0, 0
    for level, bps in enumerate(levels):
        wrong.number(f"{field}[{level}]", bps, 0, FULL_BPS)
    if sum(levels) > FULL_BPS and max(levels) <= FULL_BPS:
        wrong.add(field, f"together at most {FULL_BPS}")
    return levels[0], levels[1] if len(levels) > 1 else 0


def _freeze(rates: commission_service_pb2.Rates, wrong: Violations) -> tuple[int, int]:
    freeze_ms = FREEZE_DEFAULT_MS
    if rates.HasField("freeze"):
        freeze_ms = wrong.duration("rates.freeze", rates.freeze, 0, FREEZE_MAX_MS)
    if not rates.HasField("freeze_max"):
        return freeze_ms, max(freeze_ms, FREEZE_LIMIT_DEFAULT_MS)
    # A freeze that is out of range itself bounds nothing.
    low_ms = freeze_ms if 0 <= freeze_ms <= FREEZE_MAX_MS else 0
    return freeze_ms, wrong.duration("rates.freeze_max", rates.freeze_max, low_ms, FREEZE_MAX_MS)


def _check_count(rates: commission_service_pb2.Rates, wrong: Violations) -> None:
    """Refuses at once what is too much to be looked at one by one."""
    if len(rates.campaigns) + len(rates.skus) > VERSION_LINES_MAX:
        field = "rates.campaigns" if len(rates.campaigns) > VERSION_LINES_MAX else "rates.skus"
        wrong.add(field, f"of campaigns and SKUs together at most {VERSION_LINES_MAX}")
        wrong.refuse()


def _campaign_rates(
    rates: Sequence[commission_service_pb2.CampaignRate], wrong: Violations
) -> list[CampaignRate]:
    return [
        CampaignRate(rate.campaign_id, *_levels(rate.level_bps, f"{at}.level_bps", wrong))
        for at, rate in _each("rates.campaigns", "campaign_id", rates, wrong)
    ]


def _sku_rates(rates: Sequence[commission_service_pb2.SkuRate], wrong: Violations) -> list[SkuRate]:
    found = []
    for at, rate in _each("rates.skus", "sku_id", rates, wrong):
        levels = _levels(rate.level_bps, f"{at}.level_bps", wrong)
        margin_minor = NO_MARGIN
        if rate.HasField("margin_minor"):
            wrong.money(f"{at}.margin_minor", rate.margin_minor)
            margin_minor = rate.margin_minor
        found.append(SkuRate(rate.sku_id, *levels, margin_minor))
    return found


def _each(field: str, name: str, rates: Sequence[Any], wrong: Violations) -> list[tuple[str, Any]]:
    """The rates in the order of their ids, each with its path; their order means nothing."""
    seen: set[str] = set()
    placed = []
    for index, rate in enumerate(rates):
        held, at = getattr(rate, name), f"{field}[{index}]"
        wrong.id(f"{at}.{name}", held)
        if held in seen:
            wrong.add(f"{at}.{name}", "once in a put")
        seen.add(held)
        placed.append((at, rate))
    return sorted(placed, key=lambda pair: str(getattr(pair[1], name)))


def rates_message(
    version: int, from_ms: int, config: ProgrammeConfig
) -> commission_service_pb2.Rates:
    """A version as it stands."""
    message = commission_service_pb2.Rates(
        currency_code=config.currency_code,
        time_zone=config.time_zone,
        level_bps=(config.level1_bps, config.level2_bps),
        freeze=duration(config.freeze_ms),
        freeze_max=duration(config.freeze_max_ms),
        binding_policy=config.policy,  # type: ignore[arg-type]
        validity=duration(config.validity_ms) if config.validity_ms else None,
        protection=duration(config.protection_ms),
        new_buyers_only=config.new_buyers_only,
        approve_at_once=config.approve_at_once,
        version=version,
        start_time=stamp(from_ms),
    )
    for rate in config.campaigns:
        message.campaigns.add(
            campaign_id=rate.campaign_id, level_bps=(rate.level1_bps, rate.level2_bps)
        )
    for sku in config.skus:
        message.skus.add(
            sku_id=sku.sku_id,
            level_bps=(sku.level1_bps, sku.level2_bps),
            margin_minor=None if sku.margin_minor == NO_MARGIN else sku.margin_minor,
        )
    return message

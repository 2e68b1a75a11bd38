"""Group campaigns: a put to its configuration, a view of the core to a message.

A group campaign is a campaign whose lines have tiers. Its messages have the fields of a flash
sale's with the same numbers (`tests/unit/server/test_group_campaigns.py` holds them together), so
what both have is read and written by `campaign.py`, once.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from stockray_proto.v1 import group_buy_service_pb2

from actors.core import commands as c
from actors.core.campaign_config import CampaignLine, GroupRules, Tier
from server.handlers import CallContext
from server.translate.campaign import (
    CampaignView,
    LineAllocation,
    campaign_message,
    read_plain_line,
    read_put,
)
from server.translate.scalars import duration
from server.validate import Violations

TIERS_MAX = 20
TEAM_PEOPLE_MAX = 500
WINDOW_MIN_MS, WINDOW_MAX_MS = 10 * 60_000, 72 * 3_600_000
WINDOW_DEFAULT_MS = 24 * 3_600_000
TEAMS_PER_BUYER_MAX = 1_000
TEAMS_PER_BUYER_DEFAULT = 3
NEARLY_FULL_DEFAULT = 1


def put_group_campaign_command(
    request: group_buy_service_pb2.PutGroupCampaignRequest, context: CallContext
) -> c.PutCampaign:
    """PutCampaign of a group campaign; see `read_put`."""
    return read_put(request, context, read_line=_line, read_rules=_rules)


def _line(line: Any, path: str, wrong: Violations) -> CampaignLine:
    plain = read_plain_line(line, path, wrong)
    tiers = _tiers(line.tiers, f"{path}.tiers", wrong)
    first_minor = tiers[0].unit_price_minor if tiers else 0
    return plain._replace(list_price_minor=plain.list_price_minor or first_minor, tiers=tiers)


def _tiers(tiers: Sequence[Any], path: str, wrong: Violations) -> tuple[Tier, ...]:
    if not 1 <= len(tiers) <= TIERS_MAX:
        wrong.add(path, f"1 to {TIERS_MAX} of them")
    found: list[Tier] = []
    for index, tier in enumerate(tiers[:TIERS_MAX]):
        here = f"{path}[{index}]"
        wrong.number(f"{here}.people", tier.people, 1, TEAM_PEOPLE_MAX)
        wrong.money(f"{here}.unit_price_minor", tier.unit_price_minor)
        if found and tier.people <= found[-1].people:
            wrong.add(f"{here}.people", "more than the tier's before")
        if found and tier.unit_price_minor >= found[-1].unit_price_minor:
            wrong.add(f"{here}.unit_price_minor", "less than the tier's before")
        found.append(Tier(tier.people, tier.unit_price_minor))
    return tuple(found)


def _rules(campaign: Any, lines: Sequence[CampaignLine], wrong: Violations) -> GroupRules:
    rules = campaign.rules
    window_ms = WINDOW_DEFAULT_MS
    if rules.HasField("window"):
        window_ms = wrong.duration("rules.window", rules.window, WINDOW_MIN_MS, WINDOW_MAX_MS)
    capacity = min((line.tiers[-1].people for line in lines if line.tiers), default=TEAM_PEOPLE_MAX)
    wrong.number("rules.new_buyer_count", rules.new_buyer_count, 0, max(0, capacity))
    teams = rules.teams_per_buyer or TEAMS_PER_BUYER_DEFAULT
    wrong.number("rules.teams_per_buyer", teams, 1, TEAMS_PER_BUYER_MAX)
    wrong.number("rules.leader_discount_bps", rules.leader_discount_bps, 0, 10_000)
    nearly_full = NEARLY_FULL_DEFAULT
    if rules.HasField("nearly_full_count"):
        nearly_full = rules.nearly_full_count
    wrong.number("rules.nearly_full_count", nearly_full, 0, TEAM_PEOPLE_MAX)
    return GroupRules(
        window_ms=window_ms,
        new_buyer_seats=rules.new_buyer_count,
        teams_per_buyer=teams,
        leader_discount_bps=rules.leader_discount_bps,
        nearly_full_seats=nearly_full,
        virtual_completion=rules.virtual_completion,
    )


def group_campaign_message(
    view: CampaignView,
    *,
    as_of_ms: int,
    now_ms: int,
    allocations: Mapping[str, LineAllocation] | None = None,
) -> group_buy_service_pb2.GroupCampaign | None:
    """A group campaign with its pools; None (an unset field) for one without teams."""
    rules = view.config.group
    if rules is None:
        return None
    plain = campaign_message(view, as_of_ms=as_of_ms, now_ms=now_ms, allocations=allocations)
    message = group_buy_service_pb2.GroupCampaign.FromString(plain.SerializeToString())
    for told, line in zip(message.lines, view.config.lines, strict=True):
        told.tiers.extend(tier_message(tier) for tier in line.tiers)
    message.rules.CopyFrom(
        group_buy_service_pb2.GroupRules(
            window=duration(rules.window_ms),
            new_buyer_count=rules.new_buyer_seats,
            teams_per_buyer=rules.teams_per_buyer,
            leader_discount_bps=rules.leader_discount_bps,
            nearly_full_count=rules.nearly_full_seats,
            virtual_completion=rules.virtual_completion,
        )
    )
    return message


def tier_message(tier: Tier) -> group_buy_service_pb2.Tier:
    """A tier."""
    return group_buy_service_pb2.Tier(people=tier.people, unit_price_minor=tier.unit_price_minor)

"""Deciding on campaigns: put, pause, resume, end, read.

A campaign's pools stand in the campaign's slot. Putting a campaign moves no unit: the gateway sees
from the answer what each line still lacks, and fetches it from the SKU's base pool by a transfer
that is named after what was granted before, so that a repeated put cannot fetch twice.
"""

from typing import Any

from actors.core import commands as c
from actors.core.campaign_config import CampaignConfig
from actors.core.outcomes import Outcome
from actors.core.pools import Pool
from actors.core.records import (
    CAMPAIGN_PUT,
    CAMPAIGN_STATE_SET,
    CampaignPut,
    CampaignStateSet,
)
from actors.core.state import CAMPAIGN_ACTIVE, CAMPAIGN_ENDED, Campaign, ShardState, SlotState
from actors.core.stock import pool_view

Decision = tuple[tuple[Any, ...], tuple[Any, ...]]


def campaign_view(slot: SlotState, campaign_id: str) -> tuple[Any, ...] | None:
    """(campaign id, state, config, pools in the order of the lines, version, created_ms,
    updated_ms), or None."""
    campaign = slot.campaigns.get(campaign_id)
    if campaign is None:
        return None
    pools = tuple(pool_view(slot, campaign.pools[line.sku_id]) for line in campaign.config.lines)
    return (
        campaign_id,
        campaign.state,
        campaign.config,
        pools,
        campaign.version,
        campaign.created_ms,
        campaign.updated_ms,
    )


def get_campaign(state: ShardState, command: c.GetCampaign, now_ms: int) -> Decision:
    """(FOUND, campaign, now_ms) or (NOT_FOUND, None, now_ms)."""
    view = campaign_view(state.slot(command.slot), command.campaign_id)
    return (Outcome.NOT_FOUND if view is None else Outcome.FOUND, view, now_ms), ()


def put_campaign(state: ShardState, command: c.PutCampaign, now_ms: int) -> Decision:
    """(APPLIED, campaign before or None, now_ms, why not ''). CAMPAIGN_CONFLICT when it is over,
    or the change would touch what buyers rely on: the currency, a line's existence, an allocation
    below what was granted."""
    slot = state.slot(command.slot)
    view = campaign_view(slot, command.campaign_id)
    campaign = slot.campaigns.get(command.campaign_id)
    state_now = CAMPAIGN_ACTIVE if campaign is None else campaign.state
    record = CampaignPut(
        CAMPAIGN_PUT,
        command.slot,
        command.campaign_id,
        command.config,
        state_now,
        1 if campaign is None else campaign.version + 1,
        now_ms if campaign is None else campaign.created_ms,
        command.caller,
        command.reason,
    )
    if campaign is None:
        return (Outcome.APPLIED, view, now_ms, ""), (record,)
    if campaign.config == command.config:
        return (Outcome.APPLIED, view, now_ms, ""), ()
    conflict = _conflict(campaign, command.config, now_ms)
    if conflict:
        return (Outcome.CAMPAIGN_CONFLICT, view, now_ms, conflict), ()
    return (Outcome.APPLIED, view, now_ms, ""), (record,)


def _conflict(campaign: Campaign, config: CampaignConfig, now_ms: int) -> str:
    if campaign.state == CAMPAIGN_ENDED or now_ms >= campaign.config.ends_ms:
        return "the campaign has ended"
    if (config.group is None) != (campaign.config.group is None):
        kind = "flash sale" if campaign.config.group is None else "group campaign"
        return f"it is a {kind}, and stays one"
    if config.currency_code != campaign.config.currency_code:
        return "currency_code cannot change"
    allocations = {line.sku_id: line.allocation for line in config.lines}
    for pool in campaign.pools.values():
        allocation = allocations.get(pool.sku_id)
        if allocation is None:
            return f"line {pool.sku_id} cannot be removed: reservations may refer to it"
        if allocation < pool.granted:
            return f"line {pool.sku_id} was granted {pool.granted} units already"
        if pool.group is not None and pool.group.opened and _teams_change(pool, config):
            return f"line {pool.sku_id}: tiers and group rules cannot change: a team was opened"
    return ""


def _teams_change(pool: Pool, config: CampaignConfig) -> bool:
    group = pool.group
    line = next(line for line in config.lines if line.sku_id == pool.sku_id)
    return group is not None and (line.tiers, config.group) != (group.tiers, group.rules)


def set_campaign_state(state: ShardState, command: c.SetCampaignState, now_ms: int) -> Decision:
    """(APPLIED, campaign before, now_ms). An ended campaign stays ended: CAMPAIGN_CONFLICT."""
    slot = state.slot(command.slot)
    view = campaign_view(slot, command.campaign_id)
    campaign = slot.campaigns.get(command.campaign_id)
    if campaign is None:
        return (Outcome.NOT_FOUND, None, now_ms), ()
    if campaign.state == command.state:
        return (Outcome.APPLIED, view, now_ms), ()
    if campaign.state == CAMPAIGN_ENDED:
        return (Outcome.CAMPAIGN_CONFLICT, view, now_ms), ()
    record = CampaignStateSet(
        CAMPAIGN_STATE_SET,
        command.slot,
        command.campaign_id,
        command.state,
        command.caller,
        command.reason,
    )
    return (Outcome.APPLIED, view, now_ms), (record,)

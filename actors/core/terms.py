"""What a pool and its campaign lay down: currency, payment window, limits, times, eligibility."""

from typing import Any

from actors.core.outcomes import Outcome
from actors.core.pools import Pool
from actors.core.risk_state import UNKNOWN_SCORE
from actors.core.state import CAMPAIGN_ENDED, CAMPAIGN_PAUSED, Campaign, SlotState


def currency_of(slot: SlotState, pool: Pool) -> str:
    """The currency of a pool's prices; a campaign never changes its own."""
    if pool.campaign_id:
        return slot.campaigns[pool.campaign_id].config.currency_code
    return slot.skus[pool.sku_id].currency_code


def window_of(slot: SlotState, pool: Pool) -> int:
    """The payment window of a pool's reservations, in milliseconds."""
    if pool.campaign_id:
        return slot.campaigns[pool.campaign_id].config.payment_window_ms
    return slot.skus[pool.sku_id].payment_window_ms


def closed(campaign: Campaign, now_ms: int) -> Outcome | None:
    """Why a campaign does not sell now; None if it does."""
    config = campaign.config
    if campaign.state == CAMPAIGN_ENDED or now_ms >= config.ends_ms:
        return Outcome.ENDED
    if campaign.state == CAMPAIGN_PAUSED:
        return Outcome.PAUSED
    if now_ms < config.starts_ms:
        return Outcome.NOT_STARTED
    return None


def not_eligible(campaign: Campaign, command: Any) -> Outcome | None:
    """NOT_ELIGIBLE if the buyer lacks a claim that the campaign requires, or has a lower score;
    RETRY if it asks for a score that nobody knows just now."""
    config = campaign.config
    if not set(config.required_claims).issubset(command.claims):
        return Outcome.NOT_ELIGIBLE
    if not config.min_score or command.score >= config.min_score:
        return None
    return Outcome.RETRY if command.score == UNKNOWN_SCORE else Outcome.NOT_ELIGIBLE


def exceeds_limit(campaign: Campaign | None, pool: Pool, buyer_id: str, quantity: int) -> bool:
    """Whether `quantity` more units would take the buyer over the line's or campaign's limit."""
    limit = pool.limit_per_buyer
    campaigns = 0 if campaign is None else campaign.config.limit_per_buyer
    if not limit and not campaigns:
        return False
    wanted = (pool.buyers.get(buyer_id) or 0) + quantity
    if limit and wanted > limit:
        return True
    if campaign is None or not campaigns:
        return False
    # A campaign of one line counts in one table.
    if campaign.buyers is not pool.buyers:
        wanted = (campaign.buyers.get(buyer_id) or 0) + quantity
    return wanted > campaigns

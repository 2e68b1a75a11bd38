"""Work that a shard finds undone and a gateway finishes, since it crosses slots.

A chore is repeated until it is done, by whichever gateway asks, so every step of it is idempotent.
"""

from itertools import islice
from typing import Any

from actors.core.identity import account_slot
from actors.core.state import CAMPAIGN_ENDED, ShardState, SlotState

FINISH_TRANSFER, RETURN_LEFTOVER, TELL_HOLD = 1, 2, 3

CHORES_A_ROUND = 64


def chores(state: ShardState, now_ms: int) -> tuple[tuple[Any, ...], ...]:
    """Up to 64 of: (FINISH_TRANSFER, slot, transfer id, SKU, from campaign, to campaign, units),
    (RETURN_LEFTOVER, slot, campaign, SKU, available, granted) and (TELL_HOLD, slot, buyer, frozen
    until or 0, why, as of when)."""
    found: list[tuple[Any, ...]] = _holds(state) if state.risk.untold else []
    for slot in state.slots.values():
        if len(found) >= CHORES_A_ROUND:
            break
        if slot.open_transfers:
            found.extend(_unfinished(slot))
        if slot.campaigns:
            found.extend(_leftovers(slot, now_ms))
    return tuple(found[:CHORES_A_ROUND])


def _holds(state: ShardState) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for buyer_id in islice(state.risk.untold, CHORES_A_ROUND):
        number = account_slot(buyer_id)
        profile = state.slot(number).profiles.get(buyer_id)
        if profile is not None:
            told = (profile.frozen_until_ms, profile.reason, profile.frozen_as_of_ms)
            found.append((TELL_HOLD, number, buyer_id, *told))
    return found


def _unfinished(slot: SlotState) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for key in slot.open_transfers:
        transfer = slot.transfers.get(key)
        if transfer is None or len(found) == CHORES_A_ROUND:
            break
        found.append(
            (
                FINISH_TRANSFER,
                slot.slot,
                key,
                transfer.sku_id,
                transfer.from_campaign_id,
                transfer.to_campaign_id,
                transfer.quantity,
            )
        )
    return found


def _leftovers(slot: SlotState, now_ms: int) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for name, campaign in slot.campaigns.items():
        if campaign.state != CAMPAIGN_ENDED and now_ms < campaign.config.ends_ms:
            continue
        for pool in campaign.pools.values():
            if pool.available:
                found.append(
                    (RETURN_LEFTOVER, slot.slot, name, pool.sku_id, pool.available, pool.granted)
                )
            if len(found) == CHORES_A_ROUND:
                return found
    return found

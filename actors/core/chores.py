"""Work that a shard finds undone and a gateway finishes, since it crosses slots.

A chore is repeated until it is done, by whichever gateway asks, so every step of it is idempotent.
"""

from typing import Any

from actors.core.state import CAMPAIGN_ENDED, ShardState, SlotState

FINISH_TRANSFER, RETURN_LEFTOVER = 1, 2

CHORES_A_ROUND = 64


def chores(state: ShardState, now_ms: int) -> tuple[tuple[Any, ...], ...]:
    """Up to 64 of: (FINISH_TRANSFER, slot, transfer id, SKU, from campaign, to campaign, units) and
    (RETURN_LEFTOVER, slot, campaign, SKU, available, granted)."""
    found: list[tuple[Any, ...]] = []
    for slot in state.slots.values():
        if len(found) >= CHORES_A_ROUND:
            break
        if slot.open_transfers:
            found.extend(_unfinished(slot))
        if slot.campaigns:
            found.extend(_leftovers(slot, now_ms))
    return tuple(found[:CHORES_A_ROUND])


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

"""Applying what was decided on stock: SKUs, documents, transfers and campaigns.

Part of `evolve.py`, whose rules hold here.
"""

from actors.core import records as r
from actors.core import state as s
from actors.core.campaign_config import CampaignConfig, CampaignLine, campaign_config
from actors.core.identity import request_key
from actors.core.pools import Pool
from actors.core.team_state import Group


def sku_put(state: s.ShardState, slot: s.SlotState, record: r.SkuPut) -> None:
    sku = slot.skus.get(record.sku_id)
    if sku is None:
        sku = slot.skus[record.sku_id] = s.Sku(Pool("", record.sku_id))
    sku.name = record.name
    sku.attributes = record.attributes
    sku.buffer_bps = record.buffer_bps
    sku.currency_code = record.currency_code
    sku.payment_window_ms = record.payment_window_ms
    sku.created_ms = record.created_ms
    sku.pool.list_price_minor = sku.pool.unit_price_minor = record.price_minor
    state.touched[sku.pool] = slot.slot


def _pool(state: s.ShardState, slot: s.SlotState, campaign_id: str, sku_id: str) -> Pool:
    pool = slot.pool(campaign_id, sku_id)
    if pool is None:
        raise s.Impossible(f"entry {state.seq}: no pool {campaign_id}/{sku_id}")
    state.touched[pool] = slot.slot
    return pool


def stock_changed(state: s.ShardState, slot: s.SlotState, record: r.StockChanged) -> None:
    pool = _pool(state, slot, record.campaign_id, record.sku_id)
    pool.available += record.available
    pool.buffer += record.buffer
    pool.scheduled += record.scheduled
    pool.total += record.available + record.buffer + record.scheduled
    pool.owed += record.owed
    if pool.owed > 0:
        if pool not in state.debtors:
            state.debtors[pool] = s.Debt(slot.slot)
    else:
        state.debtors.pop(pool, None)
    key = request_key(record.caller, record.request_id)
    slot.documents.put(key, record.fingerprint)
    if record.document in FIGURES:
        slot.figures.put(key, FIGURES[record.document](record))


def _receipt_figures(record: r.StockChanged) -> tuple[int, ...]:
    """(units that the buffer kept, units that paid what was owed)."""
    return (record.buffer, -record.owed)


def _shortage_figures(record: r.StockChanged) -> tuple[int, ...]:
    """(from available, scheduled, buffer, to come from reservations, to come from orders)."""
    from_sold = record.owed - record.from_reserved
    taken = (-record.available, -record.scheduled, -record.buffer)
    return (*taken, record.from_reserved, from_sold)


FIGURES = {r.DOCUMENT_RECEIVE: _receipt_figures, r.DOCUMENT_SHORTAGE: _shortage_figures}
"""Documents whose answer says more than the pool -> what it says."""


def transferred_out(state: s.ShardState, slot: s.SlotState, record: r.TransferredOut) -> None:
    pool = _pool(state, slot, record.from_campaign_id, record.sku_id)
    pool.available -= record.quantity
    pool.in_transit += record.quantity
    pool.granted = record.granted
    if record.transfer_id not in slot.transfers:
        slot.open_transfers.add(record.transfer_id)
        slot.transfers.put(
            record.transfer_id,
            s.Transfer(
                sku_id=record.sku_id,
                from_campaign_id=record.from_campaign_id,
                to_campaign_id=record.to_campaign_id,
                quantity=record.quantity,
                fingerprint=record.fingerprint,
            ),
        )


def transferred_in(state: s.ShardState, slot: s.SlotState, record: r.TransferredIn) -> None:
    slot.arrivals.put(record.transfer_id, record.arrived)
    if not record.arrived:
        return
    pool = _pool(state, slot, record.to_campaign_id, record.sku_id)
    pool.total += record.quantity
    pool.granted = record.granted
    free(state, slot, pool, record.quantity)


def transfer_ended(state: s.ShardState, slot: s.SlotState, record: r.TransferEnded) -> None:
    transfer = slot.transfers.get(record.transfer_id)
    if transfer is None:
        raise s.Impossible(f"entry {state.seq}: no transfer {record.transfer_id.hex()}")
    pool = _pool(state, slot, transfer.from_campaign_id, transfer.sku_id)
    pool.in_transit -= transfer.quantity
    slot.open_transfers.discard(record.transfer_id)
    transfer.state = s.TRANSFER_ARRIVED if record.arrived else s.TRANSFER_TURNED_AWAY
    if record.arrived:
        pool.total -= transfer.quantity
        return
    pool.granted = record.granted
    free(state, slot, pool, transfer.quantity)


def campaign_put(state: s.ShardState, slot: s.SlotState, record: r.CampaignPut) -> None:
    if state.fuzzy is not None:
        # The snapshot's end has the campaign with all its lines, and rows refer to those pools.
        return
    config = campaign_config(record.config)
    campaign = slot.campaigns.get(record.campaign_id)
    if campaign is None:
        campaign = slot.campaigns[record.campaign_id] = s.Campaign(config)
    campaign.config = config
    campaign.version = record.version
    campaign.created_ms = record.created_ms
    campaign.updated_ms = state.now_ms
    pools: dict[str, Pool] = {}
    for line in config.lines:
        pool = campaign.pools.get(line.sku_id) or Pool(record.campaign_id, line.sku_id)
        pool.list_price_minor = line.list_price_minor
        pool.unit_price_minor = line.unit_price_minor
        pool.limit_per_buyer = line.limit_per_buyer
        set_group(pool, line, config)
        pools[line.sku_id] = pool
        state.touched[pool] = slot.slot
    campaign.pools = pools
    campaign.link_counts()


def campaign_state_set(state: s.ShardState, slot: s.SlotState, record: r.CampaignStateSet) -> None:
    campaign = slot.campaigns[record.campaign_id]
    campaign.state = record.state
    campaign.updated_ms = state.now_ms
    if record.state == s.CAMPAIGN_ENDED and state.fuzzy is None and campaign.openers:
        state.closing[slot.slot, record.campaign_id] = None


def set_group(pool: Pool, line: CampaignLine, config: CampaignConfig) -> None:
    """What a line says of its teams. Those that are forming stay where they are: a change is
    refused once there were any."""
    if not line.tiers or config.group is None:
        return
    if pool.group is None:
        pool.group = Group()
    pool.group.set_terms(line.tiers, config.group)


def free(state: s.ShardState, slot: s.SlotState, pool: Pool, units: int) -> None:
    """Units become available again; what the pool owes is paid first."""
    pool.available += units - pay_owed(state, pool, units)


def pay_owed(state: s.ShardState, pool: Pool, units: int) -> int:
    """How many of the freed units what is owed takes; they leave the total."""
    paid = min(pool.owed, units)
    pool.owed -= paid
    pool.total -= paid
    if paid and not pool.owed:
        state.debtors.pop(pool, None)
    return paid


def forgive(state: s.ShardState, pool: Pool) -> None:
    """No more can be owed than reservations and orders could still give up, else a receipt of
    goods would pay for units that are in nobody's books any more."""
    pool.owed = min(pool.owed, pool.reserved + pool.sold)
    if not pool.owed:
        state.debtors.pop(pool, None)

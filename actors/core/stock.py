"""Deciding on stock: SKUs, receipts, corrections, buffers, transfers and shortages.

Every document (receive, adjust, buffer, transfer, shortage) has a request id that is kept for
ever; a resend is answered from it, with the pool as it stands now.
"""

from typing import Any

from actors.core import commands as c
from actors.core.identity import fingerprint, request_key
from actors.core.outcomes import Outcome
from actors.core.pools import Pool
from actors.core.records import (
    DOCUMENT_ADJUST,
    DOCUMENT_BUFFER,
    DOCUMENT_RECEIVE,
    DOCUMENT_SHORTAGE,
    SKU_PUT,
    STOCK_CHANGED,
    TRANSFER_ENDED,
    TRANSFERRED_IN,
    TRANSFERRED_OUT,
    SkuPut,
    StockChanged,
    TransferEnded,
    TransferredIn,
    TransferredOut,
)
from actors.core.refusals import refuse, refused_before
from actors.core.state import (
    CAMPAIGN_ENDED,
    IN_TRANSIT,
    TRANSFER_ARRIVED,
    TRANSFER_TURNED_AWAY,
    ShardState,
    Sku,
    SlotState,
)
from actors.core.terms import currency_of

Decision = tuple[tuple[Any, ...], tuple[Any, ...]]

TOTAL_MAX = 10**12
"""Units a pool may answer for; far below what any client's integers lose."""


def pool_view(slot: SlotState, pool: Pool | None) -> tuple[Any, ...] | None:
    """A pool as it travels in answers: its balance, then list price, unit price, granted and the
    currency of the prices."""
    if pool is None:
        return None
    return (
        *pool.balance(slot.slot, slot.generation),
        pool.list_price_minor,
        pool.unit_price_minor,
        pool.granted,
        currency_of(slot, pool),
    )


def get_stock(state: ShardState, command: c.GetStock, now_ms: int) -> Decision:
    """(FOUND, pool, SKU) or (NOT_FOUND, None, None). The SKU is (name, attributes, buffer_bps,
    price, currency, payment window, created_ms), and None unless asked for of a base pool."""
    slot = state.slot(command.slot)
    view = pool_view(slot, slot.pool(command.campaign_id, command.sku_id))
    if view is None:
        return (Outcome.NOT_FOUND, None, None), ()
    described = command.with_sku and not command.campaign_id
    return (Outcome.FOUND, view, _sku_view(slot.skus[command.sku_id]) if described else None), ()


def _sku_view(sku: Sku) -> tuple[Any, ...]:
    return (
        sku.name,
        sku.attributes,
        sku.buffer_bps,
        sku.pool.unit_price_minor,
        sku.currency_code,
        sku.payment_window_ms,
        sku.created_ms,
    )


def put_sku(state: ShardState, command: c.PutSku, now_ms: int) -> Decision:
    """(APPLIED, pool or None when it is new). The currency of a SKU with units never changes:
    CAMPAIGN_CONFLICT."""
    slot = state.slot(command.slot)
    sku = slot.skus.get(command.sku_id)
    described = (
        command.name,
        command.attributes,
        command.buffer_bps,
        command.price_minor,
        command.currency_code,
        command.payment_window_ms,
    )
    record = SkuPut(
        SKU_PUT,
        command.slot,
        command.sku_id,
        *described,
        now_ms if sku is None else sku.created_ms,
        command.caller,
        command.reason,
    )
    if sku is None:
        return (Outcome.APPLIED, None), (record,)
    view = pool_view(slot, sku.pool)
    if sku.currency_code != command.currency_code and sku.pool.total:
        return (Outcome.CAMPAIGN_CONFLICT, view), ()
    return (Outcome.APPLIED, view), (() if _sku_view(sku)[:-1] == described else (record,))


def _document(
    state: ShardState, command: Any, document: int, *business: object
) -> tuple[SlotState, bytes, int, tuple[Any, ...] | None]:
    """(slot, key, fingerprint, the answer if this request was decided before)."""
    slot = state.slot(command.slot)
    key = request_key(command.caller, command.request_id)
    mark = fingerprint(document, command.sku_id, *business)
    campaign_id = getattr(command, "campaign_id", "")
    view = pool_view(slot, slot.pool(campaign_id, command.sku_id))
    before = slot.documents.get(key)
    if before is not None:
        return slot, key, mark, (Outcome.APPLIED if before == mark else Outcome.ID_REUSED, view)
    refused = refused_before(slot, key, mark)
    return slot, key, mark, None if refused is None else (refused, view)


def _changed(  # noqa: PLR0917
    command: Any,
    document: int,
    mark: int,
    quantity: int,
    available: int,
    buffer: int = 0,
    scheduled: int = 0,
    owed: int = 0,
    from_reserved: int = 0,
) -> StockChanged:
    return StockChanged(
        STOCK_CHANGED,
        command.slot,
        document,
        command.caller,
        command.request_id,
        mark,
        getattr(command, "campaign_id", ""),
        command.sku_id,
        quantity,
        available,
        buffer,
        scheduled,
        owed,
        command.reason,
        from_reserved,
    )


def receive_stock(state: ShardState, command: c.ReceiveStock, now_ms: int) -> Decision:
    """(APPLIED, pool before, (units that the buffer kept, units that paid what was owed)). What is
    owed is paid first; then the buffer's share (rounded down) is kept back; again: the same
    figures. Precedence: ID_REUSED, NOT_FOUND, EXCEEDS_TOTAL, APPLIED."""
    slot, key, mark, before = _document(state, command, DOCUMENT_RECEIVE, command.quantity)
    nothing = (0, 0)
    if before is not None:
        return (*before, _first_figures(slot, key, before, nothing)), ()
    sku = slot.skus.get(command.sku_id)
    if sku is None:
        return refuse(state, command.slot, key, mark, Outcome.NOT_FOUND, None, nothing)
    view = pool_view(slot, sku.pool)
    if sku.pool.total + command.quantity > TOTAL_MAX:
        return refuse(state, command.slot, key, mark, Outcome.EXCEEDS_TOTAL, view, nothing)
    paid = min(sku.pool.owed, command.quantity)
    kept = (command.quantity - paid) * sku.buffer_bps // 10_000
    record = _changed(
        command,
        DOCUMENT_RECEIVE,
        mark,
        command.quantity,
        available=command.quantity - paid - kept,
        buffer=kept,
        owed=-paid,
    )
    return (Outcome.APPLIED, view, (kept, paid)), (record,)


def _first_figures(
    slot: SlotState, key: bytes, before: tuple[Any, ...], nothing: tuple[int, ...]
) -> tuple[int, ...]:
    """What a document that was applied before was answered beside the pool."""
    return slot.figures.get(key) or nothing if before[0] == Outcome.APPLIED else nothing


def adjust_stock(state: ShardState, command: c.AdjustStock, now_ms: int) -> Decision:
    """(APPLIED, pool before). Precedence: ID_REUSED, NOT_FOUND, EXCEEDS_TOTAL,
    EXCEEDS_AVAILABLE (units that are held or sold are a shortage, not a correction), APPLIED."""
    slot, key, mark, before = _document(
        state, command, DOCUMENT_ADJUST, command.campaign_id, command.delta
    )
    if before is not None:
        return before, ()
    pool = slot.pool(command.campaign_id, command.sku_id)
    if pool is None:
        return refuse(state, command.slot, key, mark, Outcome.NOT_FOUND, None)
    view = pool_view(slot, pool)
    if pool.total + command.delta > TOTAL_MAX:
        return refuse(state, command.slot, key, mark, Outcome.EXCEEDS_TOTAL, view)
    if pool.available + command.delta < 0:
        return refuse(state, command.slot, key, mark, Outcome.EXCEEDS_AVAILABLE, view)
    paid = min(pool.owed, max(0, command.delta))
    record = _changed(
        command,
        DOCUMENT_ADJUST,
        mark,
        command.delta,
        available=command.delta - paid,
        owed=-paid,
    )
    return (Outcome.APPLIED, view), (record,)


def set_buffer(state: ShardState, command: c.SetBuffer, now_ms: int) -> Decision:
    """(APPLIED, pool before). Precedence: ID_REUSED, NOT_FOUND, EXCEEDS_AVAILABLE, APPLIED."""
    slot, key, mark, before = _document(state, command, DOCUMENT_BUFFER, command.buffer)
    if before is not None:
        return before, ()
    pool = slot.pool("", command.sku_id)
    if pool is None:
        return refuse(state, command.slot, key, mark, Outcome.NOT_FOUND, None)
    more = command.buffer - pool.buffer
    if more > pool.available:
        view = pool_view(slot, pool)
        return refuse(state, command.slot, key, mark, Outcome.EXCEEDS_AVAILABLE, view)
    record = _changed(command, DOCUMENT_BUFFER, mark, command.buffer, available=-more, buffer=more)
    return (Outcome.APPLIED, pool_view(slot, pool)), (record,)


def declare_shortage(state: ShardState, command: c.DeclareShortage, now_ms: int) -> Decision:
    """(APPLIED, pool before, (from available, scheduled, buffer, to come from reservations, to come
    from orders)); again: the same figures. What is still to come is taken from the newest
    reservations, then the newest orders, by `pulse.py`, in slices: these two figures hold if
    nobody pays, gives up or returns meanwhile. An older shortage takes its reservations first.
    Precedence: ID_REUSED, NOT_FOUND, EXCEEDS_TOTAL, APPLIED (or FOUND for a dry run)."""
    slot, key, mark, before = _document(
        state, command, DOCUMENT_SHORTAGE, command.campaign_id, command.quantity
    )
    nothing = (0, 0, 0, 0, 0)
    if before is not None and not command.dry_run:
        return (*before, _first_figures(slot, key, before, nothing)), ()
    pool = slot.pool(command.campaign_id, command.sku_id)
    if pool is None:
        if command.dry_run:
            return (Outcome.NOT_FOUND, None, nothing), ()
        return refuse(state, command.slot, key, mark, Outcome.NOT_FOUND, None, nothing)
    view = pool_view(slot, pool)
    if command.quantity > pool.total - pool.in_transit - pool.owed:
        if command.dry_run:
            return (Outcome.EXCEEDS_TOTAL, view, nothing), ()
        return refuse(state, command.slot, key, mark, Outcome.EXCEEDS_TOTAL, view, nothing)
    available = min(pool.available, command.quantity)
    scheduled = min(pool.scheduled, command.quantity - available)
    buffer = min(pool.buffer, command.quantity - available - scheduled)
    owed = command.quantity - available - scheduled - buffer
    from_reserved = min(owed, max(0, pool.reserved - pool.owed))
    taken = (available, scheduled, buffer, from_reserved, owed - from_reserved)
    if command.dry_run:
        return (Outcome.FOUND, view, taken), ()
    record = _changed(
        command,
        DOCUMENT_SHORTAGE,
        mark,
        command.quantity,
        -available,
        -buffer,
        -scheduled,
        owed,
        from_reserved,
    )
    return (Outcome.APPLIED, view, taken), (record,)


def transfer_key(slot: int, caller: str, request_id: str) -> bytes:
    """A transfer's id: unique over all slots, since its target dedupes by it for ever."""
    return request_key(f"{slot}/{caller}", request_id)


def transfer_out(state: ShardState, command: c.TransferOut, now_ms: int) -> Decision:
    """(APPLIED, transfer id, state of the transfer, pool). Precedence: ID_REUSED, NOT_FOUND,
    EXCEEDS_AVAILABLE, APPLIED."""
    slot = state.slot(command.slot)
    key = transfer_key(command.slot, command.caller, command.request_id)
    mark = fingerprint(
        command.sku_id, command.from_campaign_id, command.to_campaign_id, command.quantity
    )
    pool = slot.pool(command.from_campaign_id, command.sku_id)
    view = pool_view(slot, pool)
    before = slot.transfers.get(key)
    if before is not None:
        outcome = Outcome.APPLIED if before.fingerprint == mark else Outcome.ID_REUSED
        return (outcome, key, before.state, view), ()
    refused = refused_before(slot, key, mark)
    if refused is not None:
        return (refused, key, 0, view), ()
    if pool is None:
        return refuse(state, command.slot, key, mark, Outcome.NOT_FOUND, key, 0, None)
    if command.quantity > pool.available:
        return refuse(state, command.slot, key, mark, Outcome.EXCEEDS_AVAILABLE, key, 0, view)
    record = TransferredOut(
        TRANSFERRED_OUT,
        command.slot,
        key,
        command.caller,
        command.request_id,
        mark,
        command.sku_id,
        command.from_campaign_id,
        command.to_campaign_id,
        command.quantity,
        command.reason,
        _granted(command.from_campaign_id, pool, -command.quantity),
    )
    return (Outcome.APPLIED, key, IN_TRANSIT, view), (record,)


def _granted(campaign_id: str, pool: Pool | None, change: int) -> int:
    """What a campaign's pool will have by allocation."""
    return pool.granted + change if campaign_id and pool is not None else 0


def transfer_in(state: ShardState, command: c.TransferIn, now_ms: int) -> Decision:
    """(APPLIED, arrived). Turned away, for ever, when there is no such pool, its campaign is over,
    or the units would exceed what the campaign allocates."""
    slot = state.slot(command.slot)
    before = slot.arrivals.get(command.transfer_id)
    if before is not None:
        return (Outcome.APPLIED, before), ()
    arrived = _takes(slot, command, now_ms)
    target = slot.pool(command.to_campaign_id, command.sku_id)
    record = TransferredIn(
        TRANSFERRED_IN,
        command.slot,
        command.transfer_id,
        command.sku_id,
        command.to_campaign_id,
        command.quantity,
        arrived,
        _granted(command.to_campaign_id, target, command.quantity) if arrived else 0,
    )
    return (Outcome.APPLIED, arrived), (record,)


def _takes(slot: SlotState, command: c.TransferIn, now_ms: int) -> bool:
    pool = slot.pool(command.to_campaign_id, command.sku_id)
    if pool is None or pool.total + command.quantity > TOTAL_MAX:
        return False
    if not command.to_campaign_id:
        return True
    campaign = slot.campaigns[command.to_campaign_id]
    if campaign.state == CAMPAIGN_ENDED or now_ms >= campaign.config.ends_ms:
        return False
    allocation = next(
        line.allocation for line in campaign.config.lines if line.sku_id == command.sku_id
    )
    return pool.granted + command.quantity <= allocation


def transfer_done(state: ShardState, command: c.TransferDone, now_ms: int) -> Decision:
    """(APPLIED,), again the same; NOT_FOUND for a transfer that never left here."""
    slot = state.slot(command.slot)
    transfer = slot.transfers.get(command.transfer_id)
    if transfer is None:
        return (Outcome.NOT_FOUND,), ()
    if transfer.state in (TRANSFER_ARRIVED, TRANSFER_TURNED_AWAY):
        return (Outcome.APPLIED,), ()
    pool = slot.pool(transfer.from_campaign_id, transfer.sku_id)
    back = 0 if command.arrived else transfer.quantity
    record = TransferEnded(
        TRANSFER_ENDED,
        command.slot,
        command.transfer_id,
        command.arrived,
        transfer.sku_id,
        transfer.from_campaign_id,
        _granted(transfer.from_campaign_id, pool, back),
    )
    return (Outcome.APPLIED,), (record,)

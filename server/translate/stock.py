"""Stock calls: requests to commands, pool views to messages. A view is `core.stock.pool_view`.

Every function `…_command` validates the whole request first and raises CallError with all its
violations at once.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from stockray_proto.v1 import common_pb2, inventory_service_pb2, stock_pb2

from actors.core import commands as c
from server.handlers import CallContext
from server.translate.scalars import advice_of, age_of, duration, slot_of_pool
from server.validate import (
    DOCUMENT_UNITS_MAX,
    PAYMENT_WINDOW_MAX_MS,
    REFERENCE_LENGTH_MAX,
    TITLE_LENGTH_MAX,
    Violations,
)

ATTRIBUTES_MAX = 64
ATTRIBUTE_LENGTH_MAX = 1_024
BUFFER_BPS_DEFAULT = 1_000
PAYMENT_WINDOW_DEFAULT_MS = 15 * 60_000


def stock_message(
    view: Sequence[Any] | None,
    *,
    as_of_ms: int,
    now_ms: int,
    source: common_pb2.DataSource.ValueType = common_pb2.DATA_SOURCE_SHARD,
    position: common_pb2.ShardPosition | None = None,
) -> stock_pb2.Stock | None:
    """A pool; None (an unset field) when there is no view. `position` is where in its shard's
    history the view was taken, if that is known."""
    if view is None:
        return None
    (_, _, campaign_id, sku_id, total, available, reserved, sold, buffer, scheduled) = view[:10]
    in_transit, owed, list_price, unit_price, _, currency = view[10:16]
    return stock_pb2.Stock(
        sku_id=sku_id,
        campaign_id=campaign_id,
        total_count=total,
        available_count=available,
        reserved_count=reserved,
        sold_count=sold,
        buffer_count=buffer,
        scheduled_count=scheduled,
        in_transit_count=in_transit,
        owed_count=owed,
        unit_price_minor=unit_price,
        list_price_minor=list_price,
        currency_code=currency,
        age=age_of(as_of_ms, now_ms, source),
        position=position,
    )


def item(answer: Sequence[Any], index: int, default: Any = None) -> Any:
    """A part of an answer that a lone (RETRY,), (UNKNOWN,) or (INTERNAL,) does not have."""
    return answer[index] if len(answer) > index else default


def head(answer: Sequence[Any], message: str = "") -> dict[str, Any]:
    """The fields that every answer to one thing begins with."""
    return {"status": answer[0], "message": message, "retry_after": advice_of(answer)}


def put_sku_command(request: inventory_service_pb2.PutSkuRequest, context: CallContext) -> c.PutSku:
    """PutSku, with defaults filled in."""
    sku, wrong = request.sku, Violations()
    wrong.id("sku.sku_id", sku.sku_id)
    wrong.text("sku.name", sku.name, TITLE_LENGTH_MAX)
    if len(sku.attributes) > ATTRIBUTES_MAX:
        wrong.add("sku.attributes", f"at most {ATTRIBUTES_MAX} entries")
    for key, value in sorted(sku.attributes.items())[:ATTRIBUTES_MAX]:
        wrong.id(f"sku.attributes[{key[:64]}]", key)
        wrong.text(f"sku.attributes[{key[:64]}]", value, ATTRIBUTE_LENGTH_MAX)
    wrong.number("sku.buffer_bps", sku.buffer_bps, 0, 10_000)
    wrong.money("sku.list_price_minor", sku.list_price_minor)
    wrong.currency("sku.currency_code", sku.currency_code, required=sku.list_price_minor > 0)
    window_ms = PAYMENT_WINDOW_DEFAULT_MS
    if sku.HasField("payment_window"):
        window_ms = wrong.duration(
            "sku.payment_window", sku.payment_window, 1_000, PAYMENT_WINDOW_MAX_MS
        )
    wrong.reason(request.reason)
    wrong.refuse()
    return c.PutSku(
        c.PUT_SKU,
        slot_of_pool("", sku.sku_id),
        context.deadline_ms,
        context.caller,
        sku.sku_id,
        sku.name,
        # Sorted, so that the same content is the same bytes wherever it was put.
        dict(sorted(sku.attributes.items())),
        sku.buffer_bps if sku.HasField("buffer_bps") else BUFFER_BPS_DEFAULT,
        sku.list_price_minor,
        sku.currency_code,
        window_ms,
        request.reason,
    )


def sku_message(command: c.PutSku) -> stock_pb2.Sku:
    """The SKU as a PutSku made it."""
    return _sku(
        command.sku_id,
        command.name,
        command.attributes,
        command.buffer_bps,
        command.price_minor,
        command.currency_code,
        command.payment_window_ms,
    )


def known_sku(sku_id: str, view: Sequence[Any] | None) -> stock_pb2.Sku | None:
    """What `core.stock.get_stock` knows of a SKU; None (an unset field) if it does not tell."""
    return None if view is None else _sku(sku_id, *view[:6])


def _sku(  # noqa: PLR0917
    sku_id: str,
    name: str,
    attributes: Mapping[str, str],
    buffer_bps: int,
    price_minor: int,
    currency_code: str,
    payment_window_ms: int,
) -> stock_pb2.Sku:
    return stock_pb2.Sku(
        sku_id=sku_id,
        name=name,
        attributes=attributes,
        buffer_bps=buffer_bps,
        list_price_minor=price_minor,
        currency_code=currency_code,
        payment_window=duration(payment_window_ms),
    )


def get_stock_command(
    request: inventory_service_pb2.GetStockRequest, context: CallContext
) -> c.GetStock:
    """GetStock."""
    wrong = Violations()
    wrong.id("sku_id", request.sku_id)
    wrong.optional_id("campaign_id", request.campaign_id)
    wrong.refuse()
    read = read_pool(request.campaign_id, request.sku_id, context.deadline_ms, context.caller)
    return read._replace(with_sku=not request.campaign_id)


def read_pool(campaign_id: str, sku_id: str, deadline_ms: int, caller: str) -> c.GetStock:
    """GetStock of a pool whose ids are known to be fine."""
    return c.GetStock(
        c.GET_STOCK,
        slot_of_pool(campaign_id, sku_id),
        deadline_ms,
        caller,
        campaign_id,
        sku_id,
    )


def receive_stock_command(
    request: inventory_service_pb2.ReceiveStockRequest, context: CallContext
) -> c.ReceiveStock:
    """ReceiveStock. The caller's other number goes into the journal in front of the reason."""
    wrong = Violations()
    wrong.id("request_id", request.request_id)
    wrong.id("sku_id", request.sku_id)
    wrong.number("quantity", request.quantity, 1, DOCUMENT_UNITS_MAX)
    wrong.text("reference", request.reference, REFERENCE_LENGTH_MAX)
    wrong.reason(request.reason)
    wrong.refuse()
    reference = f"[{request.reference}] " if request.reference else ""
    return c.ReceiveStock(
        c.RECEIVE_STOCK,
        slot_of_pool("", request.sku_id),
        context.deadline_ms,
        context.caller,
        request.request_id,
        request.sku_id,
        request.quantity,
        reference + request.reason,
    )


def adjust_stock_command(
    request: inventory_service_pb2.AdjustStockRequest, context: CallContext
) -> c.AdjustStock:
    """AdjustStock."""
    wrong = Violations()
    wrong.id("request_id", request.request_id)
    wrong.id("sku_id", request.sku_id)
    wrong.optional_id("campaign_id", request.campaign_id)
    if not 0 < abs(request.delta_count) <= DOCUMENT_UNITS_MAX:
        wrong.add("delta_count", f"1 to {DOCUMENT_UNITS_MAX}, or the same below 0")
    wrong.reason(request.reason, required=True)
    wrong.refuse()
    return c.AdjustStock(
        c.ADJUST_STOCK,
        slot_of_pool(request.campaign_id, request.sku_id),
        context.deadline_ms,
        context.caller,
        request.request_id,
        request.campaign_id,
        request.sku_id,
        request.delta_count,
        request.reason,
    )


def set_buffer_command(
    request: inventory_service_pb2.SetBufferRequest, context: CallContext
) -> c.SetBuffer:
    """SetBuffer."""
    wrong = Violations()
    wrong.id("request_id", request.request_id)
    wrong.id("sku_id", request.sku_id)
    wrong.number("buffer_count", request.buffer_count, 0, DOCUMENT_UNITS_MAX)
    wrong.reason(request.reason)
    wrong.refuse()
    return c.SetBuffer(
        c.SET_BUFFER,
        slot_of_pool("", request.sku_id),
        context.deadline_ms,
        context.caller,
        request.request_id,
        request.sku_id,
        request.buffer_count,
        request.reason,
    )


def transfer_out_command(
    request: inventory_service_pb2.TransferStockRequest, context: CallContext
) -> c.TransferOut:
    """The first step of TransferStock."""
    wrong = Violations()
    wrong.id("request_id", request.request_id)
    wrong.id("sku_id", request.sku_id)
    wrong.optional_id("from_campaign_id", request.from_campaign_id)
    wrong.optional_id("to_campaign_id", request.to_campaign_id)
    if request.from_campaign_id == request.to_campaign_id:
        wrong.add("to_campaign_id", "another pool than the giver's")
    wrong.number("quantity", request.quantity, 1, DOCUMENT_UNITS_MAX)
    wrong.reason(request.reason)
    wrong.refuse()
    return c.TransferOut(
        c.TRANSFER_OUT,
        slot_of_pool(request.from_campaign_id, request.sku_id),
        context.deadline_ms,
        context.caller,
        request.request_id,
        request.sku_id,
        request.from_campaign_id,
        request.to_campaign_id,
        request.quantity,
        request.reason,
    )


def declare_shortage_command(
    request: inventory_service_pb2.DeclareShortageRequest, context: CallContext
) -> c.DeclareShortage:
    """DeclareShortage."""
    wrong = Violations()
    wrong.id("request_id", request.request_id)
    wrong.id("sku_id", request.sku_id)
    wrong.optional_id("campaign_id", request.campaign_id)
    wrong.number("quantity", request.quantity, 1, DOCUMENT_UNITS_MAX)
    wrong.reason(request.reason, required=True)
    wrong.refuse()
    return c.DeclareShortage(
        c.DECLARE_SHORTAGE,
        slot_of_pool(request.campaign_id, request.sku_id),
        context.deadline_ms,
        context.caller,
        request.request_id,
        request.campaign_id,
        request.sku_id,
        request.quantity,
        request.reason,
        request.dry_run,
    )

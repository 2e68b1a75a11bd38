"""InventoryService, the part about SKUs and pools."""

from typing import Any

from stockray_proto.v1 import inventory_service_pb2, stock_pb2

from actors.core.outcomes import Outcome
from server.handlers import CallContext, Calls, Method
from server.lines import Lines
from server.services.reservations import INVENTORY
from server.transfers import Transfers
from server.translate.stock import (
    adjust_stock_command,
    declare_shortage_command,
    get_stock_command,
    head,
    item,
    known_sku,
    put_sku_command,
    read_pool,
    receive_stock_command,
    set_buffer_command,
    sku_message,
    stock_message,
    transfer_out_command,
)

_TURNED_AWAY = "the taker has no such line, is over, or would have more than its allocation"
_CURRENCY_STAYS = "sku.currency_code: never changes while the SKU has units"
_ON_THE_WAY = "the units have left and are in transit; they arrive without a further call"


class StockKeeping:
    """SKUs, receipts, corrections, buffers, transfers, shortages, and reading a pool."""

    def __init__(self, lines: Lines, transfers: Transfers) -> None:
        self._lines = lines
        self._transfers = transfers

    def methods(self) -> list[Method]:
        """The calls of this part."""
        inv = inventory_service_pb2
        calls: Calls = {
            "PutSku": (inv.PutSkuRequest, self.put_sku),
            "GetStock": (inv.GetStockRequest, self.get_stock),
            "ReceiveStock": (inv.ReceiveStockRequest, self.receive_stock),
            "AdjustStock": (inv.AdjustStockRequest, self.adjust_stock),
            "SetBuffer": (inv.SetBufferRequest, self.set_buffer),
            "TransferStock": (inv.TransferStockRequest, self.transfer_stock),
            "DeclareShortage": (inv.DeclareShortageRequest, self.declare_shortage),
        }
        return [Method(path=INVENTORY + n, request=r, unary=h) for n, (r, h) in calls.items()]

    async def put_sku(
        self, request: inventory_service_pb2.PutSkuRequest, context: CallContext
    ) -> inventory_service_pb2.PutSkuResponse:
        """Make or change a SKU."""
        command = put_sku_command(request, context)
        asked_ms = context.now_ms()
        answer = await self._ask(command)
        applied = answer[0] == Outcome.APPLIED
        conflict = answer[0] == Outcome.CAMPAIGN_CONFLICT
        return inventory_service_pb2.PutSkuResponse(
            **head(answer, _CURRENCY_STAYS if conflict else ""),
            sku=sku_message(command) if applied else None,
            stock=stock_message(
                item(answer, 1),
                as_of_ms=asked_ms,
                now_ms=context.now_ms(),
            ),
        )

    async def get_stock(
        self, request: inventory_service_pb2.GetStockRequest, context: CallContext
    ) -> inventory_service_pb2.GetStockResponse:
        """Read one pool from its shard, a base pool with its SKU."""
        fields, answer = await self._with_stock(get_stock_command(request, context), context)
        sku = known_sku(request.sku_id, item(answer, 2))
        return inventory_service_pb2.GetStockResponse(**fields, sku=sku)

    async def receive_stock(
        self, request: inventory_service_pb2.ReceiveStockRequest, context: CallContext
    ) -> inventory_service_pb2.ReceiveStockResponse:
        """A supply document's units."""
        fields, answer = await self._with_stock(receive_stock_command(request, context), context)
        kept, paid = item(answer, 2, (0, 0))
        return inventory_service_pb2.ReceiveStockResponse(
            **fields, buffer_added_count=kept, owed_paid_count=paid
        )

    async def adjust_stock(
        self, request: inventory_service_pb2.AdjustStockRequest, context: CallContext
    ) -> inventory_service_pb2.AdjustStockResponse:
        """Correct a pool's count."""
        fields, _ = await self._with_stock(adjust_stock_command(request, context), context)
        return inventory_service_pb2.AdjustStockResponse(**fields)

    async def set_buffer(
        self, request: inventory_service_pb2.SetBufferRequest, context: CallContext
    ) -> inventory_service_pb2.SetBufferResponse:
        """Set how many units a base pool keeps back."""
        fields, _ = await self._with_stock(set_buffer_command(request, context), context)
        return inventory_service_pb2.SetBufferResponse(**fields)

    async def declare_shortage(
        self, request: inventory_service_pb2.DeclareShortageRequest, context: CallContext
    ) -> inventory_service_pb2.DeclareShortageResponse:
        """Units that are not there after all."""
        command = declare_shortage_command(request, context)
        fields, answer = await self._with_stock(command, context)
        available, scheduled, buffer, reserved, sold = item(answer, 2, (0, 0, 0, 0, 0))
        return inventory_service_pb2.DeclareShortageResponse(
            **fields,
            from_available_count=available,
            from_scheduled_count=scheduled,
            from_buffer_count=buffer,
            from_reserved_count=reserved,
            from_sold_count=sold,
            owed_count=reserved + sold,
        )

    async def transfer_stock(
        self, request: inventory_service_pb2.TransferStockRequest, context: CallContext
    ) -> inventory_service_pb2.TransferStockResponse:
        """Move units between pools, as far as it comes within the call."""
        out = transfer_out_command(request, context)
        moved = await self._transfers.move(out)
        message = ""
        if moved.outcome == Outcome.APPLIED and not moved.arrived:
            message = _ON_THE_WAY if moved.arrived is None else _TURNED_AWAY
        source, target = await self._pools(
            [(out.from_campaign_id, out.sku_id), (out.to_campaign_id, out.sku_id)], context
        )
        return inventory_service_pb2.TransferStockResponse(
            **head((moved.outcome,), message),
            arrived=moved.arrived is True,
            turned_away=moved.arrived is False,
            from_stock=source,
            to_stock=target if moved.arrived else None,
        )

    async def _pools(
        self, pools: list[tuple[str, str]], context: CallContext
    ) -> list[stock_pb2.Stock | None]:
        asked_ms = context.now_ms()
        answers = await self._lines.submit(
            [
                read_pool(campaign_id, sku_id, context.deadline_ms, context.caller)
                for campaign_id, sku_id in pools
            ]
        )
        now_ms = context.now_ms()
        return [
            stock_message(item(answer, 1), as_of_ms=asked_ms, now_ms=now_ms) for answer in answers
        ]

    async def _with_stock(
        self, command: Any, context: CallContext
    ) -> tuple[dict[str, Any], tuple[Any, ...]]:
        """Ask. The fields that all have with the pool, and the answer itself."""
        asked_ms = context.now_ms()
        answer = await self._ask(command)
        stock = stock_message(item(answer, 1), as_of_ms=asked_ms, now_ms=context.now_ms())
        return {**head(answer), "stock": stock}, answer

    async def _ask(self, command: Any) -> tuple[Any, ...]:
        (answer,) = await self._lines.submit([command])
        return answer

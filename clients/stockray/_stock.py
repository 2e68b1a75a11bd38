"""The verbs of SKUs and pools: put, read, watch, and the changes of count."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import timedelta

from stockray_proto.v1 import inventory_service_pb2 as wire

from stockray._channel import Method
from stockray._codec import read, set_field, write
from stockray._paging import Page, Pager
from stockray._session import Session
from stockray._verbs import INVENTORY
from stockray._watch import Watch
from stockray.records import PoolKey, Sku, Stock
from stockray.results import (
    AdjustStockResult,
    DeclareShortageResult,
    GetStockResult,
    PutSkuResult,
    ReceiveStockResult,
    SetBufferResult,
    StockChange,
    TransferStockResult,
)

PUT_SKU = Method(INVENTORY + "PutSku", wire.PutSkuResponse.FromString)
GET_STOCK = Method(INVENTORY + "GetStock", wire.GetStockResponse.FromString)
LIST_STOCK = Method(INVENTORY + "ListStock", wire.ListStockResponse.FromString)
RECEIVE_STOCK = Method(INVENTORY + "ReceiveStock", wire.ReceiveStockResponse.FromString)
ADJUST_STOCK = Method(INVENTORY + "AdjustStock", wire.AdjustStockResponse.FromString)
SET_BUFFER = Method(INVENTORY + "SetBuffer", wire.SetBufferResponse.FromString)
TRANSFER_STOCK = Method(INVENTORY + "TransferStock", wire.TransferStockResponse.FromString)
DECLARE_SHORTAGE = Method(INVENTORY + "DeclareShortage", wire.DeclareShortageResponse.FromString)
WATCH_STOCK = Method(INVENTORY + "WatchStock", wire.WatchStockResponse.FromString)


class StockCalls(Session):
    """Each is one RPC, sent again with the same ids until it is decided or time is up.

    An empty `campaign_id` means the SKU's base pool. `reason` goes to the audit.
    """

    async def put_sku(
        self, sku: Sku, *, reason: str = "", timeout_ms: int | None = None
    ) -> PutSkuResult:
        """Makes a SKU or replaces what is known of it; its units stay as they are."""
        request = wire.PutSkuRequest(reason=reason)
        write(request.sku, sku)
        return await self._ask(
            PutSkuResult, PUT_SKU, request, ids=(sku.sku_id,), timeout_ms=timeout_ms
        )

    async def get_stock(
        self, sku_id: str, *, campaign_id: str = "", timeout_ms: int | None = None
    ) -> GetStockResult:
        """Reads one pool from its shard, fenced: nobody could have changed it at that instant."""
        request = wire.GetStockRequest(sku_id=sku_id, campaign_id=campaign_id)
        return await self._ask(GetStockResult, GET_STOCK, request, timeout_ms=timeout_ms)

    def list_stock(
        self,
        *,
        campaign_id: str = "",
        sku_id: str = "",
        base_only: bool = False,
        page_size: int = 0,
        page_token: str = "",
        timeout_ms: int | None = None,
    ) -> Pager[Stock]:
        """Pools, in no promised order; `timeout_ms` is for each page."""
        request = wire.ListStockRequest(
            page_size=page_size, campaign_id=campaign_id, sku_id=sku_id, base_only=base_only
        )

        async def fetch(token: str) -> Page[Stock]:
            request.page_token = token
            found = await self._fetch(LIST_STOCK, request, timeout_ms=timeout_ms)
            return Page(
                items=tuple(read(Stock, item) for item in found.stocks),
                next_page_token=found.next_page_token,
                unreachable_shards=tuple(found.unreachable_shards),
            )

        return Pager(fetch, page_token)

    async def watch_stock(
        self, pools: Iterable[PoolKey], *, interval: timedelta | None = None
    ) -> AsyncIterator[StockChange]:
        """Yields pools as they change: first all, then those that changed, newest figures only.

        1-1,024 pools; `interval` is the shortest time between two changes, 100 ms to 60 s. A stream
        that ends is opened again, and then begins with all pools. Raises Unavailable when no stream
        could be had for `timeout_ms`. Close the iterator, or cancel its task, to end it.
        """
        request = wire.WatchStockRequest()
        set_field(request, "pools", tuple(pools))
        set_field(request, "interval", interval)
        opened = self._ready()
        watch = Watch(opened.connections, self._options)
        async for message in watch.messages(WATCH_STOCK, request.SerializeToString):
            yield read(StockChange, message)

    async def receive_stock(
        self,
        sku_id: str,
        *,
        quantity: int,
        request_id: str = "",
        reference: str = "",
        reason: str = "",
        timeout_ms: int | None = None,
    ) -> ReceiveStockResult:
        """Takes 1-1,000,000,000 units of a supply document into a SKU's base pool.

        `request_id` should be the document's own: the same one is never received twice.
        """
        request = wire.ReceiveStockRequest(
            request_id=request_id or self._make_id(),
            sku_id=sku_id,
            quantity=quantity,
            reference=reference,
            reason=reason,
        )
        return await self._ask(
            ReceiveStockResult,
            RECEIVE_STOCK,
            request,
            ids=(request.request_id,),
            timeout_ms=timeout_ms,
        )

    async def adjust_stock(
        self,
        sku_id: str,
        *,
        delta_count: int,
        reason: str,
        campaign_id: str = "",
        request_id: str = "",
        timeout_ms: int | None = None,
    ) -> AdjustStockResult:
        """Corrects a pool's count: adds to available (above 0) or takes from it (below 0)."""
        request = wire.AdjustStockRequest(
            request_id=request_id or self._make_id(),
            sku_id=sku_id,
            campaign_id=campaign_id,
            delta_count=delta_count,
            reason=reason,
        )
        return await self._ask(
            AdjustStockResult,
            ADJUST_STOCK,
            request,
            ids=(request.request_id,),
            timeout_ms=timeout_ms,
        )

    async def set_buffer(
        self,
        sku_id: str,
        *,
        buffer_count: int,
        request_id: str = "",
        reason: str = "",
        timeout_ms: int | None = None,
    ) -> SetBufferResult:
        """Sets how many units a base pool keeps back: absolute, not a difference."""
        request = wire.SetBufferRequest(
            request_id=request_id or self._make_id(),
            sku_id=sku_id,
            buffer_count=buffer_count,
            reason=reason,
        )
        return await self._ask(
            SetBufferResult, SET_BUFFER, request, ids=(request.request_id,), timeout_ms=timeout_ms
        )

    async def transfer_stock(
        self,
        sku_id: str,
        *,
        quantity: int,
        from_campaign_id: str = "",
        to_campaign_id: str = "",
        request_id: str = "",
        reason: str = "",
        timeout_ms: int | None = None,
    ) -> TransferStockResult:
        """Moves available units of a SKU between pools, all of them or none."""
        request = wire.TransferStockRequest(
            request_id=request_id or self._make_id(),
            sku_id=sku_id,
            from_campaign_id=from_campaign_id,
            to_campaign_id=to_campaign_id,
            quantity=quantity,
            reason=reason,
        )
        return await self._ask(
            TransferStockResult,
            TRANSFER_STOCK,
            request,
            ids=(request.request_id,),
            timeout_ms=timeout_ms,
        )

    async def declare_shortage(
        self,
        sku_id: str,
        *,
        quantity: int,
        reason: str,
        campaign_id: str = "",
        dry_run: bool = False,
        request_id: str = "",
        timeout_ms: int | None = None,
    ) -> DeclareShortageResult:
        """Declares that units are missing, which revokes reservations and orders if it has to.

        A dry run says what would be taken from where and answers FOUND.
        """
        request = wire.DeclareShortageRequest(
            request_id=request_id or self._make_id(),
            sku_id=sku_id,
            campaign_id=campaign_id,
            quantity=quantity,
            reason=reason,
            dry_run=dry_run,
        )
        return await self._ask(
            DeclareShortageResult,
            DECLARE_SHORTAGE,
            request,
            ids=(request.request_id,),
            timeout_ms=timeout_ms,
        )

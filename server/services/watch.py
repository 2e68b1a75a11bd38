"""WatchStock: pools as they change. How they are polled is in `polling.py`."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

from google.protobuf.message import Message
from stockray_proto.v1 import inventory_service_pb2

from actors.core.outcomes import Outcome
from server.handlers import OWN_CALLER, CallContext, Method, wall_ms
from server.lines import Lines
from server.services.polling import Feed, Polling, WatchLimits, read_interval
from server.services.reservations import INVENTORY
from server.translate.campaign import campaign_view, get_campaign_command
from server.translate.scalars import SLOT_OF_KEY, stamp
from server.translate.stock import read_pool, stock_message
from server.validate import Violations

POOLS_A_STREAM_MAX = 1_024

PoolKey = tuple[str, str]
"""(campaign id, SKU); of a whole campaign the SKU is ''."""

_versions = itertools.count(1)


class Seen(NamedTuple):
    """A pool as it was last polled."""

    view: Sequence[Any]
    as_of_ms: int
    version: int
    """Grows with every change of any pool; a watcher has sent what is not above its own."""


class PoolFeed(Feed[PoolKey]):
    """One watched pool, or all pools of a campaign."""

    def __init__(self, key: PoolKey) -> None:
        super().__init__(key, SLOT_OF_KEY[key[0] or key[1]])
        self.pools: dict[PoolKey, Seen] = {}
        self.missing = False
        self.silent = False
        """The last poll was not answered."""

    def question(self, deadline_ms: int) -> Any:
        campaign_id, sku_id = self.key
        if sku_id:
            return read_pool(campaign_id, sku_id, deadline_ms, OWN_CALLER)
        return get_campaign_command(campaign_id, deadline_ms, OWN_CALLER)

    async def take(self, answer: tuple[Any, ...], asked_ms: int) -> bool:
        silent = answer[0] not in (Outcome.FOUND, Outcome.NOT_FOUND)
        changed = silent != self.silent
        self.silent = silent
        if silent:
            return changed
        self.missing = answer[0] == Outcome.NOT_FOUND
        for key, view in _pools(self.key, answer):
            before = self.pools.get(key)
            if before is None or before.view != view:
                self.pools[key] = Seen(view, asked_ms, next(_versions))
                changed = True
        return changed


class StockWatch:
    """The call WatchStock."""

    def __init__(
        self,
        lines: Lines,
        *,
        limits: WatchLimits | None = None,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self._lines = lines
        self._now_ms = now_ms
        self.polling: Polling[PoolKey, PoolFeed] = Polling(
            lines, PoolFeed, limits=limits, now_ms=now_ms
        )

    def methods(self) -> list[Method]:
        """The one call."""
        request = inventory_service_pb2.WatchStockRequest
        return [Method(path=INVENTORY + "WatchStock", request=request, stream=self.watch_stock)]

    async def watch_stock(
        self, request: inventory_service_pb2.WatchStockRequest, context: CallContext
    ) -> AsyncIterator[Message]:
        """All pools first, then those that changed."""
        keys, interval_ms = _wanted(request)
        event = asyncio.Event()
        feeds = self.polling.join(keys, event, interval_ms)
        sent_version, first = 0, True
        try:
            async for _ in self.polling.turns(feeds, event, interval_ms):
                message, sent_version = self._message(feeds, sent_version, first=first)
                first = False
                yield message
        finally:
            self.polling.leave(feeds, event)

    def _message(
        self, feeds: list[PoolFeed], sent_version: int, *, first: bool
    ) -> tuple[inventory_service_pb2.WatchStockResponse, int]:
        now_ms, newest = self._now_ms(), sent_version
        changed: dict[PoolKey, Seen] = {}
        for feed in feeds:
            for key, seen in feed.pools.items():
                if seen.version > sent_version:
                    changed[key] = seen
                    newest = max(newest, seen.version)
        response = inventory_service_pb2.WatchStockResponse(server_time=stamp(now_ms))
        for seen in changed.values():
            stock = stock_message(seen.view, as_of_ms=seen.as_of_ms, now_ms=now_ms)
            if stock is not None:
                response.stocks.append(stock)
        silent = {self._lines.shard_of(feed.slot) for feed in feeds if feed.silent}
        response.unreachable_shards.extend(sorted(silent))
        if first:
            for feed in feeds:
                if feed.missing:
                    campaign_id, sku_id = feed.key
                    response.missing_pools.add(campaign_id=campaign_id, sku_id=sku_id)
        return response, newest


def _wanted(request: inventory_service_pb2.WatchStockRequest) -> tuple[list[PoolKey], int]:
    """The pools, each once, and the interval. Raises CallError."""
    wrong = Violations()
    if not 1 <= len(request.pools) <= POOLS_A_STREAM_MAX:
        wrong.add("pools", f"1 to {POOLS_A_STREAM_MAX} of them")
    keys: dict[PoolKey, None] = {}
    for index, pool in enumerate(request.pools[:POOLS_A_STREAM_MAX]):
        wrong.optional_id(f"pools[{index}].campaign_id", pool.campaign_id)
        check = wrong.optional_id if pool.campaign_id else wrong.id
        check(f"pools[{index}].sku_id", pool.sku_id)
        keys[pool.campaign_id, pool.sku_id] = None
    interval_ms = read_interval(request, wrong)
    wrong.refuse()
    return list(keys), interval_ms


def _pools(key: PoolKey, answer: tuple[Any, ...]) -> list[tuple[PoolKey, Sequence[Any]]]:
    """The pools in an answer."""
    if answer[0] != Outcome.FOUND:
        return []
    if key[1]:
        return [(key, answer[1])]
    view = campaign_view(answer[1])
    if view is None:
        return []
    return [((pool[2], pool[3]), pool) for pool in view.pools]

"""WatchStock: one poll of a pool for all its watchers.

How it works
------------
Each watched pool (or whole campaign) is one `Feed`, polled at the shortest interval of its
watchers, so that a thousand watchers cost its shard what one does. Feeds that are due are asked
shard by shard, one round in flight to each: a shard that does not answer delays no other's feeds.
A change wakes the watchers of its feed; each sends what changed since its own last message, at its
own interval, so a slow watcher gets the newest figures and holds up nobody.

Rules
-----
* Feeds are bounded by `feeds_max`, streams by admission; the full case is TOO_MANY_STREAMS.
* A stream ends with OK after `stream_s`, and with DRAINING when the gateway drains.
* The first message waits for the first answer of every feed, but not longer than `first_wait_s`.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import structlog
from google.protobuf.message import Message
from stockray_proto.v1 import inventory_service_pb2

from actors.core.outcomes import Outcome
from server.errors import draining, too_many_streams
from server.handlers import OWN_CALLER, CallContext, Method, wall_ms
from server.lines import Lines
from server.services.reservations import INVENTORY
from server.translate.campaign import campaign_view, get_campaign_command
from server.translate.scalars import SLOT_OF_KEY, stamp
from server.translate.stock import read_pool, stock_message
from server.validate import Violations

POOLS_A_STREAM_MAX = 1_024
INTERVAL_DEFAULT_MS = 500
INTERVAL_MIN_MS, INTERVAL_MAX_MS = 100, 60_000
POLL_DEADLINE_MS = 1_000

log = structlog.get_logger("server.watch")

PoolKey = tuple[str, str]
"""(campaign id, SKU); of a whole campaign the SKU is ''."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchLimits:
    """How much is watched, and for how long."""

    feeds_max: int = 4_096
    """Different pools and campaigns watched at once; also the lines of one poll."""
    stream_s: float = 30 * 60.0
    heartbeat_s: float = 15.0
    """Longest silence of a stream."""
    first_wait_s: float = 2.0


class Seen(NamedTuple):
    """A pool as it was last polled."""

    view: Sequence[Any]
    as_of_ms: int
    version: int
    """Grows with every change of any pool; a watcher has sent what is not above its own."""


class Feed:
    """One watched pool, or all pools of a campaign."""

    def __init__(self, key: PoolKey) -> None:
        self.key = key
        self.slot = SLOT_OF_KEY[key[0] or key[1]]
        self.pools: dict[PoolKey, Seen] = {}
        self.missing = False
        self.silent = False
        """The last poll was not answered."""
        self.answered = asyncio.Event()
        self.due_s = 0.0
        self.watchers: dict[asyncio.Event, int] = {}
        """What wakes each watcher -> its interval in milliseconds."""

    def wake(self) -> None:
        """Something of it changed."""
        for event in self.watchers:
            event.set()


class StockWatch:
    """The call WatchStock, and the polling behind it. `run` must run for streams to move."""

    def __init__(
        self,
        lines: Lines,
        *,
        limits: WatchLimits | None = None,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self._lines = lines
        self._limits = limits or WatchLimits()
        self._now_ms = now_ms
        self._feeds: dict[PoolKey, Feed] = {}
        self._polling: set[int] = set()
        """Shards with a poll in flight."""
        self._look = asyncio.Event()
        self._versions = itertools.count(1)
        self._draining = False

    def methods(self) -> list[Method]:
        """The one call."""
        request = inventory_service_pb2.WatchStockRequest
        return [Method(path=INVENTORY + "WatchStock", request=request, stream=self.watch_stock)]

    def drain(self) -> None:
        """End all streams: their clients are to watch by another gateway."""
        self._draining = True
        for feed in self._feeds.values():
            feed.wake()

    async def watch_stock(
        self, request: inventory_service_pb2.WatchStockRequest, context: CallContext
    ) -> AsyncIterator[Message]:
        """All pools first, then those that changed."""
        keys, interval_ms = _wanted(request)
        event = asyncio.Event()
        feeds = self._join(keys, event, interval_ms)
        try:
            await self._first_answers(feeds)
            async for message in self._messages(feeds, event, interval_ms / 1_000):
                yield message
        finally:
            self._leave(feeds, event)

    async def _first_answers(self, feeds: list[Feed]) -> None:
        try:
            async with asyncio.timeout(self._limits.first_wait_s):
                for feed in feeds:
                    await feed.answered.wait()
        except TimeoutError:
            log.info("watch_begins_without_some", pools=len(feeds))

    async def _messages(
        self, feeds: list[Feed], event: asyncio.Event, interval_s: float
    ) -> AsyncIterator[Message]:
        clock = asyncio.get_running_loop().time
        end_s = clock() + self._limits.stream_s
        sent_version, first = 0, True
        while not self._draining:
            event.clear()
            message, sent_version = self._message(feeds, sent_version, first=first)
            first = False
            yield message
            earliest_s = clock() + interval_s
            wait_s = min(self._limits.heartbeat_s, end_s - clock())
            try:
                async with asyncio.timeout(wait_s):
                    await event.wait()
                if not self._draining:
                    await asyncio.sleep(max(0.0, min(earliest_s, end_s) - clock()))
            except TimeoutError:
                pass
            if clock() >= end_s:
                return
        raise draining()

    def _message(
        self, feeds: list[Feed], sent_version: int, *, first: bool
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

    def _join(self, keys: list[PoolKey], event: asyncio.Event, interval_ms: int) -> list[Feed]:
        new = [key for key in keys if key not in self._feeds]
        if len(self._feeds) + len(new) > self._limits.feeds_max:
            raise too_many_streams()
        self._feeds.update((key, Feed(key)) for key in new)
        feeds = [self._feeds[key] for key in keys]
        for feed in feeds:
            feed.watchers[event] = interval_ms
            # A watcher that asks for more often than those before it need not wait for them.
            feed.due_s = min(feed.due_s, asyncio.get_running_loop().time() + interval_ms / 1_000)
        self._look.set()
        return feeds

    def _leave(self, feeds: list[Feed], event: asyncio.Event) -> None:
        for feed in feeds:
            del feed.watchers[event]
            if not feed.watchers:
                del self._feeds[feed.key]

    async def run(self) -> None:
        """Poll what is watched, until cancelled."""
        clock = asyncio.get_running_loop().time
        async with asyncio.TaskGroup() as polls:
            while True:
                self._look.clear()
                due: dict[int, list[Feed]] = {}
                next_s = clock() + INTERVAL_MAX_MS / 1_000
                for feed in self._feeds.values():
                    shard = self._lines.shard_of(feed.slot)
                    if shard in self._polling:
                        continue
                    if feed.due_s <= clock():
                        due.setdefault(shard, []).append(feed)
                    else:
                        next_s = min(next_s, feed.due_s)
                for shard, feeds in due.items():
                    self._polling.add(shard)
                    polls.create_task(self._poll(shard, feeds))
                if due:
                    continue
                try:
                    async with asyncio.timeout(next_s - clock()):
                        await self._look.wait()
                except TimeoutError:
                    pass

    async def _poll(self, shard: int, feeds: list[Feed]) -> None:
        """One round to a shard for all its feeds that are due."""
        clock, asked_ms = asyncio.get_running_loop().time, self._now_ms()
        for feed in feeds:
            feed.due_s = clock() + min(feed.watchers.values(), default=0) / 1_000
        deadline_ms = asked_ms + POLL_DEADLINE_MS
        try:
            answers = await self._lines.submit([_question(feed, deadline_ms) for feed in feeds])
            for feed, answer in zip(feeds, answers, strict=True):
                self._take(feed, answer, asked_ms)
        finally:
            self._polling.discard(shard)
            self._look.set()

    def _take(self, feed: Feed, answer: tuple[Any, ...], asked_ms: int) -> None:
        silent = answer[0] not in (Outcome.FOUND, Outcome.NOT_FOUND)
        changed = silent != feed.silent or not feed.answered.is_set()
        feed.silent = silent
        feed.answered.set()
        if not silent:
            feed.missing = answer[0] == Outcome.NOT_FOUND
            for key, view in _pools(feed.key, answer):
                before = feed.pools.get(key)
                if before is None or before.view != view:
                    version = next(self._versions)
                    feed.pools[key] = Seen(view, asked_ms, version)
                    changed = True
        if changed:
            feed.wake()


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
    interval_ms = INTERVAL_DEFAULT_MS
    if request.HasField("interval"):
        interval_ms = wrong.duration("interval", request.interval, INTERVAL_MIN_MS, INTERVAL_MAX_MS)
    wrong.refuse()
    return list(keys), interval_ms


def _question(feed: Feed, deadline_ms: int) -> Any:
    campaign_id, sku_id = feed.key
    if sku_id:
        return read_pool(campaign_id, sku_id, deadline_ms, OWN_CALLER)
    return get_campaign_command(campaign_id, deadline_ms, OWN_CALLER)


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

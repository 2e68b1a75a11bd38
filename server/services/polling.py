"""One poll of a thing for all who watch it.

How it works
------------
Each watched thing (a pool, a team) is one `Feed`, polled at the shortest interval of its watchers,
so that a thousand watchers cost its shard what one does. Feeds that are due are asked shard by
shard, one round in flight to each: a shard that does not answer delays no other's feeds. A change
wakes the watchers of its feed; each sends what changed since its own last message, at its own
interval, so a slow watcher gets the newest state and holds up nobody.

Rules
-----
* Feeds are bounded by `feeds_max`, streams by admission; the full case is TOO_MANY_STREAMS.
* A stream ends with OK after `stream_s`, and with DRAINING when the gateway drains.
* The first message waits for the first answer of every feed, but not longer than `first_wait_s`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog
from google.protobuf.duration_pb2 import Duration

from server.errors import draining, too_many_streams
from server.handlers import wall_ms
from server.lines import Lines
from server.validate import Violations

INTERVAL_DEFAULT_MS = 500
INTERVAL_MIN_MS, INTERVAL_MAX_MS = 100, 60_000
POLL_DEADLINE_MS = 1_000

log = structlog.get_logger("server.watch")

K = TypeVar("K")


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchLimits:
    """How much is watched, and for how long."""

    feeds_max: int = 4_096
    """Different things of one kind watched at once; also the lines of one poll."""
    stream_s: float = 30 * 60.0
    heartbeat_s: float = 15.0
    """Longest silence of a stream."""
    first_wait_s: float = 2.0


class Feed(Generic[K]):
    """One watched thing. Subclasses hold what was seen of it last."""

    def __init__(self, key: K, slot: int) -> None:
        self.key = key
        self.slot = slot
        self.answered = asyncio.Event()
        self.due_s = 0.0
        self.watchers: dict[asyncio.Event, int] = {}
        """What wakes each watcher -> its interval in milliseconds."""

    def question(self, deadline_ms: int) -> Any:
        """The command that asks a shard for it."""
        raise NotImplementedError

    async def take(self, answer: tuple[Any, ...], asked_ms: int) -> bool:
        """What a poll said; True if something of it changed."""
        raise NotImplementedError

    def wake(self) -> None:
        """Something of it changed."""
        for event in self.watchers:
            event.set()


F = TypeVar("F", bound=Feed[Any])


class Polling(Generic[K, F]):
    """All feeds of one kind. `run` must run for streams to move."""

    def __init__(
        self,
        lines: Lines,
        make: Callable[[K], F],
        *,
        limits: WatchLimits | None = None,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self._lines = lines
        self._make = make
        self._limits = limits or WatchLimits()
        self._now_ms = now_ms
        self._feeds: dict[K, F] = {}
        self._polling: set[int] = set()
        """Shards with a poll in flight."""
        self._look = asyncio.Event()
        self._draining = False

    def drain(self) -> None:
        """End all streams: their clients are to watch by another gateway."""
        self._draining = True
        for feed in self._feeds.values():
            feed.wake()

    def join(self, keys: Sequence[K], event: asyncio.Event, interval_ms: int) -> list[F]:
        """A watcher comes: the feeds of its keys. CallError when there are too many."""
        new = [key for key in keys if key not in self._feeds]
        if len(self._feeds) + len(new) > self._limits.feeds_max:
            raise too_many_streams()
        self._feeds.update((key, self._make(key)) for key in new)
        feeds = [self._feeds[key] for key in keys]
        for feed in feeds:
            feed.watchers[event] = interval_ms
            # A watcher that asks for more often than those before it need not wait for them.
            feed.due_s = min(feed.due_s, asyncio.get_running_loop().time() + interval_ms / 1_000)
        self._look.set()
        return feeds

    def leave(self, feeds: Sequence[F], event: asyncio.Event) -> None:
        """The watcher goes."""
        for feed in feeds:
            del feed.watchers[event]
            if not feed.watchers:
                del self._feeds[feed.key]

    async def turns(
        self, feeds: Sequence[F], event: asyncio.Event, interval_ms: int
    ) -> AsyncIterator[None]:
        """Yields when a watcher is to send its next message, until its time is up; the first time
        when its feeds were answered. CallError when the gateway drains."""
        await self._first_answers(feeds)
        clock = asyncio.get_running_loop().time
        end_s = clock() + self._limits.stream_s
        while not self._draining:
            event.clear()
            yield
            earliest_s = clock() + interval_ms / 1_000
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

    async def _first_answers(self, feeds: Sequence[F]) -> None:
        try:
            async with asyncio.timeout(self._limits.first_wait_s):
                for feed in feeds:
                    await feed.answered.wait()
        except TimeoutError:
            log.info("watch_begins_without_some", feeds=len(feeds))

    async def run(self) -> None:
        """Poll what is watched, until cancelled."""
        clock = asyncio.get_running_loop().time
        async with asyncio.TaskGroup() as polls:
            while True:
                self._look.clear()
                due: dict[int, list[F]] = {}
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

    async def _poll(self, shard: int, feeds: list[F]) -> None:
        """One round to a shard for all its feeds that are due."""
        clock, asked_ms = asyncio.get_running_loop().time, self._now_ms()
        for feed in feeds:
            feed.due_s = clock() + min(feed.watchers.values(), default=0) / 1_000
        deadline_ms = asked_ms + POLL_DEADLINE_MS
        try:
            answers = await self._lines.submit([feed.question(deadline_ms) for feed in feeds])
            for feed, answer in zip(feeds, answers, strict=True):
                changed = await feed.take(answer, asked_ms) or not feed.answered.is_set()
                feed.answered.set()
                if changed:
                    feed.wake()
        finally:
            self._polling.discard(shard)
            self._look.set()


def read_interval(request: Any, wrong: Violations) -> int:
    """The field `interval` of a watch, in milliseconds."""
    if not request.HasField("interval"):
        return INTERVAL_DEFAULT_MS
    asked: Duration = request.interval
    return wrong.duration("interval", asked, INTERVAL_MIN_MS, INTERVAL_MAX_MS)

"""EventService: the feed of all facts, watched. How a shard's facts are read is in `feed.py`.

How it works
------------
A stream has a lane for each shard that it watches, and takes from each in turn: a lane asks its
feed for what comes next, holds that one slice, and cuts messages from it. Nothing is asked for
before the last message was taken by the transport, so a slow watcher holds one slice a shard, and
reads on from where it is, from memory, journal or view.

Rules
-----
* A message's cursor is after all that was looked at, told or filtered out.
* A shard that does not answer is named in the messages, and asked again; the others go on. A slow
  answer of the view for one shard delays the others of the same stream, by seconds at most.
* A stream ends with OK after `stream_s`, and with DRAINING when the gateway drains.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import Message
from stockray_proto.v1 import event_service_pb2
from stockray_proto.v1.event_service_pb2 import Fact, FeedCursor

from actors.threads import AsyncJournal
from server.errors import cursor_too_old, cursor_unknown, draining
from server.feed import End, FeedLimits, FeedSilent, ShardFeed, Told, TooOld
from server.handlers import CallContext, Method, wall_ms
from server.lines import Lines
from server.services.polling import WatchLimits
from server.services.views import ViewReader
from server.translate.scalars import SLOT_OF_KEY, stamp
from server.validate import Violations

EVENTS = "/stockray.v1.EventService/"
KINDS_MAX = 64
INDEX_MAX = 2**31 - 1
SEQ_MAX = 2**63 - 1
FACTS_A_MESSAGE = 400
MESSAGE_BYTES = 1_000_000
"""A message is not begun anew for a fact below this; one fact has at most some 30 kB."""
REPORTS = (
    event_service_pb2.FACT_KIND_REFUND_CLOSED,
    event_service_pb2.FACT_KIND_REFUND_FAILED,
)

Journals = Callable[[int], AsyncJournal]
"""Opens a shard's journal for reading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a watcher asked for."""

    shards: Sequence[int]
    cursors: dict[int, FeedCursor]
    oldest: bool
    kinds: frozenset[int]
    campaign_id: str

    def wants(self, fact: Fact) -> bool:
        """Whether the fact is told. What cannot be read may be anything."""
        if fact.kind == event_service_pb2.FACT_KIND_UNREADABLE:
            return True
        if self.kinds and fact.kind not in self.kinds:
            return False
        if not self.campaign_id or fact.campaign_id == self.campaign_id:
            return True
        return not fact.campaign_id and fact.kind in REPORTS


@dataclass(slots=True)
class Lane:
    """A stream's place in one shard."""

    feed: ShardFeed
    wanted: Wanted
    incarnation: str = ""
    seq: int = 0
    index: int = 0
    """The next fact is the first that is not before (seq, index)."""
    opened: bool = False
    silent: bool = False
    retry_s: float = 0.0
    held: deque[Told] = field(default_factory=deque)
    """Of the last slice, what was not looked at; the rest of the first from `index` on."""
    to_seq: int = 0
    """The end of the last slice."""

    @property
    def cursor(self) -> FeedCursor:
        """Where the stream goes on after what was told."""
        return FeedCursor(
            shard=self.feed.shard, seq=self.seq, index=self.index, incarnation=self.incarnation
        )

    async def look(self, pause_s: float) -> bool:
        """Hold more, if nothing is held; True if that moved the lane, and there may be more.
        CallError for a cursor that cannot be watched from. A shard that is silent is asked again
        after `pause_s`."""
        clock = asyncio.get_running_loop().time
        if self.held:
            return True
        if clock() < self.retry_s:
            return False
        try:
            if not self.opened:
                await self._open(await self.feed.end())
            found = await self.feed.read(self.seq - 1)
        except TooOld:
            oldest_seq = await self._oldest_seq()
            raise cursor_too_old(self.feed.shard, oldest_seq, self.incarnation) from None
        except FeedSilent:
            self.silent, self.retry_s = True, clock() + pause_s
            return False
        self.silent = self.feed.silent
        self.held.extend(found.entries)
        self.to_seq = found.to_seq
        if self.held:
            return True
        before = self.seq
        self._pass(self.to_seq + 1)
        return self.seq > before

    def take(self) -> list[Fact]:
        """The next facts that are wanted, out of what is held. None may be."""
        facts: list[Fact] = []
        byte_count = 0
        while self.held:
            told = self.held[0]
            first = self.index if told.seq == self.seq else 0
            for fact in told.facts:
                if fact.index < first or not self.wanted.wants(fact):
                    continue
                if len(facts) >= FACTS_A_MESSAGE or byte_count >= MESSAGE_BYTES:
                    self.seq, self.index = told.seq, fact.index
                    return facts
                facts.append(fact)
                byte_count += fact.ByteSize()
            self.held.popleft()
            self._pass(told.seq + 1)
        self._pass(self.to_seq + 1)
        return facts

    def _pass(self, seq: int) -> None:
        if seq > self.seq:
            self.seq, self.index = seq, 0

    async def _open(self, end: End) -> None:
        """Find where to begin. CallError, FeedSilent."""
        self.incarnation = end.incarnation
        asked = self.wanted.cursors.get(self.feed.shard)
        if asked is None:
            oldest = self.wanted.oldest
            self.seq = await self.feed.oldest_seq() if oldest else end.last_seq + 1
        else:
            foreign = asked.incarnation not in ("", end.incarnation)
            if foreign or asked.seq > end.last_seq + 1:
                oldest_seq = await self._oldest_seq()
                raise cursor_unknown(self.feed.shard, oldest_seq, end.incarnation)
            self.seq, self.index = asked.seq, asked.index
        self.opened = True

    async def _oldest_seq(self) -> int:
        """For people who are told; 0 when it cannot be known now."""
        try:
            return await self.feed.oldest_seq()
        except FeedSilent:
            return 0


class Events:
    """The one call. `run` must run for streams to move."""

    def __init__(
        self,
        lines: Lines,
        reader: ViewReader,
        journals: Journals,
        shards: int,
        *,
        limits: WatchLimits | None = None,
        feed_limits: FeedLimits | None = None,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self._lines = lines
        self._reader = reader
        self._journals = journals
        self._shards = shards
        self._limits = limits or WatchLimits()
        self._feed_limits = feed_limits or FeedLimits()
        self._now_ms = now_ms
        self._feeds: dict[int, ShardFeed] = {}
        self._new: asyncio.Queue[ShardFeed] = asyncio.Queue()
        self._draining = False

    def methods(self) -> list[Method]:
        """The one call."""
        request = event_service_pb2.WatchRequest
        return [Method(path=EVENTS + "Watch", request=request, stream=self.watch)]

    def drain(self) -> None:
        """End all streams: their clients are to watch by another gateway."""
        self._draining = True
        for feed in self._feeds.values():
            feed.wake()

    async def run(self) -> None:
        """Follow what is watched, until cancelled."""
        async with asyncio.TaskGroup() as following:
            while True:
                feed = await self._new.get()
                following.create_task(feed.run())

    async def watch(
        self, request: event_service_pb2.WatchRequest, context: CallContext
    ) -> AsyncIterator[Message]:
        """The cursors first, then facts as they come."""
        wanted = self._read(request)
        event = asyncio.Event()
        lanes = [Lane(self._feed(shard), wanted) for shard in wanted.shards]
        for lane in lanes:
            lane.feed.join(event)
        try:
            async for message in self._messages(lanes, event):
                yield message
        finally:
            for lane in lanes:
                lane.feed.leave(event)

    async def _messages(
        self, lanes: Sequence[Lane], event: asyncio.Event
    ) -> AsyncIterator[event_service_pb2.WatchResponse]:
        clock = asyncio.get_running_loop().time
        limits, pause_s = self._limits, self._feed_limits.trouble_pause_ms / 1_000
        for lane in lanes:
            await lane.look(pause_s)
        yield self._message(lanes, lanes)
        end_s, whole_s = clock() + limits.stream_s, clock()
        while not self._draining:
            event.clear()
            silent, moved = _silent(lanes), False
            for lane in lanes:
                if await lane.look(pause_s):
                    moved = True
                    if facts := lane.take():
                        yield self._message([lane], lanes, facts)
            now = clock()
            if _silent(lanes) != silent or now - whole_s >= limits.heartbeat_s:
                yield self._message(lanes, lanes)
                whole_s = now
            if now >= end_s:
                return
            if not moved and not self._draining:
                await _wait(event, min(self._wait_s(lanes, now), end_s - now), now, whole_s, limits)
        raise draining()

    def _wait_s(self, lanes: Sequence[Lane], now: float) -> float:
        """How long nothing need be looked at, unless something comes."""
        again = [lane.retry_s - now for lane in lanes if lane.silent and lane.retry_s > now]
        return min(again, default=self._limits.heartbeat_s)

    def _message(
        self, told: Sequence[Lane], lanes: Sequence[Lane], facts: Sequence[Fact] = ()
    ) -> event_service_pb2.WatchResponse:
        return event_service_pb2.WatchResponse(
            facts=facts,
            cursors=[lane.cursor for lane in told if lane.opened],
            unreachable_shards=_silent(lanes),
            server_time=stamp(self._now_ms()),
        )

    def _feed(self, shard: int) -> ShardFeed:
        feed = self._feeds.get(shard)
        if feed is None:
            feed = self._feeds[shard] = ShardFeed(
                shard, self._journals(shard), self._reader, self._feed_limits
            )
            self._new.put_nowait(feed)
        return feed

    def _read(self, request: event_service_pb2.WatchRequest) -> Wanted:
        """What is asked for. Raises CallError with all that is wrong."""
        wrong = Violations()
        wrong.optional_id("campaign_id", request.campaign_id)
        shards = self._read_shards(request, wrong)
        cursors: dict[int, FeedCursor] = {}
        if len(request.cursors) > self._shards:
            wrong.add("cursors", f"at most one for each of {self._shards} shards")
        for at, cursor in enumerate(request.cursors[: self._shards]):
            if cursor.shard not in shards or cursor.shard in cursors:
                wrong.add(f"cursors[{at}].shard", "one that is watched, each once")
            wrong.number(f"cursors[{at}].seq", cursor.seq, 1, SEQ_MAX)
            wrong.number(f"cursors[{at}].index", cursor.index, 0, INDEX_MAX)
            wrong.optional_id(f"cursors[{at}].incarnation", cursor.incarnation)
            cursors[cursor.shard] = cursor
        wrong.known("start", request.start, event_service_pb2.FeedStart.Name)
        if len(request.kinds) > KINDS_MAX:
            wrong.add("kinds", f"at most {KINDS_MAX} of them")
        for at, kind in enumerate(request.kinds[:KINDS_MAX]):
            wrong.known(f"kinds[{at}]", kind, event_service_pb2.FactKind.Name)
        wrong.refuse()
        return Wanted(
            shards=shards,
            cursors=cursors,
            oldest=request.start == event_service_pb2.FEED_START_OLDEST,
            kinds=frozenset(request.kinds),
            campaign_id=request.campaign_id,
        )

    def _read_shards(
        self, request: event_service_pb2.WatchRequest, wrong: Violations
    ) -> Sequence[int]:
        if len(request.shards) > self._shards:
            wrong.add("shards", f"at most {self._shards} of them")
        asked = request.shards[: self._shards]
        for at, shard in enumerate(asked):
            wrong.number(f"shards[{at}]", shard, 0, self._shards - 1)
        shards = sorted(set(asked)) or range(self._shards)
        if not request.campaign_id:
            return shards
        home = self._lines.shard_of(SLOT_OF_KEY[request.campaign_id])
        if home not in shards:
            wrong.add("shards", f"empty, or with {home}, which has the campaign")
        return [home]


def _silent(lanes: Sequence[Lane]) -> list[int]:
    return [lane.feed.shard for lane in lanes if lane.silent]


async def _wait(
    event: asyncio.Event, wait_s: float, now: float, whole_s: float, limits: WatchLimits
) -> None:
    """Until something comes, but not past the next message with all cursors."""
    try:
        async with asyncio.timeout(max(0.0, min(wait_s, whole_s + limits.heartbeat_s - now))):
            await event.wait()
    except TimeoutError:
        pass

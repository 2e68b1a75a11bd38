"""One shard's facts as a gateway reads them: from the journal, and beyond it from the SQL view.

How it works
------------
While anybody watches a shard, its journal's end is followed by one reader for all of them: each
entry is read and made into facts once, and kept in a window of the newest ones. Who is further back
than the window reads the journal for itself, and who is further back than the journal, the view.

Rules
-----
* Reading only: no position of a reader is kept, so watchers never hold the trim.
* Nothing is passed over. The journal is trimmed no further than the view is filled, so where one
  ends the other goes on. Facts that were removed are `TooOld`; a view that was set back, so that
  there is a gap between the two, is `FeedSilent`.
* The window is bounded by bytes and by entries, a read by bytes; a watcher holds one read at most.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import structlog
from stockray_proto.v1.event_service_pb2 import Fact

from actors.threads import AsyncJournal
from persistence.errors import StorageError, Trimmed
from persistence.ports import Meta
from persistence.sql.views import KeptFacts
from server.errors import CallError
from server.services.views import ANSWER_TIMEOUT_S, ViewReader, Views
from server.translate.fact import facts_of

log = structlog.get_logger("server.events")


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedLimits:
    """How much of a shard is held, and how often its end is looked at."""

    window_bytes: int = 500_000
    """Of the journal, held as facts: about five times as much memory."""
    window_entries: int = 2_000
    read_bytes: int = 250_000
    read_rows: int = 1_000
    """Rows of the view in one read."""
    gather_ms: int = 10
    """Between two looks at the journal's end while entries come."""
    follow_pause_ms: int = 50
    """... and while none does."""
    trouble_pause_ms: int = 500
    """After a look that failed."""


class Told(NamedTuple):
    """The facts of one entry."""

    seq: int
    facts: Sequence[Fact]
    byte_count: int


class Slice(NamedTuple):
    """Entries in order."""

    entries: Sequence[Told]
    to_seq: int
    """All facts of entries up to this one are in it."""


NOTHING: Sequence[Told] = ()


class End(NamedTuple):
    """Where a shard's feed ends now."""

    incarnation: str
    last_seq: int


class TooOld(Exception):
    """Facts that were asked for are gone."""


class FeedSilent(Exception):
    """The journal, or the view, does not answer now."""


class ShardFeed:
    """One shard, read through a journal of its own. `run` must run for watchers to be woken."""

    def __init__(
        self,
        shard: int,
        journal: AsyncJournal,
        reader: ViewReader,
        limits: FeedLimits | None = None,
    ) -> None:
        self.shard = shard
        self._journal = journal
        self._reader = reader
        self._limits = limits or FeedLimits()
        self._watchers: set[asyncio.Event] = set()
        self._wanted = asyncio.Event()
        self._window: deque[Told] = deque()
        self._window_bytes = 0
        self._last_seq = -1
        """The end of the window; -1 while nobody follows."""
        self.silent = False
        """The last look at the journal's end failed."""

    def join(self, event: asyncio.Event) -> None:
        """`event` is set when there is more to read, or the feed begins or ceases to answer."""
        self._watchers.add(event)
        self._wanted.set()

    def leave(self, event: asyncio.Event) -> None:
        """The watcher goes."""
        self._watchers.discard(event)

    def wake(self) -> None:
        """Something changed."""
        for event in self._watchers:
            event.set()

    async def end(self) -> End:
        """Of which journal the feed is, and its last entry. FeedSilent."""
        meta = await self._meta()
        return End(meta.incarnation, meta.last_seq)

    async def oldest_seq(self) -> int:
        """The first entry whose facts are kept. FeedSilent."""
        meta = await self._meta()
        if meta.first_seq > 1:
            kept = await self._kept(meta.last_seq)
            if kept.incarnation == meta.incarnation:
                return min(meta.first_seq, kept.after_seq + 1)
        return meta.first_seq

    async def read(self, after_seq: int) -> Slice:
        """What comes after an entry; nothing new is a slice that goes nowhere. TooOld, FeedSilent.
        The facts are shared: do not change them."""
        if self._last_seq >= 0 and after_seq >= self._last_seq:
            return Slice(NOTHING, after_seq)
        if self._window and after_seq + 1 >= self._window[0].seq:
            start = after_seq + 1 - self._window[0].seq
            return Slice(list(islice(self._window, start, None)), self._last_seq)
        try:
            entries = await self._journal.read(
                after_seq=after_seq, max_bytes=self._limits.read_bytes
            )
        except Trimmed:
            return await self._read_view(after_seq)
        except StorageError as error:
            raise FeedSilent(str(error)) from error
        told = [self._tell(entry.seq, entry.data) for entry in entries]
        return Slice(told, entries[-1].seq if entries else after_seq)

    async def run(self) -> None:
        """Follow the journal's end while it is watched, until cancelled."""
        while True:
            if not self._watchers:
                self._forget()
                self._wanted.clear()
                await self._wanted.wait()
            try:
                came = await self._follow()
                limits = self._limits
                silent, pause_ms = False, limits.gather_ms if came else limits.follow_pause_ms
            except StorageError as error:
                if not self.silent:
                    log.warning("feed_waits", shard=self.shard, error=str(error))
                silent, came, pause_ms = True, False, self._limits.trouble_pause_ms
            if came or silent != self.silent:
                self.silent = silent
                self.wake()
            await asyncio.sleep(pause_ms / 1_000)

    async def _follow(self) -> bool:
        """Take in what was appended; True if anything was."""
        if self._last_seq < 0:
            self._last_seq = (await self._journal.read_meta()).last_seq
            return True
        try:
            entries = await self._journal.read(
                after_seq=self._last_seq, max_bytes=self._limits.read_bytes
            )
        except Trimmed:
            # Nobody looked for long. Who is behind reads for itself.
            self._forget()
            return False
        for entry in entries:
            self._window.append(self._tell(entry.seq, entry.data))
            self._window_bytes += len(entry.data)
        limits = self._limits
        while self._window_bytes > limits.window_bytes or len(self._window) > limits.window_entries:
            self._window_bytes -= self._window.popleft().byte_count
        if entries:
            self._last_seq = entries[-1].seq
        return bool(entries)

    def _forget(self) -> None:
        self._window.clear()
        self._window_bytes = 0
        self._last_seq = -1

    async def _meta(self) -> Meta:
        try:
            return await self._journal.read_meta()
        except StorageError as error:
            raise FeedSilent(str(error)) from error

    async def _read_view(self, after_seq: int) -> Slice:
        kept = await self._kept(after_seq)
        if not kept.incarnation:
            raise FeedSilent("the view has nothing of this shard")
        if kept.after_seq > after_seq:
            raise TooOld
        if kept.to_seq <= after_seq:
            # It never lets the journal be trimmed that far: it is another database than it was.
            raise FeedSilent("the view ends before the journal begins")
        told = [self._tell(row.seq, row.data) for row in kept.rows]
        return Slice(told, kept.to_seq)

    async def _kept(self, after_seq: int) -> KeptFacts:
        limits = self._limits

        def query(views: Views) -> KeptFacts:
            return views.list_facts(
                self.shard,
                after_seq=after_seq,
                rows_max=limits.read_rows,
                bytes_max=limits.read_bytes,
            )

        try:
            return await self._reader.read(query, timeout_s=ANSWER_TIMEOUT_S)
        except CallError as error:
            raise FeedSilent(str(error)) from error

    def _tell(self, seq: int, data: bytes) -> Told:
        return Told(seq, facts_of(self.shard, seq, data), len(data))

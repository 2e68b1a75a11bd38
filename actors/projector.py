"""The projector: journal records to SQL rows, in order, exactly once in effect.

Stateless: it starts at the position stored beside the rows, and moves rows and position in one
transaction, compared with the position it started from; so two projectors of one shard cannot both
apply a batch, and a restart continues where the last commit ended. A row that cannot be applied is
set aside as a dead letter with its reason, and the rest goes on. A slow database delays nobody but
this process; the position it reports keeps the journal from being trimmed too far.

It has time. Under load it gathers for a quarter of a second, since a row costs less in a large
batch than in a small one; a lone change is stored at once. Its thread yields to the sale, until the
view is too old or the journal too full of what is not in it (`SinkThread`).
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

import structlog

from actors.clock import Clock
from actors.core.codec import UnreadableEntry, pack_told, unpack_entry
from actors.core.records import UNKEPT, UNTOLD
from actors.limits import ShardLimits
from actors.rows import RowBatch
from actors.threads import AsyncJournal
from persistence.errors import Corrupt, PositionMoved, StorageError
from persistence.ports import DeadLetter, Entry, FactRow, Meta, Rows, Sink

log = structlog.get_logger()
T = TypeVar("T")

BATCH_BYTES = 2_000_000
FULL_BATCH_SHARE = 0.9
"""A batch of this part of it was probably cut: there is more, and nothing to wait for."""
TOUCH_EVERY_S = 1.0
TROUBLE_PAUSE_S = 0.5
PACE_S = 0.25
"""The longest wait between two batches."""
LOAD_BYTES = 20_000
"""A batch of entries of so much, some 100 reservations, is load: the next one waits for `PACE_S`.
After a smaller one it waits as long as that one took. (Were it so for every batch, a fast machine
would make many small ones.)"""
SEQ_MAX = 2**63 - 1
PRUNE_EVERY_S = 10.0
PRUNE_ROWS = 1_000
PRUNE_SLICES = 20
"""2,000 entries a second at most: twice what a shard appends."""
NEEDED_MS_MAX = 30 * 86_400_000
"""Facts that the relay has not passed are kept for so long at most, if they are kept for less."""
HURRY_AGE_MS = 30_000
"""The view being this old, its thread no longer yields."""
CALM_AGE_MS = 5_000
"""... and so young, it does again."""
HURRY_JOURNAL_SHARE = 0.5
"""The part of `journal_bytes_max` that entries not in SQL may fill while the thread yields."""


class Batch(NamedTuple):
    """Rows of consecutive entries."""

    to_seq: int
    rows: Sequence[Rows]
    dead_letters: Sequence[DeadLetter]
    decided_ms: int = 0
    """When the last of them was decided; 0 if none could be read."""
    facts: Sequence[FactRow] = ()
    """What the feed tells of them. An entry that cannot be read is told as it is."""


def project(shard: int, entries: Sequence[Entry]) -> Batch:
    """The rows that entries of a shard make. A record that makes none for lack of sense is a dead
    letter."""
    rows = RowBatch(shard)
    dead: list[DeadLetter] = []
    facts: list[FactRow] = []
    decided_ms = 0
    for entry in entries:
        try:
            content = unpack_entry(entry.data)
        except UnreadableEntry as error:
            dead.append(DeadLetter(entry.seq, -1, str(error), entry.data))
            facts.append(FactRow(entry.seq, decided_ms, entry.data))
            continue
        decided_ms = content.now_ms
        told = pack_told(entry.data, content, UNTOLD, UNKEPT)
        if told is not None:
            facts.append(FactRow(entry.seq, decided_ms, told))
        for index, record in enumerate(content.records):
            try:
                rows.add(entry.seq, content.now_ms, record)
            except Exception as error:  # noqa: BLE001 - one record must not stop the view
                reason = f"{type(error).__name__}: {error}"
                dead.append(DeadLetter(entry.seq, index, reason, repr(record).encode()))
        for balance in content.balances:
            rows.add_balance(entry.seq, content.now_ms, balance)
    return Batch(entries[-1].seq, rows.tables(), dead, decided_ms, facts)


def apply_batch(sink: Sink, shard: int, incarnation: str, from_seq: int, batch: Batch) -> None:
    """Apply a batch to the view. Blocks. Rows that the database refuses for good become dead
    letters; PositionMoved, Corrupt and what may be tried again is raised."""
    try:
        sink.apply(
            shard,
            incarnation=incarnation,
            from_seq=from_seq,
            to_seq=batch.to_seq,
            rows=batch.rows,
            dead_letters=batch.dead_letters,
            facts=batch.facts,
        )
    except (StorageError, ValueError) as error:
        _require_final(error)
        log.warning("sink_refuses_rows", shard=shard, error=str(error))
        _apply_one_by_one(sink, shard, incarnation, from_seq, batch)


def _apply_one_by_one(
    sink: Sink, shard: int, incarnation: str, from_seq: int, batch: Batch
) -> None:
    """The database refuses some row for good. Find which, with transactions that do not move the
    position, and set those aside."""
    dead = list(batch.dead_letters)
    for rows in batch.rows:
        for value in rows.values:
            one = Rows(table=rows.table, columns=rows.columns, values=[value])
            try:
                sink.apply(
                    shard,
                    incarnation=incarnation,
                    from_seq=from_seq,
                    to_seq=from_seq,
                    rows=[one],
                )
            except (StorageError, ValueError) as error:
                _require_final(error)
                reason = f"{rows.table}: {error}"
                # 0 and up are records of the entry: rows are numbered downwards.
                at = -2 - len(dead)
                dead.append(DeadLetter(batch.to_seq, at, reason, repr(value).encode()))
    sink.apply(
        shard,
        incarnation=incarnation,
        from_seq=from_seq,
        to_seq=batch.to_seq,
        rows=[],
        dead_letters=dead,
        facts=batch.facts,
    )


def _require_final(error: StorageError | ValueError) -> None:
    """Go on if it is the data that is refused, whenever it is sent."""
    if isinstance(error, PositionMoved | Corrupt) or getattr(error, "retriable", False):
        raise error


class InThread(Protocol):
    """Runs a blocking call of the sink on the sink's one thread."""

    def __call__(self, call: Callable[[], T]) -> "asyncio.Future[T]":
        """Awaitable result of `call`."""

    def hurry(self, who: int, wanted: bool) -> None:
        """The projector of shard `who` cannot wait for others' work, or can again."""


class Projector:
    """Follows one shard's journal into the sink."""

    def __init__(
        self,
        *,
        shard: int,
        reader: str,
        needed_by: str = "",
        journal: AsyncJournal,
        sink: Sink,
        in_thread: InThread,
        limits: ShardLimits,
        clock: Clock,
    ) -> None:
        """`needed_by`: a reader of the journal that goes on in the facts when it comes too late."""
        self.shard = shard
        self.draining = False
        """Nothing more will come: no waiting for more."""
        self.position = 0
        self.lag_entries = 0
        self.trouble = ""
        self._reader = reader
        self._needed_by = needed_by
        self._journal = journal
        self._sink = sink
        self._in_thread = in_thread
        self._limits = limits
        self._clock = clock
        self._hurried = False
        self._reported = -1
        self._touched_at = 0.0
        self._pruned_at = 0.0

    async def run(self) -> None:
        """Follow for ever. Waits out every trouble, and says in `trouble` what it waits for."""
        while True:
            try:
                pause_s = await self._step()
                self.trouble = ""
            except PositionMoved as error:
                log.warning("projector_position_moved", shard=self.shard, error=str(error))
                pause_s = self._look_again_s
            except StorageError as error:
                if self.trouble != str(error):
                    log.warning("projector_waits", shard=self.shard, error=str(error))
                self.trouble = str(error)
                pause_s = TROUBLE_PAUSE_S + self._look_again_s
            if pause_s > 0:
                await asyncio.sleep(pause_s)

    @property
    def _look_again_s(self) -> float:
        return self._limits.follow_pause_ms * 5 / 1000

    async def _step(self) -> float:
        """Apply what comes next. Answers how long to wait before the next step."""
        began_s = asyncio.get_running_loop().time()
        meta = await self._journal.read_meta()
        sink, shard = self._sink, self.shard
        incarnation, position = await self._in_thread(lambda: sink.position(shard))
        if incarnation not in ("", meta.incarnation):
            # Its position says nothing of this journal, which must not be trimmed by it.
            raise StorageError(f"the database has rows of another cluster ({incarnation})")
        self.position = position
        self.lag_entries = meta.last_seq - position
        await self._report(position)
        await self._prune()
        entries = await self._journal.read(after_seq=position, max_bytes=BATCH_BYTES)
        if not entries:
            self._hurry(False)
            await self._touch(meta.incarnation, position)
            return self._look_again_s
        batch = await self._in_thread(lambda: project(shard, entries))
        await self._in_thread(lambda: self._apply(meta.incarnation, position, batch))
        self.position = batch.to_seq
        self.lag_entries = meta.last_seq - batch.to_seq
        await self._report(batch.to_seq)
        for letter in batch.dead_letters:
            log.error("dead_letter", shard=shard, seq=letter.seq, reason=letter.reason)
        await self._judge_lag(meta, batch)
        byte_count = sum(len(entry.data) for entry in entries)
        return self._pause_s(byte_count, asyncio.get_running_loop().time() - began_s)

    def _pause_s(self, byte_count: int, took_s: float) -> float:
        """How long to gather after a batch of so many bytes that took so long."""
        full = byte_count >= FULL_BATCH_SHARE * BATCH_BYTES
        if full or self._hurried or self.draining:
            return 0
        return PACE_S if byte_count >= LOAD_BYTES else min(took_s, PACE_S)

    async def _judge_lag(self, meta: Meta, batch: Batch) -> None:
        """Be in a hurry, or no longer, by what is in SQL now."""
        age_ms = self._clock.now_ms() - batch.decided_ms if batch.decided_ms else 0
        if age_ms > HURRY_AGE_MS or await self._fills_journal(meta, batch.to_seq):
            self._hurry(True)
        elif age_ms < CALM_AGE_MS:
            self._hurry(False)

    async def _fills_journal(self, meta: Meta, to_seq: int) -> bool:
        """Whether the entries after `to_seq` are too much of what the journal may hold."""
        if meta.last_seq <= to_seq:
            return False
        held = meta.last_seq - meta.first_seq + 1
        waiting_bytes = await self._journal.bytes_used() * (meta.last_seq - to_seq) / held
        return waiting_bytes > HURRY_JOURNAL_SHARE * self._limits.journal_bytes_max

    def _hurry(self, wanted: bool) -> None:
        if wanted != self._hurried:
            self._hurried = wanted
            self._in_thread.hurry(self.shard, wanted)

    async def _touch(self, incarnation: str, position: int) -> None:
        """Date the position, now and then, while there is nothing to apply: a view that is whole is
        young, however long ago its last row changed."""
        now = asyncio.get_running_loop().time()
        if position and now - self._touched_at >= TOUCH_EVERY_S:
            self._touched_at = now
            empty = Batch(position, (), ())
            await self._in_thread(lambda: self._apply(incarnation, position, empty))

    async def _prune(self) -> None:
        """Now and then, remove the facts that were kept long enough."""
        now = asyncio.get_running_loop().time()
        if self.draining or now - self._pruned_at < PRUNE_EVERY_S:
            return
        self._pruned_at = now
        now_ms, keep_ms = self._clock.now_ms(), self._limits.facts_keep_ms
        if not self._needed_by:
            await self._remove_facts(now_ms - keep_ms, SEQ_MAX)
            return
        passed_seq = (await self._journal.positions()).get(self._needed_by, 0)
        await self._remove_facts(now_ms - keep_ms, passed_seq)
        await self._remove_facts(now_ms - max(keep_ms, NEEDED_MS_MAX), SEQ_MAX)

    async def _remove_facts(self, before_ms: int, up_to_seq: int) -> None:
        """A slice at a time: other shards' work on this thread goes on between two slices."""
        sink, shard = self._sink, self.shard
        for _ in range(PRUNE_SLICES):
            gone = await self._in_thread(
                lambda: sink.prune_facts(
                    shard, before_ms=before_ms, up_to_seq=up_to_seq, rows_max=PRUNE_ROWS
                )
            )
            if gone < PRUNE_ROWS:
                return

    def _apply(self, incarnation: str, from_seq: int, batch: Batch) -> None:
        apply_batch(self._sink, self.shard, incarnation, from_seq, batch)

    async def _report(self, position: int) -> None:
        """Tell the journal what is in SQL, so that it can be trimmed."""
        if position > self._reported:
            await self._journal.set_position(self._reader, position)
            self._reported = position

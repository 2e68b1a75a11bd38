"""The projector: journal records to SQL rows, in order, exactly once in effect.

Stateless: it starts at the position stored beside the rows, and moves rows and position in one
transaction, compared with the position it started from; so two projectors of one shard cannot both
apply a batch, and a restart continues where the last commit ended. A row that cannot be applied is
set aside as a dead letter with its reason, and the rest goes on. A slow database delays nobody but
this process; the position it reports keeps the journal from being trimmed too far.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

import structlog

from actors.core.codec import UnreadableEntry, unpack_entry
from actors.limits import ShardLimits
from actors.rows import RowBatch
from actors.threads import AsyncJournal
from persistence.errors import Corrupt, PositionMoved, StorageError
from persistence.ports import DeadLetter, Entry, Rows, Sink

log = structlog.get_logger()
T = TypeVar("T")

BATCH_BYTES = 2_000_000
TOUCH_EVERY_S = 1.0


class Batch(NamedTuple):
    """Rows of consecutive entries."""

    to_seq: int
    rows: Sequence[Rows]
    dead_letters: Sequence[DeadLetter]


def project(entries: Sequence[Entry]) -> Batch:
    """The rows that entries make. A record that makes none for lack of sense is a dead letter."""
    rows = RowBatch()
    dead: list[DeadLetter] = []
    for entry in entries:
        try:
            content = unpack_entry(entry.data)
        except UnreadableEntry as error:
            dead.append(DeadLetter(entry.seq, -1, str(error), entry.data))
            continue
        for index, record in enumerate(content.records):
            try:
                rows.add(entry.seq, content.now_ms, record)
            except Exception as error:  # noqa: BLE001 - one record must not stop the view
                reason = f"{type(error).__name__}: {error}"
                dead.append(DeadLetter(entry.seq, index, reason, repr(record).encode()))
        for balance in content.balances:
            rows.add_balance(entry.seq, content.now_ms, balance)
    return Batch(entries[-1].seq, rows.tables(), dead)


class InThread(Protocol):
    """Runs a blocking call of the sink on the sink's one thread."""

    def __call__(self, call: Callable[[], T]) -> "asyncio.Future[T]":
        """Awaitable result of `call`."""


class Projector:
    """Follows one shard's journal into the sink."""

    def __init__(
        self,
        *,
        shard: int,
        reader: str,
        journal: AsyncJournal,
        sink: Sink,
        in_thread: InThread,
        limits: ShardLimits,
    ) -> None:
        self.shard = shard
        self.position = 0
        self.lag_entries = 0
        self.trouble = ""
        self._reader = reader
        self._journal = journal
        self._sink = sink
        self._in_thread = in_thread
        self._limits = limits
        self._reported = -1
        self._touched_at = 0.0

    async def run(self) -> None:
        """Follow for ever. Waits out every trouble, and says in `trouble` what it waits for."""
        while True:
            try:
                moved = await self._step()
                self.trouble = ""
            except PositionMoved as error:
                log.warning("projector_position_moved", shard=self.shard, error=str(error))
                moved = False
            except StorageError as error:
                if self.trouble != str(error):
                    log.warning("projector_waits", shard=self.shard, error=str(error))
                self.trouble = str(error)
                moved = False
                await asyncio.sleep(0.5)
            if not moved:
                await asyncio.sleep(self._limits.follow_pause_ms * 5 / 1000)

    async def _step(self) -> bool:
        """Apply what comes next. True if there was something."""
        meta = await self._journal.read_meta()
        sink, shard = self._sink, self.shard
        incarnation, position = await self._in_thread(lambda: sink.position(shard))
        if incarnation not in ("", meta.incarnation):
            # Its position says nothing of this journal, which must not be trimmed by it.
            raise StorageError(f"the database has rows of another cluster ({incarnation})")
        self.position = position
        self.lag_entries = meta.last_seq - position
        await self._report(position)
        entries = await self._journal.read(after_seq=position, max_bytes=BATCH_BYTES)
        if not entries:
            await self._touch(meta.incarnation, position)
            return False
        batch = await self._in_thread(lambda: project(entries))
        await self._in_thread(lambda: self._apply(meta.incarnation, position, batch))
        self.position = batch.to_seq
        self.lag_entries = meta.last_seq - batch.to_seq
        await self._report(batch.to_seq)
        for letter in batch.dead_letters:
            log.error("dead_letter", shard=shard, seq=letter.seq, reason=letter.reason)
        return True

    async def _touch(self, incarnation: str, position: int) -> None:
        """Date the position, now and then, while there is nothing to apply: a view that is whole is
        young, however long ago its last row changed."""
        now = asyncio.get_running_loop().time()
        if position and now - self._touched_at >= TOUCH_EVERY_S:
            self._touched_at = now
            empty = Batch(position, (), ())
            await self._in_thread(lambda: self._apply(incarnation, position, empty))

    def _apply(self, incarnation: str, from_seq: int, batch: Batch) -> None:
        try:
            self._sink.apply(
                self.shard,
                incarnation=incarnation,
                from_seq=from_seq,
                to_seq=batch.to_seq,
                rows=batch.rows,
                dead_letters=batch.dead_letters,
            )
        except (StorageError, ValueError) as error:
            if isinstance(error, PositionMoved | Corrupt) or getattr(error, "retriable", False):
                raise
            self._apply_one_by_one(incarnation, from_seq, batch, error)

    def _apply_one_by_one(
        self, incarnation: str, from_seq: int, batch: Batch, why: Exception
    ) -> None:
        """The database refuses some row for good. Find which, with transactions that do not move
        the position, and set those aside."""
        log.warning("sink_refuses_rows", shard=self.shard, error=str(why))
        dead = list(batch.dead_letters)
        for rows in batch.rows:
            for value in rows.values:
                one = Rows(table=rows.table, columns=rows.columns, values=[value])
                try:
                    self._sink.apply(
                        self.shard,
                        incarnation=incarnation,
                        from_seq=from_seq,
                        to_seq=from_seq,
                        rows=[one],
                    )
                except (StorageError, ValueError) as error:
                    if isinstance(error, PositionMoved | Corrupt) or getattr(
                        error, "retriable", False
                    ):
                        raise
                    reason = f"{rows.table}: {error}"
                    # 0 and up are records of the entry: rows are numbered downwards.
                    at = -2 - len(dead)
                    dead.append(DeadLetter(batch.to_seq, at, reason, repr(value).encode()))
        self._sink.apply(
            self.shard,
            incarnation=incarnation,
            from_seq=from_seq,
            to_seq=batch.to_seq,
            rows=[],
            dead_letters=dead,
        )

    async def _report(self, position: int) -> None:
        """Tell the journal what is in SQL, so that it can be trimmed."""
        if position > self._reported:
            await self._journal.set_position(self._reader, position)
            self._reported = position

"""Reads the journals while they grow, so that nothing is trimmed before it was seen.

Errors are expected: the journal store itself is killed and stopped here. A read that fails is tried
again at the next turn, over a new connection. What each read brings goes into the books at once.
"""

import asyncio
import contextlib
import time
from typing import NamedTuple
from zlib import crc32

from actors.core.codec import UnreadableEntry
from persistence.errors import StorageError, Trimmed
from persistence.open import open_journal
from persistence.ports import Journal
from server.chaos.books import Books
from server.verify import Invariant

EVERY_S = 0.2
READ_BYTES = 1_000_000
CATCH_UP_S = 60.0


class Promotion(NamedTuple):
    """A shard has another owner. `seen_s` is when the tail saw it, a moment after it was so."""

    shard: int
    epoch: int
    seen_s: float


class Tail:
    """Follows all shards' journals: `run` until `stop`, then `catch_up`. One thread at a time."""

    def __init__(self, journal_url: str, shards: int) -> None:
        self.books = Books(shards)
        self.promotions: list[Promotion] = []
        self.failed_reads = 0
        self.missed = ""
        """What could not be followed: the checks then have no ground to stand on."""
        self.taken_s: list[float] = []
        """When it was seen that account shards had taken facts."""
        self._url = journal_url
        self._shards = shards
        self._journal: Journal | None = None
        self._epochs: dict[int, int] = {}
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Read what is new, now and then, until told to stop. Not to be cancelled: a thread may be
        reading."""
        while not self.missed and not self._stopped.is_set():
            await asyncio.to_thread(self._try_once)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), EVERY_S)

    def stop(self) -> None:
        """Have `run` return."""
        self._stopped.set()

    def catch_up(self) -> None:
        """Read to the end. The journal must be there by now: StorageError if it is not."""
        deadline = time.monotonic() + CATCH_UP_S
        while not self.missed:
            try:
                if not self._read_once():
                    return
            except StorageError:
                self.close()
                if time.monotonic() > deadline:
                    raise

    def close(self) -> None:
        """Leave the store."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def unchanged(self) -> Invariant:
        """Whether each entry that is still there is the one that was read when it appeared."""
        found = Invariant()
        journal = open_journal(self._url)
        try:
            for shard in range(self._shards):
                self._compare(journal, shard, found)
        finally:
            journal.close()
        return found

    def _compare(self, journal: Journal, shard: int, found: Invariant) -> None:
        sums = self.books.sums[shard]
        after = journal.read_meta(shard).first_seq - 1
        while entries := journal.read(shard, after_seq=after, max_bytes=READ_BYTES):
            for entry in entries:
                found.check(
                    sums.get(entry.seq) in (None, crc32(entry.data)),
                    f"shard {shard}: entry {entry.seq} is not what it was",
                )
            after = entries[-1].seq
        found.check(
            after >= self.books.seqs[shard],
            f"shard {shard}: the journal ends at {after}; entry {self.books.seqs[shard]} was seen",
        )

    def _try_once(self) -> None:
        try:
            self._read_once()
        except StorageError:
            self.failed_reads += 1
            self.close()

    def _read_once(self) -> int:
        """How many entries were new."""
        if self._journal is None:
            self._journal = open_journal(self._url)
        new, taken = 0, self.books.accounts.taken
        for shard in range(self._shards):
            self._note_epoch(shard, self._journal.read_meta(shard).epoch)
            new += self._read_shard(self._journal, shard)
        if self.books.accounts.taken > taken:
            self.taken_s.append(time.monotonic())
        return new

    def _note_epoch(self, shard: int, epoch: int) -> None:
        known = self._epochs.setdefault(shard, epoch)
        if epoch != known:
            self._epochs[shard] = epoch
            self.promotions.append(Promotion(shard, epoch, time.monotonic()))

    def _read_shard(self, journal: Journal, shard: int) -> int:
        new = 0
        try:
            while entries := journal.read(
                shard, after_seq=self.books.seqs[shard], max_bytes=READ_BYTES
            ):
                for entry in entries:
                    self.books.take(shard, entry)
                new += len(entries)
        except Trimmed as error:
            self.missed = f"shard {shard}: trimmed before it was read: {error}"
        except (UnreadableEntry, ValueError) as error:
            self.missed = str(error)
        return new

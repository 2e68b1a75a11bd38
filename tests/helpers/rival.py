"""A rival owner of one shard, as the fault tests run several of: it takes over, then appends.

Every acknowledged append is recorded as (seq, epoch, batch id) the moment it returns. Run as a
program (`python rival.py directory name`) it works on a SQLite journal and prints its acks, so that
a test can kill it at any instant and still know what it was promised.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from persistence.errors import Fenced, StorageError
from persistence.ports import Journal
from persistence.sqlite import SqliteJournal

SHARD = 7
INCARNATION = "inc-1"

Answer = TypeVar("Answer")


class Ack(NamedTuple):
    """An append that was promised to be durable."""

    seq: int
    epoch: int
    batch_id: str


class Rival:
    """One contender. `stopping` ends every loop; `acks`, `doubts` and `fenced` say what it met."""

    def __init__(self, journal: Journal, name: str, stopping: Callable[[], bool]) -> None:
        self.acks: list[Ack] = []
        self.doubts = 0
        self.fenced = 0
        self._journal = journal
        self._name = name
        self._stopping = stopping
        self._turn = 0

    def run(self, on_ack: Callable[[Ack], None], entries_per_turn: int) -> None:
        """Take over and append, again and again, until `stopping` or (in a process) a kill."""
        while not self._stopping():
            self._turn += 1
            try:
                self._own(on_ack, entries_per_turn)
            except Fenced:
                self.fenced += 1
            except _StoppedError:
                return

    def _own(self, on_ack: Callable[[Ack], None], entries_per_turn: int) -> None:
        token = f"{self._name}-{self._turn}"
        seen = self._definite(lambda: self._journal.read_meta(SHARD))
        won = self._definite(
            lambda: self._journal.acquire(
                SHARD, incarnation=INCARNATION, seen_epoch=seen.epoch, token=token
            )
        )
        if won.owner != token:
            return
        seq = self._definite(lambda: self._journal.read_meta(SHARD)).last_seq
        for _ in range(entries_per_turn):
            seq += 1
            ack = Ack(seq, won.epoch, f"{token}-{seq}")
            self._definite(lambda ack=ack: self._append(ack))  # type: ignore[misc]
            self.acks.append(ack)
            on_ack(ack)

    def _append(self, ack: Ack) -> None:
        self._journal.append(
            SHARD,
            incarnation=INCARNATION,
            epoch=ack.epoch,
            seq=ack.seq,
            batch_id=ack.batch_id,
            entry=ack.batch_id.encode() * 20,
        )

    def _definite(self, call: Callable[[], Answer]) -> Answer:
        """The same call again and again until its outcome is known."""
        while True:
            try:
                return call()
            except StorageError as error:
                if not error.retriable:
                    raise
                self.doubts += error.maybe_applied
            if self._stopping():
                raise _StoppedError


class _StoppedError(Exception):
    """The test is over while an outcome is still unknown: nothing more is promised."""


def main(directory: str, name: str) -> None:
    rival = Rival(SqliteJournal(directory), name, lambda: False)
    rival.run(lambda ack: print(*ack, flush=True), entries_per_turn=50)


if __name__ == "__main__":
    main(*sys.argv[1:])

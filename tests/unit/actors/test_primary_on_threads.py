"""The primary over a journal on a real thread, on the loop that its process has."""

import asyncio
import threading
import time

import pytest

from actors.clock import ShardTime, WallClock
from actors.core.identity import SLOT_COUNT
from actors.core.outcomes import Outcome
from actors.core.state import ShardState
from actors.hosting import new_loop
from actors.limits import Readers
from actors.primary import Identity, Primary
from actors.rounds import Answers, Round
from actors.threads import JournalThread, SnapshotsThread
from persistence.memory import MemoryJournal, MemorySnapshots
from tests.helpers.shells import limits, put_sku
from tests.helpers.virtual_time import ticks

PATIENCE_MS = 100


class ToldJournal(MemoryJournal):
    """Says when an entry is stored, and can hold the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.stored = threading.Event()
        self.let_go = threading.Event()
        self.let_go.set()

    def append(
        self, shard: int, *, incarnation: str, epoch: int, seq: int, batch_id: str, entry: bytes
    ) -> None:
        self.let_go.wait(10)
        super().append(
            shard,
            incarnation=incarnation,
            epoch=epoch,
            seq=seq,
            batch_id=batch_id,
            entry=entry,
        )
        self.stored.set()


def primary_over(journal: ToldJournal) -> Primary:
    journal.create(0, incarnation="first")
    journal.acquire(0, incarnation="first", seen_epoch=0, token="me", owner_info="")
    store = JournalThread(journal, 0)
    return Primary(
        identity=Identity(0, "first", 1, "me"),
        state=ShardState(),
        journal=store,
        reader=store,
        snapshots=SnapshotsThread(MemorySnapshots(), 0),
        time=ShardTime(WallClock()),
        limits=limits(append_patience_ms=PATIENCE_MS),
        owned_slots=frozenset(range(SLOT_COUNT)),
        readers=Readers(),
    )


def a_round() -> Round:
    now_ms = WallClock().now_ms()
    return Round("test", now_ms, 1, False, (tuple(put_sku(now_ms + 5_000)),))


async def while_the_loop_stands_still(journal: ToldJournal) -> Answers:
    """The answer to a round whose append ends while nothing of the loop runs."""
    primary = primary_over(journal)
    running = asyncio.create_task(primary.run())
    asked = asyncio.create_task(primary.submit(a_round()))
    await ticks()
    journal.let_go.set()
    assert journal.stored.wait(10)
    time.sleep(1.2 * PATIENCE_MS / 1000)  # noqa: ASYNC251 - the process was stopped
    answers = await asked
    assert not primary.stalled
    running.cancel()
    return answers


@pytest.mark.parametrize("loop_factory", [new_loop, asyncio.new_event_loop])
def test_a_process_that_stood_still_hears_the_journal_before_it_calls_it_slow(
    loop_factory: object,
) -> None:
    journal = ToldJournal()
    journal.let_go.clear()
    with asyncio.Runner(loop_factory=loop_factory) as runner:  # type: ignore[arg-type]
        answers = runner.run(while_the_loop_stands_still(journal))
    assert [answer[0] for answer in answers.answers] == [Outcome.APPLIED]

"""A store on a thread of its own: one call at a time, in order, none torn by who gives up."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from actors.threads import CALLS_WAITING_MAX, JournalThread
from persistence.errors import Fenced, NotApplied
from persistence.memory import MemoryJournal


class HeldJournal(MemoryJournal):
    """Its `check` waits until it is let go, and says what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived = threading.Event()
        self.let_go = threading.Event()
        self.asked: list[int] = []

    def check(self, shard: int, *, incarnation: str, epoch: int) -> None:
        self.arrived.set()
        self.let_go.wait(10)
        self.asked.append(epoch)
        super().check(shard, incarnation=incarnation, epoch=epoch)


@pytest.fixture
def journal() -> Iterator[HeldJournal]:
    held = HeldJournal()
    held.create(7, incarnation="first")
    yield held
    held.let_go.set()


async def in_thread(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 10)


def checking(store: JournalThread, epoch: int = 0) -> "asyncio.Task[None]":
    return asyncio.create_task(store.check(incarnation="first", epoch=epoch))


async def test_calls_are_made_in_order_and_each_has_its_own_answer(journal: HeldJournal) -> None:
    store = JournalThread(journal, 7)
    calls = [checking(store, epoch) for epoch in (0, 5, 0)]
    await in_thread(journal.arrived)
    assert journal.asked == []
    journal.let_go.set()
    found: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
    assert journal.asked == [0, 5, 0]
    assert found[0] is None
    assert isinstance(found[1], Fenced)
    assert found[2] is None
    store.close()


async def test_a_caller_that_gives_up_takes_nothing_back_and_keeps_nobody_waiting(
    journal: HeldJournal,
) -> None:
    store = JournalThread(journal, 7)
    impatient = checking(store)
    await in_thread(journal.arrived)
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    journal.let_go.set()
    await store.check(incarnation="first", epoch=0)
    assert journal.asked == [0, 0]
    store.close()


async def test_a_call_beyond_the_limit_is_refused_and_not_made(journal: HeldJournal) -> None:
    store = JournalThread(journal, 7)
    first = checking(store)
    await in_thread(journal.arrived)
    waiting = [checking(store) for _ in range(CALLS_WAITING_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(NotApplied, match="calls wait for journal-7"):
        await store.check(incarnation="first", epoch=9)
    journal.let_go.set()
    await asyncio.gather(first, *waiting)
    assert journal.asked == [0] * (CALLS_WAITING_MAX + 1)
    store.close()


async def test_closing_cancels_what_waits_and_not_what_runs(journal: HeldJournal) -> None:
    store = JournalThread(journal, 7)
    runs = checking(store)
    await in_thread(journal.arrived)
    waits = checking(store, 5)
    await asyncio.sleep(0)
    store.close()
    with pytest.raises(asyncio.CancelledError):
        await waits
    journal.let_go.set()
    await runs
    assert journal.asked == [0]
    with pytest.raises(RuntimeError, match="closed"):
        await store.check(incarnation="first", epoch=0)

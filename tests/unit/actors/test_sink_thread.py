"""The thread of write-behind: yields, hurries, and never makes two calls at once."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator

import pytest

from actors.sink_thread import SinkThread

pytestmark = pytest.mark.skipif(
    not hasattr(os, "SCHED_IDLE"), reason=f"{sys.platform} has no SCHED_IDLE"
)


def policy() -> int:
    """Of the thread that asks."""
    return os.sched_getscheduler(0)


@pytest.fixture
async def thread() -> AsyncIterator[SinkThread]:
    made = SinkThread()
    yield made
    made.close()


async def test_the_thread_yields_until_somebody_is_in_a_hurry_and_then_again(
    thread: SinkThread,
) -> None:
    assert await thread(policy) == os.SCHED_IDLE
    thread.hurry(3, True)
    assert await thread(policy) == policy() != os.SCHED_IDLE
    thread.hurry(3, False)
    assert await thread(policy) == os.SCHED_IDLE
    assert policy() != os.SCHED_IDLE, "the loop's own thread never yields"


async def test_the_thread_yields_only_when_nobody_is_in_a_hurry(thread: SinkThread) -> None:
    thread.hurry(1, True)
    thread.hurry("drain", True)
    first = await thread(threading.get_ident)
    thread.hurry(1, False)
    assert await thread(policy) == policy()
    assert await thread(threading.get_ident) == first, "no thread is made for nothing"
    thread.hurry("drain", False)
    assert await thread(policy) == os.SCHED_IDLE


async def test_a_new_thread_waits_for_the_call_that_the_old_one_makes(thread: SinkThread) -> None:
    began, let_go = threading.Event(), threading.Event()
    order: list[str] = []

    def long() -> None:
        began.set()
        assert let_go.wait(30)
        order.append("long")

    calls = [thread(long), thread(lambda: order.append("behind it"))]
    await asyncio.to_thread(began.wait, 30)
    thread.hurry(1, True)
    calls.append(thread(lambda: order.append("in a hurry")))
    # There and back before anything was called in between: there is nobody to wait for, or all.
    thread.hurry(1, False)
    thread.hurry(1, True)
    thread.hurry(1, False)
    calls.append(thread(lambda: order.append("calm")))
    assert order == []
    let_go.set()
    await asyncio.gather(*calls)
    assert order == ["long", "behind it", "in a hurry", "calm"]


async def test_where_a_thread_may_not_yield_it_works_as_any_other(
    thread: SinkThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    assert await thread(policy) == policy()


async def test_an_error_of_a_call_is_its_callers(thread: SinkThread) -> None:
    with pytest.raises(ZeroDivisionError):
        await thread(lambda: 1 // 0)
    assert await thread(lambda: 1) == 1

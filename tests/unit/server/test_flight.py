"""The bell that wakes one sender task at a time, and rounds that are given up."""

import asyncio

import pytest

from server.flight import Bell, Flight
from tests.helpers.virtual_time import in_virtual_time, ticks


@in_virtual_time
async def test_a_bell_wakes_one_and_the_next_only_after_that_one_ran() -> None:
    bell, awake = Bell(), 0

    async def work() -> None:
        nonlocal awake
        await bell.wait()
        awake += 1

    tasks = [asyncio.create_task(work()) for _ in range(3)]
    bell.ring()
    await ticks()
    assert awake == 0, "nobody waited yet"
    bell.ring()
    bell.ring()
    await ticks()
    assert awake == 1
    bell.ring()
    await ticks()
    assert awake == 2
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@in_virtual_time
async def test_a_bell_rings_for_the_others_when_who_was_woken_is_cancelled() -> None:
    bell = Bell()
    first, second = (asyncio.create_task(bell.wait()) for _ in range(2))
    await ticks()
    bell.ring()
    second.cancel()
    await ticks()
    bell.ring()
    await asyncio.wait_for(first, 1)


@in_virtual_time
async def test_a_round_that_is_given_up_times_out_and_its_task_goes_on() -> None:
    flight = Flight([], 0.0)
    silent: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def wait() -> str:
        with pytest.raises(TimeoutError):
            await flight.land(silent)
        await asyncio.sleep(0)
        return "went on"

    task = asyncio.create_task(wait())
    await ticks()
    flight.give_up()
    flight.give_up()
    assert await task == "went on"
    flight.give_up()


@in_virtual_time
async def test_a_task_that_is_cancelled_while_its_round_is_given_up_ends() -> None:
    flight = Flight([], 0.0)
    silent: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(flight.land(silent))
    await ticks()
    flight.give_up()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@in_virtual_time
async def test_an_answer_that_is_there_is_not_given_up() -> None:
    flight = Flight([], 0.0)
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    answer.set_result(b"x")
    assert await flight.land(answer) == b"x"
    flight.give_up()
    await asyncio.sleep(0)

"""Processes in virtual time: kill -9 and SIGSTOP are what they are called."""

import asyncio

from tests.sim.loop import Process, World


def test_time_jumps_to_the_next_timer_and_the_order_is_that_of_the_timers() -> None:
    world, seen = World(1), []
    process = Process(world, "a")
    for delay_s in (3.0, 1.0, 2.0):
        process.after(delay_s, seen.append, delay_s)
    began = world.now
    assert world.run(lambda: len(seen) == 3, began + 10)
    assert seen == [1.0, 2.0, 3.0]
    assert world.now == began + 3.0


def test_a_killed_process_runs_not_even_its_finally() -> None:
    world, seen = World(1), []
    process = Process(world, "a")

    async def work() -> None:
        try:
            await asyncio.sleep(1)
        finally:
            seen.append("finally")

    process.call_soon(lambda: process.create_task(work()))
    world.after(0.5, process.kill)
    assert not world.run(lambda: False, world.now + 5)
    assert seen == []


def test_a_stopped_process_goes_on_where_it_was_and_its_timers_have_passed() -> None:
    world, seen = World(1), []
    process = Process(world, "a")

    async def work() -> None:
        for _ in range(3):
            await asyncio.sleep(0.1)
            seen.append(round(world.now - began, 6))

    process.call_soon(lambda: process.create_task(work()))
    began = world.now
    world.after(0.15, process.stop)
    world.after(1.0, process.resume)
    world.run(lambda: len(seen) == 3, began + 5)
    assert seen == [0.1, 1.0, 1.1]


def test_timeouts_and_task_groups_work_as_on_any_loop() -> None:
    world, seen = World(1), []
    process = Process(world, "a")

    async def work() -> None:
        try:
            async with asyncio.timeout(0.5), asyncio.TaskGroup() as tasks:
                tasks.create_task(asyncio.sleep(9))
        except TimeoutError:
            seen.append(world.now - began)

    process.call_soon(lambda: process.create_task(work()))
    began = world.now
    assert world.run(lambda: bool(seen), began + 5)
    assert seen == [0.5]

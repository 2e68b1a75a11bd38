"""When write-behind gathers, when it hurries, and when it yields again."""

import asyncio

import pytest

from actors import projector as module
from actors.core.codec import unpack_entry
from actors.projector import CALM_AGE_MS, HURRY_AGE_MS, PACE_S
from tests.helpers.histories import (
    AtOnce,
    Database,
    StoppedClock,
    busy_day,
    journal_of,
    projector,
)
from tests.helpers.shells import limits
from tests.helpers.virtual_time import in_virtual_time, until


def decided_ms(entry: bytes) -> int:
    """When an entry was decided."""
    return unpack_entry(entry).now_ms


@in_virtual_time
async def test_a_view_that_is_too_old_is_a_hurry_until_it_is_young(database: Database) -> None:
    shop = busy_day(1, 30)
    journal = journal_of(shop.journal)
    thread, clock = AtOnce(), StoppedClock(shop.now_ms + HURRY_AGE_MS + 1)
    follower, _ = projector(journal, database.sink, thread=thread, clock=clock)
    running = asyncio.create_task(follower.run())
    await until(lambda: len(thread.hurries) == 2)
    running.cancel()
    assert thread.hurries == [True, False], "in the end nothing is left to apply"


@pytest.mark.parametrize(
    ("age_ms", "hurries"), [(HURRY_AGE_MS, []), (CALM_AGE_MS, []), (HURRY_AGE_MS + 1, [True])]
)
@in_virtual_time
async def test_only_a_view_beyond_the_limit_is_a_hurry(
    age_ms: int, hurries: list[bool], database: Database
) -> None:
    journal = busy_day(1, 30).journal
    thread, clock = AtOnce(), StoppedClock(decided_ms(journal[-1]) + age_ms)
    follower, _ = projector(journal_of(journal), database.sink, thread=thread, clock=clock)
    await follower._step()
    assert thread.hurries == hurries


@in_virtual_time
async def test_a_hurry_ends_only_well_below_the_age_that_began_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_BYTES", 1)
    journal = busy_day(1, 30).journal
    thread, clock = AtOnce(), StoppedClock(0)
    follower, _ = projector(journal_of(journal), database.sink, thread=thread, clock=clock)
    for entry, age_ms, hurries in (
        (journal[0], HURRY_AGE_MS + 1, [True]),
        (journal[1], CALM_AGE_MS, [True]),
        (journal[2], CALM_AGE_MS - 1, [True, False]),
        (journal[3], HURRY_AGE_MS, [True, False]),
    ):
        clock.at_ms = decided_ms(entry) + age_ms
        await follower._step()
        assert thread.hurries == hurries


@in_virtual_time
async def test_a_journal_half_full_of_what_is_not_stored_is_a_hurry(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_BYTES", 1)
    journal = journal_of(busy_day(1, 30).journal)
    last = journal.read_meta(0).last_seq
    thread, size = AtOnce(), journal.bytes_used(0)
    follower, _ = projector(
        journal, database.sink, thread=thread, limits=limits(journal_bytes_max=size)
    )
    while thread.hurries != [True, False]:
        hurried_before = thread.hurries == [True]
        await follower._step()
        assert thread.hurries, "at first nearly all of it is not stored"
    assert hurried_before
    assert last - follower.position == last // 2, "calm as soon as no more than half is left"


@pytest.mark.parametrize(("load_bytes", "pause_s"), [(1, PACE_S), (10**9, 0.008)])
@in_virtual_time
async def test_after_load_the_next_batch_gathers_and_after_a_lone_change_it_hardly_does(
    load_bytes: int, pause_s: float, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = journal_of(busy_day(1, 30).journal)
    monkeypatch.setattr(module, "LOAD_BYTES", load_bytes)
    follower, seen = projector(journal, database.sink)
    # So long does a step take that reads once.
    seen.delay_ms["read"] = 8
    assert await follower._step() == pytest.approx(pause_s)


@pytest.mark.parametrize("why", ["draining", "cut"])
@in_virtual_time
async def test_nothing_is_gathered_at_the_end_or_while_there_is_more(
    why: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOAD_BYTES", 1)
    if why == "cut":
        monkeypatch.setattr(module, "BATCH_BYTES", 1)
    journal = journal_of(busy_day(1, 30).journal)
    follower, _ = projector(journal, database.sink)
    follower.draining = why == "draining"
    assert await follower._step() == 0

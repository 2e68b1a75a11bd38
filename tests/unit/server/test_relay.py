"""The relay: each fact of an order has one effect, whoever dies, and if it comes twice or late."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from actors.core import taking
from actors.core.codec import pack_entry
from actors.core.identity import PROGRAMME_SLOT
from actors.core.order_facts import order_facts
from actors.core.outcomes import Outcome
from actors.core.relay_commands import ENTRY_END, TAKE_FACTS, TakeFacts
from actors.core.state import ShardState, SlotState
from persistence.ports import FactRow
from persistence.sql.views import KeptFacts
from tests.helpers.relays import (
    ACCOUNT_SLOT,
    STOCK,
    Stage,
    confirmed,
    failed,
    name_of,
    note,
    silent,
    stage,
)
from tests.helpers.shells import INCARNATION
from tests.helpers.virtual_time import in_virtual_time, until

Patch = pytest.MonkeyPatch


def some_records(chance: random.Random, number: int) -> list[Any]:
    """Those of an entry: none, one or several of them make facts."""
    makers = (failed, confirmed, silent, silent)
    return [
        chance.choice(makers)(number * 100 + at) for at in range(chance.choice((1, 1, 2, 5, 20)))
    ]


def test_every_fact_has_its_effect_in_the_order_of_its_source(monkeypatch: Patch) -> None:
    @in_virtual_time
    async def body() -> None:
        async with stage(monkeypatch) as on:
            chance = random.Random(1)
            on.accounts.start("a")
            on.accounts.start("b")
            source, _ = on.relay()
            for number in range(60):
                on.append(*some_records(chance, number))
                if chance.random() < 0.3:
                    await asyncio.sleep(chance.random() * 0.1)
            await until(on.have_all)
            on.check()
            last = on.append(silent(1))
            await until(lambda: on.marks()[-1] == (INCARNATION, last, ENTRY_END))
            await until(lambda: on.journal.positions(STOCK).get("relay") == last)
            assert source.status() | {"lag_ms": 0} == {
                "shard": STOCK,
                "position": last,
                "marked": last,
                "lag_entries": 0,
                "lag_ms": 0,
                "gap_entries": 0,
                "set_aside": 0,
                "trouble": "",
                "waits_for": [],
                "without": [],
            }

    body()


def test_an_entry_is_marked_only_when_the_account_shard_has_journalled_it(
    monkeypatch: Patch,
) -> None:
    """A stop that went by the position ended before the last mark, and SQL lacked it."""

    @in_virtual_time
    async def body() -> None:
        async with stage(monkeypatch) as on:
            on.accounts.start("a")
            on.accounts.start("b")
            source, _ = on.relay()
            first = on.append(silent(1))
            await until(lambda: source.status()["marked"] == first)
            last = on.append(silent(2))
            await until(lambda: source.position == last)
            assert source.status()["marked"] == first
            assert on.marks()[-1] == (INCARNATION, first, ENTRY_END)
            await until(lambda: source.status()["marked"] == last)
            assert on.marks()[-1] == (INCARNATION, last, ENTRY_END)

    body()


@pytest.mark.parametrize("seed", range(12))
def test_each_fact_has_one_effect_whoever_is_killed_when(monkeypatch: Patch, seed: int) -> None:
    """Kills of the relay and of the account shard's primary, at random moments."""

    @in_virtual_time
    async def body() -> None:
        async with stage(monkeypatch) as on:
            chance = random.Random(seed)
            on.accounts.start("a")
            on.accounts.start("b")
            _, kill = on.relay()
            for number in range(80):
                on.append(*some_records(chance, number))
                if chance.random() < 0.15:
                    await asyncio.sleep(chance.random() * 0.4)
                if chance.random() < 0.08:
                    kill()
                    _, kill = on.relay()
                if chance.random() < 0.05:
                    on.accounts.start(chance.choice("ab"))
            await until(on.have_all)
            await asyncio.sleep(3)
            on.check()

    body()


@pytest.mark.parametrize("after", [False, True], ids=["before the entry", "after the entry"])
def test_a_primary_killed_between_a_fact_and_its_entry(monkeypatch: Patch, after: bool) -> None:
    @in_virtual_time
    async def body() -> None:
        async with stage(monkeypatch) as on:
            on.accounts.start("a")
            first = await on.accounts.promote("a")
            on.accounts.start("b")
            await on.accounts.caught_up("b")
            on.relay()
            on.append(failed(1), confirmed(1))
            await until(on.have_all)
            let_go = first.journal.hold("append", after=after)
            on.append(failed(2), confirmed(2), failed(3))
            await until(
                lambda: (
                    first.journal.arrived["append"] > first.journal.done["append"]
                    or first.journal.done["append"] > 1
                )
            )
            first.kill()
            let_go()
            await until(on.have_all)
            await asyncio.sleep(3)
            on.check()

    body()


def test_two_relays_at_once_do_nothing_twice(monkeypatch: Patch) -> None:
    @in_virtual_time
    async def body() -> None:
        async with stage(monkeypatch) as on:
            chance = random.Random(5)
            on.accounts.start("a")
            on.accounts.start("b")
            for number in range(40):
                on.append(*some_records(chance, number))
            on.relay()
            on.relay()
            await until(on.have_all)
            await asyncio.sleep(3)
            on.check()

    body()


def test_facts_wait_for_an_account_shard_that_is_not_there_yet(monkeypatch: Patch) -> None:
    @in_virtual_time
    async def body() -> None:
        async with stage(monkeypatch) as on:
            for name in "ab":
                on.accounts.start(name).kill()
            on.append(failed(1))
            source, _ = on.relay()
            await asyncio.sleep(30)
            assert source.trouble
            assert source.lag_entries == 1
            assert 28_000 < source.lag_ms <= 30_000
            assert "relay" not in on.journal.positions(STOCK)
            on.accounts.start("a")
            on.accounts.start("b")
            await until(on.have_all)
            on.check()
            await until(lambda: (source.lag_entries, source.lag_ms) == (0, 0))

    body()


def test_the_journal_is_held_until_every_fact_was_taken(monkeypatch: Patch) -> None:
    @in_virtual_time
    async def body() -> None:
        async with stage(monkeypatch) as on:
            for name in "ab":
                on.accounts.start(name)
            on.relay()
            first = on.append(confirmed(1))
            await until(lambda: on.journal.positions(STOCK).get("relay") == first)
            for instance in on.accounts.instances.values():
                instance.kill()
            on.append(confirmed(2))
            await asyncio.sleep(20)
            assert on.journal.positions(STOCK)["relay"] == first

    body()


def kept_from(rows: Sequence[tuple[int, Sequence[Any]]], after_seq: int, to_seq: int) -> Any:
    """SQL that keeps the facts of these entries, of those after `after_seq` and up to `to_seq`."""

    async def read(shard: int, after: int) -> KeptFacts:
        found = [
            FactRow(seq, 5, pack_entry(epoch=1, now_ms=5, records=records, balances=()))
            for seq, records in rows
            if seq > after
        ]
        return KeptFacts(found, to_seq, after_seq, INCARNATION)

    return read


def test_what_was_trimmed_is_read_from_what_sql_keeps(monkeypatch: Patch) -> None:
    @in_virtual_time
    async def body() -> None:
        async with stage(monkeypatch) as on:
            for name in "ab":
                on.accounts.start(name)
            rows = [(seq, [confirmed(seq)]) for seq in range(1, 8)]
            for _, records in rows:
                on.append(*records)
            on.told.clear()
            on.told += [fact for seq, records in rows for fact in _facts(records, 5)]
            on.journal.trim(STOCK, before_seq=8, max_entries=100)
            on.append(confirmed(8))
            source, _ = on.relay(kept_from(rows, 0, 7))
            await until(on.have_all)
            on.check()
            assert source.gap_entries == 0

    body()


def test_entries_that_nobody_keeps_are_counted_and_passed_over(monkeypatch: Patch) -> None:
    @in_virtual_time
    async def body() -> None:
        async with stage(monkeypatch) as on:
            for name in "ab":
                on.accounts.start(name)
            _, kill = on.relay()
            on.append(confirmed(0))
            await until(on.have_all)
            kill()
            rows = [(seq, [confirmed(seq)]) for seq in range(2, 9)]
            for _, records in rows:
                on.append(*records)
            del on.told[1:]
            on.told += [fact for _, records in rows[3:] for fact in _facts(records, 5)]
            on.journal.trim(STOCK, before_seq=9, max_entries=100)
            on.append(confirmed(9))
            source, _ = on.relay(kept_from(rows[3:], 4, 8))
            await until(on.have_all)
            on.check()
            assert source.gap_entries == 3

    body()


def test_a_journal_that_was_made_anew_goes_on_where_the_marks_are(monkeypatch: Patch) -> None:
    """A restored cluster: the same entries, under another incarnation."""

    @in_virtual_time
    async def body() -> None:
        async with stage(monkeypatch) as on:
            for name in "ab":
                on.accounts.start(name)
            _, kill = on.relay()
            for number in range(5):
                on.append(confirmed(number), failed(number))
            await until(on.have_all)
            kill()
            on.journal.start_over(
                STOCK, incarnation="second", replaces=INCARNATION, last_seq=5, epoch=1
            )
            on.incarnation = "second"
            on.relay()
            on.append(confirmed(7))
            await until(on.have_all)
            on.check()
            assert on.marks()[-1] == ("second", 6, ENTRY_END)

    body()


def test_facts_of_entries_that_the_journal_lost_stop_the_relay(monkeypatch: Patch) -> None:
    @in_virtual_time
    async def body() -> None:
        async with stage(monkeypatch) as on:
            for name in "ab":
                on.accounts.start(name)
            _, kill = on.relay()
            for number in range(5):
                on.append(confirmed(number))
            await until(on.have_all)
            kill()
            on.journal.start_over(
                STOCK, incarnation="second", replaces=INCARNATION, last_seq=3, epoch=1
            )
            source, _ = on.relay()
            await asyncio.sleep(5)
            assert "facts of entry 5 were taken, and the journal ends at 3" in source.trouble

    body()


def on_poison(on: Stage, monkeypatch: Patch, does: Callable[[], Any]) -> None:
    """The second failure is a fact on which something else is done; nobody expects its effect."""
    poison = name_of(_facts([failed(2)], on.clock.now_ms())[0]._replace(at_ms=0))

    def fragile(state: ShardState, slot: SlotState, fact: Any, now_ms: int) -> Any:
        if name_of(fact._replace(at_ms=0)) == poison:
            return does()
        return note(state, slot, fact, now_ms)

    monkeypatch.setattr(taking, "FACT_HANDLERS", dict.fromkeys(taking.FACT_HANDLERS, fragile))
    on.append(failed(1), failed(2), failed(3))
    on.append(failed(4))
    on.told = [fact for fact in on.told if name_of(fact._replace(at_ms=0)) != poison]


def test_a_fact_that_fails_three_times_is_set_aside(monkeypatch: Patch) -> None:
    def fail() -> Any:
        raise ValueError("poison")

    @in_virtual_time
    async def body() -> None:
        async with stage(monkeypatch) as on:
            on_poison(on, monkeypatch, fail)
            for name in "ab":
                on.accounts.start(name)
            source, _ = on.relay()
            await until(on.have_all)
            on.check()
            assert source.set_aside == 1

    body()


def test_a_fact_that_primaries_die_of_is_set_aside_and_none_beside_it(monkeypatch: Patch) -> None:
    """Nobody says which of a line it was."""

    @in_virtual_time
    async def body() -> None:
        async with stage(monkeypatch) as on:
            on_poison(on, monkeypatch, lambda: (("no record", ACCOUNT_SLOT),))

            async def revive() -> None:
                while True:
                    for name in "ab":
                        instance = on.accounts.instances.get(name)
                        if instance is None or not instance.alive:
                            on.accounts.start(name)
                    await asyncio.sleep(0.05)

            reviving = asyncio.create_task(revive())
            source, _ = on.relay()
            await until(on.have_all)
            on.check()
            assert source.set_aside == 1
            reviving.cancel()

    body()


def _facts(records: Sequence[Any], at_ms: int) -> list[Any]:
    return [fact for _, fact in order_facts(records, at_ms)]


def line(after: tuple[int, int], *places: tuple[int, int], incarnation: str = "i") -> TakeFacts:
    """Nothing but moves of the mark."""
    facts = [(*place, PROGRAMME_SLOT, ()) for place in places]
    return TakeFacts(TAKE_FACTS, PROGRAMME_SLOT, 9, "relay", 0, incarnation, *after, facts)


def test_facts_are_taken_after_their_predecessor_only() -> None:
    state, records = ShardState(), list[Any]()

    def take(command: TakeFacts) -> tuple[Any, ...]:
        records.clear()
        return taking.take_facts(state, command, 1, records)

    assert take(line((0, 0), (2, 7), (3, 0))) == (Outcome.APPLIED, 2)
    assert records == [(100, PROGRAMME_SLOT, 0, "i", 3, 0)]
    assert state.sources[0] == ("i", 3, 0)
    noted, early = (Outcome.NOTED, 0, "i", 3, 0), (Outcome.OUT_OF_ORDER, 0, "i", 3, 0)
    assert take(line((0, 0), (2, 7), (3, 0))) == noted
    assert take(line((0, 0), (2, ENTRY_END))) == noted
    assert take(line((3, 1), (3, 2))) == early
    assert take(line((2, 7), (3, 0), (3, 1))) == early, "the first of it was taken"
    assert records == []
    assert take(line((3, 0), (2, 0), (2, 1), incarnation="j")) == (Outcome.APPLIED, 2)
    assert state.sources[0] == ("j", 2, 1)


def test_every_source_has_a_mark_of_its_own() -> None:
    state = ShardState()
    state.sources[0] = ("i", 3, 0)
    other = line((0, 0), (1, 0))._replace(source=1)
    assert taking.take_facts(state, other, 1, []) == (Outcome.APPLIED, 1)


def test_accounts_have_slots_of_their_own() -> None:
    assert 1024 <= ACCOUNT_SLOT < 2048
    assert 1024 <= PROGRAMME_SLOT < 2048

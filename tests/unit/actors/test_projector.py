"""Write-behind: exactly once in effect, whatever dies, and nothing poisonous stops it."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.core import records as r
from actors.core import state as s
from actors.core.codec import pack_entry, unpack_entry
from actors.core.commission_records import ORDER_ACCRUED
from actors.core.relay_records import FACT_TAKEN
from actors.core.team_records import SEAT_TAKEN
from actors.projector import Batch, project
from actors.rows import ROWS, RowBatch
from persistence.errors import NotApplied, OutcomeUnknown
from persistence.ports import DeadLetter, Entry, Rows
from tests.helpers.histories import (
    INCARNATION,
    Database,
    StoppedClock,
    busy_day,
    full_day,
    journal_of,
    projector,
    rows_of,
    violated,
)
from tests.helpers.shells import limits
from tests.helpers.virtual_time import in_virtual_time, until
from tests.model.shop import Shop, line


def test_a_busy_day_has_every_kind_of_record() -> None:
    """Else the property below would say little."""
    seen: set[int] = set()
    for seed in range(3, 9):
        shop = full_day(seed, 250)
        for entry in projecting_entries(shop.journal):
            seen |= {record[0] for record in unpack_entry(entry.data).records}
    assert seen == set(ROWS) | {r.STOCK_RESERVED, ORDER_ACCRUED, FACT_TAKEN}


def projecting_entries(journal: list[bytes]) -> list[Entry]:
    return [Entry(seq, 1, "", data) for seq, data in enumerate(journal, 1)]


@given(seed=st.integers(0, 10**6), batch=st.integers(1, 40), steps=st.integers(10, 120))
@settings(max_examples=15)
def test_every_history_makes_the_rows_that_verify_expects(
    template: Path, seed: int, batch: int, steps: int
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        database = Database(Path(directory), template)
        journal = journal_of(full_day(seed, steps).journal)
        database.follow(journal, batch=batch)
        assert violated(database.verify(journal)) == {}


@given(seed=st.integers(0, 10**6), cut=st.integers(0, 60))
@settings(max_examples=10)
def test_a_batch_applied_twice_changes_nothing(template: Path, seed: int, cut: int) -> None:
    """Rows are guarded by the entry of their last change."""
    with tempfile.TemporaryDirectory() as directory:
        database = Database(Path(directory), template)
        shop = busy_day(seed, 60)
        journal = journal_of(shop.journal)
        database.follow(journal, batch=20)
        again = project(0, projecting_entries(shop.journal)[: max(1, cut)])
        last = journal.read_meta(0).last_seq
        database.sink.apply(0, incarnation=INCARNATION, from_seq=last, to_seq=last, rows=again.rows)
        assert violated(database.verify(journal)) == {}


def test_rows_of_one_key_are_merged_over_a_batch() -> None:
    batch = RowBatch(0)
    shop = busy_day(3, 150)
    reserved = 0
    for entry in projecting_entries(shop.journal):
        content = unpack_entry(entry.data)
        for record in content.records:
            batch.add(entry.seq, content.now_ms, record)
            reserved += record.kind in (r.STOCK_RESERVED, SEAT_TAKEN)
    rows = [rows for rows in batch.tables() if rows.table == "reservations"]
    ids = [value[one.columns.index("reservation_id")] for one in rows for value in one.values]
    assert len(ids) == len(set(ids)) == reserved


def test_a_reservation_that_changes_in_its_batch_makes_one_whole_row() -> None:
    """Values of a new reservation become a row with names when another record speaks of it."""
    shop = Shop()
    shop.open_sale(40, line("tea", limit=9), limit_per_buyer=12)
    shop.receive(60, "first")
    kept, released = shop.hold("kept"), shop.hold("released")
    shop.release(released)
    made = project(0, projecting_entries(shop.journal)).rows
    found = {
        row["reservation_id"]: row
        for rows in made
        if rows.table == "reservations"
        for row in (dict(zip(rows.columns, values, strict=True)) for values in rows.values)
    }
    assert set(found) == {kept, released}
    assert set(found[released]) == set(found[kept]) | {"ended_ms"}
    assert (found[kept]["state"], found[released]["state"]) == (s.RESERVED, s.RELEASED)
    assert found[released]["seq"] == len(shop.journal)


def test_of_the_balances_of_a_pool_in_a_batch_the_last_is_its_row() -> None:
    balances = [r.Balance(7, 1, "", "tea", 5, 5 - sold, sold, 0, 0, 0, 0, 0) for sold in range(3)]
    entries = [
        Entry(seq, 1, "", pack_entry(epoch=1, now_ms=seq, records=[], balances=[balance]))
        for seq, balance in enumerate(balances, 1)
    ]
    (pools,) = project(0, entries).rows
    (row,) = (dict(zip(pools.columns, values, strict=True)) for values in pools.values)
    assert (row["available"], row["seq"], row["updated_ms"]) == (3, 3, 3)


@in_virtual_time
async def test_the_position_is_told_to_the_journal_when_it_is_in_sql() -> None:
    with tempfile.TemporaryDirectory() as directory:
        database = Database(Path(directory), Path(directory) / "template.db")
        journal = journal_of(busy_day(1, 30).journal)
        follower, seen = projector(journal, database.sink)
        let_go = seen.hold("set_position")
        running = asyncio.create_task(follower.run())
        await until(lambda: seen.arrived["set_position"])
        assert journal.positions(0) == {}
        let_go()
        last = journal.read_meta(0).last_seq
        await until(lambda: journal.positions(0) == {"sink": last})
        assert database.sink.position(0) == (INCARNATION, last)
        running.cancel()
        assert violated(database.verify(journal)) == {}


@in_virtual_time
async def test_a_view_that_is_whole_is_dated_anew_while_nothing_happens(database: Database) -> None:
    journal = journal_of(busy_day(5, 20).journal)
    sink = Faulty(database.sink)
    follower, _ = projector(journal, sink)  # type: ignore[arg-type]
    running = asyncio.create_task(follower.run())
    last = journal.read_meta(0).last_seq
    await until(lambda: journal.positions(0).get("sink") == last)
    await until(lambda: sink.dated >= 3)
    running.cancel()
    assert sink.applied == 1
    assert database.sink.position(0) == (INCARNATION, last)


class Faulty:
    """A sink that fails in its own way at some applies."""

    def __init__(self, sink: Any) -> None:
        self.sink = sink
        self.faults: list[tuple[Exception, bool]] = []
        self.applied = 0
        self.dated = 0
        self.refused: tuple[str, Any] = ("", None)

    def position(self, shard: int) -> tuple[str, int]:
        found: tuple[str, int] = self.sink.position(shard)
        return found

    def apply(self, shard: int, **fields: Any) -> None:
        fault, effect = self.faults.pop(0) if self.faults else (None, True)
        if effect:
            self.check(fields["rows"])
            self.sink.apply(shard, **fields)
            moved = fields["to_seq"] > fields["from_seq"]
            self.applied += moved
            self.dated += not moved
        if fault is not None:
            raise fault

    def prune_facts(self, shard: int, **bounds: int) -> int:
        found: int = self.sink.prune_facts(shard, **bounds)
        return found

    def check(self, rows: list[Rows]) -> None:
        table, value = self.refused
        for one in rows:
            if one.table == table and any(value in row for row in one.values):
                raise ValueError("out of range")


@pytest.mark.parametrize(
    ("fault", "effect"),
    [
        (OutcomeUnknown("cut"), True),
        (OutcomeUnknown("cut"), False),
        (NotApplied("read-only"), False),
    ],
)
@in_virtual_time
async def test_an_apply_of_unknown_outcome_is_neither_lost_nor_done_twice(
    fault: Exception, effect: bool, database: Database
) -> None:
    journal = journal_of(busy_day(2, 40).journal)
    sink = Faulty(database.sink)
    sink.faults = [(fault, effect)] * 3
    follower, _ = projector(journal, sink)  # type: ignore[arg-type]
    running = asyncio.create_task(follower.run())
    last = journal.read_meta(0).last_seq
    await until(lambda: journal.positions(0).get("sink") == last)
    running.cancel()
    assert violated(database.verify(journal)) == {}
    assert follower.trouble == "" or effect


@in_virtual_time
async def test_a_projector_killed_between_apply_and_report_starts_where_sql_stands(
    database: Database,
) -> None:
    journal = journal_of(busy_day(4, 40).journal)
    first, seen = projector(journal, database.sink)
    seen.hold("set_position")
    running = asyncio.create_task(first.run())
    await until(lambda: seen.arrived["set_position"])
    running.cancel()
    second, _ = projector(journal, database.sink)
    running = asyncio.create_task(second.run())
    last = journal.read_meta(0).last_seq
    await until(lambda: journal.positions(0).get("sink") == last)
    running.cancel()
    assert violated(database.verify(journal)) == {}


@in_virtual_time
async def test_two_projectors_of_one_shard_apply_each_batch_once(database: Database) -> None:
    journal = journal_of(busy_day(5, 60).journal)
    sinks = [Faulty(database.sink), Faulty(database.sink)]
    made = [projector(journal, sink) for sink in sinks]  # type: ignore[arg-type]
    # Both have read the same position before either applies.
    gates = [seen.hold("read") for _, seen in made]
    running = [asyncio.create_task(follower.run()) for follower, _ in made]
    await until(lambda: all(seen.arrived["read"] for _, seen in made))
    for let_go in gates:
        let_go()
    last = journal.read_meta(0).last_seq
    await until(lambda: journal.positions(0).get("sink") == last)
    await asyncio.sleep(1)
    assert sum(sink.applied for sink in sinks) == 1
    for task in running:
        task.cancel()
    assert violated(database.verify(journal)) == {}


@in_virtual_time
async def test_a_poison_record_is_set_aside_and_the_rest_goes_on(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = busy_day(6, 250)
    honest = ROWS[r.PAYMENT_BEGUN]
    poisoned: list[Any] = []

    def poison(record: Any, now_ms: int) -> Any:
        if not poisoned or poisoned[0] == record:
            poisoned[:] = [record]
            raise ZeroDivisionError("boom")
        return honest(record, now_ms)

    monkeypatch.setitem(ROWS, r.PAYMENT_BEGUN, poison)
    journal = journal_of(shop.journal)
    follower, _ = projector(journal, database.sink)
    running = asyncio.create_task(follower.run())
    last = journal.read_meta(0).last_seq
    await until(lambda: journal.positions(0).get("sink") == last)
    running.cancel()
    letters = rows_of(database, "SELECT reason FROM dead_letters")
    assert letters == [("ZeroDivisionError: boom",)]
    found = violated(database.verify(journal))
    assert "1 records stand in dead_letters" in found["I5"]
    assert set(found) == {"I5"}


@in_virtual_time
async def test_an_unreadable_entry_is_set_aside(database: Database) -> None:
    shop = busy_day(6, 20)
    journal = journal_of([*shop.journal, b"\xc1"])
    follower, _ = projector(journal, database.sink)
    running = asyncio.create_task(follower.run())
    last = journal.read_meta(0).last_seq
    await until(lambda: journal.positions(0).get("sink") == last)
    running.cancel()
    assert rows_of(database, "SELECT seq, idx FROM dead_letters") == [(last, -1)]


@in_virtual_time
async def test_a_row_that_the_database_refuses_is_set_aside_and_the_rest_goes_on(
    database: Database,
) -> None:
    journal = journal_of(busy_day(7, 60).journal)
    sink = Faulty(database.sink)
    sink.refused = ("pools", "tea")
    follower, _ = projector(journal, sink)  # type: ignore[arg-type]
    running = asyncio.create_task(follower.run())
    last = journal.read_meta(0).last_seq
    await until(lambda: journal.positions(0).get("sink") == last)
    running.cancel()
    letters = rows_of(database, "SELECT idx, reason FROM dead_letters")
    assert letters
    assert all(reason == "pools: out of range" for _, reason in letters)
    assert all(index < -1 for index, _ in letters), "the numbers of records stay theirs"
    assert rows_of(database, "SELECT count(*) FROM pools") == [(0,)]
    assert rows_of(database, "SELECT count(*) FROM reservations")[0][0] > 0
    found = violated(database.verify(journal))
    assert set(found) == {"I5"}


def test_a_refused_row_never_takes_the_place_of_a_poison_record(database: Database) -> None:
    """Both in one entry, with as many records as make the numbers meet."""
    letters = [DeadLetter(1, 0, "record", b""), DeadLetter(1, 1, "record", b"")]

    class Refusing(Faulty):
        def check(self, rows: list[Rows]) -> None:
            if rows:
                raise ValueError("no")

    rows = [Rows(table="pools", columns=("a",), values=[(1,), (2,)])]
    follower, _ = projector(journal_of([]), Refusing(database.sink))  # type: ignore[arg-type]
    batch = Batch(1, rows, letters)
    follower._apply(INCARNATION, 0, batch)
    assert len(rows_of(database, "SELECT * FROM dead_letters")) == 4


@in_virtual_time
async def test_facts_are_kept_with_their_entries_and_for_as_long_as_is_wanted(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.projector.PRUNE_ROWS", 3)
    shop = busy_day(4, 60)
    journal, clock = journal_of(shop.journal), StoppedClock(0)
    told = {
        entry.seq: unpack_entry(entry.data).now_ms
        for entry in projecting_entries(shop.journal)
        if any(record[0] not in r.UNTOLD for record in unpack_entry(entry.data).records)
    }
    follower, _ = projector(journal, database.sink, clock=clock, limits=limits(facts_keep_ms=5_000))
    running = asyncio.create_task(follower.run())
    last = journal.read_meta(0).last_seq
    await until(lambda: journal.positions(0).get("sink") == last)
    query = "SELECT seq, at_ms FROM facts ORDER BY seq"
    assert rows_of(database, query) == list(told.items())
    gone = list(told)[len(told) // 2]
    clock.at_ms = told[gone] + 5_001
    young = [(seq, at_ms) for seq, at_ms in told.items() if at_ms > told[gone]]
    assert young
    await until(lambda: rows_of(database, query) == young)
    (noted,) = rows_of(database, "SELECT facts_after_seq FROM positions")
    assert gone <= noted[0] < young[0][0]
    running.cancel()


@in_virtual_time
async def test_rows_of_another_cluster_are_trouble_and_trim_nothing(database: Database) -> None:
    journal = journal_of(busy_day(8, 20).journal)
    database.sink.apply(0, incarnation="other", from_seq=0, to_seq=900, rows=[])
    follower, _ = projector(journal, database.sink)
    running = asyncio.create_task(follower.run())
    await until(lambda: "another cluster" in follower.trouble)
    assert journal.positions(0) == {}
    running.cancel()


def test_balances_are_rows_even_when_their_entry_has_none_of_its_own() -> None:
    balance = r.Balance(7, 1, "", "tea", 5, 5, 0, 0, 0, 0, 0, 0)
    data = pack_entry(epoch=1, now_ms=1, records=[], balances=[balance])
    made = project(0, [Entry(3, 1, "", data)])
    assert [rows.table for rows in made.rows] == ["pools"]

"""A journal is made anew from SQL: whatever was lost, and whatever the database's positions are."""

import json
import random
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from actors.core import records as r
from actors.core.codec import unpack_entry
from actors.core.relay_records import FACT_TAKEN
from persistence.open import open_journal
from persistence.sql.views import SqlViews
from server.bootstrap import CannotStart, prepare
from server.recover import Outcome, Recovery
from server.recover_survey import CannotRecover, Left
from server.settings import Settings
from server.verifying import verify_stores
from tests.helpers.days import SHARDS, STOCK_SHARDS, StoredDay, settings_in


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path)


def wipe(settings: Settings, shard: int | None = None) -> None:
    """Lose the journal's store, or one shard's journal."""
    for path in (settings.data_dir / "journal").glob("*" if shard is None else f"*{shard:04d}*"):
        path.unlink()


def recover(settings: Settings, *, force: bool = False) -> Outcome:
    recovery = Recovery(settings, lambda _: None)
    try:
        found = recovery.look()
        assert force or not found.nothing_lost
        return recovery.run(found, accept_differences=False)
    finally:
        recovery.close()


@pytest.mark.parametrize("seed", range(10))
def test_a_wiped_store_is_made_anew_up_to_where_the_database_was(
    settings: Settings, seed: int
) -> None:
    day = StoredDay(settings, seed)
    seqs = day.project_part(random.Random(seed))
    wipe(settings)
    with pytest.raises(CannotStart, match="stockray recover --from-sql"):
        prepare(settings, pytest.fail)
    outcome = recover(settings)
    assert outcome.verified, outcome.violations
    assert [one.seq for one in outcome.found.shards] == seqs
    assert {one.left for one in outcome.found.shards} == {Left.GONE}
    made = prepare(settings, lambda _: None)
    assert made.incarnation == outcome.incarnation != day.map.incarnation
    assert made.slots_of == day.map.slots_of


@pytest.mark.parametrize("seed", range(10, 16))
def test_shards_whose_journals_are_whole_lose_nothing(settings: Settings, seed: int) -> None:
    day = StoredDay(settings, seed)
    seqs = day.project_part(random.Random(seed))
    wipe(settings, 1)
    outcome = recover(settings)
    assert outcome.verified, outcome.violations
    whole = [len(entries) for entries in day.entries]
    assert [one.seq for one in outcome.found.shards] == [whole[0], seqs[1], whole[2]]
    told = [one["nothing_missing"] for one in outcome.as_data()["shards"]]
    assert told == [True, False, True]


def test_a_journal_from_an_old_copy_gives_way_to_the_newer_database(
    settings: Settings, tmp_path: Path
) -> None:
    day = StoredDay(settings, 3)
    whole = [len(entries) for entries in day.entries]
    day.project(whole)
    journal = settings.data_dir / "journal"
    with closing(open_journal(settings.journal_url)) as store:
        # The copy of yesterday ends before the database.
        meta = store.read_meta(0)
        entries = store.read(0, after_seq=0, max_bytes=10**9)
    wipe(settings, 0)
    with closing(open_journal(settings.journal_url)) as store:
        store.create(0, incarnation=meta.incarnation)
        store.acquire(0, incarnation=meta.incarnation, seen_epoch=0, token="t")
        for entry in entries[:5]:
            store.append(
                0,
                incarnation=meta.incarnation,
                epoch=1,
                seq=entry.seq,
                batch_id=entry.batch_id,
                entry=entry.data,
            )
    assert journal.exists()
    with pytest.raises(CannotStart, match="acknowledged entries are missing"):
        prepare(settings, pytest.fail)
    outcome = recover(settings)
    assert outcome.verified, outcome.violations
    assert [one.left for one in outcome.found.shards] == [Left.OLDER, Left.SOUND, Left.SOUND]
    assert [one.seq for one in outcome.found.shards] == whole


class _Cut(Exception):
    """The recovery was killed here."""


STEPS = ("_mark", "_publish", "start_over", "_append", "hand_over", "_finish")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("nth", [1, 2])
def test_a_recovery_that_was_cut_off_is_refused_by_a_start_and_goes_on_when_run_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, step: str, nth: int
) -> None:
    day = StoredDay(settings, 6)
    seqs = day.project_part(random.Random(2))
    wipe(settings)
    recovery = Recovery(settings, lambda _: None)
    owner = {"start_over": recovery._journal, "hand_over": recovery._cluster}.get(step, recovery)
    honest, calls = getattr(owner, step), iter(range(1, 100))

    def cut(*arguments: object, **fields: object) -> object:
        if next(calls) == nth:
            raise _Cut
        return honest(*arguments, **fields)

    monkeypatch.setattr(owner, step, cut)
    try:
        recovery.run(recovery.look(), accept_differences=False)
    except _Cut:
        if (step, nth) != ("_mark", 1):
            with pytest.raises(CannotStart, match="did not come to its end"):
                prepare(settings, pytest.fail)
    finally:
        recovery.close()
    monkeypatch.undo()
    outcome = recover(settings, force=True)
    assert outcome.verified, outcome.violations
    assert prepare(settings, lambda _: None).incarnation == outcome.incarnation
    assert [one.view.seq for one in outcome.found.shards][1:] >= seqs[1:]


def test_transfers_that_were_torn_apart_count_once(settings: Settings) -> None:
    repaired = 0
    for seed in range(8):
        shutil.rmtree(settings.data_dir, ignore_errors=True)
        day = StoredDay(settings, 100 + seed, steps=160)
        day.project_part(random.Random(seed), lag=35)
        wipe(settings)
        outcome = recover(settings)
        assert outcome.verified, outcome.violations
        repaired += len(outcome.transfers)
        again = verify_stores(settings)
        assert again.ok, again.as_data()["invariants"]
    assert repaired > 0, "no seed tore a transfer apart"


def test_the_map_is_known_when_only_the_database_is_left(settings: Settings) -> None:
    day = StoredDay(settings, 1)
    day.project([5, 0])
    shutil.rmtree(settings.data_dir / "journal")
    assert recover(settings.model_copy(update={"shards": None})).found.map_from == "database"
    assert prepare(settings, lambda _: None).shards == SHARDS
    assert day.map.shards == SHARDS


def test_an_old_database_needs_to_be_told_how_many_shards_there_were(settings: Settings) -> None:
    day = StoredDay(settings, 1)
    day.project([5, 5])
    shutil.rmtree(settings.data_dir / "journal")
    recovery = Recovery(settings.model_copy(update={"shards": None}), lambda _: None)
    recovery._cluster.kept_map = lambda: None  # type: ignore[method-assign]
    with closing(recovery), pytest.raises(CannotRecover, match="--shards N"):
        recovery.look()
    other = Recovery(settings.model_copy(update={"shards": 3}), lambda _: None)
    with closing(other), pytest.raises(CannotRecover, match="leave --shards out"):
        other.look()


def test_the_logs_tell_how_much_is_gone(settings: Settings) -> None:
    day = StoredDay(settings, 2)
    seqs = [4, 5]
    day.project(seqs)
    wipe(settings)
    settings.log_directory.mkdir()
    now = datetime.now(UTC)
    event = {"event": "shard_halted", "shard": 1, "seq": 9, "timestamp": now.isoformat()}
    before = {"seq": 99, "timestamp": (now - timedelta(days=1)).isoformat()}
    events = [event, event | {"seq": 7}, event | before, {"shard": 0, "seq": 8}]
    text = "\n".join(["not json", *map(json.dumps, events)])
    (settings.log_directory / "shard-0001-b.log").write_text(text)
    data = recover(settings).as_data()
    assert [one["missing_entries_at_least"] for one in data["shards"]] == [None, 4, None]


def test_an_empty_database_has_nothing_to_recover_from(settings: Settings) -> None:
    prepare(settings, lambda _: None)
    with (
        closing(Recovery(settings, lambda _: None)) as recovery,
        pytest.raises(CannotRecover, match="stockray restore"),
    ):
        recovery.look()


def test_a_journal_of_another_cluster_is_left_alone(settings: Settings, tmp_path: Path) -> None:
    StoredDay(settings, 1).project([5, 5])
    other = settings_in(tmp_path / "other")
    prepare(other, lambda _: None)
    shutil.rmtree(settings.data_dir / "journal")
    shutil.copytree(other.data_dir / "journal", settings.data_dir / "journal")
    with (
        closing(Recovery(settings, lambda _: None)) as recovery,
        pytest.raises(CannotRecover, match="another cluster"),
    ):
        recovery.look()


def test_finished_reservations_stay_in_sql_and_are_found_there(settings: Settings) -> None:
    day = StoredDay(settings, 8)
    day.project([len(entries) for entries in day.entries])
    wipe(settings)
    outcome = recover(settings.model_copy(update={"recall_after_ms": 60_000}))
    assert outcome.verified, outcome.violations
    kept = outcome.rebuilt["reservations_in_memory"]
    assert 0 < kept < sum(outcome.reservations)


def test_a_journal_that_was_made_anew_begins_where_the_database_ends(settings: Settings) -> None:
    day = StoredDay(settings, 5)
    seqs = day.project_part(random.Random(5))
    wipe(settings)
    outcome = recover(settings)
    with closing(open_journal(settings.journal_url)) as journal:
        for shard, seq in enumerate(seqs):
            meta = journal.read_meta(shard)
            assert (meta.incarnation, meta.first_seq) == (outcome.incarnation, seq + 1)
            for entry in journal.read(shard, after_seq=seq, max_bytes=10**9):
                kinds = {record.kind for record in unpack_entry(entry.data).records}
                assert kinds <= {
                    r.TRANSFERRED_IN,
                    r.TRANSFERRED_OUT,
                    r.TRANSFER_ENDED,
                    r.STOCK_CHANGED,
                    FACT_TAKEN,
                }


def test_sql_keeps_the_facts_that_an_account_shard_lost(settings: Settings) -> None:
    """The new journals of stock shards begin later than its marks: the relay needs the rest."""
    day = StoredDay(settings, 5)
    whole = [len(entries) for entries in day.entries]
    seqs = [*whole[:STOCK_SHARDS], whole[STOCK_SHARDS] // 2]
    day.project(seqs)
    wipe(settings)
    outcome = recover(settings)
    assert outcome.verified, outcome.violations
    with closing(open_journal(settings.journal_url)) as journal:
        entries = journal.read(STOCK_SHARDS, after_seq=seqs[STOCK_SHARDS], max_bytes=10**9)
    marks = [one for entry in entries for one in unpack_entry(entry.data).records]
    assert any(mark.source_seq < seqs[mark.source] for mark in marks)
    with closing(SqlViews(settings.database_url)) as views:
        for mark in marks:
            kept = views.list_facts(
                mark.source, after_seq=mark.source_seq, rows_max=10**6, bytes_max=10**9
            )
            assert kept.incarnation == mark.incarnation == outcome.incarnation
            assert kept.after_seq <= mark.source_seq
            assert kept.to_seq == seqs[mark.source]


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("reservations", "DELETE FROM reservations WHERE state = 1"),
        ("pools", "UPDATE pools SET reserved = 0, available = available + reserved"),
        ("pools", "UPDATE pools SET sold = 0, total = total - sold"),
    ],
    ids=["units of nobody", "reservations not counted", "orders not counted"],
)
def test_rows_that_contradict_each_other_are_recovered_only_on_demand_and_sell_nothing_twice(
    settings: Settings, table: str, change: str
) -> None:
    day = StoredDay(settings, 7)
    day.project([len(entries) for entries in day.entries])
    free = {(p.campaign_id, p.sku_id): p.available for p in verify_stores(settings).pools}
    with closing(sqlite3.connect(settings.data_dir / "tables.db")) as database:
        assert database.execute(change).rowcount
        database.commit()
    wipe(settings)
    with closing(Recovery(settings, lambda _: None)) as recovery:
        found = recovery.look()
        with pytest.raises(CannotRecover, match=r"reservations add up to.*--accept-differences"):
            recovery.run(found, accept_differences=False)
        outcome = recovery.run(found, accept_differences=True)
    assert outcome.verified, outcome.violations
    assert outcome.differences
    for pool in verify_stores(settings).pools:
        assert pool.available <= free[pool.campaign_id, pool.sku_id], table

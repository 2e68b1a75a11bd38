"""A backup is whole or none, and what is restored from it is the cluster that it was taken of."""

import json
import random
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from actors.core.codec import pack_entry
from actors.core.snapshot import chunks
from persistence.open import open_journal, open_snapshots
from persistence.ports import Journal
from persistence.sql import dump
from persistence.sql.copying import columns_of
from persistence.sql.views import KeptFacts, SqlViews
from persistence.sqlite import SqliteJournal
from server import backup as backups
from server.backup import Backup
from server.backup_files import MANIFEST, CannotBackUp
from server.bootstrap import CannotStart, prepare
from server.restore import Restore
from server.settings import Settings
from server.verify import Report
from server.verifying import verify_stores
from tests.helpers.days import SHARDS, STOCK_SHARDS, StoredDay, settings_in, split
from tests.helpers.states import folded


@pytest.fixture
def day(tmp_path: Path) -> StoredDay:
    """A day whose SQL is a little behind."""
    made = StoredDay(settings_in(tmp_path / "first"), 7)
    made.project_part(random.Random(7))
    return made


def take(settings: Settings, place: Path) -> dict[str, Any]:
    return Backup(settings, place, lambda _: None).run()


def bring_back(place: Path, directory: Path, **changes: object) -> tuple[Settings, Report]:
    """Restored to a new directory, and verified."""
    settings = settings_in(directory, **changes).model_copy(update={"shards": None})
    settings.data_dir.mkdir(parents=True)
    Restore(settings, place, lambda _: None).run()
    return settings, verify_stores(settings)


def ends(report: Report) -> list[tuple[int, int]]:
    return [(shard["sink_seq"], shard["last_seq"]) for shard in report.shards]


def test_a_restored_cluster_is_the_one_that_was_backed_up(day: StoredDay, tmp_path: Path) -> None:
    before = verify_stores(day.settings)
    take(day.settings, tmp_path / "copy")
    settings, report = bring_back(tmp_path / "copy", tmp_path / "second")
    assert report.ok, report.as_data()["invariants"]
    assert report.pools == before.pools
    assert ends(report) == ends(before)
    made = prepare(settings, lambda _: None)
    assert made.slots_of == day.map.slots_of
    assert made.incarnation != day.map.incarnation


def publish_snapshot(day: StoredDay, shard: int, seq: int, *, trim: bool) -> None:
    """A snapshot at an entry, as a standby makes it; perhaps the journal is trimmed up to it."""
    state = folded(day.entries[shard][:seq])
    with closing(open_snapshots(day.settings.snapshots_url)) as store:
        handle = store.begin(shard, incarnation=day.map.incarnation, begin_seq=seq)
        for index, chunk in enumerate(chunks(state)):
            store.write(shard, handle, index, chunk)
        store.publish(shard, handle, end_seq=seq)
    if trim:
        with closing(open_journal(day.settings.journal_url)) as journal:
            journal.trim(shard, before_seq=seq + 1, max_entries=10**6)


def test_a_trimmed_journal_is_restored_with_its_snapshot(tmp_path: Path) -> None:
    day = StoredDay(settings_in(tmp_path / "first"), 9)
    whole = [len(entries) for entries in day.entries]
    day.project(whole)
    for shard, count in enumerate(whole):
        publish_snapshot(day, shard, count - 9, trim=True)
    manifest = take(day.settings, tmp_path / "copy")
    assert [s["journal_first_seq"] for s in manifest["shards"]] == [n - 8 for n in whole]
    _, report = bring_back(tmp_path / "copy", tmp_path / "second")
    assert report.ok, report.as_data()["invariants"]
    assert ends(report) == [(n, n) for n in whole]


def test_what_is_restored_can_be_backed_up_and_restored_again(
    day: StoredDay, tmp_path: Path
) -> None:
    take(day.settings, tmp_path / "copy")
    second, report = bring_back(tmp_path / "copy", tmp_path / "second")
    take(second, tmp_path / "again")
    _, again = bring_back(tmp_path / "again", tmp_path / "third")
    assert again.ok
    assert again.pools == report.pools


def facts_kept(settings: Settings) -> list[KeptFacts]:
    """What SQL keeps of each shard's feed, of whatever cluster."""
    with closing(SqlViews(settings.database_url)) as views:
        return [
            views.list_facts(shard, after_seq=0, rows_max=10**6, bytes_max=10**9)._replace(
                incarnation=""
            )
            for shard in range(SHARDS)
        ]


def test_the_facts_of_the_feed_are_restored(
    day: StoredDay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dump, "LARGE_ROWS_AT_ONCE", 3)
    before = facts_kept(day.settings)
    # What an account shard has of others' facts is none of its own.
    assert all(kept.rows and not kept.after_seq for kept in before[:STOCK_SHARDS])
    take(day.settings, tmp_path / "copy")
    settings, _ = bring_back(tmp_path / "copy", tmp_path / "second")
    assert facts_kept(settings) == before


def test_a_backup_of_before_the_feed_has_no_facts_of_what_was_applied(
    day: StoredDay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = facts_kept(day.settings)

    def columns_then(table: str) -> tuple[str, ...]:
        return tuple(name for name in columns_of(table) if name != "facts_after_seq")

    monkeypatch.setattr(backups, "COPIED", tuple(set(backups.COPIED) - {"facts"}))
    monkeypatch.setattr(backups, "columns_of", columns_then)
    take(day.settings, tmp_path / "copy")
    settings, report = bring_back(tmp_path / "copy", tmp_path / "second")
    assert report.ok
    assert [(kept.rows, kept.after_seq) for kept in facts_kept(settings)] == [
        ([], kept.to_seq) for kept in before
    ]


class _Killed(Exception):
    """The backup was killed here."""


@pytest.mark.parametrize("nth", [1, 3, 6, 12])
def test_a_backup_that_was_cut_off_is_none(
    day: StoredDay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    calls = iter(range(1, 10_000))
    honest = backups.Writer.finish

    def finish(self: backups.Writer) -> Any:
        if next(calls) == nth:
            raise _Killed
        return honest(self)

    monkeypatch.setattr(backups.Writer, "finish", finish)
    with pytest.raises(_Killed):
        take(day.settings, tmp_path / "copy")
    with pytest.raises(CannotBackUp, match=f"no {MANIFEST}"):
        bring_back(tmp_path / "copy", tmp_path / "second")
    with pytest.raises(CannotBackUp, match="not empty"):
        take(day.settings, tmp_path / "copy")


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped": _flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "gone": Path.unlink,
}


@pytest.mark.parametrize("name", ["journal-0000.bin", "table-reservations.bin"])
@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_a_damaged_backup_is_refused_before_anything_is_written(
    day: StoredDay, tmp_path: Path, damage: str, name: str
) -> None:
    take(day.settings, tmp_path / "copy")
    DAMAGES[damage](tmp_path / "copy" / name)
    with pytest.raises(CannotBackUp, match=name):
        bring_back(tmp_path / "copy", tmp_path / "second")
    assert list((tmp_path / "second" / "data").iterdir()) == []


def test_a_manifest_that_lacks_a_file_is_refused(day: StoredDay, tmp_path: Path) -> None:
    take(day.settings, tmp_path / "copy")
    path = tmp_path / "copy" / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["files"] = [f for f in manifest["files"] if f["name"] != "journal-0001.bin"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(CannotBackUp, match=r"names no journal-0001\.bin"):
        bring_back(tmp_path / "copy", tmp_path / "second")
    path.write_text(json.dumps(manifest | {"format": 2}))
    with pytest.raises(CannotBackUp, match="format 2"):
        bring_back(tmp_path / "copy", tmp_path / "third")


def test_stores_that_hold_something_are_not_restored_to(day: StoredDay, tmp_path: Path) -> None:
    take(day.settings, tmp_path / "copy")
    restore = Restore(day.settings, tmp_path / "copy", lambda _: None)
    with pytest.raises(CannotBackUp, match="holds a cluster"):
        restore.run()
    shutil.rmtree(day.settings.data_dir / "journal")
    with pytest.raises(CannotBackUp, match=r"its table \w+ has rows"):
        restore.run()


def test_a_restore_that_was_cut_off_is_never_started(
    day: StoredDay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(day.settings, tmp_path / "copy")

    def killed(*_: object) -> None:
        raise _Killed

    monkeypatch.setattr(Restore, "_journal", killed)
    settings = settings_in(tmp_path / "second")
    settings.data_dir.mkdir(parents=True)
    with pytest.raises(_Killed):
        Restore(settings, tmp_path / "copy", lambda _: None).run()
    monkeypatch.undo()
    with pytest.raises(CannotStart, match="did not come to its end"):
        prepare(settings, pytest.fail)
    with pytest.raises(CannotBackUp, match="did not come to its end"):
        Restore(settings, tmp_path / "copy", lambda _: None).run()


class _Selling(SqliteJournal):
    """A journal that grows while it is read: each read is followed by a transfer between the
    shards, decided and stored in three steps, one a read."""

    steps: list[tuple[int, bytes]]

    def read(self, shard: int, *, after_seq: int, max_bytes: int) -> Any:
        found = super().read(shard, after_seq=after_seq, max_bytes=max_bytes)
        if self.steps:
            at, entry = self.steps.pop(0)
            meta = self.read_meta(at)
            self.append(
                at,
                incarnation=meta.incarnation,
                epoch=1,
                seq=meta.last_seq + 1,
                batch_id=f"s:{meta.last_seq + 1}",
                entry=entry,
            )
        return found


@pytest.mark.parametrize("seed", range(6))
def test_a_backup_of_a_live_cluster_holds_no_half_of_a_transfer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """The rest of the day is decided while the backup reads, an entry with each read."""
    settings = settings_in(tmp_path / "first")
    day = StoredDay(settings, 200 + seed, steps=160)
    rest = _keep_part(day, settings, len(day.shop.journal) // 2)
    day.project([min(5, n) for n in _lengths(settings)])

    def opened(url: str) -> Journal:
        journal = _Selling(url.removeprefix("sqlite:"))
        journal.steps = rest
        return journal

    monkeypatch.setattr(backups, "open_journal", opened)
    before = len(rest)
    take(settings, tmp_path / "copy")
    assert len(rest) < before, "nothing was decided meanwhile"
    _, report = bring_back(tmp_path / "copy", tmp_path / "second")
    assert report.ok, report.as_data()["invariants"]


def _lengths(settings: Settings) -> list[int]:
    with closing(open_journal(settings.journal_url)) as journal:
        return [journal.read_meta(shard).last_seq for shard in range(SHARDS)]


def _keep_part(day: StoredDay, settings: Settings, count: int) -> list[tuple[int, bytes]]:
    """Take all but the first entries of the day out of the journals; answers them, in the order in
    which they were decided."""
    parts = [split([entry], STOCK_SHARDS) for entry in day.shop.journal]
    rest = [
        (shard, entry)
        for part in parts[count:]
        for shard, entries in enumerate(part)
        for entry in entries
    ]
    shutil.rmtree(settings.data_dir)
    day.map = prepare(settings, lambda _: None)
    with closing(open_journal(settings.journal_url)) as journal:
        for shard in range(STOCK_SHARDS):
            fields = {"incarnation": day.map.incarnation}
            journal.acquire(shard, **fields, seen_epoch=0, token="t")
            entries = [entry for part in parts[:count] for entry in part[shard]]
            day.entries[shard] = entries
            for seq, entry in enumerate(entries, 1):
                journal.append(shard, **fields, epoch=1, seq=seq, batch_id=f"t:{seq}", entry=entry)
    day.entries[STOCK_SHARDS:] = [[]]
    return rest


def test_entries_keep_their_epochs(tmp_path: Path) -> None:
    day = StoredDay(settings_in(tmp_path / "first"), 4)
    with closing(open_journal(day.settings.journal_url)) as journal:
        fields = {"incarnation": day.map.incarnation}
        journal.acquire(0, **fields, seen_epoch=1, token="u")
        won = journal.acquire(0, **fields, seen_epoch=2, token="v")
        seq = len(day.entries[0]) + 1
        entry = pack_entry(epoch=won.epoch, now_ms=day.shop.now_ms, records=(), balances=())
        journal.append(0, **fields, epoch=won.epoch, seq=seq, batch_id="v:1", entry=entry)
    take(day.settings, tmp_path / "copy")
    settings, report = bring_back(tmp_path / "copy", tmp_path / "second")
    assert report.ok, report.as_data()["invariants"]
    with closing(open_journal(settings.journal_url)) as journal:
        assert journal.read_meta(0).epoch == 3

"""Before anything starts: a store that was wiped, cut or exchanged is found, and nothing starts."""

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from persistence.errors import OutcomeUnknown
from persistence.open import open_journal, open_sink
from persistence.sqlite import SqliteJournal
from server import bootstrap
from server.bootstrap import (
    CannotStart,
    DirectoryLock,
    ShardMap,
    read_map,
    release_quietly,
    require_free_port,
)
from server.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


def prepare(settings: Settings) -> ShardMap:
    """What `serve` does first; nothing here is worth a warning."""
    return bootstrap.prepare(settings, pytest.fail)


def changed(settings: Settings, **changes: Any) -> Settings:
    return settings.model_copy(update=changes)


def append(settings: Settings, made: ShardMap, count: int, shard: int = 0) -> None:
    """Some entries, by some owner."""
    journal = open_journal(settings.journal_url)
    meta = journal.read_meta(shard)
    fields = {"incarnation": made.incarnation}
    owned = journal.acquire(shard, **fields, seen_epoch=meta.epoch, token="t")
    for seq in range(meta.last_seq + 1, meta.last_seq + count + 1):
        journal.append(shard, **fields, epoch=owned.epoch, seq=seq, batch_id=f"t:{seq}", entry=b"x")
    journal.close()


def apply(settings: Settings, incarnation: str, seq: int, shard: int = 0) -> None:
    """SQL has applied entries up to `seq`."""
    sink = open_sink(settings.database_url)
    sink.apply(shard, incarnation=incarnation, from_seq=0, to_seq=seq, rows=[])
    sink.close()


def test_a_cluster_is_made_once_and_found_again(settings: Settings) -> None:
    made = prepare(settings)
    assert (made.stock_shards, made.account_shards) == (2, 1)
    assert len(made.slots_of) == 2048
    assert set(made.slots_of[:1024]) == {0, 1}
    assert set(made.slots_of[1024:]) == {2}
    append(settings, made, 3)
    again = prepare(settings)
    assert (again.incarnation, again.slots_of) == (made.incarnation, made.slots_of)
    journal = open_journal(settings.journal_url)
    assert read_map(journal) == again
    assert journal.read_meta(0).last_seq == 3
    journal.close()


def test_the_number_of_shards_is_chosen_once(settings: Settings) -> None:
    wanted = changed(settings, shards=5, account_shards=3)
    for one in (wanted, settings, wanted):
        made = prepare(one)
        assert (made.shards, made.stock_shards, made.account_shards) == (8, 5, 3)
    with pytest.raises(CannotStart, match=r"^shards: this cluster has 5"):
        prepare(changed(settings, shards=4))
    with pytest.raises(CannotStart, match=r"^account_shards: this cluster has 3"):
        prepare(changed(settings, account_shards=1))


def of_before_accounts(settings: Settings) -> ShardMap:
    """A cluster as a release before account shards made it, with an entry in each journal."""
    journal = open_journal(settings.journal_url)
    slots_of = [slot % 2 for slot in range(1024)]
    fields = {"incarnation": "old", "slots_of": slots_of, "ready": True}
    journal.swap_map(expected_version=0, data=json.dumps(fields).encode())
    old = ShardMap(1, "old", tuple(slots_of))
    for shard in range(2):
        journal.create(shard, incarnation="old")
        journal.acquire(shard, incarnation="old", seen_epoch=0, token="t")
        journal.append(shard, incarnation="old", epoch=1, seq=1, batch_id="t:1", entry=b"x")
    journal.close()
    return old


def test_a_cluster_of_before_account_shards_gets_them(settings: Settings) -> None:
    old = of_before_accounts(settings)
    assert old.account_shards == 0
    made = prepare(settings)
    assert (made.stock_shards, made.account_shards) == (2, 1)
    assert made.slots_of[:1024] == old.slots_of
    assert made.incarnation == "old"
    assert prepare(settings) == made
    journal = open_journal(settings.journal_url)
    assert [journal.read_meta(shard).last_seq for shard in range(3)] == [1, 1, 0]
    journal.close()


def test_an_extension_that_was_cut_off_is_finished_and_makes_no_old_journal_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_before_accounts(settings)
    honest, made = SqliteJournal.create, []

    def cut(self: SqliteJournal, shard: int, *, incarnation: str) -> None:
        made.append(shard)
        if len(made) == 1:
            raise OutcomeUnknown("power cut")
        honest(self, shard, incarnation=incarnation)

    monkeypatch.setattr(SqliteJournal, "create", cut)
    with pytest.raises(CannotStart, match="power cut"):
        prepare(settings)
    assert prepare(settings).account_shards == 1
    assert made == [2, 2]


def test_a_wiped_store_is_noticed_before_it_is_extended(settings: Settings) -> None:
    of_before_accounts(settings)
    journal = open_journal(settings.journal_url)
    data = journal.read_map()[1]
    journal.close()
    shutil.rmtree(settings.data_dir)
    journal = open_journal(settings.journal_url)
    journal.swap_map(expected_version=0, data=data)
    journal.close()
    with pytest.raises(CannotStart, match="the journal of shard 0 is missing"):
        prepare(settings)


def test_a_first_start_that_was_interrupted_is_finished(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = SqliteJournal.create

    def cut(self: SqliteJournal, shard: int, *, incarnation: str) -> None:
        if shard == 1:
            raise OutcomeUnknown("power cut")
        honest(self, shard, incarnation=incarnation)

    with monkeypatch.context() as patch:
        patch.setattr(SqliteJournal, "create", cut)
        with pytest.raises(CannotStart, match="power cut") as raised:
            prepare(settings)
        assert raised.value.unreachable
    journal = open_journal(settings.journal_url)
    version, data = journal.read_map()
    assert not json.loads(data)["ready"]
    made = prepare(settings)
    assert made.incarnation == json.loads(data)["incarnation"]
    assert made.version == version + 1
    assert journal.read_meta(1).last_seq == 0
    journal.close()


def test_of_two_first_starts_at_once_both_find_one_cluster(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second writes its map just before the first does."""
    honest = bootstrap._make
    others: list[ShardMap] = []

    def late(settings: Settings, journal: Any) -> ShardMap:
        if not others:
            others.append(honest(settings, journal))
        return honest(settings, journal)

    monkeypatch.setattr(bootstrap, "_make", late)
    assert prepare(settings).incarnation == others[0].incarnation


def test_a_wiped_journal_is_found_by_what_sql_has_applied(settings: Settings) -> None:
    made = prepare(settings)
    append(settings, made, 4)
    apply(settings, made.incarnation, 4)
    shutil.rmtree(settings.data_dir / "journal")
    with pytest.raises(CannotStart, match="the journal store was wiped"):
        prepare(settings)
    with pytest.raises(CannotStart, match="another cluster"):
        prepare(changed(settings, accept_journal=True))


def test_one_shards_journal_that_is_gone_is_never_made_again(settings: Settings) -> None:
    made = prepare(settings)
    append(settings, made, 4, shard=1)
    for file in (settings.data_dir / "journal").glob("*0001*"):
        file.unlink()
    with pytest.raises(CannotStart, match="journal of shard 1 is missing"):
        prepare(settings)


def test_a_journal_that_ends_before_sql_starts_only_when_accepted(settings: Settings) -> None:
    made = prepare(settings)
    append(settings, made, 4)
    apply(settings, made.incarnation, 6)
    with pytest.raises(CannotStart, match="ends at entry 4, but the database has applied entry 6"):
        prepare(settings)
    assert prepare(changed(settings, accept_journal=True)).incarnation == made.incarnation


def test_a_database_of_another_cluster_is_refused(settings: Settings) -> None:
    prepare(settings)
    apply(settings, "another", 1, shard=1)
    with pytest.raises(CannotStart, match="shard 1 belong to another cluster"):
        prepare(settings)


def test_a_journal_without_a_cluster_is_said_so(settings: Settings) -> None:
    journal = open_journal(settings.journal_url)
    with pytest.raises(CannotStart, match="holds no cluster"):
        read_map(journal)
    journal.close()


def test_a_setting_that_no_store_understands_is_named(settings: Settings) -> None:
    with pytest.raises(CannotStart, match="journal: unknown scheme"):
        prepare(changed(settings, journal="kafka://secret@host"))
    with pytest.raises(CannotStart):
        prepare(changed(settings, database="oracle://host"))


def test_a_store_that_cannot_be_reached_is_said_so(settings: Settings) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = f"redis://127.0.0.1:{probe.getsockname()[1]}/0"
        with pytest.raises(CannotStart) as raised:
            prepare(changed(settings, journal=closed))
    assert raised.value.unreachable


def test_a_data_directory_belongs_to_one_server_at_a_time(settings: Settings) -> None:
    lock = DirectoryLock(settings)
    with pytest.raises(CannotStart, match="is in use by process"):
        DirectoryLock(settings)
    lock.release()
    second = DirectoryLock(settings)
    release_quietly(second)
    release_quietly(second)
    release_quietly(None)


def test_a_data_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(CannotStart, match=r"^data_dir: cannot use"):
        DirectoryLock(Settings(data_dir=file / "below"))


def test_a_port_in_use_is_found_and_port_0_is_chosen() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(CannotStart, match=rf"^listen: cannot listen on 127.0.0.1:{port}"):
            require_free_port(f"127.0.0.1:{port}")
    chosen = require_free_port("127.0.0.1:0")
    assert chosen.startswith("127.0.0.1:")
    assert int(chosen.rpartition(":")[2]) > 0


def test_a_stranger_that_shares_its_port_is_found_too() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(CannotStart):
            require_free_port(f"127.0.0.1:{other.getsockname()[1]}")


def test_a_host_that_does_not_exist_is_named() -> None:
    with pytest.raises(CannotStart, match=r"listen: cannot listen on 203\.0\.113\.1:7443"):
        require_free_port("203.0.113.1:7443")

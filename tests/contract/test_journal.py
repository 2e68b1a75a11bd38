"""The contract of the `Journal` port, over memory, SQLite and Redis."""

from collections.abc import Callable

import pytest

from persistence.errors import (
    Conflict,
    Fenced,
    JournalExists,
    Misconfigured,
    NoJournal,
    Trimmed,
)
from persistence.memory import MemoryJournal
from persistence.open import open_journal
from persistence.ports import Entry, Journal, Meta, Ownership
from persistence.redis import RedisJournal
from persistence.sqlite import SqliteJournal
from tests.contract.conftest import JournalStore

SHARD = 7
INC = "inc-1"


def acquire(journal: Journal, *, seen_epoch: int = 0, token: str = "first") -> int:
    won = journal.acquire(SHARD, incarnation=INC, seen_epoch=seen_epoch, token=token)
    assert won == Ownership(seen_epoch + 1, token)
    return won.epoch


def append(
    journal: Journal, seq: int, *, epoch: int = 1, batch_id: str = "", entry: bytes = b""
) -> None:
    journal.append(
        SHARD,
        incarnation=INC,
        epoch=epoch,
        seq=seq,
        batch_id=batch_id or f"batch-{seq}",
        entry=entry or f"entry-{seq}".encode(),
    )


def filled(journal: Journal, count: int) -> Journal:
    acquire(journal)
    for seq in range(1, count + 1):
        append(journal, seq)
    return journal


def sequences(journal: Journal, *, after_seq: int = 0) -> list[int]:
    return [e.seq for e in journal.read(SHARD, after_seq=after_seq, max_bytes=1 << 20)]


def test_a_new_journal_is_empty_and_unowned(journal: Journal) -> None:
    assert journal.read_meta(SHARD) == Meta(INC, 0, "", 0, 1)
    assert sequences(journal) == []
    assert journal.positions(SHARD) == {}
    assert journal.bytes_used(SHARD) == 0


def test_creating_again_changes_nothing_and_another_incarnation_is_refused(
    journal: Journal,
) -> None:
    filled(journal, 2)
    journal.create(SHARD, incarnation=INC)
    with pytest.raises(JournalExists, match=INC):
        journal.create(SHARD, incarnation="inc-2")
    assert journal.read_meta(SHARD) == Meta(INC, 1, "first", 2, 1)


def test_entries_come_back_in_order_and_as_they_were(store: JournalStore, journal: Journal) -> None:
    acquire(journal)
    binary = bytes(range(256)) * 40
    append(journal, 1, entry=binary)
    append(journal, 2, entry=b"second", batch_id="another")
    read = store.connect().read(SHARD, after_seq=0, max_bytes=1 << 20)
    assert list(read) == [
        Entry(1, 1, "batch-1", binary),
        Entry(2, 1, "another", b"second"),
    ]
    assert store.connect().read_meta(SHARD) == Meta(INC, 1, "first", 2, 1)


def test_shards_do_not_share_anything(journal: Journal) -> None:
    filled(journal, 2)
    journal.create(8, incarnation=INC)
    assert journal.read_meta(8) == Meta(INC, 0, "", 0, 1)
    journal.set_position(8, "reader", 5)
    assert journal.positions(SHARD) == {}


@pytest.mark.parametrize("seq", [0, 4, 5, 1])
def test_a_sequence_that_does_not_follow_is_a_conflict(journal: Journal, seq: int) -> None:
    filled(journal, 2)
    with pytest.raises(Conflict) as caught:
        append(journal, seq, batch_id="other")
    assert caught.value.last_seq == 2
    assert sequences(journal) == [1, 2]


def test_the_last_batch_resent_is_stored_once(store: JournalStore, journal: Journal) -> None:
    filled(journal, 2)
    append(store.connect(), 2)
    append(journal, 2)
    assert sequences(journal) == [1, 2]
    append(journal, 3)
    assert sequences(journal) == [1, 2, 3]


def test_the_same_sequence_with_another_batch_is_a_conflict(journal: Journal) -> None:
    filled(journal, 2)
    with pytest.raises(Conflict):
        append(journal, 2, batch_id="other")
    with pytest.raises(Conflict):
        append(journal, 1)
    assert journal.read(SHARD, after_seq=1, max_bytes=1)[0].batch_id == "batch-2"


def test_the_last_batch_is_known_again_although_it_was_trimmed(journal: Journal) -> None:
    filled(journal, 2)
    journal.trim(SHARD, before_seq=3, max_entries=10)
    append(journal, 2)
    assert journal.read_meta(SHARD).last_seq == 2
    with pytest.raises(Conflict):
        append(journal, 2, batch_id="other")


def test_an_empty_journal_has_no_last_batch_to_resend(journal: Journal) -> None:
    acquire(journal)
    with pytest.raises(Conflict):
        journal.append(SHARD, incarnation=INC, epoch=1, seq=0, batch_id="", entry=b"x")


def test_a_fenced_writer_cannot_append_and_writes_nothing(
    store: JournalStore, journal: Journal
) -> None:
    filled(journal, 2)
    acquire(store.connect(), seen_epoch=1, token="second")
    for seq in (2, 3):
        with pytest.raises(Fenced) as caught:
            append(journal, seq)
        assert (caught.value.epoch, caught.value.owner) == (2, "second")
    assert journal.read_meta(SHARD) == Meta(INC, 2, "second", 2, 1)
    append(journal, 3, epoch=2)
    assert [e.epoch for e in journal.read(SHARD, after_seq=0, max_bytes=1000)] == [1, 1, 2]


def test_an_epoch_from_the_future_is_fenced(journal: Journal) -> None:
    filled(journal, 1)
    with pytest.raises(Fenced):
        append(journal, 2, epoch=2)


def test_nobody_appends_before_somebody_acquired(journal: Journal) -> None:
    with pytest.raises(Fenced):
        append(journal, 1)


def test_the_loser_of_an_acquire_sees_the_winner_and_changes_nothing(
    store: JournalStore, journal: Journal
) -> None:
    acquire(journal, token="winner")
    rival = store.connect()
    lost = rival.acquire(SHARD, incarnation=INC, seen_epoch=0, token="loser")
    assert lost == Ownership(1, "winner")
    assert journal.read_meta(SHARD)[:3] == (INC, 1, "winner")
    append(journal, 1)


def test_an_acquire_resent_answers_as_the_first_one_did(
    store: JournalStore, journal: Journal
) -> None:
    acquire(journal, token="mine")
    acquire(store.connect(), token="mine")
    assert journal.read_meta(SHARD).epoch == 1
    acquire(journal, seen_epoch=1, token="next")
    late = journal.acquire(SHARD, incarnation=INC, seen_epoch=0, token="mine")
    assert late == Ownership(2, "next")


def test_an_acquire_that_saw_a_future_epoch_changes_nothing(journal: Journal) -> None:
    answer = journal.acquire(SHARD, incarnation=INC, seen_epoch=5, token="confused")
    assert answer == Ownership(0, "")


def test_a_check_passes_for_the_owner_alone(store: JournalStore, journal: Journal) -> None:
    acquire(journal)
    journal.check(SHARD, incarnation=INC, epoch=1)
    acquire(store.connect(), seen_epoch=1, token="second")
    with pytest.raises(Fenced) as caught:
        journal.check(SHARD, incarnation=INC, epoch=1)
    assert (caught.value.epoch, caught.value.owner) == (2, "second")


def every_call(journal: Journal, shard: int, incarnation: str) -> dict[str, Callable[[], object]]:
    return {
        "acquire": lambda: journal.acquire(shard, incarnation=incarnation, seen_epoch=0, token="x"),
        "append": lambda: journal.append(
            shard, incarnation=incarnation, epoch=1, seq=1, batch_id="b", entry=b"e"
        ),
        "check": lambda: journal.check(shard, incarnation=incarnation, epoch=1),
        "read_meta": lambda: journal.read_meta(shard),
        "read": lambda: journal.read(shard, after_seq=0, max_bytes=1),
        "positions": lambda: journal.positions(shard),
        "set_position": lambda: journal.set_position(shard, "reader", 1),
        "trim": lambda: journal.trim(shard, before_seq=1, max_entries=1),
        "bytes_used": lambda: journal.bytes_used(shard),
    }


@pytest.mark.parametrize("name", sorted(every_call(MemoryJournal(), 9, "")))
def test_a_journal_that_was_never_made_is_missing(journal: Journal, name: str) -> None:
    with pytest.raises(NoJournal):
        every_call(journal, 9, INC)[name]()


@pytest.mark.parametrize("name", ["acquire", "append", "check"])
def test_another_incarnation_is_a_missing_journal(journal: Journal, name: str) -> None:
    filled(journal, 1)
    with pytest.raises(NoJournal, match=INC):
        every_call(journal, SHARD, "inc-2")[name]()
    assert journal.read_meta(SHARD) == Meta(INC, 1, "first", 1, 1)


@pytest.mark.parametrize("name", ["append", "check", "read_meta"])
def test_a_journal_wiped_under_its_owner_is_missing(
    store: JournalStore, journal: Journal, name: str
) -> None:
    filled(journal, 1)
    store.wipe(SHARD)
    with pytest.raises(NoJournal):
        every_call(journal, SHARD, INC)[name]()


def test_positions_of_a_wiped_journal_do_not_come_back(
    store: JournalStore, journal: Journal
) -> None:
    journal.set_position(SHARD, "sink", 50)
    store.wipe(SHARD)
    journal.create(SHARD, incarnation="inc-2")
    assert journal.positions(SHARD) == {}


def test_a_read_is_bounded_but_never_empty_while_there_is_more(journal: Journal) -> None:
    acquire(journal)
    for seq in range(1, 31):
        append(journal, seq, entry=b"x" * 100)
    assert [e.seq for e in journal.read(SHARD, after_seq=3, max_bytes=1)] == [4]
    assert [e.seq for e in journal.read(SHARD, after_seq=3, max_bytes=250)] == [4, 5]
    assert [e.seq for e in journal.read(SHARD, after_seq=0, max_bytes=2500)] == list(range(1, 26))
    assert sequences(journal, after_seq=3) == list(range(4, 31))
    assert sequences(journal, after_seq=30) == []
    assert sequences(journal, after_seq=99) == []


def test_trimmed_entries_are_reported_never_skipped(journal: Journal) -> None:
    filled(journal, 10)
    assert journal.trim(SHARD, before_seq=6, max_entries=100) == 5
    with pytest.raises(Trimmed) as caught:
        journal.read(SHARD, after_seq=4, max_bytes=100)
    assert caught.value.first_seq == 6
    assert sequences(journal, after_seq=5) == [6, 7, 8, 9, 10]
    assert journal.read_meta(SHARD)[3:] == (10, 6)


def test_trimming_goes_in_slices_oldest_first(journal: Journal) -> None:
    filled(journal, 10)
    assert journal.trim(SHARD, before_seq=9, max_entries=3) == 3
    assert journal.read_meta(SHARD).first_seq == 4
    assert journal.trim(SHARD, before_seq=9, max_entries=0) == 0
    assert journal.trim(SHARD, before_seq=9, max_entries=30) == 5
    assert journal.trim(SHARD, before_seq=9, max_entries=30) == 0
    assert sequences(journal, after_seq=8) == [9, 10]


def test_a_journal_trimmed_to_nothing_keeps_its_last_sequence(
    store: JournalStore, journal: Journal
) -> None:
    filled(journal, 3)
    assert journal.trim(SHARD, before_seq=1000, max_entries=1000) == 3
    assert store.connect().read_meta(SHARD) == Meta(INC, 1, "first", 3, 4)
    with pytest.raises(Trimmed) as caught:
        journal.read(SHARD, after_seq=0, max_bytes=100)
    assert caught.value.first_seq == 4
    with pytest.raises(Conflict):
        append(journal, 1, batch_id="again")
    append(journal, 4)
    assert sequences(journal, after_seq=3) == [4]


def test_bytes_used_follows_appends_and_trims(journal: Journal) -> None:
    acquire(journal)
    for seq in range(1, 11):
        append(journal, seq, entry=b"x" * 1000 * seq)
    append(journal, 10, entry=b"x" * 10_000)
    assert journal.bytes_used(SHARD) == pytest.approx(55_000, rel=0.1)
    journal.trim(SHARD, before_seq=10, max_entries=100)
    assert journal.bytes_used(SHARD) == pytest.approx(10_000, rel=0.1)
    journal.trim(SHARD, before_seq=11, max_entries=100)
    assert journal.bytes_used(SHARD) == 0


def test_a_position_only_rises(store: JournalStore, journal: Journal) -> None:
    journal.set_position(SHARD, "sink", 5)
    journal.set_position(SHARD, "relay", 3)
    journal.set_position(SHARD, "sink", 4)
    store.connect().set_position(SHARD, "relay", 12)
    assert journal.positions(SHARD) == {"sink": 5, "relay": 12}


def test_the_map_is_swapped_by_whoever_saw_the_newest(store: JournalStore) -> None:
    mine, other = store.connect(), store.connect()
    assert mine.read_map() == (0, b"")
    assert mine.swap_map(expected_version=0, data=b"one")
    assert not other.swap_map(expected_version=0, data=b"rival")
    assert not other.swap_map(expected_version=2, data=b"future")
    assert other.read_map() == (1, b"one")
    assert other.swap_map(expected_version=1, data=b"\x00two")
    assert mine.read_map() == (2, b"\x00two")


def start_over(
    journal: Journal, *, replaces: str = INC, last_seq: int = 40, epoch: int = 0
) -> None:
    journal.start_over(
        SHARD, incarnation="inc-2", replaces=replaces, last_seq=last_seq, epoch=epoch
    )


def test_a_journal_that_starts_over_is_empty_and_goes_on_after_the_sequence_it_was_given(
    store: JournalStore, journal: Journal
) -> None:
    filled(journal, 3)
    journal.set_position(SHARD, "sink", 2)
    start_over(journal)
    other = store.connect()
    assert other.read_meta(SHARD) == Meta("inc-2", 0, "", 40, 41)
    assert other.positions(SHARD) == {}
    assert other.bytes_used(SHARD) == 0
    assert sequences(other, after_seq=40) == []
    with pytest.raises(Trimmed):
        sequences(other, after_seq=39)
    won = other.acquire(SHARD, incarnation="inc-2", seen_epoch=0, token="new")
    for seq in (41, 42):
        fields = {"incarnation": "inc-2", "epoch": won.epoch, "batch_id": f"b{seq}"}
        other.append(SHARD, **fields, seq=seq, entry=b"later")
    assert sequences(journal, after_seq=40) == [41, 42]
    assert journal.read_meta(SHARD) == Meta("inc-2", 1, "new", 42, 41)
    assert journal.bytes_used(SHARD) == 10


def test_who_owned_the_journal_before_it_started_over_meets_none(
    store: JournalStore, journal: Journal
) -> None:
    filled(journal, 3)
    start_over(store.connect(), last_seq=3)
    with pytest.raises(NoJournal):
        append(journal, 4)
    with pytest.raises(NoJournal):
        journal.check(SHARD, incarnation=INC, epoch=1)
    with pytest.raises(NoJournal):
        acquire(journal, seen_epoch=1)
    assert store.connect().read_meta(SHARD).last_seq == 3


def test_starting_over_takes_the_place_of_a_known_journal_or_of_none(
    store: JournalStore, journal: Journal
) -> None:
    filled(journal, 3)
    with pytest.raises(JournalExists, match=INC):
        start_over(journal, replaces="inc-0")
    with pytest.raises(JournalExists, match=INC):
        start_over(journal, replaces="")
    assert sequences(journal) == [1, 2, 3]
    store.wipe(SHARD)
    start_over(store.connect(), last_seq=0)
    assert store.connect().read_meta(SHARD) == Meta("inc-2", 0, "", 0, 1)


def test_starting_over_again_changes_nothing(journal: Journal) -> None:
    start_over(journal, epoch=6)
    won = journal.acquire(SHARD, incarnation="inc-2", seen_epoch=6, token="new")
    assert won == Ownership(7, "new")
    journal.append(SHARD, incarnation="inc-2", epoch=7, seq=41, batch_id="b41", entry=b"kept")
    start_over(journal, last_seq=99)
    assert journal.read_meta(SHARD) == Meta("inc-2", 7, "new", 41, 41)
    assert journal.read(SHARD, after_seq=40, max_bytes=1)[0].data == b"kept"


def test_a_closed_journal_may_be_closed_again(store: JournalStore, journal: Journal) -> None:
    filled(journal, 1)
    journal.close()
    journal.close()
    assert store.connect().read_meta(SHARD).last_seq == 1


def test_settings_that_keep_acks_are_accepted(journal: Journal) -> None:
    assert all(isinstance(warning, str) for warning in journal.verify_settings())


def test_a_url_names_the_adapter() -> None:
    assert isinstance(open_journal("memory:"), MemoryJournal)
    assert isinstance(open_journal("sqlite:/var/lib/stockray"), SqliteJournal)
    assert isinstance(open_journal("redis://127.0.0.1:6379/0"), RedisJournal)


@pytest.mark.parametrize("url", ["mysql://x", "sqlite:relative", "", "sqlite://host/dir", "memory"])
def test_a_wrong_url_names_the_setting_and_what_it_may_be(url: str) -> None:
    with pytest.raises(Misconfigured, match=r"journal: .*sqlite:/absolute/directory"):
        open_journal(url)


def test_a_wrong_url_does_not_give_its_password_away() -> None:
    with pytest.raises(Misconfigured) as caught:
        open_journal("rediss+srv://user:hunter2@host")
    assert "hunter2" not in str(caught.value)

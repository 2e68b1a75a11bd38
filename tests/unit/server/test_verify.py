"""`verify` finds each thing that can be wrong, when it is made wrong on purpose."""

from pathlib import Path
from typing import Any

import pytest

from actors.core import records as r
from actors.core import state as s
from actors.core.codec import pack_entry, unpack_entry
from actors.core.evolve import fold
from actors.core.identity import public_id, request_key, slot_of
from actors.core.snapshot import chunks, digest
from persistence.errors import StorageError
from persistence.memory import MemoryJournal, MemorySnapshots
from server.verify import Ack, ReplicaClaim, Report
from tests.helpers.histories import (
    INCARNATION,
    Database,
    busy_day,
    journal_of,
    rewritten,
    rows_of,
    violated,
)
from tests.model.shop import Shop

SEED, STEPS = 29, 200


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("migrated") / "tables.db"


@pytest.fixture
def database(tmp_path: Path, migrated: Path) -> Database:
    """An empty, migrated one."""
    return Database(tmp_path, migrated)


@pytest.fixture(scope="module")
def shop() -> Shop:
    """A day of every kind of trouble that is none."""
    return busy_day(SEED, STEPS)


def state_at(entries: list[bytes], seq: int) -> s.ShardState:
    """The fold of the first `seq` entries."""
    state = s.ShardState()
    for number, data in enumerate(entries[:seq], 1):
        content = unpack_entry(data)
        fold(state, number, content.now_ms, content.records, content.balances)
    return state


def test_nothing_is_wrong_with_a_busy_day_and_everything_was_checked(
    shop: Shop, database: Database
) -> None:
    journal = journal_of(shop.journal)
    database.follow(journal)
    report = database.verify(journal)
    assert violated(report) == {}
    assert report.ok
    for name in ("I1", "I2", "I3", "I4", "I5", "I6"):
        assert report.invariants[name].checked > 0, name


def test_sql_may_lag_behind_the_journal(shop: Shop, database: Database) -> None:
    journal = journal_of(shop.journal)
    database.follow(journal, to_seq=len(shop.journal) // 2)
    assert violated(database.verify(journal)) == {}


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM reservations WHERE rowid = (SELECT max(rowid) FROM reservations)",
        "DELETE FROM pools WHERE campaign_id = 'sale'",
        "DELETE FROM refunds WHERE refund_id = (SELECT min(refund_id) FROM refunds)",
        "DELETE FROM payments WHERE state = 3",
        "UPDATE pools SET available = available + 1 WHERE campaign_id = ''",
        "UPDATE refunds SET amount_minor = amount_minor + 1",
        "UPDATE payments SET amount_minor = amount_minor + 1 WHERE state = 4",
        "UPDATE reservations SET state = 4 WHERE state = 2",
        "UPDATE reservations SET paid_minor = 1 WHERE state = 2",
        "UPDATE reservations SET buyer_id = 'eve'",
        "INSERT INTO dead_letters (shard, seq, idx, reason, record, at_ms)"
        " VALUES (0, 1, 0, 'why', x'', 0)",
        "UPDATE positions SET seq = seq - 9",
        "UPDATE positions SET seq = seq + 3",
        "UPDATE positions SET incarnation = 'another'",
    ],
)
def test_rows_that_are_not_the_journals_fold_are_found(
    damage: str, shop: Shop, database: Database
) -> None:
    journal = journal_of(shop.journal)
    database.follow(journal)
    rows_of(database, damage)
    assert set(violated(database.verify(journal))) == {"I5"}


def test_a_row_too_many_is_found(shop: Shop, database: Database) -> None:
    journal = journal_of(shop.journal)
    database.follow(journal)
    columns = [name for _, name, *_ in rows_of(database, "PRAGMA table_info(pools)")]
    source = ", ".join("'ghost'" if name == "sku_id" else name for name in columns)
    rows_of(database, f"INSERT INTO pools ({', '.join(columns)}) SELECT {source} FROM pools")
    found = violated(database.verify(journal))
    assert set(found) == {"I5"}
    assert "ghost" in found["I5"][0]


def test_a_record_that_is_journalled_twice_is_found(shop: Shop, database: Database) -> None:
    for kind, extra in ((r.STOCK_RESERVED, ()), (r.RESERVATION_CONFIRMED, ())):
        doubled: list[int] = []

        def double(seq: int, records: list[Any], kind: int = kind, doubled: Any = doubled) -> None:
            for record in records:
                if record.kind == kind and not doubled:
                    doubled.append(seq)
                    records.append(record)
                    return

        report = of_journal(database, rewritten(shop.journal, double))
        assert doubled
        assert "again" in violated(report)["I4"][0], extra


def test_a_document_that_is_journalled_twice_is_found(shop: Shop, database: Database) -> None:
    receipts = [
        record
        for data in shop.journal
        for record in unpack_entry(data).records
        if record.kind == r.STOCK_CHANGED
    ]

    def double(seq: int, records: list[Any]) -> None:
        if seq == len(shop.journal):
            records.append(receipts[0])

    report = of_journal(database, rewritten(shop.journal, double))
    assert "StockChanged" in violated(report)["I4"][0]


def test_one_request_id_in_two_slots_is_two_requests(database: Database) -> None:
    shop = Shop()
    for sku in ("tea", "cup"):
        shop.sku(sku)
        shop.receive(5, sku=sku)
    shop.open()
    for sku in ("tea", "cup"):
        shop.hold("same", sku=sku)
    shop.close()
    assert slot_of("tea") != slot_of("cup")
    assert violated(of_journal(database, shop.journal)) == {}


def of_journal(database: Database, entries: list[bytes]) -> Report:
    """What is found in a journal that nothing was projected from."""
    return database.verify(journal_of(entries))


def test_a_gap_in_the_journal_is_found(shop: Shop, database: Database) -> None:
    journal = journal_of(shop.journal)
    database.follow(journal)
    log = journal._logs[0]
    middle = len(log.entries) // 2
    kept = [entry for entry in log.entries if entry.seq != middle]
    log.entries.clear()
    log.entries.extend(kept)
    log.entries.appendleft(kept[0]._replace(seq=0))
    found = violated(database.verify(Gappy(journal)))
    assert f"gap before entry {middle + 1}" in found["I3"][0]


class Gappy(MemoryJournal):
    """Another's entries, however they are numbered."""

    def __init__(self, journal: MemoryJournal) -> None:
        super().__init__()
        self._logs = journal._logs

    def read_meta(self, shard: int) -> Any:
        return super().read_meta(shard)._replace(first_seq=1)

    def read(self, shard: int, *, after_seq: int, max_bytes: int) -> Any:
        return [entry for entry in self._logs[shard].entries if entry.seq > after_seq]


def test_an_epoch_that_goes_back_is_found(shop: Shop, database: Database) -> None:
    journal = journal_of(shop.journal)
    entries = journal._logs[0].entries
    entries[3] = entries[3]._replace(epoch=2)
    found = violated(database.verify(journal))
    assert any("of epoch 1, an older one" in example for example in found["I3"])


def test_an_entry_of_another_epochs_writer_is_found(shop: Shop, database: Database) -> None:
    journal = journal_of(shop.journal, epoch=2)
    assert "written by epoch 1" in violated(database.verify(journal))["I3"][0]


def test_an_entry_that_cannot_be_read_is_found(shop: Shop, database: Database) -> None:
    entries = [*shop.journal[:-1], b"\xc1"]
    assert "not an entry" in violated(of_journal(database, entries))["I1"][0]


def test_a_changed_balance_is_found(shop: Shop, database: Database) -> None:
    content = unpack_entry(shop.journal[-1])
    told = unpack_entry(shop.journal[5]).balances[0]
    lying = pack_entry(
        epoch=1,
        now_ms=content.now_ms,
        records=content.records,
        balances=[told._replace(available=told.available + 1)],
    )
    found = violated(of_journal(database, [*shop.journal[:-1], lying]))
    assert "the entry says" in found["I1"][0]


def test_a_lost_entry_at_the_end_is_a_lost_acknowledgement(shop: Shop, database: Database) -> None:
    last = max(
        (seq, record)
        for seq, data in enumerate(shop.journal, 1)
        for record in unpack_entry(data).records
        if record.kind == r.STOCK_RESERVED
    )
    seq, record = last
    ack = Ack(record.slot, record.key, True, record.request_id)
    whole = database.verify(journal_of(shop.journal), acks=(ack,))
    assert violated(whole) == {}
    cut = database.verify(journal_of(shop.journal[: seq - 1]), acks=(ack,))
    assert f"acknowledged and lost: {record.request_id}" in violated(cut)["I2"]


def test_a_refused_request_that_was_done_is_found(shop: Shop, database: Database) -> None:
    slot = slot_of("tea")
    key = next(iter(shop.state.slot(slot).reservations.items()))[0]
    acks = (
        Ack(slot, key, False, "phantom"),
        Ack(slot, request_key("web", "never"), False, "never"),
    )
    found = violated(database.verify(journal_of(shop.journal), acks=acks))
    assert found == {"I2": ["refused and yet done: phantom"]}


def test_a_replica_that_differs_in_memory_is_found(shop: Shop, database: Database) -> None:
    journal = journal_of(shop.journal)
    half = len(shop.journal) // 2
    state = state_at(shop.journal, half)
    balances = [
        pool.balance(slot.slot, slot.generation)
        for slot in state.slots.values()
        for pool in slot.pools()
    ]

    def claim(mark: int, told: list[r.Balance]) -> tuple[ReplicaClaim, ...]:
        return (claim_of("b", half, f"{mark:016x}", told),)

    honest = database.verify(journal, claims=claim(digest(state), balances))
    assert violated(honest) == {}
    wrong = database.verify(journal, claims=claim(digest(state) ^ 1, balances))
    assert set(violated(wrong)) == {"I2"}
    lie = [balances[0]._replace(available=99), *balances[1:]]
    wrong = database.verify(journal, claims=claim(digest(state), lie))
    assert set(violated(wrong)) == {"I1"}


def claim_of(name: str, seq: int, mark: str, told: list[r.Balance]) -> ReplicaClaim:
    """A claim of shard 0; fields that a later release added are left as they are."""
    fields: dict[str, Any] = {
        "shard": 0,
        "name": name,
        "seq": seq,
        "digest": mark,
        "balances": told,
    }
    return ReplicaClaim(**fields)


def test_money_that_is_owed_twice_is_found(shop: Shop, database: Database) -> None:
    """A refund of the whole payment whose amount is another one."""
    changed: list[int] = []

    def overpay(seq: int, records: list[Any]) -> None:
        for index, record in enumerate(records):
            if record.kind == r.UNITS_RETURNED and record.refund_minor and not changed:
                changed.append(seq)
                records[index] = record._replace(refund_minor=record.refund_minor * 100)

    found = violated(of_journal(database, rewritten(shop.journal, overpay)))
    assert changed
    assert "I6" in found


@pytest.mark.parametrize("arrived", [True, False])
def test_a_transfer_whose_ends_disagree_is_found(arrived: bool, database: Database) -> None:
    shop = Shop()
    shop.open_sale(9)
    shop.receive(5, "more")
    _, key, *_ = shop.leave(1, "there")
    if not arrived:
        shop.arrive(key, 0)
    shop.settle(key, arrived)
    found = violated(of_journal(database, shop.journal))
    assert any("its source says" in example for example in found["I1"])


def snapshot_of(entries: list[bytes], snapshots: MemorySnapshots, seq: int) -> None:
    """Publish a snapshot of the fold at `seq`."""
    handle = snapshots.begin(0, incarnation=INCARNATION, begin_seq=seq)
    for index, chunk in enumerate(chunks(state_at(entries, seq))):
        snapshots.write(0, handle, index, chunk)
    snapshots.publish(0, handle, end_seq=seq)


def test_a_trimmed_journal_is_verified_from_the_newest_snapshot_before_sql(
    shop: Shop, database: Database
) -> None:
    journal, snapshots = journal_of(shop.journal), MemorySnapshots()
    for seq in (20, 40):
        snapshot_of(shop.journal, snapshots, seq)
    database.follow(journal, to_seq=50)
    journal.trim(0, before_seq=21, max_entries=1_000)
    report = database.verify(journal, snapshots=snapshots)
    assert violated(report) == {}
    assert report.shards[0]["last_seq"] == len(shop.journal)
    assert "folded from the snapshot at 40" in report.notes[0]
    rows_of(database, "UPDATE pools SET sold = sold + 1")
    assert set(violated(database.verify(journal, snapshots=snapshots))) == {"I5"}


def test_units_that_went_home_while_a_snapshot_was_written_are_no_breach(
    database: Database,
) -> None:
    """Found by a soak: until the snapshot's end its pools are ahead of the entries between."""
    shop, snapshots = Shop(), MemorySnapshots()
    shop.open_sale(10)
    shop.reserve("r1", 1, "ann", sale="sale")
    begin_seq = len(shop.journal)
    shop.leave(9, "home", source="sale", target="")
    end_seq = len(shop.journal)
    shop.receive(1, "more")
    state = state_at(shop.journal, begin_seq)
    handle = snapshots.begin(0, incarnation=INCARNATION, begin_seq=begin_seq)
    for index, chunk in enumerate(chunks(state)):
        snapshots.write(0, handle, index, chunk)
        for seq, data in enumerate(shop.journal[state.seq : end_seq], state.seq + 1):
            content = unpack_entry(data)
            fold(state, seq, content.now_ms, content.records, content.balances)
    snapshots.publish(0, handle, end_seq=end_seq)
    journal = journal_of(shop.journal)
    database.follow(journal)
    journal.trim(0, before_seq=begin_seq + 1, max_entries=1_000)
    report = database.verify(journal, snapshots=snapshots)
    assert f"folded from the snapshot at {end_seq}" in report.notes[0]
    assert violated(report) == {}


def test_what_was_forgotten_before_the_snapshot_is_counted_and_not_compared(
    database: Database,
) -> None:
    shop = Shop()
    shop.sku()
    shop.receive(10)
    kept = shop.hold("r0")
    for number in (1, 2):
        shop.pay(shop.hold(f"r{number}"), f"p{number}")
    shop.wait(1_000)
    assert shop.forget(1_000, len(shop.journal))
    forgotten_at = len(shop.journal)
    shop.ship(public_id(slot_of("tea"), request_key("web", "r1")))
    shop.release(kept)
    journal, snapshots = journal_of(shop.journal), MemorySnapshots()
    database.follow(journal)
    whole = database.verify(journal)
    assert (violated(whole), whole.notes) == ({}, [])
    for seq in (forgotten_at, forgotten_at + 1):
        snapshot_of(shop.journal, snapshots, seq)
    journal.trim(0, before_seq=forgotten_at + 1, max_entries=1_000)
    key = request_key("web", "r2")
    ack = Ack(slot_of("tea"), key, True, "r2")
    report = database.verify(journal, snapshots=snapshots, acks=(ack,))
    assert violated(report) == {}
    notes = [note for note in report.notes if "left memory" in note]
    assert [note.split(" are")[0] for note in notes] == ["reservations: 1 rows", "payments: 1 rows"]


def test_a_row_that_came_back_otherwise_than_it_left_is_named(database: Database) -> None:
    shop = Shop()
    shop.sku()
    shop.receive(10)
    held = shop.hold()
    shop.pay(held)
    assert shop.forget(0, len(shop.journal))
    shop.ship(held)

    def change(_seq: int, records: list[Any]) -> None:
        for at, record in enumerate(records):
            if record.kind == r.RESERVATION_RECALLED:
                records[at] = record._replace(payable_minor=1)

    journal = journal_of(rewritten(shop.journal, change))
    database.follow(journal)
    found = violated(database.verify(journal))
    assert any("came back otherwise" in example for example in found["I5"])


def test_sql_that_stands_between_two_snapshots_is_compared_from_the_older_one(
    shop: Shop, database: Database
) -> None:
    journal, snapshots = journal_of(shop.journal), MemorySnapshots()
    for seq in (20, 40):
        snapshot_of(shop.journal, snapshots, seq)
    database.follow(journal, to_seq=30)
    journal.trim(0, before_seq=21, max_entries=1_000)
    report = database.verify(journal, snapshots=snapshots)
    assert violated(report) == {}
    assert "folded from the snapshot at 20" in report.notes[0]


def test_sql_that_stands_before_all_snapshots_is_not_compared_and_said_so(
    shop: Shop, database: Database
) -> None:
    journal, snapshots = journal_of(shop.journal), MemorySnapshots()
    for seq in (20, 40):
        snapshot_of(shop.journal, snapshots, seq)
    database.follow(journal, to_seq=10)
    journal.trim(0, before_seq=11, max_entries=1_000)
    report = database.verify(journal, snapshots=snapshots)
    assert violated(report) == {}
    assert any("not compared" in note for note in report.notes)


def test_a_damaged_snapshot_is_passed_over(shop: Shop, database: Database) -> None:
    journal, snapshots = journal_of(shop.journal), MemorySnapshots()
    for seq in (20, 40):
        snapshot_of(shop.journal, snapshots, seq)
    newest = snapshots.list(0)[0]
    handle = max(snapshots._shards[0])
    snapshots._shards[0][handle].chunks[0] = b"damaged"
    assert newest.begin_seq == 40
    database.follow(journal)
    journal.trim(0, before_seq=21, max_entries=1_000)
    report = database.verify(journal, snapshots=snapshots)
    assert violated(report) == {}
    assert any("folded from the snapshot at 20" in note for note in report.notes)


def test_a_journal_that_no_snapshot_joins_cannot_be_verified(
    shop: Shop, database: Database
) -> None:
    journal = journal_of(shop.journal)
    journal.trim(0, before_seq=11, max_entries=1_000)
    with pytest.raises(StorageError, match="begins at 11"):
        database.verify(journal)

"""Recovery, following, snapshots and trimming: never with less than what was acknowledged."""

import asyncio

from actors.rounds import RoundStatus
from actors.shard import Role
from persistence.errors import OutcomeUnknown
from tests.helpers.shells import Pair, running
from tests.helpers.virtual_time import in_virtual_time, until
from tests.unit.actors.selling import digest_of, primary_with_snapshots, sell


@in_virtual_time
async def test_a_snapshot_and_the_tail_are_the_replay_from_zero() -> None:
    async with running(Pair()) as pair:
        await primary_with_snapshots(pair)
        replayed = digest_of(pair, "b")
        pair.start("b")
        await pair.caught_up("b")
        assert pair["b"].shard.status()["snapshot_seq"] == 7
        assert digest_of(pair, "b") == replayed
        pair["a"].kill()
        await pair.promote("b")
        await sell(pair, "b", 9, 1)


@in_virtual_time
async def test_a_damaged_snapshot_is_passed_over_for_the_older_one() -> None:
    async with running(Pair()) as pair:
        await primary_with_snapshots(pair)
        before = digest_of(pair, "b")
        pair.damaged.add(7)
        replica = pair.start("b")
        await pair.caught_up("b")
        assert replica.shard.status()["snapshot_seq"] == 4
        assert digest_of(pair, "b") == before


@in_virtual_time
async def test_without_a_whole_snapshot_the_journal_is_replayed_from_its_first_entry() -> None:
    async with running(Pair()) as pair:
        await primary_with_snapshots(pair)
        before = digest_of(pair, "b")
        pair.snapshots.damage(0, 0)
        pair.start("b")
        await pair.caught_up("b")
        assert pair["b"].shard.status()["snapshot_seq"] == 0
        assert digest_of(pair, "b") == before


@in_virtual_time
async def test_a_trimmed_journal_without_a_whole_snapshot_halts_the_replica() -> None:
    async with running(Pair()) as pair:
        await primary_with_snapshots(pair)
        pair.journal.trim(0, before_seq=5, max_entries=100)
        pair.snapshots.damage(0, 0)
        replica = pair.start("b")
        await until(lambda: replica.role is Role.HALTED)
        assert "the journal begins at entry 5" in replica.shard.halt_reason
        assert (await pair.round("b", pair.reserve("x"))).status is RoundStatus.HALTED
        assert (await replica.shard.promote(1)).status == "not_ready"


@in_virtual_time
async def test_a_gap_between_snapshot_and_journal_halts_the_replica() -> None:
    async with running(Pair()) as pair:
        await primary_with_snapshots(pair)
        pair.journal.trim(0, before_seq=9, max_entries=100)
        replica = pair.start("b")
        await until(lambda: replica.role is Role.HALTED or replica.role is Role.STANDBY)
        assert replica.role is Role.HALTED
        assert "begins at entry 9" in replica.shard.halt_reason


@in_virtual_time
async def test_a_journal_shorter_than_the_snapshot_halts_until_it_is_put_back() -> None:
    async with running(Pair()) as pair:
        await primary_with_snapshots(pair)
        pair["a"].kill()
        entries = pair.entries()
        pair.journal.wipe(0)
        pair.journal.create(0, incarnation="first")
        pair.journal.acquire(0, incarnation="first", seen_epoch=0, token="restore")
        put_back(pair, entries[:3])
        replica = pair.start("b")
        await until(lambda: replica.role is Role.HALTED)
        assert "acknowledged entries are missing" in replica.shard.halt_reason
        put_back(pair, entries[3:])
        await pair.caught_up("b")
        assert replica.shard.halt_reason == ""


def put_back(pair: Pair, entries: object) -> None:
    """Append stored entries as they were."""
    for entry in entries:  # type: ignore[attr-defined]
        pair.journal.append(
            0,
            incarnation="first",
            epoch=1,
            seq=entry.seq,
            batch_id=entry.batch_id,
            entry=entry.data,
        )


@in_virtual_time
async def test_a_wiped_journal_halts_the_replica_that_starts_over_it() -> None:
    async with running(Pair()) as pair:
        await primary_with_snapshots(pair)
        pair["a"].kill()
        pair.journal.wipe(0)
        replica = pair.start("a")
        await until(lambda: replica.role is Role.HALTED)
        assert "no journal" in replica.shard.halt_reason
        assert (await pair.round("a", pair.reserve("x"))).status is RoundStatus.HALTED
        assert replica.alive, "a restart could come back with less"


@in_virtual_time
async def test_a_journal_wiped_under_a_standby_halts_it_until_it_is_back() -> None:
    async with running(Pair()) as pair:
        await pair.promote("a")
        await pair.stock_up("a")
        await pair.caught_up("b")
        kept = pair.entries()
        pair["a"].kill()
        pair.journal.wipe(0)
        await until(lambda: pair["b"].role is Role.HALTED)
        assert "no journal" in pair["b"].shard.halt_reason
        assert (await pair["b"].shard.promote(1)).status == "not_ready"
        pair.journal.create(0, incarnation="first")
        pair.journal.acquire(0, incarnation="first", seen_epoch=0, token="restore")
        put_back(pair, kept)
        await pair.promote("b")
        await sell(pair, "b", 0, 1)


@in_virtual_time
async def test_a_journal_of_another_cluster_under_a_standby_halts_it_for_good() -> None:
    async with running(Pair()) as pair:
        await pair.promote("a")
        await pair.stock_up("a")
        await pair.caught_up("b")
        pair.journal.wipe(0)
        await until(lambda: pair["b"].role is Role.HALTED)
        pair.journal.create(0, incarnation="second")
        await until(lambda: "second" in pair["b"].shard.halt_reason)
        assert pair["b"].role is Role.HALTED


@in_virtual_time
async def test_the_primary_of_a_wiped_journal_ends_and_answers_nothing() -> None:
    async with running(Pair(), "a") as pair:
        primary = await pair.promote("a")
        await pair.stock_up("a")
        pair.journal.wipe(0)
        answer = asyncio.ensure_future(primary.shard.round(pair.payload(pair.reserve("r1"))))
        await until(lambda: not primary.alive)
        assert not answer.done()
        answer.cancel()


@in_virtual_time
async def test_recovery_waits_for_a_store_that_does_not_answer() -> None:
    pair = Pair()
    pair.journal.create(0, incarnation="first")
    pair.journal.fail_next("read_meta", applied=False, error=OutcomeUnknown("cut"), count=5)
    async with running(pair, "a"):
        await asyncio.sleep(0.3)
        assert pair["a"].role is Role.RECOVERING
        await until(lambda: pair["a"].role is Role.STANDBY)


@in_virtual_time
async def test_a_follower_that_finds_the_journal_trimmed_reloads() -> None:
    async with running(Pair()) as pair:
        await primary_with_snapshots(pair)
        replica = pair["b"]
        let_go = replica.reader.hold("read")
        arrived = replica.reader.arrived["read"]
        await until(lambda: replica.reader.arrived["read"] > arrived)
        await sell(pair, "a", 9, 20)
        third = pair.start("c")
        await pair.caught_up("c")
        await third.shard.take_snapshot()
        third.kill()
        pair.journal.trim(0, before_seq=20, max_entries=100)
        let_go()
        await pair.caught_up("b")
        assert replica.alive
        assert replica.shard.status()["snapshot_seq"] == 30
        await sell(pair, "a", 29, 1)
        await pair.caught_up("b")


@in_virtual_time
async def test_an_entry_that_cannot_be_read_halts_the_follower() -> None:
    async with running(Pair()) as pair:
        await pair.promote("a")
        await pair.caught_up("b")
        pair["a"].kill()
        fields = {"incarnation": "first", "epoch": 1, "seq": 1, "batch_id": "x"}
        pair.journal.append(0, **fields, entry=b"\xc1")  # type: ignore[arg-type]
        await until(lambda: pair["b"].role is Role.HALTED)
        assert "entry 1" in pair["b"].shard.halt_reason


@in_virtual_time
async def test_a_wrong_order_of_epochs_inside_an_entry_halts_the_follower() -> None:
    async with running(Pair()) as pair:
        await pair.promote("a")
        await pair.stock_up("a")
        data = pair.entries()[0].data
        pair.journal.wipe(0)
        pair.journal.create(0, incarnation="first")
        pair.journal.acquire(0, incarnation="first", seen_epoch=0, token="x")
        pair.journal.acquire(0, incarnation="first", seen_epoch=1, token="y")
        fields = {"incarnation": "first", "epoch": 2, "seq": 1, "batch_id": "x"}
        pair.journal.append(0, **fields, entry=data)  # type: ignore[arg-type]
        replica = pair.start("b")
        await until(lambda: replica.role is Role.HALTED)
        assert "written by epoch 1, stored as 2" in replica.shard.halt_reason

"""Snapshots are taken while the folding goes on; the journal is trimmed no further than safe."""

import asyncio

import pytest

from actors.core import commands as c
from actors.core.identity import public_id, request_key
from actors.core.outcomes import Outcome
from persistence.errors import StorageError
from tests.helpers.shells import SLOT, Pair, limits, receive, running
from tests.helpers.virtual_time import in_virtual_time, until
from tests.unit.actors.selling import digest_of, primary_with_snapshots, sell


@in_virtual_time
async def test_a_snapshot_is_taken_while_the_folding_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actors.core.snapshot.ROWS_A_CHUNK", 2)
    async with running(Pair()) as pair:
        await pair.promote("a")
        await pair.stock_up("a", 100)
        await sell(pair, "a", 0, 10)
        await pair.caught_up("b")
        taking = asyncio.ensure_future(pair["b"].shard.take_snapshot())
        await until(lambda: pair["b"].snapshots.done["write"] == 2)
        await sell(pair, "a", 10, 10)
        await pair.do("a", receive(pair.clock.now_ms() + 5_000, 7, "more"))
        info = await taking
        assert info.begin_seq == 11
        assert info.end_seq > 11, "entries were folded meanwhile"
        await pair.caught_up("b")
        before = digest_of(pair, "b")
        pair.start("b")
        await pair.caught_up("b")
        assert digest_of(pair, "b") == before


@in_virtual_time
async def test_a_snapshot_is_due_after_so_many_entries() -> None:
    async with running(Pair(limits(snapshot_entries=500))) as pair:
        await pair.promote("a")
        await pair.stock_up("a", 1_000)
        await sell(pair, "a", 0, 498)
        await asyncio.sleep(1)
        assert not pair.snapshots.list(0)
        await sell(pair, "a", 498, 1)
        await until(lambda: pair.snapshots.list(0))


@in_virtual_time
async def test_a_snapshot_is_due_after_so_long_if_there_is_anything_new() -> None:
    async with running(Pair(limits(snapshot_every_ms=1_000))) as pair:
        await pair.promote("a")
        await asyncio.sleep(2)
        assert not pair.snapshots.list(0)
        await pair.stock_up("a")
        await until(lambda: pair.snapshots.list(0))


@in_virtual_time
async def test_who_asks_for_a_snapshot_of_a_standby_that_is_promoted_is_told() -> None:
    async with running(Pair()) as pair:
        await pair.promote("a")
        await pair.stock_up("a")
        await pair.caught_up("b")
        pair["b"].snapshots.hold("write")
        taking = asyncio.ensure_future(pair["b"].shard.take_snapshot())
        await until(lambda: pair["b"].snapshots.arrived["write"])
        await pair.promote("b")
        with pytest.raises(RuntimeError, match="promoted"):
            await taking
        with pytest.raises(RuntimeError, match="primary takes no snapshots"):
            await pair["b"].shard.take_snapshot()
        assert not pair.snapshots.list(0)


@in_virtual_time
async def test_a_snapshot_that_fails_while_nobody_waits_any_more_ends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(Pair()) as pair:
        await pair.promote("a")
        await pair.stock_up("a")
        await pair.caught_up("b")
        let_go = pair["b"].snapshots.hold("begin")
        taking = asyncio.ensure_future(pair["b"].shard.take_snapshot())
        await until(lambda: pair["b"].snapshots.arrived["begin"])
        taking.cancel()

        def full(*_: object, **__: object) -> str:
            raise StorageError("no space")

        with monkeypatch.context() as patch:
            patch.setattr(pair.snapshots, "begin", full)
            let_go()
            await asyncio.sleep(0.5)
        assert pair["b"].alive
        assert (await pair["b"].shard.take_snapshot()).end_seq == 1


@in_virtual_time
async def test_the_journal_is_trimmed_to_the_older_snapshot_and_no_further() -> None:
    async with running(Pair()) as pair:
        await primary_with_snapshots(pair)
        pair.journal.set_position(0, "sink", 9)
        await asyncio.sleep(1.5)
        assert pair.journal.read_meta(0).first_seq == 5
        assert max(pair[name].shard.status()["first_seq"] for name in "ab") == 5


@in_virtual_time
async def test_the_journal_is_never_trimmed_past_what_is_in_sql() -> None:
    async with running(Pair()) as pair:
        await primary_with_snapshots(pair)
        await asyncio.sleep(1.5)
        assert pair.journal.read_meta(0).first_seq == 1, "nothing is known to be in SQL"
        pair.journal.set_position(0, "sink", 2)
        await asyncio.sleep(1.5)
        assert pair.journal.read_meta(0).first_seq == 3


@in_virtual_time
async def test_a_late_reader_holds_a_part_of_the_journal_and_no_more() -> None:
    """It finds in SQL what is gone; the sale has no other journal."""
    size = limits(journal_bytes_max=20_000, snapshot_every_ms=1_000)
    async with running(Pair(size, late_readers=("relay",))) as pair:
        await pair.promote("a")
        await pair.stock_up("a", 10_000)
        await pair.caught_up("b")
        held_bytes_max = sold_count = 0
        while pair.journal.read_meta(0).first_seq == 1:
            assert [line[0] for line in await sold(pair, sold_count)] == [Outcome.RESERVED]
            sold_count += 1
            held_bytes_max = max(held_bytes_max, pair.journal.bytes_used(0))
            pair.journal.set_position(0, "sink", pair.journal.read_meta(0).last_seq)
            await asyncio.sleep(0.1)
        assert held_bytes_max > 20_000 * 0.25, "it was held for the late reader"
        for number in range(3 * sold_count):
            assert [line[0] for line in await sold(pair, -number - 1)] == [Outcome.RESERVED]
            pair.journal.set_position(0, "sink", pair.journal.read_meta(0).last_seq)
            await asyncio.sleep(0.1)
        first_seq = pair.journal.read_meta(0).first_seq
        passed = pair.journal.read_meta(0).last_seq - 3
        pair.journal.set_position(0, "relay", passed)
        await sell(pair, "a", 100_000, 2)
        await asyncio.sleep(5)
        assert first_seq < pair.journal.read_meta(0).first_seq == passed + 1


@in_virtual_time
async def test_what_may_be_forgotten_does_not_wait_for_a_late_reader() -> None:
    size = limits(recall_after_ms=0)
    async with running(Pair(size, late_readers=("relay",))) as pair:
        primary = await pair.promote("a")
        await pair.stock_up("a")
        held = public_id(SLOT, request_key("web", "r1"))
        confirm = c.Confirm(
            c.CONFIRM, SLOT, pair.clock.now_ms() + 5_000, "web", held, "p1", 100, "alipay"
        )
        await pair.do("a", pair.reserve("r1"), confirm)
        state = primary.shard.state
        assert state is not None
        assert len(state.slot(SLOT).reservations) == 1
        pair.journal.set_position(0, "sink", pair.journal.read_meta(0).last_seq)
        for _ in range(10):
            await asyncio.sleep(0.5)
            await pair.round("a")
        assert len(state.slot(SLOT).reservations) == 0


@in_virtual_time
async def test_one_snapshot_alone_trims_nothing() -> None:
    async with running(Pair()) as pair:
        await pair.promote("a")
        await pair.stock_up("a")
        await pair.caught_up("b")
        await pair["b"].shard.take_snapshot()
        pair.journal.set_position(0, "sink", 1)
        await asyncio.sleep(1.5)
        assert pair.journal.read_meta(0).first_seq == 1


@in_virtual_time
async def test_snapshots_of_another_cluster_trim_nothing() -> None:
    async with running(Pair()) as pair:
        handle = pair.snapshots.begin(0, incarnation="before", begin_seq=900)
        pair.snapshots.publish(0, handle, end_seq=900)
        await pair.promote("a")
        await pair.stock_up("a")
        await pair.caught_up("b")
        await pair["b"].shard.take_snapshot()
        await sell(pair, "a", 0, 5)
        pair.journal.set_position(0, "sink", 6)
        await asyncio.sleep(1.5)
        assert pair.journal.read_meta(0).first_seq == 1
        pair.start("b")
        await pair.caught_up("b")


@in_virtual_time
async def test_trimming_goes_in_slices() -> None:
    async with running(Pair(limits(trim_entries=2))) as pair:
        await primary_with_snapshots(pair)
        pair.journal.set_position(0, "sink", 9)
        await asyncio.sleep(1.5)
        slices = [f["max_entries"] for kind, f in pair["a"].reader.log if kind == "trim"]
        assert len(slices) >= 3
        assert set(slices) == {2}
        assert pair.journal.read_meta(0).first_seq == 5


@in_virtual_time
async def test_housekeeping_outlives_a_store_that_fails() -> None:
    async with running(Pair()) as pair:
        await primary_with_snapshots(pair)
        pair.journal.set_position(0, "sink", 9)
        pair.journal.fail_next("bytes_used", applied=False)
        await asyncio.sleep(2.5)
        assert pair.journal.read_meta(0).first_seq == 5


@in_virtual_time
async def test_a_snapshot_is_due_after_so_many_records_in_however_few_entries() -> None:
    async with running(Pair(limits(snapshot_records=50))) as pair:
        await pair.promote("a")
        await pair.stock_up("a", 1_000)
        lines = [pair.reserve(f"r{number}") for number in range(40)]
        await pair.do("a", *lines)
        await asyncio.sleep(1)
        assert not pair.snapshots.list(0)
        await pair.do("a", *[pair.reserve(f"s{number}") for number in range(40)])
        await until(lambda: pair.snapshots.list(0))


@in_virtual_time
async def test_a_standby_that_comes_back_to_a_full_journal_makes_room_in_it() -> None:
    """Found by the simulator: it took one snapshot and then, since nothing new could come, never
    the second, without which nothing is trimmed; so the journal stayed full for ever."""
    async with running(Pair(limits(journal_bytes_max=20_000, snapshot_every_ms=30_000))) as pair:
        await pair.promote("a")
        await pair.stock_up("a", 1_000)
        pair["b"].kill()
        number = 0
        while Outcome.RESERVED in [line[0] for line in await sold(pair, number)]:
            number += 1
            await asyncio.sleep(0.1)
        pair.start("b")
        await pair.caught_up("b")
        pair.journal.set_position(0, "sink", pair.journal.read_meta(0).last_seq)
        await until(lambda: pair.journal.read_meta(0).first_seq > 2, within_s=60)
        await asyncio.sleep(3)
        assert [line[0] for line in await sold(pair, number + 1)] == [Outcome.RESERVED]


async def sold(pair: Pair, number: int) -> tuple[tuple[object, ...], ...]:
    """What became of one more reservation."""
    return await pair.do("a", pair.reserve(f"more {number}"))

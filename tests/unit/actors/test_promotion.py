"""Who is primary: compare-and-raise, readiness, fencing."""

import asyncio

import pytest

from actors.core.outcomes import Outcome
from actors.rounds import RoundStatus
from actors.shard import PromoteStatus, Role
from persistence.errors import Fenced, Locked, NoJournal, OutcomeUnknown
from tests.helpers.shells import Pair, limits, running
from tests.helpers.virtual_time import in_virtual_time, ticks, until


@in_virtual_time
async def test_both_replicas_start_as_standby_and_neither_takes_rounds() -> None:
    async with running(Pair()) as pair:
        await until(lambda: pair["a"].role is pair["b"].role is Role.STANDBY)
        for name in ("a", "b"):
            answers = await pair.round(name, pair.reserve("r"))
            assert answers.status is RoundStatus.NOT_PRIMARY
        assert pair.journal.read_meta(0).epoch == 0


@in_virtual_time
async def test_of_two_promotions_of_one_epoch_exactly_one_wins() -> None:
    async with running(Pair()) as pair:
        await until(lambda: pair["a"].role is pair["b"].role is Role.STANDBY)
        first, second = await asyncio.gather(pair["a"].shard.promote(0), pair["b"].shard.promote(0))
        assert {first.status, second.status} == {PromoteStatus.OK, PromoteStatus.OTHER_EPOCH}
        assert first[1:] == second[1:], "both name the same epoch and owner"
        assert [i.role for i in pair.instances.values()].count(Role.PRIMARY) == 1


@in_virtual_time
async def test_the_loser_of_the_race_goes_on_following_and_can_win_the_next() -> None:
    async with running(Pair()) as pair:
        await until(lambda: pair["a"].role is pair["b"].role is Role.STANDBY)
        let_go = pair["b"].journal.hold("acquire")
        race = asyncio.ensure_future(pair["b"].shard.promote(0))
        await until(lambda: pair["b"].role is Role.PROMOTING)
        await pair.promote("a")
        await pair.stock_up("a", 3)
        let_go()
        assert (await race).status is PromoteStatus.OTHER_EPOCH
        await pair.caught_up("b")
        pair["a"].kill()
        await pair.promote("b")
        assert (await pair.do("b", pair.reserve("r")))[0][0] == Outcome.RESERVED


@in_virtual_time
async def test_a_stale_epoch_changes_nothing_and_names_the_owner() -> None:
    async with running(Pair()) as pair:
        owner = await pair.promote("a")
        await pair.caught_up("b")
        promotion = await pair["b"].shard.promote(0)
        assert promotion == (PromoteStatus.OTHER_EPOCH, 1, owner.shard.token)
        assert pair["b"].role is Role.STANDBY


@pytest.mark.parametrize("applied", [True, False])
@in_virtual_time
async def test_an_acquire_of_unknown_outcome_is_sent_again_as_it_was(applied: bool) -> None:
    async with running(Pair()) as pair:
        await until(lambda: pair["a"].role is Role.STANDBY)
        pair.journal.fail_next("acquire", applied=applied, count=3)
        promotion = await pair["a"].shard.promote(0)
        assert promotion == (PromoteStatus.OK, 1, pair["a"].shard.token)
        sent = [fields for kind, fields in pair["a"].journal.log if kind == "acquire"]
        assert len(sent) == 4
        assert all(fields == sent[0] for fields in sent)


@in_virtual_time
async def test_promoting_the_primary_again_answers_ok_and_raises_nothing() -> None:
    async with running(Pair()) as pair:
        await pair.promote("a")
        again = await pair["a"].shard.promote(1)
        assert (again.status, again.epoch) == (PromoteStatus.OK, 1)
        assert pair.journal.read_meta(0).epoch == 1


@in_virtual_time
async def test_a_recovering_replica_is_not_ready() -> None:
    async with running(Pair(), "a") as pair:
        await pair.promote("a")
        replica = pair.start("b")
        let_go = replica.reader.hold("read_meta")
        assert (await replica.shard.promote(1)).status is PromoteStatus.NOT_READY
        assert replica.role is Role.RECOVERING
        let_go()
        await until(lambda: replica.role is Role.STANDBY)
        assert (await replica.shard.promote(1)).status is PromoteStatus.OK


@in_virtual_time
async def test_a_standby_whose_ownership_read_is_slow_is_not_ready() -> None:
    async with running(Pair()) as pair:
        await pair.promote("a")
        await pair.caught_up("b")
        pair["b"].journal.delay_ms["read_meta"] = 101
        assert (await pair["b"].shard.promote(1)).status is PromoteStatus.NOT_READY
        assert pair.journal.read_meta(0).epoch == 1
        assert pair["b"].role is Role.STANDBY
        pair["b"].journal.delay_ms["read_meta"] = 40
        await asyncio.sleep(0.2)
        assert (await pair["b"].shard.promote(1)).status is PromoteStatus.OK


@in_virtual_time
async def test_a_standby_that_cannot_read_the_ownership_is_not_ready() -> None:
    async with running(Pair()) as pair:
        await pair.promote("a")
        await pair.caught_up("b")
        pair.journal.fail_next("read_meta", applied=False)
        assert (await pair["b"].shard.promote(1)).status is PromoteStatus.NOT_READY


@in_virtual_time
async def test_a_standby_that_lags_is_not_ready() -> None:
    async with running(Pair(limits(promote_lag_entries=3))) as pair:
        await pair.promote("a")
        await pair.caught_up("b")
        let_go = pair["b"].reader.hold("read")
        await pair.stock_up("a")
        for number in range(3):
            await pair.do("a", pair.reserve(f"r{number}"))
        assert (await pair["b"].shard.promote(1)).status is PromoteStatus.NOT_READY
        let_go()
        await pair.caught_up("b")
        assert (await pair["b"].shard.promote(1)).status is PromoteStatus.OK


@in_virtual_time
async def test_a_standby_with_a_small_lag_folds_the_rest_before_it_takes_rounds() -> None:
    async with running(Pair()) as pair:
        await pair.promote("a")
        await pair.caught_up("b")
        let_go = pair["b"].reader.hold("read")
        await pair.stock_up("a", 2)
        await pair.do("a", pair.reserve("r1"))
        promotion = asyncio.ensure_future(pair["b"].shard.promote(1))
        await until(lambda: pair["b"].role is Role.PROMOTING)
        assert (await pair.round("b", pair.reserve("r9"))).status is RoundStatus.NOT_PRIMARY
        let_go()
        assert (await promotion).status is PromoteStatus.OK
        first, second, third = await pair.do(
            "b", pair.reserve("r1"), pair.reserve("r2"), pair.reserve("r3")
        )
        assert [first[0], second[0], third[0]] == [
            Outcome.RESERVED,
            Outcome.RESERVED,
            Outcome.SOLD_OUT,
        ]


@in_virtual_time
async def test_a_promotion_in_flight_is_not_undone_by_the_follower() -> None:
    """The follower that finds nothing new says standby only of a replica that was recovering."""
    async with running(Pair()) as pair:
        await pair.promote("a")
        await pair.caught_up("b")
        let_read = pair["b"].reader.hold("read")
        arrived = pair["b"].reader.arrived["read"]
        await until(lambda: pair["b"].reader.arrived["read"] > arrived)
        let_acquire = pair["b"].journal.hold("acquire")
        promotion = asyncio.ensure_future(pair["b"].shard.promote(1))
        await until(lambda: pair["b"].role is Role.PROMOTING)
        let_read()
        await asyncio.sleep(0.1)
        assert pair["b"].role is Role.PROMOTING
        let_acquire()
        assert (await promotion).status is PromoteStatus.OK


@in_virtual_time
async def test_a_fenced_primary_ends_and_never_answers() -> None:
    async with running(Pair()) as pair:
        old = await pair.promote("a")
        await pair.stock_up("a", 1)
        await pair.caught_up("b")
        let_go = old.journal.hold("append", "check")
        lost = asyncio.ensure_future(old.shard.round(pair.payload(pair.reserve("r1"))))
        await until(lambda: old.journal.arrived["append"] == 2)
        await pair.promote("b")
        assert (await pair.do("b", pair.reserve("r2")))[0][0] == Outcome.RESERVED
        let_go()
        await until(lambda: not old.alive)
        assert isinstance(old.error, BaseExceptionGroup)
        assert old.error.subgroup(Fenced) is not None
        assert not lost.done()
        lost.cancel()
        assert (await pair.do("b", pair.reserve("r1")))[0][0] == Outcome.SOLD_OUT


@in_virtual_time
async def test_a_fenced_primary_answers_no_reads() -> None:
    async with running(Pair()) as pair:
        old = await pair.promote("a")
        await pair.stock_up("a", 1)
        await pair.promote("b")
        answer = asyncio.ensure_future(old.shard.round(pair.payload()))
        await until(lambda: not old.alive)
        assert not answer.done()
        answer.cancel()


@in_virtual_time
async def test_a_fenced_primary_that_nobody_calls_finds_out_by_itself_and_ends() -> None:
    """A primary that was paused: by the time it wakes up its gateways have left it for good."""
    async with running(Pair()) as pair:
        old = await pair.promote("a")
        await pair.stock_up("a", 1)
        await pair.promote("b")
        await until(lambda: not old.alive, within_s=5)
        assert isinstance(old.error, BaseExceptionGroup)
        assert old.error.subgroup(Fenced) is not None


@in_virtual_time
async def test_a_take_over_kills_the_process_that_keeps_the_journal_locked() -> None:
    async with running(Pair()) as pair:
        await pair.promote("a")
        await pair.caught_up("b")
        pair.journal.fail_next("acquire", applied=False, error=Locked("locked", "process of a-1"))
        assert (await pair["b"].shard.promote(1)).status is PromoteStatus.OK
        assert pair["b"].killed_owners == ["process of a-1"]


@in_virtual_time
async def test_an_acquire_that_can_never_succeed_ends_the_replica() -> None:
    async with running(Pair()) as pair:
        await until(lambda: pair["b"].role is Role.STANDBY)
        pair.journal.fail_next("acquire", applied=False, error=NoJournal("gone"))
        with pytest.raises(NoJournal):
            await pair["b"].shard.promote(0)
        await until(lambda: not pair["b"].alive)


@in_virtual_time
async def test_a_standby_never_takes_over_the_journal_of_another_cluster() -> None:
    async with running(Pair()) as pair:
        await pair.promote("a")
        await pair.stock_up("a")
        await pair.caught_up("b")
        pair["a"].kill()
        pair.journal.wipe(0)
        pair.journal.create(0, incarnation="second")
        pair.journal.acquire(0, incarnation="second", seen_epoch=0, token="x")
        assert (await pair["b"].shard.promote(1)).status is PromoteStatus.NOT_READY
        assert pair["b"].role is Role.HALTED
        assert "second" in pair["b"].shard.halt_reason
        assert pair.journal.read_meta(0).epoch == 1


@in_virtual_time
async def test_a_standby_that_finds_its_journal_gone_while_it_is_asked_to_take_over_does_not() -> (
    None
):
    """Found by the simulator (seed 1,001,641 of its day): the promotion went on from where it had
    waited, and was undone by the follower, which called a primary recovering; no round was taken
    from then on, and nobody else was promoted in the place of an owner that lives."""
    async with running(Pair()) as pair:
        await pair.promote("a")
        await pair.stock_up("a")
        await pair.caught_up("b")
        pair["a"].kill()
        let_go = pair["b"].journal.hold("read_meta")
        asked = asyncio.ensure_future(pair["b"].shard.promote(1))
        await asyncio.sleep(0)
        logs = dict(pair.journal._logs)
        pair.journal.wipe(0)
        await until(lambda: pair["b"].role is Role.HALTED, within_s=0.09)
        pair.journal._logs.update(logs)
        let_go()
        assert (await asked).status is PromoteStatus.NOT_READY
        await until(lambda: pair["b"].role is Role.STANDBY)
        await pair.promote("b")
        assert (await pair.do("b", pair.reserve("r1")))[0][0] == Outcome.RESERVED
        await asyncio.sleep(1)
        assert pair["b"].role is Role.PRIMARY


def put_back_without_the_end(pair: Pair) -> None:
    """The journal's store comes back as an older copy: its first entry alone."""
    kept = pair.entries()[:1]
    pair.journal.wipe(0)
    pair.journal.create(0, incarnation="first")
    pair.journal.acquire(0, incarnation="first", seen_epoch=0, token="x")
    for entry in kept:
        pair.journal.append(
            0,
            incarnation="first",
            epoch=1,
            seq=entry.seq,
            batch_id=entry.batch_id,
            entry=entry.data,
        )


@in_virtual_time
async def test_a_standby_whose_fold_is_beyond_the_journal_halts_and_raises_nothing() -> None:
    async with running(Pair()) as pair:
        await pair.promote("a")
        await pair.stock_up("a")
        await pair.do("a", pair.reserve("r1"))
        await pair.caught_up("b")
        pair["a"].kill()
        put_back_without_the_end(pair)
        promotion = await pair["b"].shard.promote(1)
        assert promotion.status is PromoteStatus.NOT_READY
        assert pair["b"].role is Role.HALTED
        assert "the journal ends at 1" in pair["b"].shard.halt_reason
        assert pair.journal.read_meta(0).epoch == 1
        answers = await pair.round("b", pair.reserve("r2"))
        assert answers.status is RoundStatus.HALTED


@in_virtual_time
async def test_an_older_copy_of_the_journal_is_not_served_from() -> None:
    """An instance that recovered from it knows no better; gateways do, by the answers they got.
    With the right journal back it goes on."""
    async with running(Pair()) as pair:
        await pair.promote("a")
        await pair.stock_up("a")
        seen = await pair.round("a", pair.reserve("r1"))
        assert seen.last_seq == 2
        pair["a"].kill()
        pair["b"].kill()
        right = dict(pair.journal._logs)
        put_back_without_the_end(pair)
        pair.start("b")
        await until(lambda: pair["b"].role is Role.STANDBY)
        promotion = await pair["b"].shard.promote(1, seen.last_seq)
        assert promotion.status is PromoteStatus.NOT_READY
        assert pair["b"].role is Role.HALTED
        assert "answers rest on entry 2" in pair["b"].shard.halt_reason
        pair.journal._logs.update(right)
        await until(lambda: pair["b"].role is Role.STANDBY)
        again = await pair["b"].shard.promote(1, seen.last_seq)
        assert again.status is PromoteStatus.OK
        assert (await pair.do("b", pair.reserve("r1")))[0] == seen.answers[0]


@in_virtual_time
async def test_a_promotion_waits_out_a_journal_that_does_not_answer() -> None:
    async with running(Pair()) as pair:
        await pair.promote("a")
        await pair.caught_up("b")
        pair.journal.fail_next("acquire", applied=True, error=OutcomeUnknown("cut"), count=50)
        promotion = await pair["b"].shard.promote(1)
        assert (promotion.status, promotion.epoch) == (PromoteStatus.OK, 2)
        await ticks()
        assert pair["b"].role is Role.PRIMARY

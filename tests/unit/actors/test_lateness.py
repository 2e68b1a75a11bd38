"""Rounds that were stuck on their way are held against their gateway's newest time."""

import asyncio

from actors.core.outcomes import Outcome
from actors.lateness import GATEWAYS_MAX, LATE_MS, SenderClocks
from actors.rounds import unpack_answers
from tests.helpers.shells import Pair, receive, running
from tests.helpers.virtual_time import in_virtual_time


@in_virtual_time
async def test_a_refusal_is_not_undone_by_a_copy_that_comes_when_it_is_forgotten() -> None:
    """Found by the simulator: the line's deadline was held against the time its round was sent, so
    a copy that was on its way for 40 s was decided anew, and granted."""
    async with running(Pair(), "a") as pair:
        await pair.promote("a")
        await pair.stock_up("a", 1)
        payload = pair.payload(pair.reserve("r1"), pair.reserve("r2"))
        answers = unpack_answers(await pair["a"].shard.round(payload)).answers
        assert [answer[0] for answer in answers] == [Outcome.RESERVED, Outcome.SOLD_OUT]
        for number in range(40):
            await asyncio.sleep(1)
            await pair.do("a", pair.reserve(f"other {number}"))
        await pair.do("a", receive(pair.clock.now_ms() + 5_000, 5, "more"))
        answers = unpack_answers(await pair["a"].shard.round(payload)).answers
        assert [answer[0] for answer in answers] == [Outcome.RETRY] * 2


@in_virtual_time
async def test_a_refusal_is_not_undone_by_a_round_that_was_stalled_until_it_is_forgotten() -> None:
    """One gateway's connection stood still with a line on it; the caller came again through another
    gateway and was told no. When the connection moved again, the silence before it was taken for
    the gateway's clock having gone back, and the line was decided anew, and granted."""
    async with running(Pair(), "a") as pair:
        await pair.promote("a")
        await pair.stock_up("a", 1)
        await pair.do("a", pair.reserve("r1"))
        line = pair.reserve("r2")
        stalled, other = pair.payload(line), pair.payload(line, gateway="other")
        refused = unpack_answers(await pair["a"].shard.round(other)).answers
        assert [answer[0] for answer in refused] == [Outcome.SOLD_OUT]
        await asyncio.sleep(40)
        late = receive(pair.clock.now_ms() + 5_000, 5, "more")
        await pair["a"].shard.round(pair.payload(late, gateway="other"))
        answers = unpack_answers(await pair["a"].shard.round(stalled)).answers
        assert [answer[0] for answer in answers] == [Outcome.RETRY]


def test_a_round_that_is_a_little_late_was_sent_when_it_says() -> None:
    clocks = SenderClocks()
    assert clocks.shown_ms("g", 50_000, 10.0) == 50_000
    assert clocks.shown_ms("g", 50_000 - LATE_MS + 500, 10.5) == 50_500 - LATE_MS


def test_a_late_round_is_held_against_the_time_of_its_gateways_newest() -> None:
    clocks = SenderClocks()
    clocks.shown_ms("g", 50_000, 10.0)
    assert clocks.shown_ms("g", 40_000, 10.5) == 50_500
    assert clocks.shown_ms("other", 40_000, 10.5) == 40_000, "another gateway has another clock"


def test_a_clock_that_went_back_is_followed_after_a_second() -> None:
    clocks = SenderClocks()
    clocks.shown_ms("g", 50_000, 10.0)
    assert clocks.shown_ms("g", 20_400, 10.4) == 50_400
    assert clocks.shown_ms("g", 21_300, 11.3) == 51_300
    assert clocks.shown_ms("g", 21_500, 11.5) == 21_500
    assert clocks.shown_ms("g", 21_600, 11.6) == 21_600


def test_rounds_that_come_at_once_after_a_silence_are_late_all_but_the_last() -> None:
    """A connection stood still for 20 s, or this process did: found by the simulator's author, who
    asked what a partition does that TCP survives."""
    clocks = SenderClocks()
    clocks.shown_ms("g", 50_000, 10.0)
    assert clocks.shown_ms("g", 50_200, 30.000) == 70_000
    assert clocks.shown_ms("g", 60_000, 30.001) == 70_001
    assert clocks.shown_ms("g", 70_000, 30.002) == 70_000


def test_a_clock_that_went_ahead_is_followed_at_once() -> None:
    clocks = SenderClocks()
    clocks.shown_ms("g", 50_000, 10.0)
    assert clocks.shown_ms("g", 9_050_000, 10.1) == 9_050_000
    assert clocks.shown_ms("g", 50_150, 10.15) == 9_050_050


def test_so_many_gateways_are_remembered_and_no_more() -> None:
    clocks = SenderClocks()
    for number in range(GATEWAYS_MAX + 10):
        clocks.shown_ms(f"g{number}", 50_000, 10.0)
    assert len(clocks._heard) == GATEWAYS_MAX
    assert clocks.shown_ms("g0", 10_000, 10.1) == 10_000, "the first was forgotten"

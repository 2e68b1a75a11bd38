"""The primary and time: expiry, the grace, a full journal, chores, and what it shows of itself."""

import asyncio
from typing import Any

from actors.clock import ShardTime
from actors.core import commands as c
from actors.core.campaign_config import CampaignConfig, CampaignLine
from actors.core.codec import unpack_entry
from actors.core.identity import public_id, request_key
from actors.core.outcomes import Outcome
from actors.core.records import REQUEST_REFUSED, RESERVATION_EXPIRED, STOCK_RESERVED
from tests.helpers.core_lines import FakeClock
from tests.helpers.shells import (
    SLOT,
    Pair,
    get_stock,
    limits,
    put_sku,
    receive,
    reserve,
    running,
)
from tests.helpers.virtual_time import in_virtual_time, until


def outcomes(answers: Any) -> list[Outcome]:
    """What became of each line."""
    return [Outcome(answer[0]) for answer in answers]


@in_virtual_time
async def test_a_wall_clock_that_jumps_is_not_followed() -> None:
    async with running(Pair(limits(expiry_grace_ms=0)), "a") as pair:
        await pair.promote("a")
        await pair.stock_up("a")
        held = (await pair.do("a", pair.reserve("r1")))[0]
        sent_ms = pair.clock.now_ms()
        pair.clock.jump_ms = 3_600_000
        line = c.GetReservation(
            c.GET_RESERVATION, SLOT, sent_ms + 5_000, "web", public_id(SLOT, held[1])
        )
        answers = await pair.round("a", line, sent_ms=sent_ms)
        assert answers.answers[0][1][6] == 1, "an hour later it would have expired"
        pair.clock.jump_ms = 4_000
        new = (await pair.round("a", pair.reserve("r2"), sent_ms=sent_ms + 1)).answers[0]
        assert new[6] - held[6] >= 4_000, "within 5 s it is followed"


def last_time(pair: Pair) -> int:
    """The time of the last entry."""
    return unpack_entry(pair.entries()[-1].data).now_ms


@in_virtual_time
async def test_a_gateways_clock_that_jumps_is_not_followed() -> None:
    """One gateway an hour ahead ended every campaign of a cluster for good."""
    async with running(Pair(limits(expiry_grace_ms=0)), "a") as pair:
        await pair.promote("a")
        await pair.stock_up("a")
        await pair.do("a", pair.reserve("r1"))
        for number in range(3):
            sent_ms = pair.clock.now_ms() + 3_600_000
            line = reserve(sent_ms + 5_000, f"ahead-{number}")
            await pair.round("a", line, sent_ms=sent_ms, gateway="ahead")
            await asyncio.sleep(0.2)
            assert abs(last_time(pair) - pair.clock.now_ms()) < 5_000


@in_virtual_time
async def test_a_new_primary_believes_the_earlier_of_two_clocks_that_differ() -> None:
    async with running(Pair(limits(expiry_grace_ms=0))) as pair:
        await pair.promote("a")
        await pair.stock_up("a")
        pair["a"].kill()
        sent_ms = pair.clock.now_ms()
        await pair.promote("b")
        line = reserve(sent_ms + 3_605_000, "ahead")
        await pair.round("b", line, sent_ms=sent_ms + 3_600_000, gateway="ahead")
        assert last_time(pair) - sent_ms < 5_000
        await asyncio.sleep(0.2)
        pair.clock.jump_ms = 3_600_000
        line = reserve(sent_ms + 5_000, "right")
        await pair.round("b", line, sent_ms=sent_ms, gateway="right")
        assert last_time(pair) - sent_ms < 5_000


def test_a_stuck_round_holds_time_back() -> None:
    """Seed 2341 of the simulator: time that ran on forgot a refusal before the round that repeated
    it was decided."""
    clock = FakeClock(1_000_000)
    time = ShardTime(clock)
    assert time.now_ms(1_000_000, 0.0) == 1_000_000
    clock.pass_ms(16_000)
    assert time.now_ms(1_000_100, 16.0) == 1_000_100


@in_virtual_time
async def test_time_never_goes_back_across_a_failover() -> None:
    async with running(Pair()) as pair:
        await pair.promote("a")
        await pair.stock_up("a")
        before = (await pair.do("a", pair.reserve("r1")))[0]
        pair["a"].kill()
        pair.clock.jump_ms = -4_000
        await pair.promote("b")
        after = (await pair.do("b", pair.reserve("r2")))[0]
        assert after[6] >= before[6]
        times = [unpack_entry(entry.data).now_ms for entry in pair.entries()]
        assert times == sorted(times)


@in_virtual_time
async def test_what_is_due_expires_only_after_the_grace_and_in_slices() -> None:
    pair = Pair(limits(expiry_grace_ms=2_000, expiries_a_round=3))
    async with running(pair) as pair:
        await pair.promote("a")
        soon = pair.clock.now_ms() + 5_000
        await pair.do("a", put_sku(soon, window_ms=1_000), receive(soon, 10))
        await pair.do("a", *[pair.reserve(f"r{number}") for number in range(10)])
        pair["a"].kill()
        await pair.promote("b")
        promoted_at = asyncio.get_running_loop().time()
        await asyncio.sleep(1.9)
        await pair.round("b")
        assert pair["b"].shard.state is not None
        assert len(pair.entries()) == 2, "the grace: confirms that wait come first"
        await asyncio.sleep(promoted_at + 2.001 - asyncio.get_running_loop().time())
        for _ in range(5):
            await pair.round("b")
        counts = [len(unpack_entry(entry.data).records) for entry in pair.entries()[2:]]
        assert counts == [3, 3, 3, 1]


@in_virtual_time
async def test_a_line_is_answered_before_what_is_due_is_looked_for_and_the_next_one_after() -> None:
    pair = Pair(limits(expiry_grace_ms=0, housekeeping_ms=60_000))
    async with running(pair, "a") as pair:
        primary = await pair.promote("a")
        soon = pair.clock.now_ms() + 5_000
        await pair.do("a", put_sku(soon, window_ms=1_000), receive(soon, 1))
        await pair.do("a", pair.reserve("r1"))
        await asyncio.sleep(1.5)
        primary.journal.delay_ms["append"] = 10
        assert outcomes(await pair.do("a", pair.reserve("r2"))) == [Outcome.SOLD_OUT]
        assert len(pair.entries()) == 3, "the expiry was not waited for"
        assert outcomes(await pair.do("a", pair.reserve("r3"))) == [Outcome.RESERVED]
        kinds = [[r[0] for r in unpack_entry(entry.data).records] for entry in pair.entries()]
        assert kinds[2:] == [[REQUEST_REFUSED], [RESERVATION_EXPIRED], [STOCK_RESERVED]]


@in_virtual_time
async def test_a_confirm_in_the_grace_wins_over_a_passed_deadline() -> None:
    async with running(Pair()) as pair:
        await pair.promote("a")
        soon = pair.clock.now_ms() + 5_000
        await pair.do("a", put_sku(soon, window_ms=1_000), receive(soon, 1))
        held = (await pair.do("a", pair.reserve("r1")))[0]
        pair["a"].kill()
        await asyncio.sleep(1.5)
        await pair.promote("b")
        confirm = c.Confirm(
            c.CONFIRM, SLOT, soon, "web", public_id(SLOT, request_key("web", "r1")), "p1", held[4]
        )
        assert outcomes(await pair.do("b", confirm)) == [Outcome.CONFIRMED]


@in_virtual_time
async def test_nothing_expires_for_a_while_after_a_stalled_append() -> None:
    async with running(Pair(limits(expiry_grace_ms=2_000)), "a") as pair:
        primary = await pair.promote("a")
        await asyncio.sleep(2.1)
        soon = pair.clock.now_ms() + 5_000
        await pair.do("a", put_sku(soon, window_ms=1_000), receive(soon, 1))
        await pair.do("a", pair.reserve("r1"))
        let_go = primary.journal.hold("check")
        await pair.round("a")
        await asyncio.sleep(1.5)
        let_go()
        await until(lambda: not primary.shard.status()["stalled"])
        await pair.round("a")
        assert len(pair.entries()) == 2
        await asyncio.sleep(2.1)
        await pair.round("a")
        assert len(pair.entries()) == 3


@in_virtual_time
async def test_a_nearly_full_journal_takes_no_new_reservations_but_confirms() -> None:
    async with running(Pair(limits(journal_bytes_max=1_000)), "a") as pair:
        primary = await pair.promote("a")
        await pair.stock_up("a", 20)
        held = (await pair.do("a", pair.reserve("r0")))[0]
        number = 0
        while pair.journal.bytes_used(0) < 900:
            number += 1
            await pair.do("a", pair.reserve(f"r{number}"))
        await until(lambda: primary.shard.status()["journal_full_percent"] >= 90)
        assert primary.shard.status()["journal_full_percent"] < 100
        soon = pair.clock.now_ms() + 5_000
        reservation_id = public_id(SLOT, held[1])
        confirm = c.Confirm(c.CONFIRM, SLOT, soon, "web", reservation_id, "p1", held[4])
        answers = await pair.do("a", pair.reserve("new"), confirm, get_stock(soon))
        assert outcomes(answers) == [Outcome.RETRY, Outcome.CONFIRMED, Outcome.FOUND]
        await until(lambda: primary.shard.status()["journal_full_percent"] >= 100)
        release = c.Release(c.RELEASE, SLOT, soon, "web", public_id(SLOT, request_key("web", "r1")))
        answers = await pair.do("a", release, get_stock(soon))
        assert outcomes(answers) == [Outcome.RETRY, Outcome.FOUND]


@in_virtual_time
async def test_chores_are_told_when_asked_for() -> None:
    async with running(Pair(), "a") as pair:
        await pair.promote("a")
        await pair.stock_up("a", 9)
        soon = pair.clock.now_ms() + 5_000
        head = (c.TRANSFER_OUT, SLOT, soon, "web", "move", "tea", "", "sale", 4)
        key = (await pair.do("a", c.TransferOut(*head)))[0][1]
        assert (await pair.round("a")).chores == ()
        chores = (await pair.round("a", wants_chores=True)).chores
        assert chores == ((1, SLOT, key, "tea", "", "sale", 4),)
        await pair.do("a", c.TransferDone(c.TRANSFER_DONE, SLOT, soon, "web", key, False))
        assert (await pair.round("a", wants_chores=True)).chores == ()


@in_virtual_time
async def test_leftovers_of_an_ended_campaign_are_a_chore() -> None:
    async with running(Pair(), "a") as pair:
        await pair.promote("a")
        now_ms = pair.clock.now_ms()
        line = CampaignLine("tea", 5, 100, 80, 0)
        config = CampaignConfig("", "CNY", now_ms, now_ms + 1_000, 60_000, 0, (), (line,))
        put = c.PutCampaign(c.PUT_CAMPAIGN, SLOT, now_ms + 5_000, "web", "sale", config)
        arrive = (c.TRANSFER_IN, SLOT, now_ms + 5_000, "web", b"t" * 16, "tea", "sale", 5)
        assert (await pair.do("a", put, c.TransferIn(*arrive)))[1] == (Outcome.APPLIED, True)
        assert (await pair.round("a", wants_chores=True)).chores == ()
        await asyncio.sleep(1.1)
        chores = (await pair.round("a", wants_chores=True)).chores
        assert chores == ((2, SLOT, "sale", "tea", 5, 5),)


@in_virtual_time
async def test_a_fingerprint_never_shows_what_is_not_journalled() -> None:
    async with running(Pair()) as pair:
        primary = await pair.promote("a")
        await pair.stock_up("a", 5)
        await pair.caught_up("b")
        let_go = primary.journal.hold("append")
        flying = asyncio.ensure_future(pair.round("a", pair.reserve("r1")))
        await until(lambda: primary.journal.arrived["append"] == 2)
        asked = asyncio.ensure_future(primary.shard.fingerprint(True))
        settled = asyncio.ensure_future(primary.shard.settle())
        await asyncio.sleep(0.1)
        assert not asked.done()
        assert not settled.done()
        let_go()
        await flying
        await settled
        told = await asked
        assert told["seq"] == 2
        await pair.caught_up("b")
        other = await pair["b"].shard.fingerprint(True)
        assert told["pools"] == other["pools"]
        await asyncio.sleep(0.2)
        idle = await primary.shard.fingerprint(True)
        assert idle["digest"] == other["digest"] != ""


@in_virtual_time
async def test_a_fingerprint_waits_for_one_entry_at_most() -> None:
    async with running(Pair(limits(batch_lines=1)), "a") as pair:
        primary = await pair.promote("a")
        await pair.stock_up("a", 50)
        primary.journal.delay_ms["append"] = 10
        rounds = [
            asyncio.ensure_future(pair.round("a", pair.reserve(f"r{number}")))
            for number in range(20)
        ]
        await until(lambda: primary.shard.status()["seq"] == 3)
        told = await primary.shard.fingerprint(True)
        assert told["seq"] == 4
        assert told["pools"][0][6] == 3, "reserved units as of that entry"
        await asyncio.gather(*rounds)

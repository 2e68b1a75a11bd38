"""Gathering: lines become rounds, find the primary, and come back, once, whatever dies."""

import asyncio
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.core import commands as c
from actors.core.identity import slot_of
from actors.core.outcomes import Outcome
from actors.rounds import Answers, RoundStatus, unpack_round
from actors.shard import PromoteStatus, Promotion
from server.gather import Gather, GatherLimits, Sender
from tests.helpers.gateways import (
    Desk,
    ScriptedLink,
    busy,
    desk,
    echo,
    lines_in,
    no_chores,
    not_primary,
    scripted,
)
from tests.helpers.shells import (
    LoopClock,
    Pair,
    payload_has_lines,
    reserve,
    running,
)
from tests.helpers.virtual_time import in_virtual_time, until


@in_virtual_time
async def test_what_waits_while_two_rounds_fly_makes_the_next_round() -> None:
    gate = asyncio.Event()

    async def slow(payload: bytes) -> Answers:
        if payload_has_lines(payload):
            await gate.wait()
        return echo(payload)

    link = ScriptedLink(slow)
    async with scripted(link, link) as (gather, clock):
        asked = []
        for number in range(12):
            line = reserve(clock.now_ms() + 900, f"r{number}")
            asked.append(asyncio.ensure_future(gather.submit([line])))
            await asyncio.sleep(0.001)
        assert [lines_in(payload) for payload in link.sent] == [1, 1]
        gate.set()
        for number, answers in enumerate(await asyncio.gather(*asked)):
            assert answers == [(Outcome.RESERVED, f"r{number}")]
        assert [lines_in(payload) for payload in link.sent] == [1, 1, 10]
        assert link.in_flight_max == 2


@in_virtual_time
async def test_a_round_is_cut_below_its_size_in_bytes_and_lines() -> None:
    link = ScriptedLink(echo)
    async with scripted(link, link, round_bytes=1_000, round_lines=7) as (gather, clock):
        long = [reserve(clock.now_ms() + 900, f"{number:0300}") for number in range(9)]
        short = [reserve(clock.now_ms() + 900, f"s{number}") for number in range(20)]
        huge = [reserve(clock.now_ms() + 900, "h" * 5_000)]
        answers = await gather.submit([*long, *short, *huge])
        assert [answer[1] for answer in answers] == [line[4] for line in (*long, *short, *huge)]
        for payload in link.sent:
            assert len(payload) < 1_050 or lines_in(payload) == 1
            assert lines_in(payload) <= 7


@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=8),
    shards=st.integers(1, 3),
    round_lines=st.integers(1, 5),
)
@settings(max_examples=40)
def test_answers_are_dense_and_in_order(
    sizes: Sequence[int], shards: int, round_lines: int
) -> None:
    @in_virtual_time
    async def body() -> None:
        clock = LoopClock()
        senders = []
        for shard in range(shards):
            link = ScriptedLink(echo)
            senders.append(
                Sender(
                    shard=shard,
                    gateway="test",
                    links=[("a", link), ("b", link)],
                    clock=clock,
                    limits=GatherLimits(round_lines=round_lines),
                    map_version=1,
                    on_chore=no_chores,
                )
            )
        gather = Gather(senders, [slot % shards for slot in range(1024)])
        task = asyncio.create_task(gather.run())
        submits = [
            [
                reserve(clock.now_ms() + 5_000, f"{number}-{index}", sku=f"sku{index}")
                for index in range(size)
            ]
            for number, size in enumerate(sizes)
        ]
        found = await asyncio.gather(*[gather.submit(lines) for lines in submits])
        for lines, answers in zip(submits, found, strict=True):
            assert [answer[1] for answer in answers] == [line.request_id for line in lines]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    body()


@in_virtual_time
async def test_an_idle_shard_is_called_so_that_its_time_passes() -> None:
    async with desk() as gateway:
        sent = len(gateway.links["a"].sent)
        await asyncio.sleep(2)
        empty = gateway.links["a"].sent[sent:]
        assert 6 <= len(empty) <= 14
        assert not any(payload_has_lines(payload) for payload in empty)
        assert 1 <= sum(unpack_round(payload).wants_chores for payload in empty) <= 3


@in_virtual_time
async def test_chores_are_handed_on_and_one_that_fails_ends_nothing() -> None:
    seen: list[tuple[Any, ...]] = []

    async def do(chore: tuple[Any, ...]) -> None:
        seen.append(chore)
        raise ZeroDivisionError

    async with running(Pair()) as pair:
        gateway = Desk(pair, on_chore=do)
        task = asyncio.create_task(gateway.gather.run())
        await gateway.stock_up()
        head = (c.TRANSFER_OUT, slot_of("tea"), gateway.deadline(), "web", "move", "tea", "", "x")
        assert await gateway.ask(c.TransferOut(*head, 4)) == [Outcome.APPLIED]
        await until(lambda: len(seen) >= 2)
        assert seen[0][0] == 1
        assert await gateway.ask(gateway.reserve("r1")) == [Outcome.RESERVED]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@in_virtual_time
async def test_a_line_that_is_put_is_told_once_and_who_is_told_may_fail() -> None:
    async with desk() as gateway:
        told: list[tuple[Any, ...]] = []

        def fail(answer: tuple[Any, ...]) -> None:
            told.append(answer)
            raise ZeroDivisionError

        gateway.links["a"].lose_answers = 1
        gateway.gather.put(gateway.reserve("r1"), fail)
        gateway.gather.put(gateway.reserve("r2"), told.append)
        assert await gateway.ask(gateway.reserve("r3")) == [Outcome.RESERVED]
        assert [answer[0] for answer in told] == [Outcome.RESERVED] * 2
        gateway.gather.put(gateway.reserve("r4", wait_ms=-1), told.append)
        await until(lambda: len(told) == 3)
        assert told[2] == (Outcome.RETRY,)


@in_virtual_time
async def test_parcels_answer_as_their_lines_would() -> None:
    """Over three shards, with deadlines alike and different, refused and wrong lines among them."""

    def some(payload: bytes) -> Answers:
        answers = [
            (int(Outcome.WRONG_SHARD),) if line[4].endswith("7") else (1, line[4])
            for line in unpack_round(payload).lines
        ]
        return Answers(RoundStatus.OK, 1, "x", "x", tuple(answers), ())

    link = ScriptedLink(some)
    senders = [
        Sender(
            shard=shard,
            gateway="test",
            links=[("a", link), ("b", link)],
            clock=LoopClock(),
            limits=GatherLimits(),
            map_version=1,
            on_chore=no_chores,
        )
        for shard in range(3)
    ]
    gather = Gather(senders, [slot % 3 for slot in range(1024)])
    task = asyncio.create_task(gather.run())
    late = LoopClock().now_ms() + 900
    for step in (0, 1):
        lines = [reserve(late + step * n, f"r{n}")._replace(slot=n % 7) for n in range(700)]
        expected = [(Outcome.RETRY,) if n % 10 == 7 else (1, f"r{n}") for n in range(700)]
        assert await gather.submit(lines) == expected
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# Lost rounds


@in_virtual_time
async def test_a_line_whose_answer_was_lost_is_sent_again_with_the_same_bytes() -> None:
    async with desk() as gateway:
        link = gateway.links["a"]
        link.sent.clear()
        link.lose_answers = 1
        assert await gateway.ask(gateway.reserve("r1")) == [Outcome.RESERVED]
        rounds = [unpack_round(p).lines for p in link.sent if payload_has_lines(p)]
        assert len(rounds) == 2
        assert rounds[0] == rounds[1]
        assert await gateway.reserved() == 1
        assert gateway.sender.failovers == 1, "the first primary; a lost answer promotes nobody"


@in_virtual_time
async def test_a_closed_link_fails_over_at_once() -> None:
    async with desk() as gateway:
        assert gateway.sender.primary_name == "a"
        await gateway.pair.caught_up("b")
        await asyncio.sleep(2)
        started = asyncio.get_running_loop().time()
        gateway.pair["a"].kill()
        assert await gateway.ask(gateway.reserve("r1")) == [Outcome.RESERVED]
        assert asyncio.get_running_loop().time() - started < 0.1
        assert gateway.sender.primary_name == "b"
        gateway.pair.start("a")
        await gateway.pair.caught_up("a")
        await asyncio.sleep(2)
        gateway.pair["b"].kill()
        assert await gateway.ask(gateway.reserve("r2")) == [Outcome.RESERVED]
        assert await gateway.reserved() == 2
        assert gateway.sender.epoch == 3


@in_virtual_time
async def test_silence_promotes_one_shard_no_more_than_once_in_a_while() -> None:
    async with desk(promotion_gap_ms=5_000) as gateway:
        await gateway.pair.caught_up("b")
        await asyncio.sleep(1)
        started = asyncio.get_running_loop().time()
        gateway.links["a"].pause()
        assert await gateway.ask(gateway.reserve("r1", 9_000)) == [Outcome.RESERVED]
        assert asyncio.get_running_loop().time() - started > 3.5, "the first one is recent"
        assert gateway.sender.epoch == 2


@in_virtual_time
async def test_a_silent_primary_is_asked_again_and_then_replaced() -> None:
    async with desk() as gateway:
        await gateway.pair.caught_up("b")
        await asyncio.sleep(2)
        gateway.links["a"].pause()
        started = asyncio.get_running_loop().time()
        assert await gateway.ask(gateway.reserve("r1")) == [Outcome.RESERVED]
        assert 1.0 < asyncio.get_running_loop().time() - started < 2.0
        assert gateway.sender.primary_name == "b"
        gateway.links["a"].resume()
        await until(lambda: not gateway.pair["a"].alive)
        assert await gateway.reserved() == 1


@in_virtual_time
async def test_after_a_false_alarm_the_gateway_goes_back_to_the_owner() -> None:
    async with desk() as gateway:
        await gateway.pair.caught_up("b")
        await asyncio.sleep(2)
        gateway.pair["b"].journal.hold("read_meta")  # It can never say that it is ready.
        gateway.links["a"].pause()
        asked = gateway.asking(gateway.reserve("r1"))
        await asyncio.sleep(1.6)
        gateway.links["a"].resume()
        assert await asked == [Outcome.RESERVED]
        assert gateway.sender.primary_name == "a"
        assert gateway.sender.epoch == 1
        assert gateway.links["b"].promotions >= 1


@in_virtual_time
async def test_a_gateway_follows_the_highest_epoch_and_promotes_nobody() -> None:
    async with desk() as gateway:
        await gateway.pair.caught_up("b")
        await gateway.pair.promote("b")
        promotions = gateway.links["a"].promotions + gateway.links["b"].promotions
        assert await gateway.ask(gateway.reserve("r1")) == [Outcome.RESERVED]
        assert gateway.sender.primary_name == "b"
        assert gateway.sender.epoch == 2
        assert gateway.links["a"].promotions + gateway.links["b"].promotions == promotions


@in_virtual_time
async def test_not_primary_is_followed_to_the_owner_it_names() -> None:
    first = ScriptedLink(lambda _: not_primary(5, "bb", "aa"), "aa")
    second = ScriptedLink(lambda payload: echo(payload, "bb", 5), "bb")
    async with scripted(first, second) as (gather, clock):
        answers = await gather.submit([reserve(clock.now_ms() + 900, "r1")])
        assert answers == [(Outcome.RESERVED, "r1")]
        assert first.promoted == second.promoted == []


@in_virtual_time
async def test_an_old_primary_that_can_only_say_busy_is_left_for_the_new_one() -> None:
    first = ScriptedLink(echo, "x")
    second = ScriptedLink(lambda _: not_primary(1, "x", "y"), "y")
    async with scripted(first, second, busy_patience_ms=100) as (gather, clock):
        assert (await gather.submit([reserve(clock.now_ms() + 900, "r1")]))[0][1] == "r1"
        first.answer = lambda _: busy()
        second.answer = lambda payload: echo(payload, "y", 2)
        await gather.submit([reserve(clock.now_ms() + 900, "r2")])
        await until(lambda: gather.senders[0].primary_name == "b", within_s=1)
        answers = await gather.submit([reserve(clock.now_ms() + 900, "r2")])
        assert answers == [(Outcome.RESERVED, "r2")]


@in_virtual_time
async def test_wrong_shard_is_never_shown_to_a_caller() -> None:
    def wrong(payload: bytes) -> Answers:
        count = len(unpack_round(payload).lines)
        return Answers(RoundStatus.OK, 1, "x", "x", ((int(Outcome.WRONG_SHARD),),) * count, ())

    link = ScriptedLink(wrong)
    async with scripted(link, link) as (gather, clock):
        answers = await gather.submit([reserve(clock.now_ms() + 900, "r1")])
        assert answers == [(Outcome.RETRY,)]


@in_virtual_time
async def test_an_owner_that_halted_is_left_for_the_replica_that_is_whole() -> None:
    halted = Answers(RoundStatus.HALTED, 4, "aa", "aa", (), ())
    first = ScriptedLink(lambda _: halted, "aa")
    second = ScriptedLink(lambda _: not_primary(4, "aa", "bb"), "bb")
    second.promote_answers = [Promotion(PromoteStatus.OK, 5, "bb")]
    second.answer = lambda payload: (
        echo(payload, "bb", 5) if second.promoted else not_primary(4, "aa", "bb")
    )
    async with scripted(first, second) as (gather, clock):
        answers = await gather.submit([reserve(clock.now_ms() + 900, "r1")])
        assert answers == [(Outcome.RESERVED, "r1")]
        assert gather.senders[0].primary_name == "b"
        assert first.promoted == []

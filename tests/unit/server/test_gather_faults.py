"""Gathering when primaries die, shards are full, and time runs out."""

import asyncio
from typing import Any

import pytest

from actors.core.evolve import EVOLVE
from actors.core.outcomes import Outcome
from actors.core.records import STOCK_RESERVED
from actors.rounds import Answers
from actors.shard import PromoteStatus, Promotion, Role
from server.waiting import Line
from tests.helpers.gateways import (
    Desk,
    ScriptedLink,
    busy,
    desk,
    echo,
    full_rounds,
    not_primary,
    restart_the_dead,
    scripted,
)
from tests.helpers.shells import (
    Pair,
    limits,
    payload_has_lines,
    receive,
    reserve,
    running,
)
from tests.helpers.virtual_time import in_virtual_time, ticks, until

# Poison


@in_virtual_time
async def test_a_line_that_kills_three_primaries_is_given_up_and_only_that_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = EVOLVE[STOCK_RESERVED]

    def deadly(state: Any, slot: Any, record: Any) -> None:
        if record.request_id == "poison":
            raise ZeroDivisionError
        honest(state, slot, record)

    monkeypatch.setitem(EVOLVE, STOCK_RESERVED, deadly)
    async with desk(promotion_gap_ms=10, suspects_a_round=8) as gateway:
        pair = gateway.pair
        stop = asyncio.create_task(restart_the_dead(pair))
        names = [f"r{number}" for number in range(40)]
        names[17] = "poison"
        gateway.links["a"].sent.clear()
        outcomes = await gateway.ask(*[gateway.reserve(name, 9_000) for name in names])
        assert outcomes[17] == Outcome.INTERNAL
        assert outcomes[:17] + outcomes[18:] == [Outcome.RESERVED] * 39
        assert await gateway.reserved() == 39
        assert gateway.sender.epoch == 4, "three deaths, no more"
        rounds = full_rounds(gateway.links["a"]) + full_rounds(gateway.links["b"])
        assert {40, 8, 1} <= set(rounds)
        stop.cancel()


@in_virtual_time
async def test_suspects_whose_time_is_up_while_a_primary_is_found_end_no_gateway() -> None:
    """Found by the simulator: links closed while one sender handed over to the other, the next
    primary was found after the suspects' deadline, and an IndexError ended the gateway's tasks."""

    async def silent(_: bytes) -> Answers:
        return await asyncio.get_running_loop().create_future()

    told: list[Any] = []
    link = ScriptedLink(silent)
    async with scripted(link) as (gather, clock):
        sender = gather.senders[0]
        line = Line(b"", clock.now_ms() + 500, told.append)
        line.sent, line.deaths = True, 1
        sender._suspects.append(line)
        sending = asyncio.ensure_future(sender._send_suspects())
        await until(lambda: told)
        link.answer = echo
        await sending
        answers = await gather.submit([reserve(clock.now_ms() + 5_000, "r1")])
        assert (told, answers) == ([(Outcome.UNKNOWN,)], [(Outcome.RESERVED, "r1")])


# Full and slow


@in_virtual_time
async def test_lines_of_a_busy_shard_wait_and_are_then_told_retry() -> None:
    link = ScriptedLink(lambda _: busy())
    async with scripted(link, link, busy_patience_ms=500) as (gather, clock):
        started = asyncio.get_running_loop().time()
        answers = await gather.submit([reserve(clock.now_ms() + 5_000, "r1")])
        assert answers == [(Outcome.RETRY,)]
        assert 0.5 < asyncio.get_running_loop().time() - started < 0.6
        link.answer = echo
        answers = await gather.submit([reserve(clock.now_ms() + 5_000, "r1")])
        assert answers == [(Outcome.RESERVED, "r1")]


@in_virtual_time
async def test_a_line_that_may_have_been_done_is_never_told_retry_later() -> None:
    calls = 0

    async def lost_then_busy(payload: bytes) -> Answers:
        nonlocal calls
        if not payload_has_lines(payload):
            return echo(payload)
        calls += 1
        if calls == 1:
            await asyncio.sleep(3_600)
        return busy()

    link = ScriptedLink(lost_then_busy)
    async with scripted(link, link, busy_patience_ms=10**6) as (gather, clock):
        answers = await gather.submit([reserve(clock.now_ms() + 1_500, "r1")])
        assert answers == [(Outcome.UNKNOWN,)]
        assert calls > 2


@in_virtual_time
async def test_a_stalled_journal_promotes_nobody_and_answers_again() -> None:
    async with desk() as gateway:
        await gateway.pair.caught_up("b")
        primary = gateway.pair["a"]
        let_go = primary.journal.hold("append", "check")
        asked = gateway.asking(gateway.reserve("r1"))
        later = gateway.asking(gateway.reserve("r2"))
        assert set(await asked + await later) <= {Outcome.UNKNOWN, Outcome.RETRY}
        assert await gateway.ask(gateway.reserve("r3", 400)) == [Outcome.RETRY]
        await asyncio.sleep(10)
        assert gateway.pair.journal.read_meta(0).epoch == 1
        let_go()
        await until(lambda: not primary.shard.status()["stalled"])
        again = await gateway.ask(*map(gateway.reserve, ("r1", "r2", "r3")))
        assert again == [Outcome.RESERVED] * 3
        assert await gateway.reserved() == 3


@in_virtual_time
async def test_at_its_deadline_a_line_that_was_never_sent_is_retry() -> None:
    async with running(Pair()) as pair:
        gateway = Desk(pair)
        for link in gateway.links.values():
            link.pause()
        task = asyncio.create_task(gateway.gather.run())
        started = asyncio.get_running_loop().time()
        assert await gateway.ask(gateway.reserve("r1", 700)) == [Outcome.RETRY]
        assert asyncio.get_running_loop().time() - started < 0.9
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@in_virtual_time
async def test_at_its_deadline_a_line_that_was_sent_is_unknown() -> None:
    async with desk() as gateway:
        await gateway.pair.caught_up("b")
        gateway.links["a"].lose_answers = 10**6
        gateway.links["b"].lose_answers = 10**6
        started = asyncio.get_running_loop().time()
        assert await gateway.ask(gateway.reserve("r1", 700)) == [Outcome.UNKNOWN]
        assert asyncio.get_running_loop().time() - started < 1.3


@in_virtual_time
async def test_a_full_queue_answers_retry_at_once() -> None:
    async with running(Pair()) as pair:
        gateway = Desk(pair, queue_lines=5)
        asked = gateway.asking(*[gateway.reserve(f"r{number}") for number in range(8)])
        await ticks()
        assert gateway.sender.queued == 5
        task = asyncio.create_task(gateway.gather.run())
        outcomes = await asked
        assert outcomes[5:] == [Outcome.RETRY] * 3
        assert outcomes[:5] == [Outcome.NOT_FOUND] * 5
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@in_virtual_time
async def test_a_caller_that_goes_away_tears_nothing() -> None:
    async with desk() as gateway:
        gateway.links["a"].delay_ms = 20
        leaving = gateway.asking(gateway.reserve("r1"), gateway.reserve("r2"))
        staying = gateway.asking(gateway.reserve("r3"))
        await asyncio.sleep(0.001)
        leaving.cancel()
        assert await staying == [Outcome.RESERVED]
        await until(lambda: gateway.sender.queued == 0)
        assert await gateway.reserved() == 3


@in_virtual_time
async def test_both_replicas_dead_and_back_lose_nothing_that_was_answered() -> None:
    async with desk(promotion_gap_ms=10) as gateway:
        pair = gateway.pair
        assert await gateway.ask(gateway.reserve("r1")) == [Outcome.RESERVED]
        for name in ("a", "b"):
            pair[name].kill()
        asked = gateway.asking(gateway.reserve("r2"))
        await asyncio.sleep(1)
        for name in ("a", "b"):
            pair.start(name)
        assert await asked == [Outcome.RESERVED]
        assert await gateway.ask(gateway.reserve("r1")) == [Outcome.RESERVED]
        assert await gateway.reserved() == 2


@in_virtual_time
async def test_a_thousand_lines_over_many_failovers_are_each_done_once() -> None:
    async with desk(Pair(limits(expiry_grace_ms=60_000)), promotion_gap_ms=10) as gateway:
        pair = gateway.pair
        await gateway.ask(receive(gateway.deadline(), 1_000, "more"))
        stop = asyncio.create_task(restart_the_dead(pair))

        async def buy(number: int) -> Outcome:
            await asyncio.sleep(number / 250)
            while True:
                outcome = (await gateway.ask(gateway.reserve(f"r{number}", 9_000)))[0]
                if outcome not in (Outcome.RETRY, Outcome.UNKNOWN):
                    return outcome

        buyers = [asyncio.create_task(buy(number)) for number in range(1_000)]
        for _ in range(6):
            await asyncio.sleep(0.5)
            primary = next((i for i in pair.instances.values() if i.role is Role.PRIMARY), None)
            if primary is not None:
                primary.kill()
        outcomes = await asyncio.gather(*buyers)
        assert set(outcomes) == {Outcome.RESERVED}
        assert await gateway.reserved() == 1_000
        assert gateway.sender.epoch >= 4
        stop.cancel()


@in_virtual_time
async def test_a_promotion_that_is_refused_is_not_taken_for_one() -> None:
    first = ScriptedLink(lambda _: not_primary(0, "", "aa"), "aa")
    second = ScriptedLink(lambda _: not_primary(0, "", "bb"), "bb")
    first.promote_answers = [Promotion(PromoteStatus.NOT_READY, 0, "")] * 50
    second.promote_answers = [Promotion(PromoteStatus.OTHER_EPOCH, 3, "cc")] * 50
    async with scripted(first, second) as (gather, clock):
        answers = await gather.submit([reserve(clock.now_ms() + 300, "r1")])
        assert answers == [(Outcome.RETRY,)]
        assert not gather.senders[0].ready.is_set()
        assert second.promoted[:2] == [0, 3], "the next try knows the new epoch"

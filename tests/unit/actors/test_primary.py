"""The primary: nothing leaves before it is durable, and nothing is decided twice."""

import asyncio
from typing import Any

import pytest

from actors.core import commands as c
from actors.core import decide as deciding
from actors.core.codec import unpack_entry
from actors.core.evolve import EVOLVE
from actors.core.identity import PROGRAMME_SLOT, SLOT_COUNT
from actors.core.outcomes import Outcome
from actors.core.records import STOCK_RESERVED
from actors.core.relay_commands import TAKE_FACTS, TakeFacts
from actors.rounds import RoundStatus, unpack_answers
from actors.shard import Role
from persistence.errors import NotApplied
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


@pytest.mark.parametrize("kind", ["yes", "refusal", "read", "duplicate", "duplicate refusal"])
@in_virtual_time
async def test_nothing_leaves_before_the_append_or_the_check(kind: str) -> None:
    async with running(Pair(), "a") as pair:
        primary = await pair.promote("a")
        await pair.stock_up("a", 1)
        await pair.do("a", pair.reserve("old"), pair.reserve("none left"))
        await pair.do("a", receive(pair.clock.now_ms() + 5_000, 1, "doc2"))
        line, call = {
            "yes": (pair.reserve("new"), "append"),
            "refusal": (reserve(pair.clock.now_ms() + 5_000, "much", 99), "append"),
            "read": (get_stock(pair.clock.now_ms() + 5_000), "check"),
            "duplicate": (pair.reserve("old"), "check"),
            "duplicate refusal": (pair.reserve("none left"), "check"),
        }[kind]
        let_go = primary.journal.hold(call)
        arrived = primary.journal.arrived[call]
        answer = asyncio.ensure_future(primary.shard.round(pair.payload(line)))
        await until(lambda: primary.journal.arrived[call] > arrived)
        await asyncio.sleep(0.14)
        assert not answer.done()
        let_go()
        assert unpack_answers(await answer).answers[0][0] not in (Outcome.RETRY, Outcome.UNKNOWN)


@in_virtual_time
async def test_the_ownership_check_is_made_after_the_decision() -> None:
    async with running(Pair(), "a") as pair:
        primary = await pair.promote("a")
        await pair.stock_up("a")
        before = primary.journal.done["check"]
        await pair.do("a", get_stock(pair.clock.now_ms() + 5_000))
        assert primary.journal.done["check"] == before + 1
        await pair.do("a", pair.reserve("r1"), get_stock(pair.clock.now_ms() + 5_000))
        assert primary.journal.done["check"] == before + 1, "an append is the check"


@pytest.mark.parametrize("applied", [True, False])
@in_virtual_time
async def test_an_append_of_unknown_outcome_is_resent_as_it_was(applied: bool) -> None:
    async with running(Pair(), "a") as pair:
        primary = await pair.promote("a")
        await pair.stock_up("a", 5)
        primary.journal.log.clear()
        pair.journal.fail_next("append", applied=applied, count=3)
        assert outcomes(await pair.do("a", pair.reserve("r1"))) == [Outcome.RESERVED]
        sent = [fields for kind, fields in primary.journal.log if kind == "append"]
        assert len(sent) == 4
        assert all(fields == sent[0] for fields in sent)
        assert [entry.seq for entry in pair.entries()] == [1, 2]


@in_virtual_time
async def test_an_append_that_was_refused_for_now_is_sent_again() -> None:
    async with running(Pair(), "a") as pair:
        await pair.promote("a")
        await pair.stock_up("a")
        pair.journal.fail_next("append", applied=False, error=NotApplied("loading"), count=2)
        assert outcomes(await pair.do("a", pair.reserve("r1"))) == [Outcome.RESERVED]


@in_virtual_time
async def test_a_stalled_journal_says_unknown_then_busy_and_answers_again() -> None:
    async with running(Pair()) as pair:
        primary = await pair.promote("a")
        await pair.stock_up("a", 5)
        let_go = primary.journal.hold("append")
        started = asyncio.get_running_loop().time()
        flying = asyncio.ensure_future(pair.round("a", pair.reserve("r1"), pair.reserve("r2")))
        await until(lambda: primary.journal.arrived["append"] == 2)
        queued = asyncio.ensure_future(pair.round("a", pair.reserve("r3")))
        assert outcomes((await flying).answers) == [Outcome.UNKNOWN] * 2
        assert asyncio.get_running_loop().time() - started == pytest.approx(0.15, abs=0.01)
        assert (await queued).status is RoundStatus.BUSY
        assert (await pair.round("a")).status is RoundStatus.BUSY
        assert primary.shard.status()["stalled"]
        await asyncio.sleep(5)
        assert primary.role is Role.PRIMARY
        assert pair["b"].role is Role.STANDBY, "the journal is slow: nobody is promoted"
        let_go()
        await until(lambda: not primary.shard.status()["stalled"])
        again = await pair.do("a", pair.reserve("r1"), pair.reserve("r2"), pair.reserve("r3"))
        assert outcomes(again) == [Outcome.RESERVED] * 3
        assert again[2][7] == 2, "each was applied once"
        assert primary.journal.arrived["append"] == 3


@in_virtual_time
async def test_a_caller_that_goes_away_while_the_journal_stalls_tears_nothing() -> None:
    async with running(Pair(), "a") as pair:
        primary = await pair.promote("a")
        await pair.stock_up("a", 5)
        let_go = primary.journal.hold("append")
        flying = asyncio.ensure_future(pair.round("a", pair.reserve("r1")))
        await until(lambda: primary.journal.arrived["append"] == 2)
        queued = asyncio.ensure_future(primary.shard.round(pair.payload(pair.reserve("r2"))))
        await asyncio.sleep(0.01)
        queued.cancel()
        assert outcomes((await flying).answers) == [Outcome.UNKNOWN]
        let_go()
        await until(lambda: not primary.shard.status()["stalled"])
        assert primary.alive
        assert outcomes(await pair.do("a", pair.reserve("r1"))) == [Outcome.RESERVED]


@in_virtual_time
async def test_a_stalled_check_resolves_too() -> None:
    async with running(Pair(), "a") as pair:
        primary = await pair.promote("a")
        await pair.stock_up("a")
        pair.journal.fail_next("check", applied=False, count=20)
        line = get_stock(pair.clock.now_ms() + 5_000)
        assert outcomes(await pair.do("a", line)) == [Outcome.UNKNOWN]
        await until(lambda: not primary.shard.status()["stalled"])
        assert outcomes(await pair.do("a", line)) == [Outcome.FOUND]


@in_virtual_time
async def test_rounds_that_wait_share_the_next_entry() -> None:
    async with running(Pair(), "a") as pair:
        primary = await pair.promote("a")
        await pair.stock_up("a")
        let_go = primary.journal.hold("append")
        rounds = [asyncio.ensure_future(pair.round("a", pair.reserve("first")))]
        await until(lambda: primary.journal.arrived["append"] == 2)
        for number in range(5):
            rounds.append(asyncio.ensure_future(pair.round("a", pair.reserve(f"r{number}"))))
        await until(lambda: primary.shard.status()["queue_rounds"] == 5)
        let_go()
        for one in await asyncio.gather(*rounds):
            assert outcomes(one.answers) == [Outcome.RESERVED]
        assert len(pair.entries()) == 3


@in_virtual_time
async def test_an_entry_takes_no_more_lines_than_its_limit() -> None:
    async with running(Pair(limits(batch_lines=4)), "a") as pair:
        primary = await pair.promote("a")
        await pair.stock_up("a", 100)
        let_go = primary.journal.hold("append")
        rounds = [
            asyncio.ensure_future(
                pair.round("a", *[pair.reserve(f"r{number}-{line}") for line in range(3)])
            )
            for number in range(4)
        ]
        await until(lambda: primary.shard.status()["queue_rounds"] == 3)
        let_go()
        await asyncio.gather(*rounds)
        counts = [len(unpack_entry(entry.data).records) for entry in pair.entries()]
        assert counts == [2, 3, 3, 3, 3]


@in_virtual_time
async def test_a_full_queue_answers_busy_and_decides_nothing() -> None:
    async with running(Pair(limits(queue_rounds=3)), "a") as pair:
        primary = await pair.promote("a")
        await pair.stock_up("a")
        let_go = primary.journal.hold("append")
        rounds = []
        for number in range(4):
            rounds.append(asyncio.ensure_future(pair.round("a", pair.reserve(f"r{number}"))))
            await until(lambda: primary.journal.arrived["append"] == 2)
        await until(lambda: primary.shard.status()["queue_rounds"] == 3)
        full = await pair.round("a", pair.reserve("late"))
        assert full.status is RoundStatus.BUSY
        let_go()
        await asyncio.gather(*rounds)
        assert (await pair.do("a", pair.reserve("late")))[0][7] == 5


@in_virtual_time
async def test_a_poison_line_is_answered_internal_and_the_shard_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = deciding.HANDLERS[c.RESERVE]

    def poisonous(state: Any, command: Any, now_ms: int) -> Any:
        if command.request_id == "poison":
            raise ZeroDivisionError
        return honest(state, command, now_ms)

    monkeypatch.setitem(deciding.HANDLERS, c.RESERVE, poisonous)
    async with running(Pair(), "a") as pair:
        primary = await pair.promote("a")
        await pair.stock_up("a")
        answers = await pair.do("a", *map(pair.reserve, ("r1", "poison", "r2")))
        assert outcomes(answers) == [Outcome.RESERVED, Outcome.INTERNAL, Outcome.RESERVED]
        assert primary.shard.status()["counters"]["internal"] == 1
        monkeypatch.setitem(deciding.HANDLERS, c.RESERVE, honest)
        assert outcomes(await pair.do("a", pair.reserve("poison"))) == [Outcome.RESERVED]


@pytest.mark.parametrize("line", [(), (1,), (99, SLOT, 2**60), (c.RESERVE, SLOT, 2**60), 7, None])
@in_virtual_time
async def test_a_line_that_is_no_command_is_answered_internal(line: Any) -> None:
    async with running(Pair(), "a") as pair:
        primary = await pair.promote("a")
        await pair.stock_up("a")
        answers = await pair.do("a", line, pair.reserve("r1"))
        assert outcomes(answers) == [Outcome.INTERNAL, Outcome.RESERVED]
        assert primary.alive


@pytest.mark.parametrize(
    "payload", [b"", b"\xc1", b"\x07", b"\x92\x01\xa1x", b"\x96\x63\xa1g\x00\x01\xc2\x90"]
)
@in_virtual_time
async def test_a_malformed_round_changes_nothing(payload: bytes) -> None:
    async with running(Pair(), "a") as pair:
        primary = await pair.promote("a")
        answers = unpack_answers(await primary.shard.round(payload))
        assert answers.status is RoundStatus.MALFORMED
        assert primary.alive


@in_virtual_time
async def test_a_round_whose_fields_are_of_other_types_is_malformed() -> None:
    async with running(Pair(), "a") as pair:
        primary = await pair.promote("a")
        for payload in (b"\x96\x01\xa1g\xa1x\x01\xc2\x90", b"\x96\x01\xa1g\x00\x01\xc2\x05"):
            answers = unpack_answers(await primary.shard.round(payload))
            assert answers.status is RoundStatus.MALFORMED
        assert outcomes(await pair.do("a", put_sku(pair.clock.now_ms()))) == [Outcome.APPLIED]


@in_virtual_time
async def test_an_exception_while_folding_ends_the_process_with_nothing_journalled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    async with running(Pair(), "a") as pair:
        primary = await pair.promote("a")
        await pair.stock_up("a")
        monkeypatch.setitem(EVOLVE, STOCK_RESERVED, broken)
        answer = asyncio.ensure_future(primary.shard.round(pair.payload(pair.reserve("r1"))))
        await until(lambda: not primary.alive)
        assert not answer.done()
        answer.cancel()
        assert len(pair.entries()) == 1


@in_virtual_time
async def test_a_line_of_a_slot_that_is_not_owned_is_answered_wrong_shard() -> None:
    owned = frozenset(range(SLOT_COUNT)) - {SLOT}
    async with running(Pair(owned_slots=owned), "a") as pair:
        await pair.promote("a")
        assert outcomes(await pair.do("a", pair.reserve("r1"))) == [Outcome.WRONG_SHARD]
        assert not pair.entries()


@in_virtual_time
async def test_facts_of_a_slot_that_is_not_owned_are_answered_wrong_shard() -> None:
    """Alone or with others, and with the row of an order: the whole line is."""
    async with running(Pair(owned_slots=frozenset({PROGRAMME_SLOT})), "a") as pair:
        await pair.promote("a")
        soon_ms = pair.clock.now_ms() + 1_000
        facts = ((1, 0, PROGRAMME_SLOT, ()), (2, 0, SLOT, ()))
        line = TakeFacts(TAKE_FACTS, PROGRAMME_SLOT, soon_ms, "relay", 0, "i", 0, 0, facts)
        alone = line._replace(facts=facts[1:])
        brought = c.Recalled(c.RECALLED, PROGRAMME_SLOT, soon_ms, "relay", (), alone)
        found = outcomes(await pair.do("a", line, alone, brought))
        assert found == [Outcome.WRONG_SHARD] * 3
        assert not pair.entries()
        (answer,) = await pair.do("a", line._replace(facts=facts[:1]))
        assert answer == (Outcome.APPLIED, 1)


@in_virtual_time
async def test_a_line_past_its_deadline_is_answered_retry_undecided() -> None:
    async with running(Pair(), "a") as pair:
        await pair.promote("a")
        await pair.stock_up("a")
        late = reserve(pair.clock.now_ms() - 1, "r1")
        due = reserve(pair.clock.now_ms(), "r2")
        assert outcomes(await pair.do("a", late, due)) == [Outcome.RETRY, Outcome.RESERVED]
        stock = await pair.do("a", get_stock(pair.clock.now_ms() + 5_000))
        assert stock[0][1][5] == 9


@in_virtual_time
async def test_duplicates_get_the_same_answer_after_a_failover() -> None:
    async with running(Pair()) as pair:
        await pair.promote("a")
        await pair.stock_up("a", 1)
        lines = [pair.reserve("r1"), pair.reserve("r2")]
        first = await pair.do("a", *lines)
        assert outcomes(first) == [Outcome.RESERVED, Outcome.SOLD_OUT]
        await pair.do("a", receive(pair.clock.now_ms() + 5_000, 5, "more"))
        pair["a"].kill()
        await pair.promote("b")
        again = await pair.do("b", *lines)
        assert outcomes(again) == outcomes(first), "a refusal is remembered, too"
        assert again[0][1:7] == first[0][1:7]


@in_virtual_time
async def test_refusals_are_remembered_by_a_replica_that_started_from_a_snapshot() -> None:
    async with running(Pair()) as pair:
        await pair.promote("a")
        await pair.stock_up("a", 0 + 1)
        await pair.do("a", pair.reserve("r1"), pair.reserve("r2"))
        await pair.caught_up("b")
        await pair["b"].shard.take_snapshot()
        pair.start("b")
        await pair.caught_up("b")
        await pair.do("a", receive(pair.clock.now_ms() + 5_000, 5, "more"))
        pair["a"].kill()
        await pair.promote("b")
        answers = await pair.do("b", pair.reserve("r2"), pair.reserve("r3"))
        assert outcomes(answers) == [Outcome.SOLD_OUT, Outcome.RESERVED]

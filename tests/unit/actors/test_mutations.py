"""Rules of the journal, each broken once on purpose: a scenario notices every one of them.

A scenario is a story that holds for the shell as it is. A mutation breaks one rule by patching; the
same story must then fail. So a story that would pass over a broken rule shows itself here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from actors.core import commands as c
from actors.core.identity import public_id, request_key
from actors.core.outcomes import Outcome
from actors.links import LinkClosed
from actors.primary import Primary
from actors.rounds import Answers, unpack_answers
from actors.shard import Shard
from tests.helpers.breakages import (
    a_promotion_raises_no_epoch,
    a_resend_has_another_name,
    a_standby_forgets_refusals,
    a_timeout_is_taken_for_a_failure,
    it_answers_before_the_append,
    the_journal_ignores_epochs,
    what_is_not_journalled_is_answered_unfenced,
    what_sql_has_not_is_trimmed,
)
from tests.helpers.shells import SLOT, Pair, get_stock, limits, put_sku, receive, running
from tests.helpers.virtual_time import in_virtual_time, until

Patch = pytest.MonkeyPatch


def outcomes(answers: Sequence[tuple[Any, ...]]) -> list[Outcome]:
    """What became of each line."""
    return [Outcome(answer[0]) for answer in answers]


async def asked(pair: Pair, name: str, *lines: Any) -> "asyncio.Future[Answers]":
    """A round on its way to a replica; answered or not after a moment."""

    async def ask() -> Answers:
        return unpack_answers(await pair[name].shard.round(pair.payload(*lines)))

    task = asyncio.ensure_future(ask())
    await asyncio.sleep(0.05)
    return task


def said(task: "asyncio.Future[Answers]") -> list[Outcome]:
    """What has been answered so far."""
    if task.done():
        return outcomes(task.result().answers)
    task.cancel()
    return []


# Scenarios


async def an_acknowledged_sale_survives_the_death_of_its_primary() -> None:
    async with running(Pair()) as pair:
        await pair.promote("a")
        await pair.stock_up("a", 1)
        await until(pair.entries)
        await pair.caught_up("b")
        pair["a"].journal.hold("append")
        acked = said(await asked(pair, "a", pair.reserve("r1")))
        pair["a"].kill()
        await pair.promote("b")
        taken = outcomes(await pair.do("b", pair.reserve("r2")))
        assert [*acked, *taken].count(Outcome.RESERVED) == 1


async def a_replaced_primary_answers_no_reads() -> None:
    async with running(Pair()) as pair:
        await pair.promote("a")
        await pair.stock_up("a", 1)
        await pair.caught_up("b")
        await pair.promote("b")
        await pair.do("b", pair.reserve("r1"))
        stale = await asked(pair, "a", get_stock(pair.clock.now_ms() + 5_000))
        assert said(stale) == []


async def a_replaced_primary_never_acknowledges() -> None:
    async with running(Pair()) as pair:
        old = await pair.promote("a")
        await pair.stock_up("a", 1)
        await pair.caught_up("b")
        let_go = old.journal.hold("append")
        late = await asked(pair, "a", pair.reserve("r1"))
        await pair.promote("b")
        let_go()
        await asyncio.sleep(0.01)
        assert Outcome.RESERVED not in said(late)
        assert outcomes(await pair.do("b", pair.reserve("r2"))) == [Outcome.RESERVED]


async def a_refused_request_stays_refused_after_a_failover() -> None:
    async with running(Pair()) as pair:
        await pair.promote("a")
        await pair.stock_up("a", 1)
        line = pair.reserve("r2")
        answers = await pair.do("a", pair.reserve("r1"), line)
        assert outcomes(answers)[1] == Outcome.SOLD_OUT
        await pair.do("a", receive(pair.clock.now_ms() + 5_000, 5, "more"))
        pair["a"].kill()
        await pair.promote("b")
        assert outcomes(await pair.do("b", line)) == [Outcome.SOLD_OUT]


async def what_a_duplicate_is_told_is_in_the_journal(*, applied: bool = False) -> None:
    async with running(Pair()) as pair:
        await pair.promote("a")
        await pair.stock_up("a", 5)
        pair.journal.fail_next("append", applied=applied)
        told = outcomes(await pair.do("a", pair.reserve("r1")))
        told += outcomes(await pair.do("a", pair.reserve("r1")))
        assert Outcome.RESERVED in told
        pair["a"].kill()
        await pair.promote("b")
        held = public_id(SLOT, request_key("web", "r1"))
        read = c.GetReservation(c.GET_RESERVATION, SLOT, pair.clock.now_ms() + 5_000, "web", held)
        assert outcomes(await pair.do("b", read)) == [Outcome.FOUND]


async def an_append_that_had_taken_effect_is_recognised_when_it_is_resent() -> None:
    await what_a_duplicate_is_told_is_in_the_journal(applied=True)


async def what_sql_has_not_is_not_trimmed() -> None:
    async with running(Pair()) as pair:
        await pair.promote("a")
        await pair.stock_up("a", 50)
        for number in range(8):
            await pair.do("a", pair.reserve(f"r{number}"))
            if number in (3, 6):
                await pair.caught_up("b")
                await pair["b"].shard.take_snapshot()
        pair.journal.set_position(0, "sink", 2)
        await asyncio.sleep(1.5)
        assert pair.journal.read_meta(0).first_seq == 3


async def a_confirm_that_waited_out_a_failover_keeps_its_units() -> None:
    async with running(Pair()) as pair:
        await pair.promote("a")
        soon = pair.clock.now_ms() + 9_000
        await pair.do("a", put_sku(soon, window_ms=1_000), receive(soon, 1))
        held = (await pair.do("a", pair.reserve("r1")))[0]
        pair["a"].kill()
        await asyncio.sleep(1.5)
        await pair.promote("b")
        await pair.round("b")
        await pair.do("b", pair.reserve("r2"))
        reservation_id = public_id(SLOT, held[1])
        confirm = c.Confirm(c.CONFIRM, SLOT, soon, "web", reservation_id, "p1", held[4])
        assert outcomes(await pair.do("b", confirm)) == [Outcome.CONFIRMED]


async def a_slow_journal_promotes_nobody() -> None:
    async with running(Pair(limits(promote_patience_ms=100))) as pair:
        await pair.promote("a")
        await pair.caught_up("b")
        pair["b"].journal.delay_ms["read_meta"] = 5_000
        answer = await pair["b"].shard.promote(1)
        assert answer.status == "not_ready"
        assert pair.journal.read_meta(0).epoch == 1


# Mutations


def a_timeout_taken_for_a_failure_and_counted_as_none(patch: Patch) -> None:
    """Its number is used again, for another entry."""
    a_timeout_is_taken_for_a_failure(patch)
    honest = Primary._append

    async def append(self: Primary, seq: int, entry: bytes) -> None:
        await honest(self, self._journal._journal.read_meta(0).last_seq + 1, entry)  # type: ignore[attr-defined]

    patch.setattr(Primary, "_append", append)


def no_grace_after_a_promotion(patch: Patch) -> None:
    honest = Primary._decide_due

    def at_once(self: Primary, now_ms: int, records: list[Any]) -> None:
        self._quiet_until = 0.0
        honest(self, now_ms, records)

    patch.setattr(Primary, "_decide_due", at_once)


def a_promotion_that_waits_for_the_journal(patch: Patch) -> None:
    honest = Shard._promote

    async def patient(self: Shard, seen_epoch: int, seen_seq: int) -> Any:
        patch.setattr(asyncio, "timeout", lambda _: asyncio.timeout_at(None))
        return await honest(self, seen_epoch, seen_seq)

    patch.setattr(Shard, "_promote", patient)


PAIRS: list[tuple[Callable[[], Awaitable[None]], Callable[[Patch], None]]] = [
    (an_acknowledged_sale_survives_the_death_of_its_primary, it_answers_before_the_append),
    (a_replaced_primary_never_acknowledges, it_answers_before_the_append),
    (a_replaced_primary_answers_no_reads, what_is_not_journalled_is_answered_unfenced),
    (a_replaced_primary_never_acknowledges, the_journal_ignores_epochs),
    (a_replaced_primary_never_acknowledges, a_promotion_raises_no_epoch),
    (a_refused_request_stays_refused_after_a_failover, a_standby_forgets_refusals),
    (what_a_duplicate_is_told_is_in_the_journal, a_timeout_is_taken_for_a_failure),
    (
        what_a_duplicate_is_told_is_in_the_journal,
        a_timeout_taken_for_a_failure_and_counted_as_none,
    ),
    (
        an_append_that_had_taken_effect_is_recognised_when_it_is_resent,
        a_resend_has_another_name,
    ),
    (what_sql_has_not_is_not_trimmed, what_sql_has_not_is_trimmed),
    (a_confirm_that_waited_out_a_failover_keeps_its_units, no_grace_after_a_promotion),
    (a_slow_journal_promotes_nobody, a_promotion_that_waits_for_the_journal),
]


@pytest.mark.parametrize("scenario", dict.fromkeys(scenario for scenario, _ in PAIRS))
def test_the_scenario_holds_for_the_shell_as_it_is(
    scenario: Callable[[], Awaitable[None]],
) -> None:
    in_virtual_time(scenario)()  # type: ignore[arg-type]


@pytest.mark.parametrize(("scenario", "mutate"), PAIRS)
def test_the_scenario_notices_the_broken_rule(
    scenario: Callable[[], Awaitable[None]],
    mutate: Callable[[Patch], None],
    monkeypatch: Patch,
) -> None:
    with monkeypatch.context() as patch:
        mutate(patch)
        # A broken rule shows as a wrong answer, or as a primary that dies of its own entry.
        with pytest.raises((AssertionError, LinkClosed)):
            in_virtual_time(scenario)()  # type: ignore[arg-type]

"""Rules of the journal, each broken once on purpose: a scenario notices every one of them.

A scenario is a story that holds for the shell as it is. A mutation breaks one rule by patching; the
same story must then fail. So a story that would pass over a broken rule shows itself here.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from actors.core import commands as c
from actors.core.evolve import fold
from actors.core.identity import public_id, request_key
from actors.core.outcomes import Outcome
from actors.core.records import REQUEST_REFUSED
from actors.links import LinkClosed
from actors.primary import Primary
from actors.rounds import Answers, unpack_answers
from actors.shard import Shard
from persistence.errors import StorageError
from persistence.memory import MemoryJournal
from persistence.ports import Meta, Ownership
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


def ack_before_append(patch: Patch) -> None:
    honest = Primary._until_definite

    async def hasty(self: Primary, call: Any, taken: Any) -> None:
        background = asyncio.ensure_future(honest(self, call, taken))
        background.add_done_callback(lambda done: done.cancelled() or done.exception())

    patch.setattr(Primary, "_until_definite", hasty)


def reads_without_a_check(patch: Patch) -> None:
    async def nothing(self: Primary) -> None:
        return

    patch.setattr(Primary, "_check", nothing)


def a_journal_that_ignores_epochs(patch: Patch) -> None:
    patch.setattr(
        MemoryJournal,
        "_owned",
        lambda self, shard, incarnation, epoch: self._log(shard, incarnation),
    )


def a_standby_that_forgets_refusals(patch: Patch) -> None:
    honest = fold

    def forgetful(state: Any, seq: int, now_ms: int, records: Any, balances: Any) -> None:
        kept = [record for record in records if record[0] != REQUEST_REFUSED]
        honest(state, seq, now_ms, kept, balances)

    patch.setattr("actors.recovery.fold", forgetful)


def a_timeout_taken_for_a_failure(patch: Patch) -> None:
    async def once(self: Primary, call: Callable[[], Awaitable[None]], taken: Any) -> None:
        try:
            await call()
        except StorageError as error:
            if not error.retriable:
                raise
            self._stall(taken)
            self.stalled = False

    patch.setattr(Primary, "_until_definite", once)


def a_timeout_taken_for_a_failure_and_counted_as_none(patch: Patch) -> None:
    """Its number is used again, for another entry."""
    a_timeout_taken_for_a_failure(patch)
    honest = Primary._append

    async def append(self: Primary, seq: int, entry: bytes) -> None:
        await honest(self, self._journal._journal.read_meta(0).last_seq + 1, entry)  # type: ignore[attr-defined]

    patch.setattr(Primary, "_append", append)


def a_resend_under_another_name(patch: Patch) -> None:
    numbers = itertools.count()

    async def append(self: Primary, seq: int, entry: bytes) -> None:
        await self._journal.append(
            incarnation=self.identity.incarnation,
            epoch=self.identity.epoch,
            seq=seq,
            batch_id=f"{seq}:{next(numbers)}",
            entry=entry,
        )

    patch.setattr(Primary, "_append", append)


def promotion_without_a_new_epoch(patch: Patch) -> None:
    async def claim(self: Shard, meta: Meta) -> Ownership:
        return Ownership(meta.epoch, self.token)

    patch.setattr(Shard, "_acquire", claim)


def trimming_without_asking_the_sink(patch: Patch) -> None:
    honest = Primary._trim

    async def trim(self: Primary) -> None:
        self._readers = ()
        await honest(self)

    patch.setattr(Primary, "_trim", trim)


def no_grace_after_a_promotion(patch: Patch) -> None:
    honest = Primary._decide_due

    def at_once(self: Primary, now_ms: int, records: list[Any]) -> None:
        self._quiet_until = 0.0
        honest(self, now_ms, records)

    patch.setattr(Primary, "_decide_due", at_once)


def a_promotion_that_waits_for_the_journal(patch: Patch) -> None:
    honest = Shard._promote

    async def patient(self: Shard, seen_epoch: int) -> Any:
        patch.setattr(asyncio, "timeout", lambda _: asyncio.timeout_at(None))
        return await honest(self, seen_epoch)

    patch.setattr(Shard, "_promote", patient)


PAIRS: list[tuple[Callable[[], Awaitable[None]], Callable[[Patch], None]]] = [
    (an_acknowledged_sale_survives_the_death_of_its_primary, ack_before_append),
    (a_replaced_primary_never_acknowledges, ack_before_append),
    (a_replaced_primary_answers_no_reads, reads_without_a_check),
    (a_replaced_primary_never_acknowledges, a_journal_that_ignores_epochs),
    (a_replaced_primary_never_acknowledges, promotion_without_a_new_epoch),
    (a_refused_request_stays_refused_after_a_failover, a_standby_that_forgets_refusals),
    (what_a_duplicate_is_told_is_in_the_journal, a_timeout_taken_for_a_failure),
    (
        what_a_duplicate_is_told_is_in_the_journal,
        a_timeout_taken_for_a_failure_and_counted_as_none,
    ),
    (
        an_append_that_had_taken_effect_is_recognised_when_it_is_resent,
        a_resend_under_another_name,
    ),
    (what_sql_has_not_is_not_trimmed, trimming_without_asking_the_sink),
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

"""Rules of the real code, each broken on purpose: those that more than one suite must notice.

A breakage is a function that patches. `tests/sim/mutants.py`, `tests/model/test_mutations.py` and
`tests/unit/actors/test_mutations.py` each have more of their own.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from actors import recovery
from actors.core import bloom, evolve, evolve_reservations, snapshot, tables
from actors.core import records as r
from actors.core import state as s
from actors.core.evolve import fold
from actors.limits import Readers
from actors.primary import Primary
from actors.shard import Shard
from persistence.errors import StorageError
from persistence.memory import MemoryJournal
from persistence.ports import Meta, Ownership

Patch = pytest.MonkeyPatch


def it_answers_before_the_append(patch: Patch) -> None:
    honest = Primary._until_definite

    async def hasty(self: Primary, call: Any, taken: Any) -> None:
        background = asyncio.ensure_future(honest(self, call, taken))
        background.add_done_callback(lambda done: done.cancelled() or done.exception())

    patch.setattr(Primary, "_until_definite", hasty)


def what_is_not_journalled_is_answered_unfenced(patch: Patch) -> None:
    """Rounds without lines are checked as ever, so that a zombie finds out in the end."""
    honest_write, honest_check, have_lines = Primary._write, Primary._check, set[int]()

    async def write(self: Primary, taken: Any) -> None:
        have_lines.discard(id(self))
        have_lines.update([id(self)] if any(one.round.lines for one in taken) else [])
        await honest_write(self, taken)

    async def check(self: Primary) -> None:
        if id(self) not in have_lines:
            await honest_check(self)

    patch.setattr(Primary, "_write", write)
    patch.setattr(Primary, "_check", check)


def _without_epochs(self: MemoryJournal, shard: int, incarnation: str, epoch: int) -> Any:
    return self._log(shard, incarnation)


def the_journal_ignores_epochs(patch: Patch) -> None:
    patch.setattr(MemoryJournal, "_owned", _without_epochs)


def a_promotion_raises_no_epoch(patch: Patch) -> None:
    async def claim(self: Shard, meta: Meta) -> Ownership:
        return Ownership(meta.epoch, self.token)

    patch.setattr(Shard, "_acquire", claim)


def a_timeout_is_taken_for_a_failure(patch: Patch) -> None:
    async def once(self: Primary, call: Callable[[], Awaitable[None]], taken: Any) -> None:
        try:
            await call()
        except StorageError as error:
            if not error.retriable:
                raise
            self._stall(taken)
            self.stalled = False

    patch.setattr(Primary, "_until_definite", once)


def a_resend_has_another_name(patch: Patch) -> None:
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


def refusals_are_forgotten(patch: Patch) -> None:
    patch.setattr(tables.Refusals, "put", lambda *_: None)


def a_standby_forgets_refusals(patch: Patch) -> None:
    def forgetful(state: Any, seq: int, now_ms: int, records: Any, balances: Any) -> None:
        kept = [record for record in records if record[0] != r.REQUEST_REFUSED]
        fold(state, seq, now_ms, kept, balances)

    patch.setattr(recovery, "fold", forgetful)


def leave_out(patch: Patch, table: str) -> None:
    honest = snapshot._table
    patch.setattr(
        snapshot, "_table", lambda n, name, *x: honest(n, name, *x) if name != table else ()
    )


def a_snapshot_loses_documents(patch: Patch) -> None:
    leave_out(patch, "documents")


def a_snapshot_loses_refusals(patch: Patch) -> None:
    leave_out(patch, "refusals")


def a_snapshot_changes_its_rows_twice(patch: Patch) -> None:
    patch.setattr(evolve_reservations, "skip", lambda *_: False)


def what_was_forgotten_is_unknown(patch: Patch) -> None:
    patch.setattr(bloom.Forgotten, "may_contain", lambda *_: False)


def what_sql_has_not_is_trimmed(patch: Patch) -> None:
    honest = Primary._trim

    async def trim(self: Primary) -> None:
        self._readers = Readers()
        await honest(self)

    patch.setattr(Primary, "_trim", trim)


def after(patch: Patch, kind: int, more: Callable[[s.ShardState, s.SlotState, Any], None]) -> None:
    honest = evolve.EVOLVE[kind]

    def mutated(state: s.ShardState, slot: s.SlotState, record: Any) -> None:
        honest(state, slot, record)
        more(state, slot, record)

    patch.setitem(evolve.EVOLVE, kind, mutated)


def a_release_frees_its_units_twice(patch: Patch) -> None:
    def more(_: s.ShardState, slot: s.SlotState, record: Any) -> None:
        held = slot.reservations.get(record.key)
        if held is not None:
            held.pool.available += held.quantity
            held.pool.total += held.quantity

    after(patch, r.RESERVATION_RELEASED, more)


def limits_are_not_restored(patch: Patch) -> None:
    honest = evolve_reservations._count
    patch.setattr(evolve_reservations, "_count", lambda held, n: honest(held, n) if n > 0 else None)


def a_late_payment_takes_no_unit(patch: Patch) -> None:
    def more(_: s.ShardState, slot: s.SlotState, record: Any) -> None:
        held = slot.reservations.get(record.key)
        if held is not None and record.reacquired:
            held.pool.available += held.quantity
            held.pool.total += held.quantity

    after(patch, r.RESERVATION_CONFIRMED, more)


def deadlines_are_never_taken_out(patch: Patch) -> None:
    patch.setattr(tables.Deadlines, "remove", lambda *_: None)

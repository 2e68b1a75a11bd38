"""Rules of the real code, each broken on purpose: the simulator must catch every one of them.

A mutant is a function that patches; `MUTANTS` says within how many seeds, counted from 0, it has to
be caught. The number is about three times what it took when it was written, so that a simulator
that has become half as sharp still passes, and one that looks past a rule does not.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from actors import clock, projector, recovery
from actors.core import (
    evolve,
    payments,
)
from actors.core import records as r
from actors.core import state as s
from actors.core.codec import EntryContent, pack_entry
from actors.core.evolve import fold
from actors.lateness import SenderClocks
from actors.primary import Primary
from actors.projector import Projector
from actors.recovery import CannotRecover
from actors.shard import Shard
from actors.snapshotting import SnapshotTaker
from persistence import memory, snapshots
from persistence.errors import Conflict, Fenced, StorageError, Trimmed
from persistence.memory import MemoryJournal
from persistence.ports import Entry, Meta, Ownership, SnapshotInfo
from server.finding import PrimaryFinder
from server.gather import Sender
from tests.helpers import team_breakages as b
from tests.helpers.breakages import (
    Patch,
    a_late_payment_takes_no_unit,
    a_promotion_raises_no_epoch,
    a_release_frees_its_units_twice,
    a_resend_has_another_name,
    a_snapshot_changes_its_rows_twice,
    a_snapshot_loses_documents,
    a_snapshot_loses_refusals,
    a_standby_forgets_refusals,
    a_timeout_is_taken_for_a_failure,
    deadlines_are_never_taken_out,
    it_answers_before_the_append,
    leave_out,
    limits_are_not_restored,
    refusals_are_forgotten,
    the_journal_ignores_epochs,
    what_is_not_journalled_is_answered_unfenced,
    what_sql_has_not_is_trimmed,
    what_was_forgotten_is_unknown,
)
from tests.sim.relay_mutants import RELAY_MUTANTS
from tests.sim.sink import MemorySink

Mutant = Callable[[Patch], None]


# The journal and its writer


def a_fenced_primary_goes_on(patch: Patch) -> None:
    honest = Primary._until_definite

    async def stubborn(self: Primary, call: Any, taken: Any) -> None:
        try:
            await honest(self, call, taken)
        except Fenced:
            return

    patch.setattr(Primary, "_until_definite", stubborn)


def _appends_anything(
    self: MemoryJournal,
    shard: int,
    *,
    incarnation: str,
    epoch: int,
    seq: int,
    batch_id: str,
    entry: bytes,
) -> None:
    log = self._owned(shard, incarnation, epoch)
    log.entries.append(Entry(seq, epoch, batch_id, entry))
    log.last_seq, log.last_batch_id = seq, batch_id


def the_journal_ignores_sequences(patch: Patch) -> None:
    patch.setattr(MemoryJournal, "append", _appends_anything)


def the_journal_ignores_epochs_and_sequences(patch: Patch) -> None:
    the_journal_ignores_epochs(patch)
    the_journal_ignores_sequences(patch)


def a_promotion_does_not_read_to_the_end(patch: Patch) -> None:
    async def read_on(self: Shard) -> None:
        return

    patch.setattr(Shard, "_read_to_the_end", read_on)


def a_promotion_reads_first_and_raises_second(patch: Patch) -> None:
    honest, read_on = Shard._acquire, Shard._read_to_the_end

    async def acquire(self: Shard, meta: Meta) -> Ownership:
        await read_on(self)
        return await honest(self, meta)

    async def nothing(self: Shard) -> None:
        return

    patch.setattr(Shard, "_acquire", acquire)
    patch.setattr(Shard, "_read_to_the_end", nothing)


def a_resend_has_the_next_sequence(patch: Patch) -> None:
    """Whoever meets a conflict with himself takes the number that is free."""
    a_resend_has_another_name(patch)
    renamed = Primary._append

    async def append(self: Primary, seq: int, entry: bytes) -> None:
        try:
            await renamed(self, seq, entry)
        except Conflict as error:
            await renamed(self, error.last_seq + 1, entry)

    patch.setattr(Primary, "_append", append)


def an_expiry_is_not_journalled(patch: Patch) -> None:
    honest = Primary._decide_due

    def decide_due(self: Primary, now_ms: int, records: list[Any]) -> None:
        kept = len(records)
        honest(self, now_ms, records)
        records[kept:] = [x for x in records[kept:] if x[0] != r.RESERVATION_EXPIRED]

    patch.setattr(Primary, "_decide_due", decide_due)


def time_goes_back(patch: Patch) -> None:
    def now_ms(self: clock.ShardTime, sent_ms: int) -> int:
        return self._clock.now_ms()

    patch.setattr(clock.ShardTime, "now_ms", now_ms)


# Memory of ids


def a_snapshot_loses_payment_ids(patch: Patch) -> None:
    leave_out(patch, "payments")


def what_sql_has_not_is_forgotten(patch: Patch) -> None:
    honest = Primary._decide_due

    def decide_due(self: Primary, now_ms: int, records: list[Any]) -> None:
        self.sink_seq = 10**9
        honest(self, now_ms, records)

    patch.setattr(Primary, "_decide_due", decide_due)


# Standbys, trimming, SQL


def a_standby_folds_twice(patch: Patch) -> None:
    def twice(state: Any, seq: int, now_ms: int, records: Any, balances: Any) -> None:
        fold(state, seq, now_ms, records, balances)
        for record in records:
            if record[0] == r.REFUND_REPORTED:
                evolve.evolve(state, record)
            if record[0] == r.RESERVATION_RELEASED:
                pool = state.slots[record.slot].reservations.get(record.key).pool
                for counts in pool.counted_in:
                    counts.change("ann", -1)

    patch.setattr(recovery, "fold", twice)


def a_follower_skips_what_was_trimmed(patch: Patch) -> None:
    honest = Shard._fold_on

    async def fold_on(self: Shard) -> bool:
        try:
            return await honest(self)
        except Trimmed as error:
            self._held_state().seq = error.first_seq - 1
            return True

    patch.setattr(Shard, "_fold_on", fold_on)


def what_snapshots_need_is_trimmed(patch: Patch) -> None:
    async def trim(self: Primary) -> None:
        await self._reader.trim(before_seq=self.sink_seq + 1, max_entries=500)

    patch.setattr(Primary, "_trim", trim)


def a_standby_with_less_than_was_acknowledged_starts(patch: Patch) -> None:
    """Without a snapshot that reaches, from nothing."""

    async def run(self: recovery.Recovery, meta: Meta) -> s.ShardState:
        try:
            return await honest(self, meta)
        except CannotRecover:
            return self._empty()

    honest = recovery.Recovery.run
    patch.setattr(recovery.Recovery, "run", run)
    what_snapshots_need_is_trimmed(patch)


def the_position_moves_before_the_rows(patch: Patch) -> None:
    honest = MemorySink.apply

    def apply(self: MemorySink, number: int, **fields: Any) -> None:
        honest(self, number, **{**fields, "rows": ()})
        position = fields["to_seq"]
        honest(self, number, **{**fields, "from_seq": position, "to_seq": position})

    patch.setattr(MemorySink, "apply", apply)


def the_position_moves_before_the_facts(patch: Patch) -> None:
    """In two transactions: a database that is lost between them has the rows alone."""
    honest = MemorySink.apply

    def apply(self: MemorySink, number: int, **fields: Any) -> None:
        honest(self, number, **{**fields, "facts": ()})
        position = fields["to_seq"]
        again = {"from_seq": position, "rows": (), "dead_letters": ()}
        honest(self, number, **{**fields, **again})

    patch.setattr(MemorySink, "apply", apply)


def what_is_not_told_shifts_the_other_facts(patch: Patch) -> None:
    """Then a reader's cursor (seq, index) means another record in SQL than in the journal."""

    def pack(entry: bytes, content: EntryContent, untold: Any, _: Any) -> bytes | None:
        told = [record for record in content.records if record[0] not in untold]
        if not told or len(told) == len(content.records):
            return entry if told else None
        return pack_entry(epoch=content.epoch, now_ms=content.now_ms, records=told, balances=())

    patch.setattr(projector, "pack_told", pack)


def the_projector_counts_what_it_does_not_know(patch: Patch) -> None:
    """An unknown commit is taken for one that was made."""
    honest = Projector._apply

    def apply(self: Projector, incarnation: str, from_seq: int, batch: Any) -> None:
        try:
            honest(self, incarnation, from_seq, batch)
        except StorageError as error:
            if not error.maybe_applied:
                raise
            self._sink.places[self.shard] = (incarnation, batch.to_seq)  # type: ignore[attr-defined]

    patch.setattr(Projector, "_apply", apply)


# The rules of the shop


def a_late_payment_needs_no_unit(patch: Patch) -> None:
    patch.setattr(payments, "_can_reacquire", lambda *_: True)


def an_older_snapshot_is_never_replaced(patch: Patch) -> None:
    """As it was: nothing new, no snapshot, also if the older one is in the way of trimming."""

    async def due(self: SnapshotTaker, last_at: float) -> None:
        while not self._wanted.is_set():
            state = self._look().state
            new = 0 if state is None or not self._look().is_standby else state.seq - self.last_seq
            if new >= self._limits.snapshot_entries:
                return
            if new > 0 and await self._is_long(
                (asyncio.get_running_loop().time() - last_at) * 1000
            ):
                return
            await asyncio.sleep(0.2)

    patch.setattr(SnapshotTaker, "_due", due)


# Damage, lateness, poison


def a_late_round_was_sent_when_it_says(patch: Patch) -> None:
    patch.setattr(SenderClocks, "shown_ms", lambda _self, _gateway, sent_ms, _at: sent_ms)


def a_snapshot_hides_its_twin(patch: Patch) -> None:
    """As it was: of two that were taken while the journal stood still only the newer was read."""

    honest = snapshots.find

    def find(published: Any, info: SnapshotInfo, shard: int) -> Any:
        """Raises Corrupt if it is gone."""
        alike = [
            one for one in published if one.info._replace(handle="") == info._replace(handle="")
        ]
        return max(alike) if alike else honest(published, info, shard)

    patch.setattr(memory, "find", find)


def suspects_are_never_told_apart(patch: Patch) -> None:
    """Whoever died with a poisoned line is sent with it again and again."""

    def take_suspects(self: Sender) -> list[Any]:
        suspects = [*self._suspects]
        self._suspects.clear()
        return suspects

    patch.setattr(Sender, "_take_suspects", take_suspects)


# The gateway


def a_lost_round_is_told_retry(patch: Patch) -> None:
    """Lines that may have been done are answered as if they had not."""

    def lost(self: Sender, primary: Any, lines: Any, *, died: bool) -> None:
        self._finder.doubt(primary)
        for line in lines:
            line.undone()

    patch.setattr(Sender, "_lost", lost)


def a_dead_primary_is_not_replaced(patch: Patch) -> None:
    """A gateway that never promotes a second time: nothing is sold wrongly, and then nothing."""

    async def promote(self: Any, replica: Any) -> bool:
        return self.epoch == 0 and bool(await honest(self, replica))

    honest = PrimaryFinder._promote
    patch.setattr(PrimaryFinder, "_promote", promote)


MUTANTS: dict[Mutant, int] = {
    it_answers_before_the_append: 30,
    what_is_not_journalled_is_answered_unfenced: 160,
    a_fenced_primary_goes_on: 60,
    the_journal_ignores_epochs: 60,
    the_journal_ignores_sequences: 180,
    the_journal_ignores_epochs_and_sequences: 60,
    a_promotion_raises_no_epoch: 40,
    a_promotion_does_not_read_to_the_end: 30,
    a_promotion_reads_first_and_raises_second: 1_450,
    a_timeout_is_taken_for_a_failure: 30,
    a_resend_has_another_name: 150,
    a_resend_has_the_next_sequence: 150,
    an_expiry_is_not_journalled: 30,
    time_goes_back: 510,
    refusals_are_forgotten: 30,
    a_standby_forgets_refusals: 30,
    a_snapshot_loses_payment_ids: 30,
    a_snapshot_loses_documents: 30,
    a_snapshot_loses_refusals: 30,
    a_snapshot_changes_its_rows_twice: 30,
    what_was_forgotten_is_unknown: 30,
    what_sql_has_not_is_forgotten: 40,
    a_standby_folds_twice: 60,
    a_follower_skips_what_was_trimmed: 80,
    what_sql_has_not_is_trimmed: 80,
    what_snapshots_need_is_trimmed: 30,
    a_standby_with_less_than_was_acknowledged_starts: 30,
    the_position_moves_before_the_rows: 40,
    the_position_moves_before_the_facts: 100,
    what_is_not_told_shifts_the_other_facts: 30,
    the_projector_counts_what_it_does_not_know: 140,
    a_release_frees_its_units_twice: 30,
    limits_are_not_restored: 30,
    a_late_payment_takes_no_unit: 30,
    a_late_payment_needs_no_unit: 160,
    deadlines_are_never_taken_out: 30,
    an_older_snapshot_is_never_replaced: 950,
    a_late_round_was_sent_when_it_says: 1_500,
    a_snapshot_hides_its_twin: 190,
    suspects_are_never_told_apart: 700,
    a_lost_round_is_told_retry: 380,
    a_dead_primary_is_not_replaced: 30,
    b.the_last_seat_is_taken_by_all_who_ask_at_once: 30,
    b.a_late_payer_enters_a_team_that_ended: 30,
    b.a_refund_that_is_put_back_closes_the_others_of_its_team: 30,
    b.a_team_has_failed_before_its_refunds_exist: 30,
    b.all_refunds_have_the_leaders_key: 50,
    b.settlements_have_the_leaders_key: 40,
    b.a_member_who_left_still_counts: 50,
    b.the_leader_counts_twice: 30,
    b.a_late_payment_is_taken_and_nothing_follows: 30,
    b.nobody_follows_a_leader_who_left: 150,
    b.a_ladders_refund_is_off_by_a_cent: 30,
    b.unpaid_seats_outlive_their_team: 60,
    b.who_opened_a_team_may_open_no_more: 60,
    b.a_snapshot_has_seats_without_their_team: 30,
    b.a_snapshot_loses_who_leads: 30,
    **RELAY_MUTANTS,
}

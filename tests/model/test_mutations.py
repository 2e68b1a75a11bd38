"""Rules broken on purpose: the model must notice each within a bounded number of steps.

A mutant that survives fails its test: then the model has stopped looking at something. Every mutant
is a function that patches the code; it breaks primary and replicas alike, so what finds it is the
naive model or an invariant, not a difference between copies (but for those of snapshots).
"""

from collections.abc import Callable
from typing import Any

import pytest

from actors.core import (
    codec,
    evolve,
    evolve_reservations,
    evolve_stock,
    forgetting,
    payments,
    pulse,
    reservations,
    snapshot,
    snapshot_rows,
    stock,
    tables,
)
from actors.core import records as r
from actors.core import state as s
from actors.core.identity import request_key
from actors.core.pools import Pool
from actors.core.refunds import RefundReason
from tests.helpers.breakages import (
    a_late_payment_takes_no_unit,
    a_release_frees_its_units_twice,
    a_snapshot_changes_its_rows_twice,
    a_snapshot_loses_documents,
    a_snapshot_loses_refusals,
    after,
    deadlines_are_never_taken_out,
    leave_out,
    limits_are_not_restored,
    refusals_are_forgotten,
    what_was_forgotten_is_unknown,
)
from tests.model.driver import small_tables, walk

STEPS_A_WALK = 300
WALKS_MAX = 40
"""A mutant has to be caught within 40 seeded walks of 300 steps."""

Patch = pytest.MonkeyPatch
Mutant = Callable[[Patch], None]


def row(slot: s.SlotState, key: bytes) -> s.Reservation:
    """The reservation that a record is about."""
    held = slot.reservations.get(key)
    assert held is not None
    return held


def a_return_restores_the_limit_by_the_whole_order(patch: Patch) -> None:
    real = evolve_reservations._count
    patch.setattr(
        evolve_reservations,
        "_count",
        lambda held, n: real(held, n if n > 0 else -held.quantity),
    )


def the_campaigns_limit_is_not_looked_at(patch: Patch) -> None:
    real = reservations.exceeds_limit
    patch.setattr(reservations, "exceeds_limit", lambda _sale, *rest: real(None, *rest))


def a_late_payment_ignores_the_limit(patch: Patch) -> None:
    patch.setattr(payments, "exceeds_limit", lambda *_: False)


def confirming_leaves_the_deadline(patch: Patch) -> None:
    def more(_state: s.ShardState, slot: s.SlotState, record: Any) -> None:
        held = row(slot, record.key)
        slot.deadlines.add(held.key, held.deadline_ms, held.reserved_ms)

    after(patch, r.RESERVATION_CONFIRMED, more)


def deadlines_are_rounded_down(patch: Patch) -> None:
    def add(self: tables.Deadlines, key: bytes, at_ms: int, now_ms: int) -> None:
        real(self, key, at_ms // 100 * 100, now_ms)

    real = tables.Deadlines.add
    patch.setattr(tables.Deadlines, "add", add)


def a_quiet_slot_forgets_its_newest_refusals(patch: Patch) -> None:
    real = tables.Refusals.advance

    def advance(self: tables.Refusals, now_ms: int) -> None:
        stale = now_ms - self.began_ms >= 2 * self.window_ms
        real(self, now_ms)
        if stale:
            self.previous = tables.SplitDict()

    patch.setattr(tables.Refusals, "advance", advance)


def a_payment_id_is_not_remembered(patch: Patch) -> None:
    after(
        patch,
        r.RESERVATION_CONFIRMED,
        lambda _, slot, record: _drop(slot.payments, payments.payment_key(record.payment_id)),
    )


def a_receipts_id_is_not_remembered(patch: Patch) -> None:
    after(
        patch,
        r.STOCK_CHANGED,
        lambda _, slot, x: _drop(slot.documents, request_key(x.caller, x.request_id)),
    )


def an_arrival_is_not_remembered(patch: Patch) -> None:
    after(patch, r.TRANSFERRED_IN, lambda _, slot, x: _drop(slot.arrivals, x.transfer_id))


def _drop(table: Any, key: bytes) -> None:
    table.pop(key)


def units_that_arrived_stay_in_the_sources_total(patch: Patch) -> None:
    def more(_state: s.ShardState, slot: s.SlotState, record: Any) -> None:
        transfer = slot.transfers.get(record.transfer_id)
        if transfer is not None and record.arrived:
            pool = slot.pool(transfer.from_campaign_id, transfer.sku_id)
            assert pool is not None
            pool.total += transfer.quantity
            pool.available += transfer.quantity

    after(patch, r.TRANSFER_ENDED, more)


def any_number_of_units_may_arrive(patch: Patch) -> None:
    patch.setattr(stock, "_takes", lambda slot, q, _: bool(slot.pool(q.to_campaign_id, q.sku_id)))


def the_buffer_is_not_in_the_total(patch: Patch) -> None:
    def more(_state: s.ShardState, slot: s.SlotState, record: Any) -> None:
        pool = slot.pool(record.campaign_id, record.sku_id)
        assert pool is not None
        pool.total -= record.buffer

    after(patch, r.STOCK_CHANGED, more)


def the_law_is_broken_and_nobody_looks(patch: Patch) -> None:
    the_buffer_is_not_in_the_total(patch)
    patch.setattr(Pool, "broken_law", lambda _: "")


def each_part_of_a_return_is_rounded_by_itself(patch: Patch) -> None:
    real = payments._returned

    def returned(
        slot: s.SlotState, command: Any, held: s.Reservation, key: bytes, mark: int
    ) -> Any:
        answer, (record,) = real(slot, command, held, key, mark)
        assert held.payment is not None
        part = held.payment.amount_minor * command.quantity // held.quantity
        return answer, (record._replace(refund_minor=part),) if record.refund_key else (record,)

    patch.setattr(payments, "_returned", returned)


def all_refunds_of_returns_share_an_id(patch: Patch) -> None:
    patch.setattr(payments, "return_refund_key", lambda _: bytes(16))


def any_amount_confirms(patch: Patch) -> None:
    real = payments._why_not_kept

    def why(slot: s.SlotState, held: Any, paid: int) -> Any:
        reason = real(slot, held, paid)
        return None if reason is RefundReason.WRONG_AMOUNT else reason

    patch.setattr(payments, "_why_not_kept", why)


def a_late_payers_refund_has_no_compensation(patch: Patch) -> None:
    def more(_state: s.ShardState, slot: s.SlotState, record: Any) -> None:
        refund = slot.refunds.get(record.refund_key)
        assert refund is not None
        refund.compensation = False

    after(patch, r.REFUND_FELL_DUE, more)


def a_revoked_order_is_not_refunded(patch: Patch) -> None:
    real = pulse._revoked
    patch.setattr(
        pulse,
        "_revoked",
        lambda slot, held: real(slot, held)._replace(refund_key=b"", refund_minor=0),
    )


def the_oldest_are_revoked_first(patch: Patch) -> None:
    real = pulse.Search.look_on

    def look_on(self: pulse.Search, pool: Pool) -> bool:
        done = self._ordered is None and real(self, pool)
        if done and self._ordered is not None:
            self._ordered.reverse()
        return done or self._ordered is not None

    patch.setattr(pulse.Search, "look_on", look_on)


def freed_units_do_not_pay_what_is_owed(patch: Patch) -> None:
    patch.setattr(evolve_stock, "pay_owed", lambda *_: 0)
    patch.setattr(evolve_reservations, "pay_owed", lambda *_: 0)


def every_begin_moves_the_deadline(patch: Patch) -> None:
    def more(_state: s.ShardState, slot: s.SlotState, record: Any) -> None:
        row(slot, record.key).begun = False

    after(patch, r.PAYMENT_BEGUN, more)


def begin_leaves_the_old_deadline(patch: Patch) -> None:
    def more(_state: s.ShardState, slot: s.SlotState, record: Any) -> None:
        held = row(slot, record.key)
        slot.deadlines.add(held.key, held.first_deadline_ms, held.reserved_ms)

    after(patch, r.PAYMENT_BEGUN, more)


def other_arguments_are_not_noticed(patch: Patch) -> None:
    patch.setattr(reservations, "fingerprint_of", lambda *_: 1 << 32)


def a_closed_refund_can_be_paid_again(patch: Patch) -> None:
    def more(_state: s.ShardState, slot: s.SlotState, record: Any) -> None:
        refund = slot.refunds.get(record.refund_key)
        assert refund is not None
        refund.state = s.REFUND_DUE

    after(patch, r.REFUND_REPORTED, more)


def a_snapshots_limits_are_not_counted(patch: Patch) -> None:
    patch.setattr(snapshot_rows, "counted_units", lambda _: 0)


def a_snapshot_has_no_figures(patch: Patch) -> None:
    leave_out(patch, "figures")


def a_new_limit_counts_from_nothing(patch: Patch) -> None:
    real = s.Campaign.link_counts

    def link_counts(self: s.Campaign) -> None:
        real(self)
        for pool in self.pools.values():
            if not pool.limit_per_buyer:
                pool.counted_in = ()

    patch.setattr(s.Campaign, "link_counts", link_counts)


def a_second_line_forgets_what_the_first_counted(patch: Patch) -> None:
    patch.setattr(tables.Counts, "copy", lambda _: tables.Counts())


def a_shortage_ignores_what_is_owed_already(patch: Patch) -> None:
    def more(_state: s.ShardState, slot: s.SlotState, record: Any) -> None:
        key = request_key(record.caller, record.request_id)
        pool = slot.pool(record.campaign_id, record.sku_id)
        if pool is not None and record.document == r.DOCUMENT_SHORTAGE:
            from_reserved = min(record.owed, pool.reserved)
            slot.figures.put(key, (0, 0, 0, from_reserved, record.owed - from_reserved))

    after(patch, r.STOCK_CHANGED, more)


def a_failed_payment_is_not_remembered(patch: Patch) -> None:
    patch.setattr(evolve_reservations, "failed_key", lambda *_: bytes(16))


def a_records_field_is_lost_in_the_journal(patch: Patch) -> None:
    at = r.ReservationConfirmed._fields.index("campaign_id")

    def lossy(*x: Any) -> r.ReservationConfirmed:
        return r.ReservationConfirmed._make((*x[:at], False, *x[at + 1 :]))

    lost = {r.RESERVATION_CONFIRMED: lossy}
    patch.setattr(codec, "RECORDS", {**r.RECORDS, **lost})


def orders_that_a_limit_counts_are_forgotten(patch: Patch) -> None:
    patch.setattr(forgetting, "_may_go", lambda *_: True)


def a_recalled_orders_units_stay_apart(patch: Patch) -> None:
    def more(_state: s.ShardState, slot: s.SlotState, record: Any) -> None:
        held = row(slot, record.key)
        held.pool.forgotten_sold += evolve_reservations.counted_units(held)

    after(patch, r.RESERVATION_RECALLED, more)


def a_row_comes_back_without_its_first_deadline(patch: Patch) -> None:
    real = evolve_reservations.from_recalled

    def mutated(*given: Any) -> s.Reservation:
        held = real(*given)
        held.first_deadline_ms = held.deadline_ms
        return held

    patch.setattr(evolve_reservations, "from_recalled", mutated)


def a_snapshot_has_no_filter(patch: Patch) -> None:
    patch.setattr(snapshot, "_segments", lambda _: ())


def a_row_forgotten_under_a_snapshot_is_missed(patch: Patch) -> None:
    real = evolve_reservations.skip

    def skip(state: s.ShardState, slot: s.SlotState, key: bytes, *table: str) -> bool:
        gone = state.fuzzy is not None and not table and key not in slot.reservations
        return not gone and real(state, slot, key, *table)

    patch.setattr(evolve_reservations, "skip", skip)


MUTANTS: list[Mutant] = [
    what_was_forgotten_is_unknown,
    orders_that_a_limit_counts_are_forgotten,
    a_recalled_orders_units_stay_apart,
    a_row_comes_back_without_its_first_deadline,
    a_snapshot_has_no_filter,
    a_row_forgotten_under_a_snapshot_is_missed,
    a_snapshot_has_no_figures,
    a_second_line_forgets_what_the_first_counted,
    a_shortage_ignores_what_is_owed_already,
    a_failed_payment_is_not_remembered,
    a_release_frees_its_units_twice,
    limits_are_not_restored,
    a_return_restores_the_limit_by_the_whole_order,
    the_campaigns_limit_is_not_looked_at,
    a_late_payment_takes_no_unit,
    a_late_payment_ignores_the_limit,
    deadlines_are_never_taken_out,
    confirming_leaves_the_deadline,
    deadlines_are_rounded_down,
    refusals_are_forgotten,
    a_quiet_slot_forgets_its_newest_refusals,
    a_payment_id_is_not_remembered,
    a_receipts_id_is_not_remembered,
    an_arrival_is_not_remembered,
    units_that_arrived_stay_in_the_sources_total,
    any_number_of_units_may_arrive,
    the_buffer_is_not_in_the_total,
    the_law_is_broken_and_nobody_looks,
    each_part_of_a_return_is_rounded_by_itself,
    all_refunds_of_returns_share_an_id,
    any_amount_confirms,
    a_late_payers_refund_has_no_compensation,
    a_revoked_order_is_not_refunded,
    the_oldest_are_revoked_first,
    freed_units_do_not_pay_what_is_owed,
    every_begin_moves_the_deadline,
    begin_leaves_the_old_deadline,
    other_arguments_are_not_noticed,
    a_closed_refund_can_be_paid_again,
    a_snapshot_loses_documents,
    a_snapshot_loses_refusals,
    a_snapshot_changes_its_rows_twice,
    a_snapshots_limits_are_not_counted,
    a_new_limit_counts_from_nothing,
    a_records_field_is_lost_in_the_journal,
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_the_model_notices_that(mutant: Mutant, monkeypatch: Patch) -> None:
    small_tables(monkeypatch)
    mutant(monkeypatch)
    for seed in range(WALKS_MAX):
        try:
            walk(seed, STEPS_A_WALK)
        except (AssertionError, evolve.Impossible) as noticed:
            print(f"noticed in walk {seed}: {noticed}")
            return
    pytest.fail(f"the mutant survived {WALKS_MAX} walks of {STEPS_A_WALK} steps")

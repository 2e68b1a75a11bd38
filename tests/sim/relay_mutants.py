"""Rules of the way between stock and account shards, each broken on purpose. See `mutants.py`."""

from collections.abc import Iterator, Sequence
from typing import Any

from actors.core import (
    act,
    commission_state,
    earning,
    evolve,
    forgetting_accounts,
    order_facts,
    paying_out,
    pulse,
    taking,
)
from actors.core import facts as f
from actors.core import records as r
from actors.core import relay_commands as y
from actors.core import relay_records as yr
from actors.core import risk_records as k
from actors.core import team_records as t
from actors.core.snapshot import Loader
from actors.core.state import ShardState
from server import relay
from server.frontier import END, Frontier
from server.holds import Holds
from server.relay import Piece, Source
from tests.helpers.breakages import Patch
from tests.helpers.commission_breakages import (
    a_failed_withdrawal_is_gone,
    a_reversal_is_clamped_at_zero,
    an_older_telling_lifts_a_newer_hold,
    an_order_earns_at_the_rates_of_today,
    an_order_pays_who_is_bound_today,
)


def the_relay_skips_a_fact(patch: Patch) -> None:
    """Each line follows the one before it all the same, so no account shard can see it."""
    honest = Source._missing

    def missing(self: Source, shard: int, facts: Any) -> Any:
        return [
            (seq, index, slot, fact)
            for seq, index, slot, fact in honest(self, shard, facts)
            if seq % 5 or fact.kind != f.ORDER_EARNED
        ]

    patch.setattr(Source, "_missing", missing)


def the_relay_tells_one_twice(patch: Patch) -> None:
    """Under two numbers: an account shard cannot know it for the same."""
    honest = relay.numbered_facts

    def twice(*told: Any) -> Iterator[tuple[int, int, int, Any]]:
        for shard, index, slot, fact in honest(*told):
            if index == y.ENTRY_END and fact.kind == f.PAYMENT_FAILED:
                yield shard, y.ENTRY_END - 1, slot, fact
            yield shard, index, slot, fact

    patch.setattr(relay, "numbered_facts", twice)


def the_relay_moves_marks_before_it_sends(patch: Patch) -> None:
    """Whoever is killed between the two has lost a fact."""
    honest = Source._send

    async def send(self: Source, piece: Piece) -> None:
        if piece.to_seq % 4 == 0:
            self.position = piece.to_seq
            self._moved_at = 0.0
            await self._move_marks()
        await honest(self, piece)

    patch.setattr(Source, "_send", send)


def sources_do_not_wait_for_each_other(patch: Patch) -> None:
    """An order may be told before what bound its buyer."""
    patch.setattr(Frontier, "free", lambda self: (END, ()))


def a_look_of_before_an_entry_counts_for_it(patch: Patch) -> None:
    """A source that was at the end of its journal once is taken to be there still."""
    patch.setattr(Frontier, "_seen", lambda self, seq: 1)


def a_mark_is_journalled_before_what_its_fact_does(patch: Patch) -> None:
    """In the entry of the next facts at best."""
    honest = taking.take_facts
    late: dict[int, list[Any]] = {}

    def take(state: ShardState, command: Any, now_ms: int, records: list[Any], **how: Any) -> Any:
        made: list[Any] = []
        answer = honest(state, command, now_ms, made, **how)
        earlier = late.pop(id(state), [])
        if command.facts[-1][-1] and command.facts[-1][-1][0] == f.ORDER_RETURNED:
            late[id(state)] = made[1:]
            made = made[:1]
        records.extend([*made, *earlier] if made else ())
        return answer

    patch.setattr(act, "take_facts", take)


def an_account_shard_ignores_marks(patch: Patch) -> None:
    """Whatever comes is taken."""
    honest = taking._effect

    def effect(state: ShardState, placed: Any, after: Any, now_ms: int, **how: Any) -> Any:
        return honest(state, placed, (-1, -1), now_ms, **how)

    patch.setattr(y.TakeFacts, "were_taken", lambda self, mark: False)
    patch.setattr(y.TakeFacts, "follow", lambda self, mark: True)
    patch.setattr(taking, "_effect", effect)


def facts_of_a_line_are_decided_at_once(patch: Patch) -> None:
    """None of them knows what those before it did."""
    honest, waiting = taking.take_facts, list[Any]()

    def take(state: ShardState, command: Any, now_ms: int, records: list[Any], **how: Any) -> Any:
        answer = honest(state, command, now_ms, records, **how)
        for record in waiting:
            evolve.evolve(state, record)
        waiting.clear()
        return answer

    patch.setattr(act, "take_facts", take)
    patch.setattr(taking, "evolve", lambda state, record: waiting.append(record))


def a_reversal_counts_twice(patch: Patch) -> None:
    """A total is taken for what came back this time."""
    honest = earning._order_reduced

    def reduced(programme: Any, slot: int, fact: Any, now_ms: int) -> Any:
        order = programme.orders.get(earning.order_key(fact.reservation_id))
        before = 0 if order is None else order.returned
        more = fact._replace(returned_total=before + fact.returned_total)
        return honest(programme, slot, more, now_ms)

    patch.setitem(earning._EFFECTS, f.ORDER_REDUCED, reduced)


def a_snapshot_loses_marks(patch: Patch) -> None:
    honest = Loader._set_small

    def set_small(self: Loader) -> None:
        honest(self)
        self.state.sources = {}

    patch.setattr(Loader, "_set_small", set_small)


def a_fold_forgets_marks(patch: Patch) -> None:
    """A standby does not know what its primary took."""

    def taken(state: ShardState, slot: Any, record: Any) -> None:
        if state.seq % 3:
            honest(state, slot, record)

    honest: Any = evolve.EVOLVE[yr.FACT_TAKEN]
    patch.setitem(evolve.EVOLVE, yr.FACT_TAKEN, taken)


def what_the_journal_has_no_more_is_passed_over(patch: Patch) -> None:
    """Though SQL has its facts."""

    async def kept(self: Source) -> Piece:
        return Piece((), (await self._journal.read_meta()).first_seq - 1)

    patch.setattr(Source, "_read_kept", kept)


def a_freeze_is_not_told(patch: Patch) -> None:
    """The programme pays who is frozen."""

    async def finish(self: Holds, chore: Sequence[Any]) -> bool:
        return True

    patch.setattr(Holds, "finish", finish)


def a_fact_that_does_not_follow_is_taken(patch: Patch) -> None:
    """What lies between is lost."""
    patch.setattr(y.TakeFacts, "follow", lambda self, mark: not self.were_taken(mark))


def the_success_of_a_team_is_told_to_nobody(patch: Patch) -> None:
    patch.setitem(order_facts._FACTS, t.SEAT_SETTLED, lambda *_: None)


def a_seat_earns_on_what_is_paid_back(patch: Patch) -> None:
    """On the price before its team had so many members."""
    honest = order_facts._settled

    def settled(record: t.SeatSettled, *told: Any) -> None:
        first_minor = record.final_minor + record.refund_minor
        honest(record._replace(final_minor=first_minor), *told)

    patch.setitem(order_facts._FACTS, t.SEAT_SETTLED, settled)


def a_seat_earns_before_its_team_has_formed(patch: Patch) -> None:
    """Already when it is paid."""
    honest = order_facts._confirmed

    def confirmed(record: r.ReservationConfirmed, *told: Any) -> None:
        honest(record._replace(is_seat=False), *told)

    patch.setitem(order_facts._FACTS, r.RESERVATION_CONFIRMED, confirmed)


def an_expiry_is_told_to_nobody(patch: Patch) -> None:
    patch.setitem(order_facts._FACTS, r.RESERVATION_EXPIRED, lambda *_: None)


# What account shards decide by themselves


def a_month_is_never_closed(patch: Patch) -> None:
    patch.setattr(pulse, "statements_due", lambda *_: [])


def a_month_is_closed_before_it_is_over(patch: Patch) -> None:
    patch.setattr(paying_out, "_ends_ms", lambda *_: 0)


def a_freeze_never_ends(patch: Patch) -> None:
    honest = pulse.due_risk

    def due(*told: Any) -> list[Any]:
        return [record for record in honest(*told) if record[0] != k.BUYER_UNFROZEN]

    patch.setattr(pulse, "due_risk", due)


def a_hold_never_ends(patch: Patch) -> None:
    patch.setattr(pulse, "_holds_over", lambda *_: [])


def what_a_hold_kept_is_never_paid(patch: Patch) -> None:
    patch.setattr(pulse, "released", lambda *_: [])


def what_is_held_is_paid(patch: Patch) -> None:
    patch.setattr(commission_state.Distributor, "held", lambda self: False)


def a_return_of_a_forgotten_order_is_ignored(patch: Patch) -> None:
    patch.setattr(forgetting_accounts, "order_may_be_forgotten", lambda *_: False)


RELAY_MUTANTS = {
    a_return_of_a_forgotten_order_is_ignored: 30,
    the_relay_skips_a_fact: 30,
    the_relay_tells_one_twice: 30,
    the_relay_moves_marks_before_it_sends: 30,
    sources_do_not_wait_for_each_other: 30,
    a_look_of_before_an_entry_counts_for_it: 30,
    a_mark_is_journalled_before_what_its_fact_does: 30,
    an_account_shard_ignores_marks: 30,
    facts_of_a_line_are_decided_at_once: 30,
    a_reversal_counts_twice: 30,
    a_snapshot_loses_marks: 30,
    a_fold_forgets_marks: 30,
    what_the_journal_has_no_more_is_passed_over: 110,
    a_freeze_is_not_told: 30,
    a_fact_that_does_not_follow_is_taken: 30,
    the_success_of_a_team_is_told_to_nobody: 30,
    a_seat_earns_on_what_is_paid_back: 30,
    a_seat_earns_before_its_team_has_formed: 30,
    an_expiry_is_told_to_nobody: 30,
    a_month_is_never_closed: 30,
    a_month_is_closed_before_it_is_over: 30,
    a_freeze_never_ends: 30,
    a_hold_never_ends: 30,
    an_older_telling_lifts_a_newer_hold: 65,
    what_a_hold_kept_is_never_paid: 30,
    what_is_held_is_paid: 30,
    a_reversal_is_clamped_at_zero: 160,
    a_failed_withdrawal_is_gone: 65,
    an_order_earns_at_the_rates_of_today: 40,
    an_order_pays_who_is_bound_today: 30,
}
"""Within so many seeds with accounts each is caught."""

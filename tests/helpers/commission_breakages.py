"""Rules of commission, each broken on purpose: first the bugs found in well-known shops.

As in `breakages.py`, a breakage is a function that patches the real code.
"""

from collections.abc import Callable
from typing import Any

import pytest

from actors.core import commission_commands as c
from actors.core import commission_records as cr
from actors.core import (
    commission_state,
    decide,
    earning,
    evolve,
    evolve_commission,
    ledger,
    paying_out,
    programme,
    pulse,
)
from actors.core.months import month_at
from actors.core.outcomes import Outcome

Patch = pytest.MonkeyPatch


def _shares_of(patch: Patch, change: Callable[[Any, Any, list[Any]], list[Any]]) -> None:
    """What an order's levels get goes through `change(version, fact, shares)`."""
    honest = earning._shares

    def shares(programme: Any, version: Any, fact: Any, *of: Any) -> Any:
        return tuple(change(version, fact, list(honest(programme, version, fact, *of))))

    patch.setattr(earning, "_shares", shares)


# Found in well-known shops


def a_running_total_is_credited_inside_the_loop(patch: Patch) -> None:
    def change(version: Any, fact: Any, shares: list[Any]) -> list[Any]:
        total, credited = 0, []
        for share in shares:
            total += share.amount_minor
            credited.append(share._replace(amount_minor=total))
        return credited

    _shares_of(patch, change)


def two_workers_thaw_the_same_share(patch: Patch) -> None:
    """Both found it due; nothing compares its state, and there is no last line of defence."""
    honest = earning._matured
    patch.setattr(evolve_commission, "_become_available", _become_available_whatever)

    def matured(programme: Any, slot: int, now_ms: int, limit: int) -> list[Any]:
        due = programme.maturing.due(now_ms, limit)
        book = ledger.Book(programme, now_ms)
        return [honest(programme, slot, book, key, 1) for key in due for _ in range(2)]

    patch.setattr(pulse, "matured", matured)
    real = evolve_commission.post

    def post(state: Any, slot: Any, programme: Any, entries: Any) -> None:
        for entry in entries:
            held = programme.distributors.get(entry[2])
            if held is not None and entry[1] == cr.BECAME_AVAILABLE:
                held.balances[commission_state.FROZEN_AT] += 1 << 40
        real(state, slot, programme, entries)
        for entry in entries:
            held = programme.distributors.get(entry[2])
            if held is not None and entry[1] == cr.BECAME_AVAILABLE:
                held.balances[commission_state.FROZEN_AT] -= 1 << 40

    patch.setattr(evolve_commission, "post", post)


def _become_available_whatever(state: Any, programme: Any, key: bytes, share: Any) -> None:
    share.state = commission_state.AVAILABLE
    held = programme.distributors.get(share.distributor_id)
    held.waiting.pop(key, None)
    commission_state.release(programme, share.distributor_id, held)


def a_reversal_is_clamped_at_zero(patch: Patch) -> None:
    honest = earning._reversal

    def reversal(programme: Any, *rest: Any) -> Any:
        entry = honest(programme, *rest)
        held = programme.distributors.get(entry.distributor_id)
        over = min(0, held.balances[commission_state.SETTLED_AT] + entry.settled_minor)
        over = max(over, entry.settled_minor)
        return entry._replace(
            settled_minor=entry.settled_minor - over, expense_minor=entry.expense_minor + over
        )

    patch.setattr(earning, "_reversal", reversal)


def a_refund_after_the_payout_is_ignored(patch: Patch) -> None:
    honest = earning._order_reduced

    def reduced(programme: Any, slot: int, fact: Any, now_ms: int) -> Any:
        order = programme.orders.get(commission_state.order_key(fact.reservation_id))
        if order is not None and any(
            share.state == commission_state.AVAILABLE for share in order.earnings
        ):
            return ()
        return honest(programme, slot, fact, now_ms)

    patch.setitem(earning._EFFECTS, 3, reduced)


def only_cycles_of_two_are_caught(patch: Patch) -> None:
    def closes_cycle(programme: Any, buyer_id: str, distributor_id: str, at_ms: int) -> Any:
        bonds = programme.bonds.get(distributor_id)
        bond = None if bonds is None else bonds.at(at_ms)
        back = bond is not None and bond.distributor_id == buyer_id
        return Outcome.CYCLE if back else None

    patch.setattr(programme, "closes_cycle", closes_cycle)


def the_test_of_validity_is_inverted(patch: Patch) -> None:
    def at(self: Any, at_ms: int) -> Any:
        for bond in reversed(self.bonds):
            if bond.from_ms <= at_ms:
                return bond if at_ms >= bond.until_ms else None
        return None

    patch.setattr(commission_state.Bonds, "at", at)


def an_order_pays_who_is_bound_today(patch: Patch) -> None:
    honest = earning.bond_at
    patch.setattr(
        earning, "bond_at", lambda programme, buyer_id, at_ms: honest(programme, buyer_id, 1 << 59)
    )


def the_base_is_multiplied_by_the_quantity(patch: Patch) -> None:
    honest = earning._shares

    def shares(programme: Any, version: Any, fact: Any, *of: Any) -> Any:
        many = fact._replace(base_minor=fact.base_minor * fact.quantity)
        return honest(programme, version, many, *of)

    patch.setattr(earning, "_shares", shares)


# Earning


def an_order_earns_at_the_rates_of_today(patch: Patch) -> None:
    patch.setattr(commission_state.Programme, "version_at", lambda self, at_ms: self.newest())


def a_share_is_rounded_up(patch: Patch) -> None:
    def change(version: Any, fact: Any, shares: list[Any]) -> list[Any]:
        return [
            share._replace(amount_minor=-(-fact.base_minor * share.rate_bps // 10_000))
            if share.amount_minor == fact.base_minor * share.rate_bps // 10_000
            else share
            for share in shares
        ]

    _shares_of(patch, change)


def the_second_level_earns_on_the_firsts_share(patch: Patch) -> None:
    def change(version: Any, fact: Any, shares: list[Any]) -> list[Any]:
        if len(shares) < 2:
            return shares
        part = shares[0].amount_minor * shares[1].rate_bps // 10_000
        return [shares[0], shares[1]._replace(amount_minor=part)]

    _shares_of(patch, change)


def margins_are_not_looked_at(patch: Patch) -> None:
    honest = commission_state.Version.rates
    patch.setattr(
        commission_state.Version, "rates", lambda self, *names: (*honest(self, *names)[:2], -1)
    )


def the_margin_is_that_of_one_unit(patch: Patch) -> None:
    honest = earning._shares

    def shares(programme: Any, version: Any, fact: Any, *of: Any) -> Any:
        return honest(programme, version, fact._replace(quantity=1), *of)

    patch.setattr(earning, "_shares", shares)


def a_suspended_first_level_feeds_the_second(patch: Patch) -> None:
    def second(programme: Any, fact: Any, referrer_id: str, _: Any) -> str:
        bond = programme_bond(programme, referrer_id, fact.reserved_ms)
        return "" if bond is None else str(bond.distributor_id)

    programme_bond = earning.bond_at
    patch.setattr(earning, "_second_level", second)


def an_order_that_is_told_again_earns_again(patch: Patch) -> None:
    honest = earning._order_earned
    seen: dict[str, int] = {}

    def earned(programme: Any, slot: int, fact: Any, now_ms: int) -> Any:
        seen[fact.reservation_id] = seen.get(fact.reservation_id, 0) + 1
        if seen[fact.reservation_id] > 1:
            other = f"{seen[fact.reservation_id]:03x}{fact.reservation_id[3:]}"
            fact = fact._replace(reservation_id=other)
        return honest(programme, slot, fact, now_ms)

    patch.setitem(earning._EFFECTS, 2, earned)


def another_currency_is_taken_for_ones_own(patch: Patch) -> None:
    honest = earning._order_earned

    def earned(programme: Any, slot: int, fact: Any, now_ms: int) -> Any:
        return honest(programme, slot, fact._replace(currency_code="CNY"), now_ms)

    patch.setitem(earning._EFFECTS, 2, earned)


# The freeze


def what_a_held_distributor_earned_is_paid_all_the_same(patch: Patch) -> None:
    patch.setattr(commission_state.Distributor, "held", lambda self: False)


def an_older_telling_lifts_a_newer_hold(patch: Patch) -> None:
    honest = programme.hold_distributor

    def hold(state: Any, command: Any, now_ms: int) -> Any:
        held = programme.programme_of(state, command.slot).distributors.get(command.distributor_id)
        if held is not None:
            held.held_as_of_ms = 0
        return honest(state, command, now_ms)

    patch.setitem(decide.HANDLERS, c.HOLD_DISTRIBUTOR, hold)


def a_hold_never_ends_by_itself(patch: Patch) -> None:
    patch.setattr(pulse, "_holds_over", lambda *_: [])


def who_is_released_has_lost_what_waited(patch: Patch) -> None:
    patch.setattr(pulse, "released", lambda *_: [])


def a_delivery_moves_nothing(patch: Patch) -> None:
    patch.setitem(earning._EFFECTS, 4, lambda *_: ())


def every_report_of_a_delivery_moves_the_freeze(patch: Patch) -> None:
    honest = evolve_commission.maturity_moved

    def moved(state: Any, slot: Any, record: Any) -> None:
        honest(state, slot, record)
        slot.programme.orders.get(record.key).delivered = False

    patch.setitem(evolve.EVOLVE, cr.MATURITY_MOVED, moved)


def a_late_delivery_holds_the_money_for_ever_longer(patch: Patch) -> None:
    honest = earning._order_delivered

    def delivered(programme: Any, slot: int, fact: Any, now_ms: int) -> Any:
        order = programme.orders.get(commission_state.order_key(fact.reservation_id))
        return tuple(
            record._replace(matures_ms=fact.at_ms + _freeze_ms(programme, order))
            for record in honest(programme, slot, fact, now_ms)
        )

    patch.setitem(earning._EFFECTS, 4, delivered)


def _freeze_ms(programme: Any, order: Any) -> int:
    version = programme.rates.get(commission_state.version_key(order.version))
    return int(version.config.freeze_ms)


# Reversals


def parts_that_come_back_are_rounded_one_by_one(patch: Patch) -> None:
    honest = earning._left

    def left(full_minor: int, order: Any, returned: int) -> int:
        if returned == order.returned or full_minor == order.base_minor:
            return honest(full_minor, order, returned)
        now = next(share for share in order.earnings if share.full_minor == full_minor)
        units = returned - order.returned
        return max(0, int(now.amount_minor) - full_minor * units // order.quantity)

    patch.setattr(earning, "_left", left)


def a_return_takes_back_the_whole_share(patch: Patch) -> None:
    honest = earning._left
    patch.setattr(
        earning,
        "_left",
        lambda full, order, returned: (
            0
            if returned > order.returned and full != order.base_minor
            else honest(full, order, returned)
        ),
    )


def a_reversal_takes_what_is_settled_first(patch: Patch) -> None:
    honest = ledger.taken
    patch.setattr(
        earning,
        "taken",
        lambda held, amount, settled_first: honest(held, amount, settled_first=True),
    )


def returns_stay_on_the_board_of_sales(patch: Patch) -> None:
    honest = earning._order_reduced

    def reduced(*told: Any) -> Any:
        return tuple(record._replace(sales_minor=0) for record in honest(*told))

    patch.setitem(earning._EFFECTS, 3, reduced)


# Bindings


def a_binding_by_a_fact_stands_from_when_it_is_told(patch: Patch) -> None:
    honest = earning.bind

    def bind(programme: Any, number: int, touch: Any, now_ms: int) -> Any:
        return honest(programme, number, touch._replace(at_ms=now_ms), now_ms)

    patch.setattr(earning, "bind", bind)


def only_the_newest_binding_was_ever_in_force(patch: Patch) -> None:
    def at(self: Any, at_ms: int) -> Any:
        bond = self.bonds[-1]
        return bond if bond.from_ms <= at_ms < bond.until_ms else None

    patch.setattr(commission_state.Bonds, "at", at)


def nobody_is_protected(patch: Patch) -> None:
    honest = programme._not_bound

    def not_bound(owner: Any, config: Any, *rest: Any) -> Any:
        return honest(owner, config._replace(protection_ms=0), *rest)

    patch.setattr(programme, "_not_bound", not_bound)


def anybody_is_a_new_buyer(patch: Patch) -> None:
    honest = programme._not_bound

    def not_bound(owner: Any, config: Any, *rest: Any) -> Any:
        return honest(owner, config._replace(new_buyers_only=False), *rest)

    patch.setattr(programme, "_not_bound", not_bound)


def buyers_are_bound_to_themselves(patch: Patch) -> None:
    honest = programme._not_bound

    def not_bound(*told: Any) -> Any:
        broken = honest(*told)
        return None if broken is Outcome.SELF_REFERRAL else broken

    patch.setattr(programme, "_not_bound", not_bound)


def a_buyer_who_comes_back_counts_as_invited_again(patch: Patch) -> None:
    honest = programme.bind

    def bind(*told: Any) -> Any:
        answer, records = honest(*told)
        return answer, tuple(record._replace(invited=not record.renewed) for record in records)

    patch.setattr(programme, "bind", bind)
    patch.setattr(earning, "bind", bind)


# Paying out


def months_are_those_of_another_zone(patch: Patch) -> None:
    patch.setattr(ledger, "month_at", lambda zone, at_ms: month_at("Pacific/Pago_Pago", at_ms))


def a_statement_takes_what_came_after_its_month(patch: Patch) -> None:
    honest = paying_out._statement

    def statement(programme: Any, slot: int, book: Any, name: str, *rest: Any) -> Any:
        record = honest(programme, slot, book, name, *rest)
        held = programme.distributors.get(name)
        more = held.balances[commission_state.AVAILABLE_AT] - record.moved_minor
        if not record.entries or not more:
            return record
        (entry,) = record.entries
        moved = record.moved_minor + more
        entry = entry._replace(available_minor=-moved, settled_minor=moved)
        return record._replace(moved_minor=moved, entries=(entry,))

    patch.setattr(paying_out, "_statement", statement)


def a_debt_is_not_carried_into_the_next_statement(patch: Patch) -> None:
    honest = paying_out._statement

    def statement(*told: Any) -> Any:
        record = honest(*told)
        return record._replace(closing_minor=max(0, record.closing_minor))

    patch.setattr(paying_out, "_statement", statement)


def a_statement_does_not_know_of_withdrawals(patch: Patch) -> None:
    honest = paying_out._statement

    def statement(*told: Any) -> Any:
        record = honest(*told)
        closing = record.closing_minor + record.withdrawn_minor
        return record._replace(closing_minor=closing)

    patch.setattr(paying_out, "_statement", statement)


def a_debt_does_not_lessen_what_may_be_withdrawn(patch: Patch) -> None:
    patch.setattr(
        commission_state.Distributor,
        "withdrawable_minor",
        lambda self: self.balances[2] + max(0, self.balances[3]),
    )


def a_failed_withdrawal_is_gone(patch: Patch) -> None:
    honest = paying_out._review_entries

    def entries(programme: Any, command: Any, held: Any, after: int, now_ms: int) -> Any:
        return tuple(
            entry._replace(
                paid_out_minor=entry.paid_out_minor + entry.settled_minor + entry.available_minor,
                settled_minor=0,
                available_minor=0,
            )
            for entry in honest(programme, command, held, after, now_ms)
        )

    patch.setattr(paying_out, "_review_entries", entries)


def a_withdrawal_comes_back_to_where_it_was_not(patch: Patch) -> None:
    honest = paying_out._review_entries

    def entries(*told: Any) -> Any:
        return tuple(
            entry._replace(
                settled_minor=entry.settled_minor + entry.available_minor, available_minor=0
            )
            for entry in honest(*told)
        )

    patch.setattr(paying_out, "_review_entries", entries)


def who_is_frozen_withdraws(patch: Patch) -> None:
    honest = paying_out._not_withdrawable

    def not_withdrawable(*told: Any) -> Any:
        broken = honest(*told)
        return None if broken is Outcome.BUYER_FROZEN else broken

    patch.setattr(paying_out, "_not_withdrawable", not_withdrawable)


def a_withdrawal_is_paid_without_approval(patch: Patch) -> None:
    nexts = {**evolve_commission.NEXT_STATES, 1: (2, 3, 4, 5)}
    patch.setattr(paying_out, "NEXT_STATES", nexts)
    patch.setattr(evolve_commission, "NEXT_STATES", nexts)


def a_payment_under_another_number_is_the_same_one(patch: Patch) -> None:
    honest = paying_out.review_withdrawal

    def review(state: Any, command: Any, now_ms: int) -> Any:
        return honest(state, command._replace(reference=""), now_ms)

    patch.setitem(decide.HANDLERS, c.REVIEW_WITHDRAWAL, review)

"""What becomes of commission out of memory and in snapshots, each rule broken on purpose.

As in `commission_breakages.py`, a breakage is a function that patches the real code.
"""

from typing import Any

from actors.core import commission_records as cr
from actors.core import (
    commission_rows,
    commission_state,
    evolve,
    evolve_commission,
    forgetting_accounts,
    snapshot,
    snapshot_rows,
)
from actors.core.relay_commands import TAKE_FACTS
from tests.helpers.breakages import Patch

# Memory


def a_return_of_a_forgotten_order_is_ignored(patch: Patch) -> None:
    patch.setattr(forgetting_accounts, "order_may_be_forgotten", lambda *_: False)


def an_order_leaves_memory_before_it_is_available(patch: Patch) -> None:
    patch.setattr(commission_state.Order, "open", lambda self: False)


def a_forgotten_withdrawal_is_paid_again(patch: Patch) -> None:
    honest = forgetting_accounts.may_be_forgotten

    def may_be(state: Any, command: Any) -> bool:
        return command.kind == TAKE_FACTS and honest(state, command)

    patch.setattr(forgetting_accounts, "may_be_forgotten", may_be)


def a_withdrawal_leaves_memory_before_it_is_finished(patch: Patch) -> None:
    states = (commission_state.REQUESTED, *commission_state.FINISHED)
    patch.setattr(commission_state, "FINISHED", states)
    patch.setattr(forgetting_accounts, "FINISHED", states)


def what_sql_has_not_leaves_memory(patch: Patch) -> None:
    honest = forgetting_accounts.ForgettingAccounts.look_on

    def look_on(self: Any, state: Any, *, sink_seq: int, **limits: Any) -> Any:
        return honest(self, state, sink_seq=1 << 60, **limits)

    patch.setattr(forgetting_accounts.ForgettingAccounts, "look_on", look_on)


def a_recalled_order_has_never_come_back(patch: Patch) -> None:
    honest = evolve_commission.from_recalled
    patch.setattr(
        evolve_commission,
        "from_recalled",
        lambda state, record: honest(state, record._replace(returned=0)),
    )


def a_forgotten_order_that_is_told_again_earns_again(patch: Patch) -> None:
    honest = evolve_commission.orders_forgotten

    def forgotten(state: Any, slot: Any, record: Any) -> None:
        honest(state, slot, record._replace(earned_ms=0))

    patch.setitem(evolve.EVOLVE, cr.ORDERS_FORGOTTEN, forgotten)


# Snapshots


def a_snapshot_forgets_when_forgotten_orders_earned(patch: Patch) -> None:
    honest = commission_rows.set_ledger
    patch.setattr(snapshot, "set_ledger", lambda programme, row: honest(programme, row[:2]))


def a_snapshot_loses_who_waits(patch: Patch) -> None:
    patch.setattr(commission_state, "wait", lambda *_: None)


def a_snapshots_programme_is_not_counted(patch: Patch) -> None:
    patch.setattr(snapshot, "recount", lambda *_: None)


def a_snapshot_forgets_which_orders_were_delivered(patch: Patch) -> None:
    honest = commission_rows._fill_order

    def fill(programme: Any, row: Any) -> Any:
        told = honest(programme, row)
        programme.orders.get(told[0]).delivered = False
        return told

    patch.setitem(commission_rows.FILL, "orders", fill)
    patch.setitem(snapshot_rows.FILL, "orders", snapshot_rows._fill_programme("orders"))


def a_snapshot_has_no_sums(patch: Patch) -> None:
    patch.setattr(snapshot, "set_ledger", lambda *_: None)

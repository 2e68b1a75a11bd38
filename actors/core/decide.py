"""decide(state, command, now) -> (answer, records). Changes nothing; `evolve` applies the records.

An answer is a tuple whose first item is an Outcome; what follows is said by each function. Rules
are checked from the cheapest to the dearest and the first broken one is the outcome. A refusal
that the shard decided is itself a record, so that a late duplicate of it cannot be granted later.
"""

from collections.abc import Callable
from typing import Any

from actors.core import commands as c
from actors.core import commission_commands as d
from actors.core import relay_commands as y
from actors.core import risk
from actors.core import risk_commands as k
from actors.core import team_commands as t
from actors.core.campaigns import campaign_view, get_campaign, put_campaign, set_campaign_state
from actors.core.forgetting import may_be_forgotten, peek
from actors.core.outcomes import Outcome
from actors.core.paying_out import (
    currency_of,
    get_statement,
    list_entries,
    request_withdrawal,
    review_withdrawal,
    settle,
    statement_view,
    withdrawal_view,
)
from actors.core.payments import (
    begin_payment,
    confirm,
    report_failed_payment,
    report_refund,
    return_units,
)
from actors.core.programme import (
    account_view,
    apply_distributor,
    approve_distributor,
    bind_referrer,
    get_account,
    get_leaderboard,
    get_programme,
    get_referrer,
    hold_distributor,
    programme_of,
    put_rates,
)
from actors.core.reservations import (
    get_reservation,
    release,
    report_fulfilment,
    reservation_view,
    reserve,
)
from actors.core.state import ShardState
from actors.core.stock import (
    adjust_stock,
    declare_shortage,
    get_stock,
    pool_view,
    put_sku,
    receive_stock,
    set_buffer,
    transfer_done,
    transfer_in,
    transfer_out,
)
from actors.core.taking import get_marks
from actors.core.teams import (
    complete_team,
    get_team,
    join_team,
    leave_team,
    open_team,
    suggest_teams,
    team_view,
)

Decision = tuple[tuple[Any, ...], tuple[Any, ...]]


def _recalled(state: ShardState, command: c.Recalled, now_ms: int) -> Decision:
    """The answer of the command within, whose row is back (`forgetting.recall`) or never was."""
    inner = command.command
    if inner.kind == c.GET_RESERVATION:
        held = peek(state, command)
        if held is not None:
            return (Outcome.FOUND, reservation_view(state.slot(inner.slot), held)), ()
    return HANDLERS[inner.kind](state, inner, now_ms)


HANDLERS: dict[int, Callable[[ShardState, Any, int], Decision]] = {
    c.RESERVE: reserve,
    c.CONFIRM: confirm,
    c.RELEASE: release,
    c.BEGIN_PAYMENT: begin_payment,
    c.REPORT_FAILED_PAYMENT: report_failed_payment,
    c.RETURN_UNITS: return_units,
    c.REPORT_FULFILMENT: report_fulfilment,
    c.REPORT_REFUND: report_refund,
    c.GET_RESERVATION: get_reservation,
    c.GET_STOCK: get_stock,
    c.PUT_SKU: put_sku,
    c.RECEIVE_STOCK: receive_stock,
    c.ADJUST_STOCK: adjust_stock,
    c.SET_BUFFER: set_buffer,
    c.TRANSFER_OUT: transfer_out,
    c.TRANSFER_IN: transfer_in,
    c.TRANSFER_DONE: transfer_done,
    c.DECLARE_SHORTAGE: declare_shortage,
    c.PUT_CAMPAIGN: put_campaign,
    c.SET_CAMPAIGN_STATE: set_campaign_state,
    c.GET_CAMPAIGN: get_campaign,
    c.RECALLED: _recalled,
    t.OPEN_TEAM: open_team,
    t.JOIN_TEAM: join_team,
    t.LEAVE_TEAM: leave_team,
    t.GET_TEAM: get_team,
    t.SUGGEST_TEAMS: suggest_teams,
    t.COMPLETE_TEAM: complete_team,
    d.APPLY_DISTRIBUTOR: apply_distributor,
    d.APPROVE_DISTRIBUTOR: approve_distributor,
    d.BIND_REFERRER: bind_referrer,
    d.PUT_RATES: put_rates,
    d.GET_ACCOUNT: get_account,
    d.LIST_ENTRIES: list_entries,
    d.SETTLE: settle,
    d.REQUEST_WITHDRAWAL: request_withdrawal,
    d.REVIEW_WITHDRAWAL: review_withdrawal,
    d.GET_STATEMENT: get_statement,
    d.GET_LEADERBOARD: get_leaderboard,
    d.GET_PROGRAMME: get_programme,
    d.GET_REFERRER: get_referrer,
    d.HOLD_DISTRIBUTOR: hold_distributor,
    y.GET_MARKS: get_marks,
    k.GET_PROFILE: risk.get_profile,
    k.FREEZE: risk.freeze,
    k.UNFREEZE: risk.unfreeze,
    k.REPORT_SIGNALS: risk.report_signals,
    k.PULL_RISK: risk.pull_risk,
    k.HOLD_TOLD: risk.hold_told,
}


def decide(state: ShardState, command: Any, now_ms: int) -> Decision:
    """The answer to a command, and the records that make it true. (RECALL,) for one on a row that
    may have left memory (`forgetting.py`)."""
    if state.forgets and may_be_forgotten(state, command):
        return (Outcome.RECALL,), ()
    return HANDLERS[command.kind](state, command, now_ms)


def _pool_after(state: ShardState, command: Any, answer: tuple[Any, ...]) -> tuple[Any, ...]:
    slot = state.slot(command.slot)
    pool = slot.pool(getattr(command, "campaign_id", ""), command.sku_id)
    return (answer[0], pool_view(slot, pool), *answer[2:])


def _source_after(state: ShardState, command: Any, answer: tuple[Any, ...]) -> tuple[Any, ...]:
    slot = state.slot(command.slot)
    view = pool_view(slot, slot.pool(command.from_campaign_id, command.sku_id))
    return (*answer[:3], view)


def _campaign_after(state: ShardState, command: Any, answer: tuple[Any, ...]) -> tuple[Any, ...]:
    view = campaign_view(state.slot(command.slot), command.campaign_id)
    return (answer[0], view, *answer[2:])


def _team_after(state: ShardState, command: Any, answer: tuple[Any, ...]) -> tuple[Any, ...]:
    slot = state.slot(command.slot)
    team = slot.teams.get(command.team_key)
    return (answer[0], None if team is None else team_view(slot, team))


def _account_after(state: ShardState, command: Any, answer: tuple[Any, ...]) -> tuple[Any, ...]:
    return (answer[0], account_view(programme_of(state, command.slot), command.distributor_id))


def _withdrawal_after(state: ShardState, command: Any, answer: tuple[Any, ...]) -> tuple[Any, ...]:
    return (answer[0], *_withdrawal_now(state, command.slot, command.withdrawal_key))


def _requested_after(state: ShardState, command: Any, answer: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*answer[:3], *_withdrawal_now(state, command.slot, answer[1]))


def _withdrawal_now(state: ShardState, number: int, key: bytes) -> tuple[Any, ...]:
    """(Withdrawal or None, currency)."""
    programme = programme_of(state, number)
    held = programme.withdrawals.get(key)
    view = None if held is None else withdrawal_view(key, held)
    return view, currency_of(programme)


def _statement_after(state: ShardState, command: Any, answer: tuple[Any, ...]) -> tuple[Any, ...]:
    held = programme_of(state, command.slot).distributors.get(command.distributor_id)
    return (*answer[:3], None if held is None else statement_view(held, command.month))


def _profile_after(state: ShardState, command: Any, answer: tuple[Any, ...]) -> tuple[Any, ...]:
    return (answer[0], risk.profile_view(state, command, state.now_ms))


_AFTER: dict[int, Callable[[ShardState, Any, tuple[Any, ...]], tuple[Any, ...]]] = {
    c.PUT_SKU: _pool_after,
    c.RECEIVE_STOCK: _pool_after,
    c.ADJUST_STOCK: _pool_after,
    c.SET_BUFFER: _pool_after,
    c.DECLARE_SHORTAGE: _pool_after,
    c.TRANSFER_OUT: _source_after,
    c.PUT_CAMPAIGN: _campaign_after,
    c.SET_CAMPAIGN_STATE: _campaign_after,
    t.COMPLETE_TEAM: _team_after,
    d.APPLY_DISTRIBUTOR: _account_after,
    d.APPROVE_DISTRIBUTOR: _account_after,
    d.HOLD_DISTRIBUTOR: _account_after,
    d.SETTLE: _statement_after,
    d.REQUEST_WITHDRAWAL: _requested_after,
    d.REVIEW_WITHDRAWAL: _withdrawal_after,
    k.FREEZE: _profile_after,
    k.UNFREEZE: _profile_after,
}

CHANGES_ITS_VIEW = frozenset(_AFTER) | {c.RECALLED}
"""Kinds of commands whose answer shows what they change."""


def answer_after(state: ShardState, command: Any, answer: tuple[Any, ...]) -> tuple[Any, ...]:
    """The answer as it reads once its records were folded: views show what stands now."""
    if command.kind == c.RECALLED:
        command = command.command
    refresh = _AFTER.get(command.kind)
    return answer if refresh is None else refresh(state, command, answer)

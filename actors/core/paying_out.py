"""Statements and withdrawals: how what is available is settled, and leaves.

A statement closes one month of one distributor. It sums the entries of that month which changed
what is available and settled together, so opening + sums = closing, and moves from available to
settled what of it is still there; what became available since the month's end stays. A debt is a
settled balance below 0: it is carried in the opening of the next statement.
"""

from collections.abc import Iterator
from typing import Any

from actors.core import commission_commands as c
from actors.core.commission_records import (
    PAID_OUT,
    SETTLED,
    STATEMENT_MADE,
    WITHDRAWAL_RESTORED,
    WITHDRAWN,
    StatementMade,
    WithdrawalRequested,
    WithdrawalReviewed,
)
from actors.core.commission_records import (
    WITHDRAWAL_REQUESTED as REQUESTED_RECORD,
)
from actors.core.commission_records import (
    WITHDRAWAL_REVIEWED as REVIEWED_RECORD,
)
from actors.core.commission_state import (
    ACTIVE,
    APPROVED,
    AVAILABLE_AT,
    DECLINED,
    FAILED,
    OPEN_WITHDRAWALS_MAX,
    PAID,
    Distributor,
    Programme,
    Withdrawal,
)
from actors.core.evolve_commission import NEXT_STATES
from actors.core.identity import fingerprint, public_id, request_key
from actors.core.ledger import NO_ZONE, Book, taken
from actors.core.months import bounds_ms
from actors.core.outcomes import Outcome
from actors.core.programme import programme_of
from actors.core.refusals import refuse, refused_before
from actors.core.state import ShardState

Decision = tuple[tuple[Any, ...], tuple[Any, ...]]

SETTLE_SLICE = 256
"""Statements made in one step."""
LISTED_MAX = 500


def settle(state: ShardState, command: c.Settle, now_ms: int) -> Decision:
    """(APPLIED, statements made now, whether there are more, the distributor's statement or None);
    (FOUND, 0, False, statement) when none was left to be made. MONTH_NOT_OVER, NOT_DISTRIBUTOR."""
    programme = programme_of(state, command.slot)
    if now_ms < _ends_ms(programme, command.month):
        return (Outcome.MONTH_NOT_OVER, 0, False, None), ()
    who = (command.caller, command.reason)
    if command.distributor_id:
        held = programme.distributors.get(command.distributor_id)
        if held is None:
            return (Outcome.NOT_DISTRIBUTOR, 0, False, None), ()
        book = Book(programme, now_ms)
        months = sorted(month for month in held.months if month <= command.month)
        records = tuple(
            _statement(programme, command.slot, book, command.distributor_id, months[0], who)
            for _ in months[:1]
        )
        view = statement_view(held, command.month)
        outcome = Outcome.APPLIED if records else Outcome.FOUND
        return (outcome, len(records), len(months) > 1, view), records
    made = statements_due(programme, command.slot, now_ms, SETTLE_SLICE, command.month, who)
    outcome = Outcome.APPLIED if made else Outcome.FOUND
    return (outcome, len(made), len(made) == SETTLE_SLICE, None), tuple(made)


def statements_due(  # noqa: PLR0917
    programme: Programme,
    slot: int,
    now_ms: int,
    limit: int,
    through: int = 0,
    who: tuple[str, str] = ("", ""),
) -> list[Any]:
    """Up to `limit` statements of the earliest open month that is over: no two of one
    distributor. `through`: of no later month."""
    month = min(programme.months, default=0)
    if not month or (through and month > through) or now_ms < _ends_ms(programme, month):
        return []
    book = Book(programme, now_ms)
    names = list(_first(programme.months[month], limit))
    return [_statement(programme, slot, book, name, month, who) for name in names]


def _first(names: dict[str, None], limit: int) -> Iterator[str]:
    for at, name in enumerate(names):
        if at >= limit:
            return
        yield name


def _ends_ms(programme: Programme, month: int) -> int:
    return bounds_ms(_zone(programme), month)[1]


def _zone(programme: Programme) -> str:
    newest = programme.newest()
    return NO_ZONE if newest is None else newest.config.time_zone


def _statement(  # noqa: PLR0917
    programme: Programme,
    slot: int,
    book: Book,
    distributor_id: str,
    month: int,
    who: tuple[str, str],
) -> StatementMade:
    held = programme.distributors.get(distributor_id)
    assert held is not None
    sums = held.months[month]
    newest = programme.newest()
    later = sum(sums.available_minor for of, sums in held.months.items() if of > month)
    moved = max(0, held.balances[AVAILABLE_AT] - later)
    closing = (
        held.closing_minor
        + sums.available_minor
        - sums.reversed_minor
        - sums.withdrawn_minor
        + sums.restored_minor
    )
    entry = (
        (book.entry(SETTLED, distributor_id, "", available=-moved, settled=moved),) if moved else ()
    )
    return StatementMade(
        STATEMENT_MADE,
        slot,
        distributor_id,
        month,
        *bounds_ms(_zone(programme), month),
        held.closing_minor,
        sums.available_minor,
        sums.reversed_minor,
        sums.withdrawn_minor,
        sums.restored_minor,
        closing,
        moved,
        sums.count,
        "" if newest is None else newest.config.currency_code,
        *who,
        entry,
    )


def statement_view(held: Distributor, month: int) -> tuple[Any, ...] | None:
    """A statement as it travels (fields of `Statement`), or None if memory does not have it."""
    return next((tuple(made) for made in held.statements if made.month == month), None)


def get_statement(state: ShardState, command: c.GetStatement, now_ms: int) -> Decision:
    """(FOUND, statement, currency), (NOT_FOUND, None, currency): there is none yet, or only SQL has
    it still; or (NOT_DISTRIBUTOR, None, currency)."""
    programme = programme_of(state, command.slot)
    held = programme.distributors.get(command.distributor_id)
    if held is None:
        return (Outcome.NOT_DISTRIBUTOR, None, currency_of(programme)), ()
    view = statement_view(held, command.month)
    outcome = Outcome.NOT_FOUND if view is None else Outcome.FOUND
    return (outcome, view, currency_of(programme)), ()


def currency_of(programme: Programme) -> str:
    """Of the ledger; '' before the first rates."""
    newest = programme.newest()
    return "" if newest is None else newest.config.currency_code


def list_entries(state: ShardState, command: c.ListEntries, now_ms: int) -> Decision:
    """(FOUND, entries newest first, number of the oldest entry that memory has of anybody). Each
    entry has its instant before its fields. What is older is in SQL."""
    programme = programme_of(state, command.slot)
    found: list[Any] = []
    for entry in reversed(programme.recent):
        if command.before and entry[1] >= command.before:
            continue
        if entry[3] == command.distributor_id:
            found.append(entry)
            if len(found) >= min(command.limit, LISTED_MAX):
                break
    oldest = programme.recent[0][1] if programme.recent else 0
    return (Outcome.FOUND, tuple(found), oldest), ()


def withdrawal_view(key: bytes, held: Withdrawal) -> tuple[Any, ...]:
    """(key, distributor id, amount, state, requested_ms, changed_ms, reference)."""
    return (
        key,
        held.distributor_id,
        held.amount_minor,
        held.state,
        held.requested_ms,
        held.changed_ms,
        held.reference,
    )


def request_withdrawal(state: ShardState, command: c.RequestWithdrawal, now_ms: int) -> Decision:
    """(APPLIED, key, left to withdraw), or FOUND with the same for a request that was made before.
    The withdrawal as it stands and the currency follow, once folded. ID_REUSED, NOT_DISTRIBUTOR,
    NOT_ACTIVE, BUYER_FROZEN, LIMIT_EXCEEDED and EXCEEDS_AVAILABLE come with (b'', left)."""
    programme, number = programme_of(state, command.slot), command.slot
    key = request_key(command.caller, command.request_id)
    mark = fingerprint(command.distributor_id, command.amount_minor)
    held = programme.distributors.get(command.distributor_id)
    left = 0 if held is None else held.withdrawable_minor()
    before = programme.withdrawals.get(key)
    if before is not None:
        if before.fingerprint != mark:
            return (Outcome.ID_REUSED, b"", left), ()
        found = (withdrawal_view(key, before), currency_of(programme))
        return (Outcome.FOUND, key, left, *found), ()
    refused = refused_before(state.slot(number), key, mark)
    if refused is not None:
        return (refused, b"", left), ()
    broken = _not_withdrawable(held, command.amount_minor)
    if broken is not None or held is None:
        outcome = broken or Outcome.NOT_DISTRIBUTOR
        return refuse(state, number, key, mark, outcome, b"", left)
    newest = programme.newest()
    available, settled = taken(held, command.amount_minor, settled_first=True)
    entry = Book(programme, now_ms).entry(
        WITHDRAWN,
        command.distributor_id,
        public_id(number, key),
        available=-available,
        settled=-settled,
        withdrawing=command.amount_minor,
    )
    record = WithdrawalRequested(
        REQUESTED_RECORD,
        number,
        key,
        command.request_id,
        mark,
        command.distributor_id,
        command.amount_minor,
        settled,
        "" if newest is None else newest.config.currency_code,
        command.caller,
        command.reason,
        (entry,),
    )
    return (Outcome.APPLIED, key, left - command.amount_minor), (record,)


def _not_withdrawable(held: Distributor | None, amount_minor: int) -> Outcome | None:
    if held is None:
        return Outcome.NOT_DISTRIBUTOR
    if held.state != ACTIVE:
        return Outcome.NOT_ACTIVE
    if held.held_until_ms:
        return Outcome.BUYER_FROZEN
    if held.open_withdrawals >= OPEN_WITHDRAWALS_MAX:
        return Outcome.LIMIT_EXCEEDED
    if amount_minor <= 0:
        return Outcome.INVALID
    if amount_minor > held.withdrawable_minor():
        return Outcome.EXCEEDS_AVAILABLE
    return None


_LEADS_TO = {
    c.WITHDRAWAL_APPROVE: APPROVED,
    c.WITHDRAWAL_REJECT: DECLINED,
    c.WITHDRAWAL_PAID: PAID,
    c.WITHDRAWAL_FAILED: FAILED,
}


def review_withdrawal(state: ShardState, command: c.ReviewWithdrawal, now_ms: int) -> Decision:
    """(APPLIED, withdrawal, currency), also when it was so before. (NOT_FOUND, None);
    WITHDRAWAL_CONFLICT with the same from a state that does not lead there: what is rejected, paid
    or failed stays so, and only an approved one is paid or fails. Also for a payment that is not
    the one that was reported: whoever made both paid twice."""
    programme = programme_of(state, command.slot)
    held = programme.withdrawals.get(command.withdrawal_key)
    if held is None:
        return (Outcome.NOT_FOUND, None), ()
    view = (withdrawal_view(command.withdrawal_key, held), currency_of(programme))
    after = _LEADS_TO[command.act]
    if held.state == after:
        other = after == PAID and command.reference not in {"", held.reference}
        return (Outcome.WITHDRAWAL_CONFLICT if other else Outcome.APPLIED, *view), ()
    if after not in NEXT_STATES[held.state]:
        return (Outcome.WITHDRAWAL_CONFLICT, *view), ()
    record = WithdrawalReviewed(
        REVIEWED_RECORD,
        command.slot,
        command.withdrawal_key,
        held.distributor_id,
        after,
        command.reference or held.reference,
        command.caller,
        command.reason,
        _review_entries(programme, command, held, after, now_ms),
    )
    return (Outcome.APPLIED, *view), (record,)


def _review_entries(
    programme: Programme,
    command: c.ReviewWithdrawal,
    held: Withdrawal,
    after: int,
    now_ms: int,
) -> tuple[Any, ...]:
    if after == APPROVED:
        return ()
    book, about = Book(programme, now_ms), public_id(command.slot, command.withdrawal_key)
    amount, settled = held.amount_minor, held.from_settled_minor
    if after == PAID:
        entry = book.entry(
            PAID_OUT, held.distributor_id, about, withdrawing=-amount, paid_out=amount
        )
    else:
        entry = book.entry(
            WITHDRAWAL_RESTORED,
            held.distributor_id,
            about,
            withdrawing=-amount,
            settled=settled,
            available=amount - settled,
        )
    return (entry,)

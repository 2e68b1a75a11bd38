"""Views of the account shard, and rows of the SQL view, to messages of CommissionService.

Views are tuples as `core.programme` and `core.paying_out` say; a row maps the column names of
`persistence/sql/tables_accounts.py`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from stockray_proto.v1 import commission_service_pb2 as wire

from actors.core import commission_records as r
from actors.core.commission_state import FOR_EVER_MS, Statement
from actors.core.identity import PROGRAMME_SLOT, public_id
from persistence.sql.paging import Row
from server.translate.scalars import stamp, stamp_or_none

AMOUNTS = (
    "expense_minor",
    "frozen_minor",
    "available_minor",
    "settled_minor",
    "withdrawing_minor",
    "paid_out_minor",
)
"""Accounts of the ledger, in the order of an entry's amounts."""

_OF_WITHDRAWALS = (r.WITHDRAWN, r.WITHDRAWAL_RESTORED, r.PAID_OUT)


class AccountView(NamedTuple):
    """`core.programme.account_view`."""

    distributor_id: str
    state: int
    share_code: str
    applied_ms: int
    changed_ms: int
    held_until_ms: int
    balances: Sequence[int]
    withdrawable_minor: int
    orders: int
    sales_minor: int
    invited: int
    closing_minor: int
    settled_through: int
    open_withdrawals: int
    currency_code: str


class WithdrawalView(NamedTuple):
    """`core.paying_out.withdrawal_view`."""

    key: bytes
    distributor_id: str
    amount_minor: int
    state: int
    requested_ms: int
    changed_ms: int
    reference: str


def distributor_message(
    view: Sequence[Any] | None, referrer_id: str = ""
) -> wire.Distributor | None:
    """A distributor; None (an unset field) when there is no view."""
    if view is None:
        return None
    account = AccountView(*view)
    return wire.Distributor(
        distributor_id=account.distributor_id,
        state=account.state,  # type: ignore[arg-type]
        share_code=account.share_code,
        apply_time=stamp(account.applied_ms),
        change_time=stamp(account.changed_ms),
        held_until_time=stamp_or_none(account.held_until_ms),
        referrer_id=referrer_id,
    )


def account_message(view: Sequence[Any] | None) -> wire.CommissionAccount | None:
    """An account; None (an unset field) when there is no view."""
    if view is None:
        return None
    account = AccountView(*view)
    return wire.CommissionAccount(
        distributor_id=account.distributor_id,
        state=account.state,  # type: ignore[arg-type]
        currency_code=account.currency_code,
        balances=amounts_message(account.balances),
        withdrawable_minor=account.withdrawable_minor,
        order_count=account.orders,
        sales_minor=account.sales_minor,
        invited_count=account.invited,
        statement_month=account.settled_through,
        statement_closing_minor=account.closing_minor,
        open_withdrawal_count=account.open_withdrawals,
    )


def amounts_message(amounts: Sequence[int]) -> wire.LedgerAmounts:
    """Six amounts in the order of the accounts."""
    return wire.LedgerAmounts(**dict(zip(AMOUNTS, amounts, strict=True)))


def binding_message(
    buyer_id: str, distributor_id: str, from_ms: int, until_ms: int
) -> wire.Binding | None:
    """A binding; None (an unset field) when nothing binds the buyer."""
    if not distributor_id:
        return None
    return wire.Binding(
        buyer_id=buyer_id,
        distributor_id=distributor_id,
        start_time=stamp(from_ms),
        end_time=None if until_ms >= FOR_EVER_MS else stamp(until_ms),
    )


def entry_message(at_ms: int, fields: Sequence[Any]) -> wire.CommissionEntry:
    """An entry with the instant at which it was decided."""
    entry = r.Entry(*fields)
    return _entry(at_ms, entry, entry[r.AMOUNTS_FROM :])


def _entry(at_ms: int, entry: r.Entry, amounts: Sequence[Any]) -> wire.CommissionEntry:
    is_withdrawal = entry.event in _OF_WITHDRAWALS
    return wire.CommissionEntry(
        entry_number=entry.number,
        event=entry.event,  # type: ignore[arg-type]
        distributor_id=entry.distributor_id,
        reservation_id="" if is_withdrawal else entry.about,
        withdrawal_id=entry.about if is_withdrawal else "",
        level=entry.level,
        rates_version=entry.version,
        month=entry.month,
        entry_time=stamp(at_ms),
        amounts=amounts_message(amounts),
    )


def statement_message(
    distributor_id: str, view: Sequence[Any] | None, currency_code: str
) -> wire.CommissionStatement | None:
    """A statement; None (an unset field) when there is no view."""
    if view is None:
        return None
    made = Statement(*view)
    return wire.CommissionStatement(
        distributor_id=distributor_id,
        month=made.month,
        start_time=stamp(made.starts_ms),
        end_time=stamp(made.ends_ms),
        currency_code=currency_code,
        opening_minor=made.opening_minor,
        available_minor=made.available_minor,
        reversed_minor=made.reversed_minor,
        withdrawn_minor=made.withdrawn_minor,
        restored_minor=made.restored_minor,
        closing_minor=made.closing_minor,
        moved_minor=made.moved_minor,
        entry_count=made.entry_count,
        make_time=stamp(made.made_ms),
    )


def withdrawal_message(view: Sequence[Any] | None, currency_code: str) -> wire.Withdrawal | None:
    """A withdrawal; None (an unset field) when there is no view."""
    if view is None:
        return None
    held = WithdrawalView(*view)
    return wire.Withdrawal(
        withdrawal_id=public_id(PROGRAMME_SLOT, held.key),
        distributor_id=held.distributor_id,
        amount_minor=held.amount_minor,
        currency_code=currency_code,
        state=held.state,  # type: ignore[arg-type]
        reference=held.reference,
        request_time=stamp(held.requested_ms),
        change_time=stamp(held.changed_ms),
    )


def distributor_from(row: Row) -> wire.Distributor:
    """A distributor of the SQL view."""
    return wire.Distributor(
        distributor_id=row["distributor_id"],
        state=row["state"],
        share_code=row["share_code"],
        apply_time=stamp(row["applied_ms"]),
        change_time=stamp(row["changed_ms"]),
        held_until_time=stamp_or_none(row["held_until_ms"]),
    )


def entry_from(row: Row) -> wire.CommissionEntry:
    """An entry of the SQL view."""
    entry = r.Entry(
        row["entry_id"],
        row["event"],
        row["distributor_id"],
        row["withdrawal_id"] or row["reservation_id"],
        row["level"],
        row["version"],
        row["month"],
    )
    return _entry(row["at_ms"], entry, [row[name] for name in AMOUNTS])


def statement_from(row: Row) -> wire.CommissionStatement:
    """A statement of the SQL view."""
    view = Statement(*(row[name] for name in Statement._fields))
    made = statement_message(row["distributor_id"], view, row["currency_code"])
    assert made is not None
    return made


def withdrawal_from(row: Row) -> wire.Withdrawal:
    """A withdrawal of the SQL view."""
    return wire.Withdrawal(
        withdrawal_id=row["withdrawal_id"],
        distributor_id=row["distributor_id"],
        amount_minor=row["amount_minor"],
        currency_code=row["currency_code"],
        state=row["state"],
        reference=row["reference"],
        request_time=stamp(row["requested_ms"]),
        change_time=stamp(row["changed_ms"]),
    )

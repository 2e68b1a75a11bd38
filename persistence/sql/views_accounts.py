"""The part of `views.py` about commission, whose rules hold here."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, literal, or_, select, union_all

from persistence.sql.paging import Page, Reading, Row
from persistence.sql.tables import reservations, seats
from persistence.sql.tables_accounts import (
    commission_entries,
    commission_orders,
    distributors,
    statements,
    withdrawals,
)

COUNTED = (
    "seckill_reservations",
    "seckill_confirmed",
    "group_reservations",
    "group_confirmed",
    "amount_minor",
    "commission_minor",
)
"""Columns of the funnel."""


class AccountViews(Reading):
    """Queries about distributors and their money."""

    def list_distributors(
        self, *, state: int, page_size: int = 100, after: tuple[str] | None = None
    ) -> Page:
        """Those in one state, ordered by id."""
        query = select(distributors).where(distributors.c.state == state)
        return self._page(
            query, key=(distributors.c.distributor_id,), page_size=page_size, after=after
        )

    def has_entry(self, entry_id: int) -> bool:
        """Whether an entry of the ledger is here (yet)."""
        column = commission_entries.c.entry_id
        return bool(self._rows(select(column).where(column == entry_id)))

    def list_entries(
        self,
        distributor_id: str,
        *,
        month: int = 0,
        page_size: int = 100,
        after: tuple[int] | None = None,
    ) -> Page:
        """A distributor's entries, newest first; of one month, or of all for 0."""
        columns = commission_entries.c
        query = select(commission_entries).where(columns.distributor_id == distributor_id)
        if month:
            query = query.where(columns.month == month)
            return self._page(
                query, key=(columns.entry_id,), page_size=page_size, after=after, descending=True
            )
        key = (columns.month, columns.entry_id)
        begins = None if after is None else (self._month_before(*after), *after)
        page = self._page(query, key=key, page_size=page_size, after=begins, descending=True)
        return Page(page.rows, None if page.after is None else page.after[1:])

    def _month_before(self, entry_id: int) -> int:
        """Of the newest entry of a lower number; 0 if there is none."""
        columns = commission_entries.c
        query = select(columns.month).where(columns.entry_id < entry_id)
        rows = self._rows(query.order_by(columns.entry_id.desc()).limit(1))
        return int(rows[0]["month"]) if rows else 0

    def get_statement(self, distributor_id: str, month: int) -> Row | None:
        """One statement, None if it is not here (yet)."""
        columns = statements.c
        rows = self._rows(
            select(statements).where(
                columns.distributor_id == distributor_id, columns.month == month
            )
        )
        return rows[0] if rows else None

    def list_statements(
        self, distributor_id: str, *, page_size: int = 100, after: tuple[int] | None = None
    ) -> Page:
        """A distributor's statements, newest first."""
        query = select(statements).where(statements.c.distributor_id == distributor_id)
        return self._page(
            query, key=(statements.c.month,), page_size=page_size, after=after, descending=True
        )

    def get_withdrawal(self, withdrawal_id: str) -> Row | None:
        """One withdrawal, None if it is not here (yet)."""
        column = withdrawals.c.withdrawal_id
        rows = self._rows(select(withdrawals).where(column == withdrawal_id))
        return rows[0] if rows else None

    def get_commission_order(self, reservation_id: str) -> Row | None:
        """One order that earned, None if it is not here (yet)."""
        column = commission_orders.c.reservation_id
        rows = self._rows(select(commission_orders).where(column == reservation_id))
        return rows[0] if rows else None

    def list_withdrawals(
        self,
        *,
        state: int,
        distributor_id: str = "",
        page_size: int = 100,
        after: tuple[int, str] | None = None,
    ) -> Page:
        """Those in one state, newest first."""
        columns = withdrawals.c
        query = select(withdrawals).where(columns.state == state)
        if distributor_id:
            query = query.where(columns.distributor_id == distributor_id)
        key = (columns.requested_ms, columns.withdrawal_id)
        return self._page(query, key=key, page_size=page_size, after=after, descending=True)

    def funnel(
        self, campaign_id: str, *, channel: str = "", distributor_id: str = "", rows_max: int
    ) -> Sequence[Row]:
        """What became of a campaign's reservations that carried a share code, by share code and
        channel, in this order; `distributor_id` is the code's owner, '' for a code of nobody."""
        columns = reservations.c
        wanted = [columns.campaign_id == campaign_id, columns.share_code != ""]
        if channel:
            wanted.append(columns.channel == channel)
        if distributor_id:
            owner = distributors.c.distributor_id == distributor_id
            code = select(distributors.c.share_code).where(owner).scalar_subquery()
            wanted.append(columns.share_code == code)
        # Apart, since MariaDB takes several times as long to look up commission beside the rest.
        parts = union_all(_brought(wanted), _earned(wanted)).subquery("parts")
        keys = (parts.c.share_code, parts.c.channel, distributors.c.distributor_id)
        counted = [parts.c[name] for name in COUNTED]
        query = (
            select(
                parts.c.share_code,
                parts.c.channel,
                func.coalesce(distributors.c.distributor_id, "").label("distributor_id"),
                func.max(parts.c.currency_code).label("currency_code"),
                *(func.sum(column).label(column.name) for column in counted),
            )
            .join_from(
                parts, distributors, distributors.c.share_code == parts.c.share_code, isouter=True
            )
            .group_by(*keys)
            .order_by(parts.c.share_code, parts.c.channel)
        )
        return self._rows(query.limit(rows_max))


def _brought(wanted: Sequence[ColumnElement[bool]]) -> Select[Any]:
    """By share code and channel, how far reservations came and what was paid for them."""
    columns, paid, group = reservations.c, _paid_for_good(), seats.c.team_id.is_not(None)
    amount = columns.paid_minor - func.coalesce(seats.c.settled_minor, 0)
    counts = (
        _count(~group),
        _count(~group & paid),
        _count(group),
        _count(group & paid),
        _sum(paid, amount),
        literal(0),
    )
    return (
        select(
            columns.share_code,
            columns.channel,
            func.max(columns.currency_code).label("currency_code"),
            *(count.label(name) for count, name in zip(counts, COUNTED, strict=True)),
        )
        .join_from(
            reservations,
            seats,
            and_(
                columns.buyer_part == seats.c.buyer_part,
                columns.reservation_id == seats.c.reservation_id,
            ),
            isouter=True,
        )
        .where(*wanted)
        .group_by(columns.share_code, columns.channel)
    )


def _earned(wanted: Sequence[ColumnElement[bool]]) -> Select[Any]:
    """By share code and channel, what all levels have now."""
    columns, orders = reservations.c, commission_orders.c
    # Not a join, for which MariaDB may walk all orders first.
    commission = (
        select(orders.commission_minor)
        .where(orders.reservation_id == columns.reservation_id)
        .correlate(reservations)
        .scalar_subquery()
    )
    return (
        select(
            columns.share_code,
            columns.channel,
            literal(""),
            *(literal(0) for _ in COUNTED[1:]),
            func.sum(commission),
        )
        .where(*wanted, columns.confirmed_ms > 0)
        .group_by(columns.share_code, columns.channel)
    )


def _paid_for_good() -> ColumnElement[bool]:
    """Confirmed, and if it is a seat, its team has formed with it."""
    is_settled = or_(seats.c.team_id.is_(None), seats.c.settled_ms > 0)
    return and_(reservations.c.confirmed_ms > 0, is_settled)


def _count(which: ColumnElement[bool]) -> ColumnElement[Any]:
    return func.sum(case((which, 1), else_=0))


def _sum(which: ColumnElement[bool], amount: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.sum(case((which, amount), else_=0))

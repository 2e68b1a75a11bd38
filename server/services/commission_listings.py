"""Lists of commission: pages of the SQL view, with their age; the newest entries from memory.

Entries are numbered through the programme without gaps and never change, so a list of them may
begin in the account shard's memory and go on in SQL, which must then have come as far: it has if it
has the entry before.
"""

import heapq
from collections.abc import Callable, Sequence
from typing import Any

from stockray_proto.v1 import commission_service_pb2 as wire
from stockray_proto.v1 import common_pb2

from actors.core.outcomes import Outcome
from persistence.sql.paging import Page, Row
from server.errors import view_unavailable
from server.handlers import CallContext
from server.lines import Lines
from server.services.views import ViewReader, Views, view_age
from server.translate.commission import check_month, list_entries_command
from server.translate.commission_views import (
    distributor_from,
    entry_from,
    entry_message,
    statement_from,
    withdrawal_from,
)
from server.translate.pages import make_token, page_size, read_token
from server.translate.scalars import age_of
from server.validate import Violations

DISTRIBUTOR_STATES = tuple(wire.DistributorState.values()[1:])
WITHDRAWAL_STATES = tuple(wire.WithdrawalState.values()[1:])

Place = Callable[[Row], tuple[Any, ...]]
Listed = tuple[Sequence[Row], tuple[Any, ...] | None, common_pb2.DataAge]
"""Rows of a page, the key of the next one, and how old they are."""


class CommissionListings:
    """Reads distributors, entries, statements and withdrawals."""

    def __init__(self, lines: Lines, reader: ViewReader) -> None:
        self._lines = lines
        self._reader = reader

    async def list_distributors(
        self, request: wire.ListDistributorsRequest, context: CallContext
    ) -> wire.ListDistributorsResponse:
        """By id. Several states, or none, are one walk of the index each, merged."""
        wrong = _page_violations(request)
        states = _states(request.states, DISTRIBUTOR_STATES, wrong)
        wrong.refuse()
        after = read_token(request.page_token, (str,), states)
        size = page_size(request.page_size)

        def query(views: Views) -> Listed:
            age = view_age(views.positions(), context.now_ms())
            pages = [
                views.list_distributors(state=state, page_size=size, after=after)
                for state in states
            ]
            return *_merge(pages, lambda row: (row["distributor_id"],), size), age

        rows, last, age = await self._read(query, context)
        return wire.ListDistributorsResponse(
            distributors=[distributor_from(row) for row in rows],
            next_page_token=make_token(last, states),
            age=age,
        )

    async def list_entries(
        self, request: wire.ListEntriesRequest, context: CallContext
    ) -> wire.ListEntriesResponse:
        """Newest first: from memory while it has them, else from SQL."""
        wrong = _page_violations(request)
        wrong.id("distributor_id", request.distributor_id)
        check_month(request.month, wrong, optional=True)
        wrong.refuse()
        filters = (request.distributor_id, request.month)
        token = read_token(request.page_token, (int,), *filters)
        before = 0 if token is None else token[0]
        size, asked_ms = page_size(request.page_size), context.now_ms()
        command = list_entries_command(request.distributor_id, context, before=before, limit=size)
        (answer,) = await self._lines.submit([command])
        if answer[0] != Outcome.FOUND:
            return await self._older_entries(request, context, before=before, certain=False)
        _, found, oldest = answer
        if not found and oldest != 1:
            # 0 of either says nothing: from the newest on, or nothing in memory.
            older = min((number for number in (before, oldest) if number), default=0)
            return await self._older_entries(request, context, before=older, certain=True)
        response = wire.ListEntriesResponse(
            age=age_of(asked_ms, context.now_ms(), common_pb2.DATA_SOURCE_SHARD)
        )
        for at_ms, *entry in found:
            message = entry_message(at_ms, entry)
            if request.month in (0, message.month):
                response.entries.append(message)
        # Without entries memory has all there are: it begins with the first of all.
        if found and found[-1][1] > 1:
            response.next_page_token = make_token((found[-1][1],), *filters)
        return response

    async def _older_entries(
        self, request: wire.ListEntriesRequest, context: CallContext, *, before: int, certain: bool
    ) -> wire.ListEntriesResponse:
        """Those of lower numbers than `before` (0: any) from SQL. `certain`: memory ends there, so
        it may not be that SQL has not come as far."""
        filters = (request.distributor_id, request.month)

        def query(views: Views) -> Listed:
            age = view_age(views.positions(), context.now_ms())
            if certain and before > 1 and not views.has_entry(before - 1):
                raise view_unavailable()
            page = views.list_entries(
                request.distributor_id,
                month=request.month,
                page_size=page_size(request.page_size),
                after=(before,) if before else None,
            )
            return page.rows, page.after, age

        rows, last, age = await self._read(query, context)
        return wire.ListEntriesResponse(
            entries=[entry_from(row) for row in rows],
            next_page_token=make_token(last, *filters),
            age=age,
        )

    async def find_statement(
        self, request: wire.GetStatementRequest, context: CallContext
    ) -> wire.GetStatementResponse:
        """One that the account shard's memory does not have."""

        def query(views: Views) -> tuple[Row | None, common_pb2.DataAge]:
            age = view_age(views.positions(), context.now_ms())
            return views.get_statement(request.distributor_id, request.month), age

        row, age = await self._reader.read(query, timeout_s=context.time_remaining_s())
        if row is None:
            return wire.GetStatementResponse(status=common_pb2.LINE_STATUS_NOT_FOUND, age=age)
        return wire.GetStatementResponse(
            status=common_pb2.LINE_STATUS_FOUND, statement=statement_from(row), age=age
        )

    async def list_statements(
        self, request: wire.ListStatementsRequest, context: CallContext
    ) -> wire.ListStatementsResponse:
        """Newest first."""
        wrong = _page_violations(request)
        wrong.id("distributor_id", request.distributor_id)
        wrong.refuse()
        after = read_token(request.page_token, (int,), request.distributor_id)

        def query(views: Views) -> Listed:
            age = view_age(views.positions(), context.now_ms())
            size = page_size(request.page_size)
            page = views.list_statements(request.distributor_id, page_size=size, after=after)
            return page.rows, page.after, age

        rows, last, age = await self._read(query, context)
        return wire.ListStatementsResponse(
            statements=[statement_from(row) for row in rows],
            next_page_token=make_token(last, request.distributor_id),
            age=age,
        )

    async def list_withdrawals(
        self, request: wire.ListWithdrawalsRequest, context: CallContext
    ) -> wire.ListWithdrawalsResponse:
        """Newest first. Several states, or none, are one walk of the index each, merged."""
        wrong = _page_violations(request)
        wrong.optional_id("distributor_id", request.distributor_id)
        states = _states(request.states, WITHDRAWAL_STATES, wrong)
        wrong.refuse()
        filters = (request.distributor_id, states)
        after = read_token(request.page_token, (int, str), *filters)
        size = page_size(request.page_size)

        def query(views: Views) -> Listed:
            age = view_age(views.positions(), context.now_ms())
            pages = [
                views.list_withdrawals(
                    state=state,
                    distributor_id=request.distributor_id,
                    page_size=size,
                    after=after,
                )
                for state in states
            ]
            return *_merge(pages, _requested, size, descending=True), age

        rows, last, age = await self._read(query, context)
        return wire.ListWithdrawalsResponse(
            withdrawals=[withdrawal_from(row) for row in rows],
            next_page_token=make_token(last, *filters),
            age=age,
        )

    async def _read(self, query: Callable[[Views], Listed], context: CallContext) -> Listed:
        return await self._reader.read(query, timeout_s=context.time_remaining_s())


def _requested(row: Row) -> tuple[int, str]:
    return row["requested_ms"], row["withdrawal_id"]


def _merge(
    pages: Sequence[Page], place: Place, size: int, *, descending: bool = False
) -> tuple[Sequence[Row], tuple[Any, ...] | None]:
    """The first `size` rows of several walks of one order, and the key of the last if more
    follow."""
    found = list(heapq.merge(*(page.rows for page in pages), key=place, reverse=descending))
    more = len(found) > size or any(page.after is not None for page in pages)
    rows = found[:size]
    return rows, place(rows[-1]) if more and rows else None


def _page_violations(request: Any) -> Violations:
    wrong = Violations()
    wrong.page(page_size=request.page_size, page_token=request.page_token)
    return wrong


def _states(
    asked: Sequence[int], all_states: tuple[int, ...], wrong: Violations
) -> tuple[int, ...]:
    for index, state in enumerate(asked):
        if state not in all_states:
            wrong.add(f"states[{index}]", "a state that one can be in")
    return tuple(sorted(set(asked))) or all_states

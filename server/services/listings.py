"""The lists: pages of the SQL view, with their age.

A page is read by key, and several states are merged by that same key, so each part of a listing
walks an index and a page begins exactly where the last one ended. The phases of campaigns, which no
index serves, are looked at here, over the campaigns of a page: it may be short and not the last.
"""

import heapq
from collections.abc import Sequence
from typing import Any, NamedTuple

from stockray_proto.v1 import (
    common_pb2,
    inventory_service_pb2,
    reservation_pb2,
    seckill_service_pb2,
)

from actors.core.state import (
    CONFIRMED,
    EXPIRED,
    REFUND_CLOSED,
    REFUND_DUE,
    RELEASED,
    RESERVED,
    RETURNED,
    REVOKED,
)
from persistence.sql.paging import Page, Row
from persistence.sql.views import RefundFilter, ReservationFilter
from server.handlers import CallContext, Calls, Method
from server.services.reservations import INVENTORY, SECKILL
from server.services.views import ViewReader, Views, view_age
from server.translate.campaign import campaign_message, phase_of
from server.translate.pages import PAGE_SIZE_MAX, make_token, page_size, read_token
from server.translate.rows import campaign_view_from, refund_from, reservation_from, stock_from
from server.validate import Violations

ALL_STATES = (RESERVED, CONFIRMED, EXPIRED, RELEASED, RETURNED, REVOKED)
CAMPAIGN_LINES_A_PAGE = 4_096
"""A page of campaigns ends early rather than have more lines than this."""

Key = tuple[Any, ...]


class Listed(NamedTuple):
    """Rows of one page, the key of the next one, and how old they are."""

    rows: list[Row]
    after: Key | None
    age: common_pb2.DataAge


class Listings:
    """ListReservations, ListRefunds, ListStock, ListCampaigns."""

    def __init__(self, reader: ViewReader) -> None:
        self._reader = reader

    def methods(self) -> list[Method]:
        """The calls of this part."""
        inv, sec = inventory_service_pb2, seckill_service_pb2
        calls: Calls = {
            INVENTORY + "ListReservations": (inv.ListReservationsRequest, self.list_reservations),
            INVENTORY + "ListRefunds": (inv.ListRefundsRequest, self.list_refunds),
            INVENTORY + "ListStock": (inv.ListStockRequest, self.list_stock),
            SECKILL + "ListCampaigns": (sec.ListCampaignsRequest, self.list_campaigns),
        }
        return [Method(path=path, request=r, unary=h) for path, (r, h) in calls.items()]

    async def list_reservations(
        self, request: inventory_service_pb2.ListReservationsRequest, context: CallContext
    ) -> inventory_service_pb2.ListReservationsResponse:
        """Newest first. Several states, or none, are one walk of an index each, merged."""
        filters, states = _reservation_filters(request)
        after = read_token(request.page_token, (int, str), filters, states)
        size = page_size(request.page_size)

        def query(views: Views) -> Listed:
            age = view_age(views.positions(), context.now_ms())
            pages = [
                views.list_reservations(
                    ReservationFilter(**filters, state=state),
                    page_size=size,
                    after=after,
                    newest_first=True,
                )
                for state in states
            ]
            columns = ("reserved_ms", "reservation_id")
            return Listed(*_merge(pages, columns, size, descending=True), age)

        listed = await self._reader.read(query, timeout_s=context.time_remaining_s())
        return inventory_service_pb2.ListReservationsResponse(
            reservations=[reservation_from(row) for row in listed.rows],
            next_page_token=make_token(listed.after, filters, states),
            age=listed.age,
        )

    async def list_refunds(
        self, request: inventory_service_pb2.ListRefundsRequest, context: CallContext
    ) -> inventory_service_pb2.ListRefundsResponse:
        """Due longest first."""
        ids, states, before_ms = _refund_filters(request)
        after = read_token(request.page_token, (int, str), ids, states, before_ms)
        size = page_size(request.page_size)

        def query(views: Views) -> Listed:
            age = view_age(views.positions(), context.now_ms())
            pages = [
                views.list_refunds(
                    RefundFilter(state=state, due_before_ms=before_ms, **ids),
                    page_size=size,
                    after=after,
                )
                for state in states
            ]
            return Listed(*_merge(pages, ("due_ms", "refund_id"), size), age)

        listed = await self._reader.read(query, timeout_s=context.time_remaining_s())
        return inventory_service_pb2.ListRefundsResponse(
            refunds=[refund_from(row) for row in listed.rows],
            next_page_token=make_token(listed.after, ids, states, before_ms),
            age=listed.age,
        )

    async def list_stock(
        self, request: inventory_service_pb2.ListStockRequest, context: CallContext
    ) -> inventory_service_pb2.ListStockResponse:
        """By campaign and SKU."""
        wrong = Violations()
        wrong.page(page_size=request.page_size, page_token=request.page_token)
        wrong.optional_id("campaign_id", request.campaign_id)
        wrong.optional_id("sku_id", request.sku_id)
        if request.base_only and request.campaign_id:
            wrong.add("base_only", "not together with campaign_id")
        wrong.refuse()
        campaign_id = "" if request.base_only else request.campaign_id or None
        filters = (campaign_id, request.sku_id)
        after = read_token(request.page_token, (str, str), *filters)

        def query(views: Views) -> Listed:
            age = view_age(views.positions(), context.now_ms())
            rows, more = views.list_stock(
                sku_id=request.sku_id,
                campaign_id=campaign_id,
                page_size=page_size(request.page_size),
                after=after,
            )
            return Listed(list(rows), more, age)

        listed = await self._reader.read(query, timeout_s=context.time_remaining_s())
        return inventory_service_pb2.ListStockResponse(
            stocks=[stock_from(row, listed.age) for row in listed.rows],
            next_page_token=make_token(listed.after, *filters),
        )

    async def list_campaigns(
        self, request: seckill_service_pb2.ListCampaignsRequest, context: CallContext
    ) -> seckill_service_pb2.ListCampaignsResponse:
        """By id, each with its pools."""
        wrong = Violations()
        wrong.page(page_size=request.page_size, page_token=request.page_token)
        for index, phase in enumerate(request.phases):
            wrong.known(f"phases[{index}]", phase, seckill_service_pb2.CampaignPhase.Name)
        wrong.refuse()
        phases = tuple(sorted(set(request.phases)))
        after = read_token(request.page_token, (str,), phases)
        now_ms, size = context.now_ms(), page_size(request.page_size)
        pools: dict[str, list[Row]] = {}

        def query(views: Views) -> Listed:
            age = view_age(views.positions(), now_ms)
            found, more = views.list_campaigns(page_size=size, after=after)
            kept: list[Row] = []
            lines = 0
            for row in found:
                if phases and _phase(row, now_ms) not in phases:
                    continue
                campaign_id = row["campaign_id"]
                pools[campaign_id] = list(
                    views.list_stock(campaign_id=campaign_id, page_size=PAGE_SIZE_MAX).rows
                )
                kept.append(row)
                lines += len(pools[campaign_id])
                if lines >= CAMPAIGN_LINES_A_PAGE and row is not found[-1]:
                    more = (campaign_id,)
                    break
            return Listed(kept, more, age)

        listed = await self._reader.read(query, timeout_s=context.time_remaining_s())
        response = seckill_service_pb2.ListCampaignsResponse(
            next_page_token=make_token(listed.after, phases), age=listed.age
        )
        for row in listed.rows:
            view = campaign_view_from(row, pools[row["campaign_id"]])
            message = campaign_message(
                view, as_of_ms=now_ms, now_ms=now_ms, source=common_pb2.DATA_SOURCE_SQL
            )
            for line in message.lines:
                if line.HasField("stock"):
                    line.stock.age.CopyFrom(listed.age)
            response.campaigns.append(message)
        return response


def _phase(row: Row, now_ms: int) -> int:
    return phase_of(row["state"], row["starts_ms"], row["ends_ms"], now_ms)[0]


def _reservation_filters(
    request: inventory_service_pb2.ListReservationsRequest,
) -> tuple[dict[str, Any], tuple[int | None, ...]]:
    """The filter without its state, and the states to walk; (None,) for all in one walk."""
    wrong = Violations()
    wrong.page(page_size=request.page_size, page_token=request.page_token)
    ids = {
        "buyer_id": request.buyer_id,
        "campaign_id": request.campaign_id,
        "sku_id": request.sku_id,
        "order_id": request.order_id,
        "team_id": request.team_id,
    }
    for name, value in ids.items():
        wrong.optional_id(name, value)
    for index, state in enumerate(request.states):
        if state not in ALL_STATES:
            wrong.add(f"states[{index}]", "a state that a reservation can be in")
    filters: dict[str, Any] = dict(ids)
    for field, name in (("reserved_from_time", "from_ms"), ("reserved_before_time", "to_ms")):
        if request.HasField(field):  # type: ignore[arg-type]
            filters[name] = wrong.instant(field, getattr(request, field))
    wrong.refuse()
    states: tuple[int | None, ...] = tuple(sorted(set(request.states)))
    if not states:
        states = (None,) if any(ids.values()) else ALL_STATES
    return filters, states


def _refund_filters(
    request: inventory_service_pb2.ListRefundsRequest,
) -> tuple[dict[str, str], tuple[int, ...], int | None]:
    """The ids asked for, the states to walk, and the instant that all became due before."""
    wrong = Violations()
    wrong.page(page_size=request.page_size, page_token=request.page_token)
    ids = {
        "campaign_id": request.campaign_id,
        "reservation_id": request.reservation_id,
        "payment_id": request.payment_id,
        "buyer_id": request.buyer_id,
    }
    for name, value in ids.items():
        wrong.optional_id(name, value)
    wrong.known("state", request.state, reservation_pb2.RefundState.Name)
    before_ms = None
    if request.HasField("due_before_time"):
        before_ms = wrong.instant("due_before_time", request.due_before_time)
    wrong.refuse()
    states = (request.state,) if request.state else (REFUND_DUE, REFUND_CLOSED)
    return ids, states, before_ms


def _merge(
    pages: Sequence[Page], columns: tuple[str, ...], size: int, *, descending: bool = False
) -> tuple[list[Row], Key | None]:
    """The first `size` rows of several pages in one order, and the key of what follows."""

    def key(row: Row) -> Key:
        return tuple(row[column] for column in columns)

    rows = list(heapq.merge(*(page.rows for page in pages), key=key, reverse=descending))
    more = len(rows) > size or any(page.after is not None for page in pages)
    return rows[:size], key(rows[:size][-1]) if more and rows else None

"""Lists over a real SQL view, fed as write-behind feeds it."""

import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from stockray_proto.v1 import common_pb2 as com
from stockray_proto.v1 import inventory_service_pb2 as inv
from stockray_proto.v1 import reservation_pb2 as res
from stockray_proto.v1 import seckill_service_pb2 as sec

from persistence.sql.views import SqlViews
from server.errors import CallError
from server.translate.pages import make_token
from server.translate.scalars import stamp
from tests.helpers.core_lines import START_MS, CoreLines
from tests.unit.server.conftest import (
    HOUR_MS,
    Gateway,
    View,
    buyer,
    campaign,
    fields_of,
    reason_of,
    serving,
)

pytestmark = pytest.mark.usefixtures("front_kind")


@pytest.fixture
async def seen(lines: CoreLines, view: View) -> AsyncIterator[Gateway]:
    async with serving(lines, views=view.views) as gateway:
        await gateway.stock_up(units=100)
        yield gateway


async def pages(call: Any, request: Any, field: str) -> list[Any]:
    """All of a listing, page by page."""
    found: list[Any] = []
    for _ in range(100):
        answer = await call(request)
        found.extend(getattr(answer, field))
        request.page_token = answer.next_page_token
        if not request.page_token:
            return found
    raise AssertionError("the listing does not end")


async def test_reservations_are_listed_newest_first_over_all_states(
    seen: Gateway, view: View
) -> None:
    held = []
    for index in range(7):
        seen.clock.pass_ms(1_000)
        claims = ["member"] if index == 0 else []
        who = buyer("u-1", device_id="d-1", ip="10.0.0.1", claims=claims)
        held.append(await seen.reserve(f"r-{index}", order_id=f"o-{index}", buyer=who))
    for index in (1, 3, 5):
        await seen.confirm(held[index].reservation_id, payment_id=f"p-{index}")
    view.follow()
    request = inv.ListReservationsRequest(page_size=2)
    found = await pages(seen.inventory.ListReservations, request, "reservations")
    assert [one.request_id for one in found] == [f"r-{index}" for index in range(6, -1, -1)]
    assert list(found[-1].buyer.claims) == ["member"]
    assert found[1].state == res.RESERVATION_STATE_CONFIRMED
    assert found[1].paid_minor == 500


async def test_reservations_are_listed_by_every_filter(seen: Gateway, view: View) -> None:
    first = await seen.reserve("r-1", order_id="o-1")
    seen.clock.pass_ms(60_000)
    await seen.reserve("r-2", buyer=buyer("u-2"))
    await seen.confirm(first.reservation_id)
    view.follow()
    later = stamp(START_MS + 30_000)
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"buyer_id": "u-2"}, ["r-2"]),
        ({"order_id": "o-1"}, ["r-1"]),
        ({"sku_id": "tea"}, ["r-2", "r-1"]),
        ({"campaign_id": "none"}, []),
        ({"states": [res.RESERVATION_STATE_CONFIRMED]}, ["r-1"]),
        ({"sku_id": "tea", "states": [1, 2, 3]}, ["r-2", "r-1"]),
        ({"reserved_from_time": later}, ["r-2"]),
        ({"reserved_before_time": later}, ["r-1"]),
    ]
    for filters, wanted in cases:
        request = inv.ListReservationsRequest(**filters)
        answer = await seen.inventory.ListReservations(request)
        assert [one.request_id for one in answer.reservations] == wanted, filters


async def test_a_list_says_how_old_its_view_is(seen: Gateway, view: View) -> None:
    view.follow()
    seen.clock.pass_ms(2_500)
    await seen.reserve("r-1")
    answer = await seen.inventory.ListReservations(inv.ListReservationsRequest())
    assert not answer.reservations
    assert answer.age.source == com.DATA_SOURCE_SQL
    assert answer.age.as_of_time == stamp(START_MS)
    assert answer.age.age.ToMilliseconds() == 2_500


async def test_refunds_are_listed_due_longest_first(seen: Gateway, view: View) -> None:
    for index in range(5):
        seen.clock.pass_ms(1_000)
        await seen.confirm(f"unknown-{index % 2}", payment_id=f"p-{index}", paid_minor=index + 1)
    view.follow()
    request = inv.ListRefundsRequest(page_size=2)
    found = await pages(seen.inventory.ListRefunds, request, "refunds")
    assert [one.payment_id for one in found] == [f"p-{index}" for index in range(5)]
    closed = inv.ReportRefundRequest(
        request_id="a", refund_id=found[0].refund_id, outcome=inv.REFUND_OUTCOME_SUCCEEDED
    )
    await seen.inventory.ReportRefund(closed)
    view.follow()
    request = inv.ListRefundsRequest(
        page_size=1, reservation_id="unknown-0", state=res.REFUND_STATE_DUE
    )
    found = await pages(seen.inventory.ListRefunds, request, "refunds")
    assert [one.payment_id for one in found] == ["p-2", "p-4"]
    request = inv.ListRefundsRequest(state=res.REFUND_STATE_REFUNDED)
    (refund,) = (await seen.inventory.ListRefunds(request)).refunds
    assert (refund.attempt_count, refund.failed_attempt_count) == (1, 0)
    assert refund.HasField("refund_time")


async def test_refunds_are_listed_by_every_filter(seen: Gateway, view: View) -> None:
    await seen.seckill.PutCampaign(campaign(units=6))
    for name, sale in (("a", "double-11"), ("b", ""), ("c", "double-11")):
        held = await seen.reserve(f"r-{name}", campaign_id=sale, buyer=buyer(f"u-{name}"))
        await seen.confirm(held.reservation_id, payment_id=f"p-{name}", paid_minor=1)
    view.follow()
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"buyer_id": "u-a"}, ["p-a"]),
        ({"payment_id": "p-b"}, ["p-b"]),
        ({"campaign_id": "double-11"}, ["p-a", "p-c"]),
        ({"campaign_id": "double-11", "buyer_id": "u-c"}, ["p-c"]),
        ({"campaign_id": "double-11", "state": res.REFUND_STATE_REFUNDED}, []),
        ({"due_before_time": stamp(START_MS + 1)}, ["p-a", "p-b", "p-c"]),
        ({"due_before_time": stamp(START_MS), "buyer_id": "u-a"}, []),
    ]
    for filters, wanted in cases:
        request = inv.ListRefundsRequest(**filters, page_size=1)
        found = await pages(seen.inventory.ListRefunds, request, "refunds")
        assert sorted(one.payment_id for one in found) == wanted, filters
        assert all(one.currency_code == "CNY" for one in found)
        assert all(
            one.campaign_id == ("" if one.buyer_id == "u-b" else "double-11") for one in found
        )


async def test_pools_are_listed_by_campaign_and_sku(seen: Gateway, view: View) -> None:
    await seen.stock_up("cup")
    await seen.seckill.PutCampaign(campaign(units=6))
    view.follow()
    cases: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
        ({"page_size": 1}, [("", "cup"), ("", "tea"), ("double-11", "tea")]),
        ({"base_only": True}, [("", "cup"), ("", "tea")]),
        ({"campaign_id": "double-11"}, [("double-11", "tea")]),
        ({"sku_id": "tea", "page_size": 1}, [("", "tea"), ("double-11", "tea")]),
    ]
    for filters, wanted in cases:
        request = inv.ListStockRequest(**filters)
        found = await pages(seen.inventory.ListStock, request, "stocks")
        assert [(stock.campaign_id, stock.sku_id) for stock in found] == wanted
        assert {stock.age.source for stock in found} == {com.DATA_SOURCE_SQL}
        assert {stock.currency_code for stock in found} == {"CNY"}
        for stock in found:
            prices = (300, 300) if stock.campaign_id else (500, 500)
            assert (stock.list_price_minor, stock.unit_price_minor) == prices


async def test_campaigns_are_listed_with_their_pools_and_by_phase(
    seen: Gateway, view: View
) -> None:
    for index in range(3):
        starts = stamp(START_MS + index * 1_000)
        put = campaign(f"sale-{index}", units=6, start_time=starts, required_claims=["member"])
        await seen.seckill.PutCampaign(put)
    request = sec.PauseCampaignRequest(campaign_id="sale-0")
    await seen.seckill.PauseCampaign(request)
    seen.clock.pass_ms(1_000)
    view.follow()
    found = await pages(
        seen.seckill.ListCampaigns, sec.ListCampaignsRequest(page_size=2), "campaigns"
    )
    assert [one.campaign_id for one in found] == ["sale-0", "sale-1", "sale-2"]
    assert [one.phase for one in found] == [
        sec.CAMPAIGN_PHASE_PAUSED,
        sec.CAMPAIGN_PHASE_OPEN,
        sec.CAMPAIGN_PHASE_ANNOUNCED,
    ]
    (line,) = found[1].lines
    assert (line.allocated_count, line.stock.available_count) == (6, 6)
    assert line.stock.age.source == com.DATA_SOURCE_SQL
    assert list(found[1].required_claims) == ["member"]
    assert [one.version for one in found] == [1, 1, 1]
    assert found[0].create_time == stamp(START_MS)
    open_ones = sec.ListCampaignsRequest(phases=[sec.CAMPAIGN_PHASE_OPEN], page_size=1)
    found = await pages(seen.seckill.ListCampaigns, open_ones, "campaigns")
    assert [one.campaign_id for one in found] == ["sale-1"]
    seen.clock.pass_ms(HOUR_MS)
    ended = sec.ListCampaignsRequest(phases=[sec.CAMPAIGN_PHASE_ENDED])
    assert len((await seen.seckill.ListCampaigns(ended)).campaigns) == 3


async def test_a_listed_campaign_says_what_was_allocated_whatever_became_of_it(
    seen: Gateway, view: View
) -> None:
    """An adjusted pool answers for less than was granted; one that gave units up has less."""
    await seen.seckill.PutCampaign(campaign(units=6))
    adjust = inv.AdjustStockRequest(
        request_id="a-1", sku_id="tea", campaign_id="double-11", delta_count=-2, reason="broken"
    )
    await seen.inventory.AdjustStock(adjust)
    view.follow()
    seen.clock.pass_ms(1_000)
    await seen.seckill.PutCampaign(campaign(units=9, title="More of it"))
    moved = inv.TransferStockRequest(
        request_id="t-1", sku_id="tea", from_campaign_id="double-11", quantity=1
    )
    await seen.inventory.TransferStock(moved)
    view.follow()
    (listed,) = (await seen.seckill.ListCampaigns(sec.ListCampaignsRequest())).campaigns
    assert (listed.lines[0].allocated_count, listed.lines[0].stock.total_count) == (8, 6)
    read = await seen.seckill.GetCampaign(sec.GetCampaignRequest(campaign_id="double-11"))
    assert read.campaign.lines[0].allocated_count == 8
    assert (listed.version, listed.update_time) == (2, stamp(START_MS + 1_000))
    assert (read.campaign.version, read.campaign.update_time) == (2, listed.update_time)
    assert read.campaign.create_time == listed.create_time == stamp(START_MS)


async def test_a_view_is_as_old_as_the_shard_that_lags_most(seen: Gateway, view: View) -> None:
    """Applying old entries makes no view young; hearing that there are no more does."""

    async def age_ms() -> int:
        answer = await seen.inventory.ListReservations(inv.ListReservationsRequest())
        age: int = answer.age.age.ToMilliseconds()
        return age

    seen.clock.pass_ms(60_000)
    view.follow()
    assert await age_ms() == 60_000
    view.touch(0)
    assert await age_ms() == 0
    seen.clock.pass_ms(5_000)
    view.touch(1)
    assert await age_ms() == 5_000, "shard 1 is young, shard 0 is not"


@pytest.mark.parametrize(
    "token",
    [
        "not base64!",
        "AAAA",
        make_token((1, "x")),
        make_token(("1", "x"), {}, (1, 2)),
        "W1tb" * 400,
    ],
)
async def test_a_page_token_that_is_not_of_this_listing_is_refused(
    seen: Gateway, view: View, token: str
) -> None:
    view.follow()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await seen.inventory.ListReservations(inv.ListReservationsRequest(page_token=token))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(caught.value) == "PAGE_TOKEN_INVALID"


async def test_a_page_token_holds_for_its_own_filters_alone(seen: Gateway, view: View) -> None:
    await seen.stock_up("cup")
    view.follow()
    answer = await seen.inventory.ListStock(inv.ListStockRequest(page_size=1))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await seen.inventory.ListStock(
            inv.ListStockRequest(page_token=answer.next_page_token, sku_id="tea")
        )
    assert reason_of(caught.value) == "PAGE_TOKEN_INVALID"


async def test_bad_filters_are_all_named(seen: Gateway) -> None:
    request = inv.ListReservationsRequest(page_size=-1, buyer_id="a b", states=[0, 9])  # type: ignore[list-item]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await seen.inventory.ListReservations(request)
    assert fields_of(caught.value) == ["page_size", "buyer_id", "states[0]", "states[1]"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await seen.inventory.ListRefunds(inv.ListRefundsRequest(campaign_id="c d"))
    assert fields_of(caught.value) == ["campaign_id"]


async def test_without_a_view_lists_are_unavailable_and_sales_go_on(gateway: Gateway) -> None:
    await gateway.stock_up()
    for call, request in (
        (gateway.inventory.ListReservations, inv.ListReservationsRequest()),
        (gateway.inventory.ListRefunds, inv.ListRefundsRequest()),
        (gateway.inventory.ListStock, inv.ListStockRequest()),
        (gateway.seckill.ListCampaigns, sec.ListCampaignsRequest()),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(request)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert reason_of(caught.value) == "VIEW_UNAVAILABLE"
    assert (await gateway.reserve("r-1")).status == com.LINE_STATUS_RESERVED


async def test_a_view_that_cannot_be_read_is_unavailable(lines: CoreLines, tmp_path: Path) -> None:
    views = SqlViews(f"sqlite:///{tmp_path / 'empty.db'}")
    async with serving(lines, views=views) as gateway:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway.inventory.ListStock(inv.ListStockRequest())
        assert reason_of(caught.value) == "VIEW_UNAVAILABLE"
    views.close()


async def test_a_view_that_hangs_is_not_waited_for_beyond_the_deadline(lines: CoreLines) -> None:
    go_on = threading.Event()

    class Hanging(SqlViews):
        def positions(self) -> Any:
            go_on.wait(30)
            return []

    views = Hanging("sqlite:////nonexistent/tables.db")
    async with serving(lines, views=views) as gateway:
        began = time.monotonic()
        reader = gateway.services.reader
        with pytest.raises(CallError) as caught:
            await reader.read(lambda views: views.positions(), timeout_s=0.1)
        assert caught.value.status.reason_name == "VIEW_UNAVAILABLE"
        assert time.monotonic() - began < 10
        go_on.set()

"""SKUs and pools through the gateway, as a stock client sees them."""

from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from stockray_proto.v1 import common_pb2 as com
from stockray_proto.v1 import inventory_service_pb2 as inv
from stockray_proto.v1 import seckill_service_pb2 as sec
from stockray_proto.v1 import stock_pb2 as stk

from actors.core import commands as c
from actors.core import records as r
from actors.core.codec import unpack_entry
from actors.core.outcomes import Outcome
from tests.unit.server.conftest import Gateway, campaign, fields_of


async def test_a_sku_gets_its_defaults(gateway: Gateway) -> None:
    put = await gateway.inventory.PutSku(inv.PutSkuRequest(sku=stk.Sku(sku_id="tea")))
    assert put.status == com.LINE_STATUS_APPLIED
    assert put.sku.buffer_bps == 1_000
    assert put.sku.payment_window.seconds == 15 * 60
    assert put.stock.total_count == 0


async def test_the_currency_of_a_sku_with_units_stays(gateway: Gateway) -> None:
    await gateway.stock_up()
    sku = stk.Sku(sku_id="tea", list_price_minor=500, currency_code="EUR")
    put = await gateway.inventory.PutSku(inv.PutSkuRequest(sku=sku))
    assert put.status == com.LINE_STATUS_CAMPAIGN_CONFLICT
    assert "currency" in put.message


async def test_received_units_are_there_with_the_buffers_part_kept_back(gateway: Gateway) -> None:
    await gateway.inventory.PutSku(inv.PutSkuRequest(sku=stk.Sku(sku_id="tea")))
    receipt = inv.ReceiveStockRequest(
        request_id="doc-1", sku_id="tea", quantity=25, reference="PO-7", reason="delivery"
    )
    for _ in range(2):
        received = await gateway.inventory.ReceiveStock(receipt)
        assert received.status == com.LINE_STATUS_APPLIED
        stock = received.stock
        assert (stock.total_count, stock.available_count, stock.buffer_count) == (25, 23, 2)
        assert (received.buffer_added_count, received.owed_paid_count) == (2, 0)
    read = await gateway.inventory.GetStock(inv.GetStockRequest(sku_id="tea"))
    assert (read.status, read.stock.total_count) == (com.LINE_STATUS_FOUND, 25)
    assert read.stock.age.source == com.DATA_SOURCE_SHARD


async def test_a_base_pool_is_read_with_its_sku_and_a_campaigns_without(gateway: Gateway) -> None:
    sku = stk.Sku(
        sku_id="tea",
        name="Tea",
        attributes={"leaf": "green"},
        buffer_bps=0,
        list_price_minor=500,
        currency_code="CNY",
        payment_window=Duration(seconds=60),
    )
    await gateway.inventory.PutSku(inv.PutSkuRequest(sku=sku, reason="new in the range"))
    await gateway.seckill.PutCampaign(campaign())
    read = await gateway.inventory.GetStock(inv.GetStockRequest(sku_id="tea"))
    assert read.sku == sku
    assert (read.stock.currency_code, read.stock.unit_price_minor) == ("CNY", 500)
    request = inv.GetStockRequest(sku_id="tea", campaign_id="double-11")
    read = await gateway.inventory.GetStock(request)
    assert not read.HasField("sku")
    assert (read.stock.currency_code, read.stock.unit_price_minor) == ("CNY", 300)


async def test_what_pays_off_a_shortage_is_told_and_told_again(gateway: Gateway) -> None:
    await gateway.stock_up(units=3)
    await gateway.reserve("r-1", quantity=3)
    short = inv.DeclareShortageRequest(
        request_id="s-1", sku_id="tea", quantity=2, reason="water damage"
    )
    receipt = inv.ReceiveStockRequest(request_id="doc-2", sku_id="tea", quantity=5)
    declared = await gateway.inventory.DeclareShortage(short)
    received = await gateway.inventory.ReceiveStock(receipt)
    assert (received.owed_paid_count, received.buffer_added_count) == (2, 0)
    assert received.stock.available_count == 3
    again = await gateway.inventory.DeclareShortage(short)
    assert again.from_reserved_count == declared.from_reserved_count == 2
    assert again.owed_count == 2, "as at first; the pool says what is owed now"
    assert again.stock.owed_count == 0
    again = await gateway.inventory.ReceiveStock(receipt)
    assert (again.owed_paid_count, again.buffer_added_count) == (2, 0)


async def test_reasons_and_callers_are_in_the_journal(gateway: Gateway) -> None:
    """Of every act that an audit will be asked for."""
    who = (("stockray-caller", "desk"),)
    sku = stk.Sku(sku_id="tea", buffer_bps=0)
    put = inv.PutSkuRequest(sku=sku, reason="new")
    await gateway.inventory.PutSku(put, metadata=who)
    start = campaign()
    start.reason = "eleven"
    await gateway.seckill.PutCampaign(start, metadata=who)
    pause = sec.PauseCampaignRequest(campaign_id="double-11", reason="wrong price")
    await gateway.seckill.PauseCampaign(pause, metadata=who)
    receipt = inv.ReceiveStockRequest(
        request_id="d", sku_id="tea", quantity=5, reference="PO-7", reason="late"
    )
    await gateway.inventory.ReceiveStock(receipt, metadata=who)
    out = inv.TransferStockRequest(
        request_id="t", sku_id="tea", to_campaign_id="double-11", quantity=1, reason="more"
    )
    await gateway.inventory.TransferStock(out, metadata=who)
    records = [x for entry in gateway.lines.entries for x in unpack_entry(entry.data).records]
    kinds = (r.SKU_PUT, r.CAMPAIGN_PUT, r.CAMPAIGN_STATE_SET, r.STOCK_CHANGED, r.TRANSFERRED_OUT)
    told = {x.kind: (x.caller, x.reason) for x in records if x.kind in kinds}
    assert told == {
        r.SKU_PUT: ("desk", "new"),
        r.CAMPAIGN_PUT: ("desk", "eleven"),
        r.CAMPAIGN_STATE_SET: ("desk", "wrong price"),
        r.STOCK_CHANGED: ("desk", "[PO-7] late"),
        r.TRANSFERRED_OUT: ("desk", "more"),
    }


async def test_a_correction_takes_only_what_is_available(gateway: Gateway) -> None:
    await gateway.stock_up(units=5)
    await gateway.reserve("r-1", quantity=2)
    adjust = inv.AdjustStockRequest(
        request_id="a-1", sku_id="tea", delta_count=-4, reason="counted again"
    )
    refused = await gateway.inventory.AdjustStock(adjust)
    assert refused.status == com.LINE_STATUS_EXCEEDS_AVAILABLE
    adjust.request_id, adjust.delta_count = "a-2", -3
    applied = await gateway.inventory.AdjustStock(adjust)
    assert (applied.status, applied.stock.total_count) == (com.LINE_STATUS_APPLIED, 2)


async def test_a_buffer_is_set_to_an_absolute_number(gateway: Gateway) -> None:
    await gateway.stock_up(units=5)
    request = inv.SetBufferRequest(request_id="b-1", sku_id="tea", buffer_count=4)
    answer = await gateway.inventory.SetBuffer(request)
    assert (answer.stock.buffer_count, answer.stock.available_count) == (4, 1)


async def test_a_shortage_says_what_is_taken_from_where(gateway: Gateway) -> None:
    await gateway.stock_up(units=6)
    held = [await gateway.reserve(f"r-{index}") for index in range(3)]
    await gateway.confirm(held[0].reservation_id)
    request = inv.DeclareShortageRequest(
        request_id="s-1", sku_id="tea", quantity=6, reason="water damage", dry_run=True
    )
    dry = await gateway.inventory.DeclareShortage(request)
    assert (dry.status, dry.stock.available_count) == (com.LINE_STATUS_FOUND, 3)
    request.dry_run = False
    done = await gateway.inventory.DeclareShortage(request)
    assert (done.status, done.stock.available_count) == (com.LINE_STATUS_APPLIED, 0)
    for answer in (dry, done):
        assert answer.from_available_count == 3
        assert (answer.from_reserved_count, answer.from_sold_count) == (2, 1)
        assert answer.owed_count == 3


async def test_a_transfer_arrives_and_is_counted_once(gateway: Gateway) -> None:
    await gateway.stock_up(units=10)
    await gateway.seckill.PutCampaign(campaign(units=6))
    request = inv.TransferStockRequest(
        request_id="t-1", sku_id="tea", from_campaign_id="double-11", quantity=2
    )
    for _ in range(2):
        moved = await gateway.inventory.TransferStock(request)
        assert (moved.status, moved.arrived) == (com.LINE_STATUS_APPLIED, True)
        assert moved.from_stock.total_count == 4
        assert moved.to_stock.available_count == 6


async def test_a_transfer_that_the_taker_turns_away_comes_back(gateway: Gateway) -> None:
    await gateway.stock_up(units=10)
    await gateway.seckill.PutCampaign(campaign(units=6))
    request = inv.TransferStockRequest(
        request_id="t-1", sku_id="tea", to_campaign_id="double-11", quantity=1
    )
    moved = await gateway.inventory.TransferStock(request)
    assert (moved.status, moved.arrived, moved.turned_away) == (
        com.LINE_STATUS_APPLIED,
        False,
        True,
    )
    assert (moved.from_stock.available_count, moved.from_stock.in_transit_count) == (4, 0)
    assert not moved.HasField("to_stock")


async def test_steps_of_a_transfer_are_asked_again_until_they_are_decided(
    gateway: Gateway,
) -> None:
    await gateway.stock_up(units=10)
    await gateway.seckill.PutCampaign(campaign(units=6))
    for kind in (c.TRANSFER_OUT, c.TRANSFER_IN, c.TRANSFER_DONE):
        gateway.lines.failures[kind] = [Outcome.RETRY, Outcome.UNKNOWN]
    request = inv.TransferStockRequest(
        request_id="t-1", sku_id="tea", from_campaign_id="double-11", quantity=2
    )
    moved = await gateway.inventory.TransferStock(request)
    assert moved.arrived
    assert not any(gateway.lines.failures.values())
    assert not gateway.lines.chores()


async def test_what_was_not_decided_in_time_is_said_so(gateway: Gateway) -> None:
    await gateway.stock_up(units=10)
    await gateway.seckill.PutCampaign(campaign(units=6))
    gateway.lines.failures[c.TRANSFER_OUT] = [Outcome.RETRY] * 100
    request = inv.TransferStockRequest(
        request_id="t-1", sku_id="tea", from_campaign_id="double-11", quantity=2
    )
    submit = gateway.lines.submit

    async def later(commands: Any) -> Any:
        gateway.clock.pass_ms(4_000)
        return await submit(commands)

    gateway.lines.submit = later  # type: ignore[method-assign]
    moved = await gateway.inventory.TransferStock(request)
    assert (moved.status, moved.arrived) == (com.LINE_STATUS_RETRY, False)
    assert moved.HasField("retry_after")


BAD: list[tuple[str, Any, list[str]]] = [
    (
        "PutSku",
        inv.PutSkuRequest(
            sku=stk.Sku(
                sku_id="",
                name="n" * 257,
                attributes={"a b": "x", "c": "y" * 1_025},
                buffer_bps=10_001,
                list_price_minor=10**15 + 1,
                payment_window=Duration(nanos=5),
            ),
            reason="r" * 513,
        ),
        [
            "sku.sku_id",
            "sku.name",
            "sku.attributes[a b]",
            "sku.attributes[c]",
            "sku.buffer_bps",
            "sku.list_price_minor",
            "sku.currency_code",
            "sku.payment_window",
            "reason",
        ],
    ),
    ("GetStock", inv.GetStockRequest(campaign_id="a b"), ["sku_id", "campaign_id"]),
    (
        "ReceiveStock",
        inv.ReceiveStockRequest(quantity=1_000_000_001, reference="x" * 129),
        ["request_id", "sku_id", "quantity", "reference"],
    ),
    (
        "AdjustStock",
        inv.AdjustStockRequest(request_id="a", sku_id="s"),
        ["delta_count", "reason"],
    ),
    (
        "SetBuffer",
        inv.SetBufferRequest(request_id="a", sku_id="s", buffer_count=-1),
        ["buffer_count"],
    ),
    (
        "TransferStock",
        inv.TransferStockRequest(request_id="a", sku_id="s"),
        ["to_campaign_id", "quantity"],
    ),
    (
        "DeclareShortage",
        inv.DeclareShortageRequest(request_id="a", sku_id="s"),
        ["quantity", "reason"],
    ),
    ("BeginPayment", inv.BeginPaymentRequest(), ["reservation_id", "payment_id"]),
    (
        "ReturnUnits",
        inv.ReturnUnitsRequest(request_id="a", reservation_id="r", restock_to=9),  # type: ignore[arg-type]
        ["quantity", "restock_to"],
    ),
    ("ListStock", inv.ListStockRequest(base_only=True, campaign_id="c"), ["base_only"]),
]


@pytest.mark.parametrize(("call", "request_", "fields"), BAD, ids=[bad[0] for bad in BAD])
async def test_a_bad_request_names_every_field_that_is_wrong(
    gateway: Gateway, call: str, request_: Any, fields: list[str]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(gateway.inventory, call)(request_)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert fields_of(caught.value) == fields
    assert not gateway.lines.decided

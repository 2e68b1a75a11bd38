"""Errors, options, ids, and records that mirror the wire."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_type_hints

import grpc
import pytest
import stockray
from stockray import (
    AsyncClient,
    Campaign,
    CampaignLine,
    ClientOptions,
    Sku,
    Status,
    cluster,
    commission,
    events,
    group_buy,
    records,
    results,
    risk,
)
from stockray import enums as client_enums
from stockray._codec import read, write
from stockray._ids import IdMaker
from stockray._verbs import frame
from stockray.options import OptionChanges
from stockray_proto.v1 import (
    commission_service_pb2,
    common_pb2,
    event_service_pb2,
    group_buy_service_pb2,
    inventory_service_pb2,
    ops_service_pb2,
    reservation_pb2,
    risk_service_pb2,
    seckill_service_pb2,
    stock_pb2,
)

from tests.unit.client.scripted import ScriptedServer, refuse

MODULES = (
    common_pb2,
    reservation_pb2,
    stock_pb2,
    inventory_service_pb2,
    seckill_service_pb2,
    group_buy_service_pb2,
    commission_service_pb2,
    event_service_pb2,
    risk_service_pb2,
    ops_service_pb2,
)


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", stockray.InvalidRequest),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE", stockray.InvalidRequest),
        (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", stockray.Unauthenticated),
        (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", stockray.PermissionDenied),
        (grpc.StatusCode.INTERNAL, "INTERNAL", stockray.ServerError),
        (grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED", stockray.ServerError),
    ],
)
async def test_an_rpc_error_becomes_one_of_ours_with_its_reason(
    server: ScriptedServer, code: grpc.StatusCode, reason: str, expected: type[Exception]
) -> None:
    async def fail(request: Any, context: Any) -> Any:
        await refuse(context, code, reason, message="no")

    server.on("GrabMany", fail)
    server.on("GetStock", fail)
    async with AsyncClient(server.address) as client:
        for call in (client.grab("c", "s", buyer_id="u"), client.get_stock("s")):
            with pytest.raises(stockray.StockrayError) as raised:
                await call
            assert type(raised.value) is expected
            assert (raised.value.reason, raised.value.domain) == (reason, "stockray")
            assert raised.value.grpc_code is code
            assert raised.value.message == "no"


async def test_all_violations_arrive_at_once(server: ScriptedServer) -> None:
    broken = [("sku.sku_id", "is required"), ("sku.currency_code", "is not three letters")]

    async def fail(request: Any, context: Any) -> Any:
        await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", violations=broken)

    server.on("PutSku", fail)
    async with AsyncClient(server.address) as client:
        with pytest.raises(stockray.InvalidRequest) as raised:
            await client.put_sku(Sku(sku_id=""))

    assert [tuple(violation) for violation in raised.value.violations] == broken


async def test_lists_are_paged_to_their_end(server: ScriptedServer) -> None:
    async def page(request: Any, context: Any) -> Any:
        number = int(request.page_token or 0)
        response = inventory_service_pb2.ListReservationsResponse()
        # The second page is empty and not the last.
        for item in range(0 if number == 1 else 2):
            response.reservations.add(reservation_id=f"r-{number}-{item}")
        response.next_page_token = str(number + 1) if number < 2 else ""
        response.age.age.FromTimedelta(timedelta(seconds=number))
        return response

    server.on("ListReservations", page)
    async with AsyncClient(server.address) as client:
        listing = client.list_reservations(buyer_id="u-7", page_size=2)
        found = [reservation.reservation_id async for reservation in listing]
        ages = [page.age.age async for page in listing.pages() if page.age is not None]

    assert found == ["r-0-0", "r-0-1", "r-2-0", "r-2-1"]
    assert ages == [timedelta(seconds=number) for number in range(3)]
    asked = server.calls["ListReservations"]
    assert {request.buyer_id for request in asked} == {"u-7"}
    assert [request.page_token for request in asked[:3]] == ["", "1", "2"]


async def test_a_watch_goes_on_over_ended_and_broken_streams(server: ScriptedServer) -> None:
    async def stream(request: Any, context: Any) -> Any:
        turn = len(server.calls["WatchStock"])

        async def messages() -> Any:
            message = inventory_service_pb2.WatchStockResponse()
            message.stocks.add(sku_id="s", available_count=turn)
            yield message
            if turn == 2:
                await refuse(context, grpc.StatusCode.UNAVAILABLE, "DRAINING")

        return messages()

    server.on("WatchStock", stream)
    seen = []
    async with AsyncClient(server.address, backoff_min_ms=1) as client:
        async for change in client.watch_stock([stockray.PoolKey(sku_id="s")]):
            seen.append(change.stocks[0].available_count)
            if len(seen) == 3:
                break

    assert seen == [1, 2, 3]


async def test_a_watch_that_is_refused_raises(server: ScriptedServer) -> None:
    async def stream(request: Any, context: Any) -> Any:
        await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")

    server.on("WatchStock", stream)
    async with AsyncClient(server.address) as client:
        with pytest.raises(stockray.InvalidRequest):
            await anext(aiter(client.watch_stock([])))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timeout_ms", 0),
        ("rpc_timeout_ms", 10_001),
        ("connections", 0),
        ("gathered_lines_max", 4_097),
        ("call_lines_max", "many"),
        ("backoff_max_ms", 1),
        ("caller", "two words"),
        ("token", ""),
        ("tls", False),
        ("keepalive_ms", True),
    ],
)
def test_a_wrong_option_is_named(field: str, value: Any) -> None:
    more = {"tls_ca_pem": b"x"} if field == "tls" else {}
    with pytest.raises(ValueError, match=f"^{field}: "):
        ClientOptions(**{field: value, **more})


def test_a_key_without_its_certificate_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^tls_key_pem: "):
        ClientOptions(tls=True, tls_key_pem=b"x")


def test_options_can_be_given_by_name_over_a_set_of_them() -> None:
    client = stockray.Client("127.0.0.1:1", ClientOptions(connections=3), timeout_ms=5)
    assert (client.options.connections, client.options.timeout_ms) == (3, 5)
    client.close()


def test_every_option_can_be_given_by_name() -> None:
    assert set(get_type_hints(OptionChanges)) == {field.name for field in fields(ClientOptions)}


def test_ids_are_unique_ascending_time_ordered_uuids() -> None:
    make = IdMaker()
    ids = [make() for _ in range(20_000)]

    assert len(set(ids)) == len(ids)
    assert ids == sorted(ids)
    assert {uuid.UUID(text).version for text in ids} == {7}
    assert {uuid.UUID(text).variant for text in ids} == {uuid.RFC_4122}


@pytest.mark.parametrize("size", [0, 1, 127, 128, 300, 16_383, 16_384, 70_000])
def test_a_framed_line_is_field_one_of_a_request(size: int) -> None:
    line = reservation_pb2.ReleaseLine(reason="x" * size)
    payload = line.SerializeToString()
    request = inventory_service_pb2.ReleaseManyRequest.FromString(frame(payload) * 2)

    assert list(request.lines) == [line, line]


def test_every_enum_mirrors_the_wire() -> None:
    wire = {
        name: kind
        for module in MODULES
        for name, kind in module.DESCRIPTOR.enum_types_by_name.items()
    }
    del wire["ErrorReason"], wire["FeedStart"]
    wire["Status"] = wire.pop("LineStatus")

    assert set(wire) == set(client_enums.__all__)
    for name, kind in wire.items():
        ours = getattr(client_enums, name)
        prefix = kind.values[0].name.removesuffix("UNSPECIFIED")
        assert {v.name.removeprefix(prefix): v.number for v in kind.values} == {
            member.name: member.value for member in ours
        }


RENAMED = {
    "ClusterStatus": "GetClusterStatusResponse",
    "VerifyReport": "VerifyResponse",
    "SnapshotReport": "TakeSnapshotResponse",
    "DrainResult": "DrainGatewayResponse",
    "CampaignResult": "PutCampaignResponse",
    "StockChange": "WatchStockResponse",
    "GroupCampaignResult": "PutGroupCampaignResponse",
    "TeamChange": "WatchTeamResponse",
    "FactBatch": "WatchResponse",
    "FactBuyer": "BuyerContext",
    "FunnelReport": "GetFunnelResponse",
}
NO_MESSAGE = {"Answer", "ConfirmResult", "ReleaseResult", "ReserveResult", "SeatResult"}
FUNCTIONS = {"format_cursors", "parse_cursors"}
PAGED = {"next_page_token"}


def test_every_record_mirrors_its_message() -> None:
    wire = {
        name: kind
        for module in MODULES
        for name, kind in module.DESCRIPTOR.message_types_by_name.items()
    }
    for module in (records, results, cluster, group_buy, commission, events, risk):
        for name in set(module.__all__) - NO_MESSAGE - FUNCTIONS:
            message = RENAMED.get(name) or (
                name if name in wire else name.replace("Result", "Response")
            )
            ours = {field.name for field in fields(getattr(module, name))}
            assert ours == set(wire[message].fields_by_name) - PAGED, name


def test_a_campaign_survives_the_wire() -> None:
    campaign = Campaign(
        campaign_id="double-11",
        currency_code="CNY",
        lines=(CampaignLine(sku_id="s", allocation_count=5, unit_price_minor=1),),
        start_time=datetime(2026, 11, 11, 12, 30, 0, 123456, tzinfo=UTC),
        payment_window=timedelta(minutes=15, microseconds=7),
        required_claims=("member",),
    )

    assert read(Campaign, write(seckill_service_pb2.Campaign(), campaign)) == campaign


def test_a_naive_instant_is_refused_by_name() -> None:
    naive = Campaign(campaign_id="c", start_time=datetime(2026, 1, 1))
    with pytest.raises(ValueError, match=r"^start_time: "):
        write(seckill_service_pb2.Campaign(), naive)


def test_an_unset_buffer_is_not_a_buffer_of_zero() -> None:
    unset = write(stock_pb2.Sku(), Sku(sku_id="s"))
    zero = write(stock_pb2.Sku(), replace(Sku(sku_id="s"), buffer_bps=0))

    assert not unset.HasField("buffer_bps")
    assert zero.HasField("buffer_bps")
    assert read(Sku, zero).buffer_bps == 0


def test_a_status_is_its_name_as_text_and_its_number_on_the_wire() -> None:
    assert f"{Status.SOLD_OUT:>10}" == "  SOLD_OUT"
    assert str(Status.SOLD_OUT) == "SOLD_OUT"
    assert Status.SOLD_OUT == 20


async def test_a_status_of_a_newer_service_is_readable_and_not_ok(server: ScriptedServer) -> None:
    async def newer(request: Any, context: Any) -> Any:
        return inventory_service_pb2.GetStockResponse(status=15)  # type: ignore[arg-type]

    server.on("GetStock", newer)
    async with AsyncClient(server.address) as client:
        answer = await client.get_stock("s")

    assert (answer.status.name, answer.ok) == ("UNRECOGNIZED_15", False)


def test_refund_due_is_not_ok() -> None:
    due = stockray.ConfirmResult(Status.REFUND_DUE, "r", "p")
    assert not due.ok
    with pytest.raises(stockray.Refused) as raised:
        due.raise_for_status()
    assert (raised.value.reason, raised.value.ids) == ("REFUND_DUE", ("p",))


def test_errors_know_whether_to_retry() -> None:
    retriable = {
        name
        for name in stockray.errors.__all__
        if getattr(getattr(stockray, name), "retriable", False)
    }
    assert retriable == {"Overloaded", "Unavailable", "DeadlineExceeded"}


async def test_verify_collects_all_pages_of_pools(server: ScriptedServer) -> None:
    async def verify(request: Any, context: Any) -> Any:
        page = int(request.page_token or 0)
        response = ops_service_pb2.VerifyResponse(next_page_token="1" if page == 0 else "")
        response.pools.add(sku_id=f"s-{page}")
        if page == 0:
            response.reports.add(shard=0)
        return response

    server.on("Verify", verify)
    async with AsyncClient(server.address) as client:
        report = await asyncio.wait_for(client.verify([0], include_pools=True), 5)

    assert [pool.sku_id for pool in report.pools] == ["s-0", "s-1"]
    assert len(report.reports) == 1

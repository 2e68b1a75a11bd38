"""Any gRPC client will do: the generated stubs over a plain channel, nothing of our library."""

from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from stockray_proto.v1 import (
    common_pb2,
    inventory_service_pb2,
    inventory_service_pb2_grpc,
    ops_service_pb2,
    ops_service_pb2_grpc,
    reservation_pb2,
    stock_pb2,
)

from tests.helpers.stack import Stack

pytestmark = pytest.mark.parametrize("shared_stack", ["sqlite"], indirect=True)

SERVICES = {
    "stockray.v1.InventoryService",
    "stockray.v1.SeckillService",
    "stockray.v1.OpsService",
    "grpc.health.v1.Health",
}


@pytest.fixture
def channel(stack: Stack) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(stack.listen) as channel:
        yield channel


@pytest.fixture
def inventory(
    channel: grpc.Channel,
) -> inventory_service_pb2_grpc.InventoryServiceStub:
    return inventory_service_pb2_grpc.InventoryServiceStub(channel)


def stocked(
    inventory: inventory_service_pb2_grpc.InventoryServiceStub, sku_id: str, units: int
) -> str:
    """A SKU with so many units for sale."""
    sku = stock_pb2.Sku(sku_id=sku_id, name=sku_id, list_price_minor=500, currency_code="CNY")
    sku.buffer_bps = 0
    put = inventory.PutSku(inventory_service_pb2.PutSkuRequest(sku=sku), timeout=5)
    assert put.status == common_pb2.LINE_STATUS_APPLIED, put
    received = inventory.ReceiveStock(
        inventory_service_pb2.ReceiveStockRequest(
            request_id=f"delivery-{sku_id}", sku_id=sku_id, quantity=units
        ),
        timeout=5,
    )
    assert received.status == common_pb2.LINE_STATUS_APPLIED, received
    return sku_id


def line_of(sku_id: str, request_id: str, quantity: int = 1) -> reservation_pb2.ReserveLine:
    line = reservation_pb2.ReserveLine(request_id=request_id, sku_id=sku_id, quantity=quantity)
    line.buyer.buyer_id = "u-7"
    return line


def reserve(
    inventory: inventory_service_pb2_grpc.InventoryServiceStub, line: reservation_pb2.ReserveLine
) -> reservation_pb2.ReserveResult:
    request = inventory_service_pb2.ReserveRequest(line=line)
    return inventory.Reserve(request, timeout=5).result


def details_of(error: grpc.RpcError) -> tuple[grpc.StatusCode, dict[str, list[str]]]:
    """The code, and the reasons and fields of an error's details."""
    assert isinstance(error, grpc.Call)
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    found: dict[str, list[str]] = {"reasons": [], "fields": []}
    for detail in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            assert info.domain == "stockray"
            found["reasons"].append(info.reason)
        elif detail.Unpack(bad):
            found["fields"] += [violation.field for violation in bad.field_violations]
    return error.code(), found


def test_a_unit_is_reserved_once_however_often_it_is_asked_for(
    inventory: inventory_service_pb2_grpc.InventoryServiceStub,
) -> None:
    sku_id = stocked(inventory, "stub-once", 3)
    first = reserve(inventory, line_of(sku_id, "once-1", 2))
    again = reserve(inventory, line_of(sku_id, "once-1", 2))
    assert first.status == common_pb2.LINE_STATUS_RESERVED
    assert first.reservation_id
    assert first.payable_minor == 1_000
    first.ClearField("remaining_count")
    again.ClearField("remaining_count")
    assert again == first
    other = reserve(inventory, line_of(sku_id, "once-1", 1))
    assert other.status == common_pb2.LINE_STATUS_ID_REUSED
    stock = inventory.GetStock(inventory_service_pb2.GetStockRequest(sku_id=sku_id), timeout=5)
    assert (stock.stock.available_count, stock.stock.reserved_count) == (1, 2)


def test_the_last_unit_is_sold_and_the_next_buyer_is_told(
    inventory: inventory_service_pb2_grpc.InventoryServiceStub,
) -> None:
    sku_id = stocked(inventory, "stub-last", 1)
    won = reserve(inventory, line_of(sku_id, "last-1"))
    assert won.status == common_pb2.LINE_STATUS_RESERVED
    lost = reserve(inventory, line_of(sku_id, "last-2"))
    assert lost.status == common_pb2.LINE_STATUS_SOLD_OUT
    assert not lost.reservation_id
    payment = reservation_pb2.ConfirmLine(
        reservation_id=won.reservation_id, payment_id="stub-pay-1", paid_minor=500
    )
    for _ in range(2):
        paid = inventory.Confirm(inventory_service_pb2.ConfirmRequest(line=payment), timeout=5)
        assert paid.result.status == common_pb2.LINE_STATUS_CONFIRMED
    stock = inventory.GetStock(inventory_service_pb2.GetStockRequest(sku_id=sku_id), timeout=5)
    assert (stock.stock.sold_count, stock.stock.available_count) == (1, 0)


def test_what_is_not_known_is_an_answer_and_no_error(
    inventory: inventory_service_pb2_grpc.InventoryServiceStub,
) -> None:
    answer = reserve(inventory, line_of("stub-nowhere", "nowhere-1"))
    assert answer.status == common_pb2.LINE_STATUS_NOT_FOUND
    assert answer.request_id == "nowhere-1"


def test_a_request_that_breaks_rules_lists_all_fields_at_once(
    inventory: inventory_service_pb2_grpc.InventoryServiceStub,
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        reserve(inventory, line_of("sku", "x" * 129, quantity=0))
    code, details = details_of(caught.value)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details["reasons"] == ["INVALID_FIELD"]
    assert set(details["fields"]) == {"line.request_id", "line.quantity"}


def test_too_many_lines_are_refused_whole(
    inventory: inventory_service_pb2_grpc.InventoryServiceStub,
) -> None:
    sku_id = stocked(inventory, "stub-many", 10)
    lines = [line_of(sku_id, f"many-{number}") for number in range(4_097)]
    with pytest.raises(grpc.RpcError) as caught:
        inventory.ReserveMany(inventory_service_pb2.ReserveManyRequest(lines=lines), timeout=10)
    code, details = details_of(caught.value)
    assert (code, details["reasons"]) == (grpc.StatusCode.INVALID_ARGUMENT, ["TOO_MANY_LINES"])
    stock = inventory.GetStock(inventory_service_pb2.GetStockRequest(sku_id=sku_id), timeout=5)
    assert stock.stock.available_count == 10


def test_as_many_lines_as_allowed_are_answered_in_order(
    inventory: inventory_service_pb2_grpc.InventoryServiceStub, channel: grpc.Channel
) -> None:
    sku_id = stocked(inventory, "stub-full", 4_000)
    ops = ops_service_pb2_grpc.OpsServiceStub(channel)
    limits = ops.GetClusterStatus(ops_service_pb2.GetClusterStatusRequest(), timeout=5).limits
    assert limits.lines_max == 4_096
    lines = [line_of(sku_id, f"full-{number}") for number in range(limits.lines_max)]
    answer = inventory.ReserveMany(
        inventory_service_pb2.ReserveManyRequest(lines=lines), timeout=10
    )
    assert [result.request_id for result in answer.results] == [line.request_id for line in lines]
    statuses = [result.status for result in answer.results]
    assert statuses.count(common_pb2.LINE_STATUS_RESERVED) == 4_000
    assert statuses.count(common_pb2.LINE_STATUS_SOLD_OUT) == 96


def test_a_message_above_the_limit_is_refused_with_its_reason(
    inventory: inventory_service_pb2_grpc.InventoryServiceStub,
) -> None:
    line = line_of("sku", "large-1")
    line.buyer.claims.append("x" * 5_000_000)
    with pytest.raises(grpc.RpcError) as caught:
        reserve(inventory, line)
    code, details = details_of(caught.value)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details["reasons"] == ["MESSAGE_TOO_LARGE"]


def test_reflection_lists_the_services(channel: grpc.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    answer = next(stub.ServerReflectionInfo(iter([request]), timeout=5))
    assert {service.name for service in answer.list_services_response.service} >= SERVICES


def test_health_is_told_by_service(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "stockray.v1.InventoryService", "stockray.v1.SeckillService"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, service
    with pytest.raises(grpc.RpcError) as caught:
        health.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=5)
    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_method_that_is_not_there_is_unimplemented(channel: grpc.Channel) -> None:
    nowhere = channel.unary_unary("/stockray.v1.InventoryService/Nothing", None, None)
    with pytest.raises(grpc.RpcError) as caught:
        nowhere(b"", timeout=5)
    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED

"""What is the same for all calls: limits, errors and their details, admission, health, drain."""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from stockray_proto.v1 import common_pb2 as com
from stockray_proto.v1 import inventory_service_pb2 as inv

from actors.core import commands as c
from server.admission import AdmissionLimits
from server.services.table import Services
from tests.helpers.core_lines import CoreLines
from tests.unit.server.conftest import (
    Gateway,
    details_of,
    fields_of,
    line,
    new_front,
    reason_of,
    serving,
)

pytestmark = pytest.mark.usefixtures("front_kind")

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
INVENTORY = "stockray.v1.InventoryService"


def raw(gateway: Gateway, path: str) -> Any:
    """A call of bytes, as no generated stub would send it."""
    return gateway.channel.unary_unary(path)


async def refused(call: Any) -> grpc.aio.AioRpcError:
    """The error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_a_call_carries_at_most_4096_lines(gateway: Gateway) -> None:
    await gateway.stock_up(units=10_000)
    lines = [line(f"r-{index}") for index in range(4_097)]
    error = await refused(gateway.inventory.ReserveMany(inv.ReserveManyRequest(lines=lines)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (reason_of(error), fields_of(error)) == ("TOO_MANY_LINES", ["lines"])
    assert "4096" in (error.details() or "")
    answer = await gateway.inventory.ReserveMany(inv.ReserveManyRequest(lines=lines[:4_096]))
    assert len(answer.results) == 4_096
    assert gateway.lines.pools()["", "tea"].reserved == 4_096


async def test_a_call_of_no_line_is_refused(gateway: Gateway) -> None:
    error = await refused(gateway.inventory.ConfirmMany(inv.ConfirmManyRequest()))
    assert reason_of(error) == "TOO_MANY_LINES"


async def test_a_message_has_at_most_4_mib(gateway: Gateway) -> None:
    path = f"/{INVENTORY}/ReserveMany"
    error = await refused(raw(gateway, path)(b"\x0a" * (4 * 1024 * 1024 + 1)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(error) == "MESSAGE_TOO_LARGE"
    assert str(4 * 1024 * 1024) in (error.details() or "")
    assert gateway.services.admission.bytes == 0


async def test_bytes_that_are_no_message_are_said_to_be_none(gateway: Gateway) -> None:
    error = await refused(raw(gateway, f"/{INVENTORY}/Reserve")(b"\xff\xff\xff"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(error) == "MALFORMED_MESSAGE"


@pytest.mark.parametrize(
    "path", [f"/{INVENTORY}/Steal", "/stockray.v1.NoService/Reserve", "/nonsense"]
)
async def test_an_unknown_call_is_unimplemented_with_details(gateway: Gateway, path: str) -> None:
    error = await refused(raw(gateway, path)(b""))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert reason_of(error) == "UNIMPLEMENTED"


async def test_a_fault_leaks_no_text(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("the password is tiger")

    gateway.lines.put = broken  # type: ignore[method-assign]
    error = await refused(gateway.reserve("r-1"))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert reason_of(error) == "INTERNAL"
    assert "tiger" not in str(error)
    assert "tiger" not in str(error.trailing_metadata())
    out = capsys.readouterr()
    assert "call_failed" in out.out + out.err
    assert gateway.services.admission.lines == 0


async def test_what_is_too_much_is_refused_before_any_work(lines: CoreLines) -> None:
    limits = AdmissionLimits(lines_max=4_096)
    async with serving(lines, limits=limits) as gateway:
        await gateway.stock_up(units=10_000)
        release = lines.hold(c.RESERVE)
        full = inv.ReserveManyRequest(lines=[line(f"r-{index}") for index in range(4_096)])
        first = gateway.inventory.ReserveMany(full)
        await lines.waiting.wait()
        error = await refused(gateway.reserve("r-x"))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert reason_of(error) == "OVERLOADED"
        advice = details_of(error)[error_details_pb2.RetryInfo].retry_delay
        assert advice.ToMilliseconds() == 200
        assert ("grpc-retry-pushback-ms", "200") in tuple(error.trailing_metadata())
        release.set()
        assert len((await first).results) == 4_096
        assert (await gateway.reserve("r-x")).status == com.LINE_STATUS_RESERVED


async def test_bytes_in_flight_are_limited_too(lines: CoreLines) -> None:
    async with serving(lines, limits=AdmissionLimits(bytes_max=4 * 1024 * 1024)) as gateway:
        await gateway.stock_up()
        release = lines.hold(c.RESERVE)
        first = asyncio.ensure_future(gateway.reserve("r-1"))
        await lines.waiting.wait()
        error = await refused(raw(gateway, f"/{INVENTORY}/GetStock")(bytes(4 * 1024 * 1024)))
        assert reason_of(error) == "OVERLOADED"
        release.set()
        assert (await first).status == com.LINE_STATUS_RESERVED


@pytest.mark.parametrize("limits", [{"lines_max": 4_095}, {"bytes_max": 1_000}, {"streams_max": 0}])
def test_limits_that_admit_no_full_call_are_refused_at_start(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(limits))):
        AdmissionLimits(**limits)


async def test_a_gateway_takes_nothing_before_it_can_route(lines: CoreLines) -> None:
    services = Services(lines, now_ms=lines.clock.now_ms)
    front = new_front(services.table)
    gateway = Gateway(lines, services, front.listen("127.0.0.1:0"))
    await front.start()
    health = health_pb2_grpc.HealthStub(gateway.channel)
    error = await refused(gateway.reserve("r-1"))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAVAILABLE, "NOT_READY")
    request = health_pb2.HealthCheckRequest(service=INVENTORY)
    assert (await health.Check(request)).status == NOT_SERVING
    services.health.open()
    assert (await health.Check(request)).status == SERVING
    assert (await gateway.reserve("r-1")).status == com.LINE_STATUS_NOT_FOUND
    await gateway.channel.close()
    await front.stop(grace_s=0)


async def test_health_answers_for_each_service_and_for_all(gateway: Gateway) -> None:
    health: Any = health_pb2_grpc.HealthStub(gateway.channel)
    for service in ("", INVENTORY, "stockray.v1.SeckillService"):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == SERVING
    error = await refused(health.Check(health_pb2.HealthCheckRequest(service="stockray.v1.No")))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    listed = await health.List(health_pb2.HealthListRequest())  # type: ignore[attr-defined]
    assert {"", INVENTORY} <= set(listed.statuses)
    assert {answer.status for answer in listed.statuses.values()} == {SERVING}


async def test_a_drain_tells_health_first_and_lets_what_flies_finish(gateway: Gateway) -> None:
    await gateway.stock_up()
    health = health_pb2_grpc.HealthStub(gateway.channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(service=INVENTORY))
    assert (await watch.read()).status == SERVING
    release = gateway.lines.hold(c.RESERVE)
    flying = asyncio.ensure_future(gateway.reserve("r-1"))
    await gateway.lines.waiting.wait()
    gateway.services.health.drain()
    assert (await watch.read()).status == NOT_SERVING
    error = await refused(gateway.reserve("r-2"))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert details_of(error)[error_details_pb2.RetryInfo].retry_delay.ToMilliseconds() == 1_000
    release.set()
    assert (await flying).status == com.LINE_STATUS_RESERVED
    gateway.services.health.open()
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == NOT_SERVING


async def test_reflection_lists_all_services_and_can_be_switched_off(lines: CoreLines) -> None:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    for on in (True, False):
        services = Services(lines, now_ms=lines.clock.now_ms, reflection=on)
        front = new_front(services.table)
        gateway = Gateway(lines, services, front.listen("127.0.0.1:0"))
        await front.start()
        services.health.open()
        stub = reflection_pb2_grpc.ServerReflectionStub(gateway.channel)
        # A client that still writes when it is refused may say INTERNAL: its own write failed.
        call = stub.ServerReflectionInfo(iter([request] if on else []))
        if on:
            answer = await call.read()
            names = {service.name for service in answer.list_services_response.service}
            assert {INVENTORY, "stockray.v1.SeckillService", "grpc.health.v1.Health"} <= names
        else:
            error = await refused(call.read())
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        await gateway.channel.close()
        await front.stop(grace_s=0)

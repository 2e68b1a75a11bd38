"""The same id until it is decided, inside a finite deadline; RETRY and UNKNOWN at its end."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import grpc
import pytest
import stockray
from stockray import AsyncClient, GrabLine, Status
from stockray_proto.v1 import common_pb2, inventory_service_pb2, seckill_service_pb2

from tests.unit.client.scripted import Handler, ScriptedServer, answered, refuse, reserve_all

RETRY = common_pb2.LINE_STATUS_RETRY
UNKNOWN = common_pb2.LINE_STATUS_UNKNOWN


class Script:
    """Answers call by call: a line status for all lines, an RPC error, or None to reserve.

    After the steps comes `last`, with which it asks to come again in `wait`: where that is past the
    caller's deadline, no attempt is under way when time is up.
    """

    def __init__(
        self,
        *steps: int | grpc.StatusCode | None,
        last: int | None = None,
        wait: timedelta | None = None,
    ) -> None:
        self.steps = list(steps)
        self.last = last
        self.wait = wait

    async def __call__(self, request: Any, context: Any) -> Any:
        wait = None if self.steps else self.wait
        step = self.steps.pop(0) if self.steps else self.last
        if step is None:
            return await reserve_all(request, context)
        if isinstance(step, grpc.StatusCode):
            await refuse(context, step)
        results = [answered(line, step, wait) for line in request.lines]
        return seckill_service_pb2.GrabManyResponse(results=results)


def receiving(wait: timedelta, *steps: common_pb2.LineStatus.ValueType) -> Handler:
    """Answers ReceiveStock with the steps, and from then on RETRY in `wait`."""
    statuses = list(steps)

    async def receive(request: Any, context: Any) -> Any:
        if statuses:
            return inventory_service_pb2.ReceiveStockResponse(status=statuses.pop(0))
        answer = inventory_service_pb2.ReceiveStockResponse(status=RETRY)
        answer.retry_after.FromTimedelta(wait)
        return answer

    return receive


def sent_ids(server: ScriptedServer) -> set[str]:
    return {line.request_id for request in server.calls["GrabMany"] for line in request.lines}


@pytest.mark.parametrize(
    "step", [RETRY, UNKNOWN, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL]
)
async def test_an_undecided_line_is_sent_again_with_its_id(
    server: ScriptedServer, step: int | grpc.StatusCode
) -> None:
    server.on("GrabMany", Script(step, step))
    async with AsyncClient(server.address, backoff_min_ms=1) as client:
        answer = await client.grab("c", "s", buyer_id="u")

    assert answer.ok
    assert len(server.calls["GrabMany"]) == 3
    assert sent_ids(server) == {answer.request_id}


async def test_a_line_only_refused_reports_retry_when_time_is_up(server: ScriptedServer) -> None:
    server.on("GrabMany", Script(RETRY, last=RETRY, wait=timedelta(minutes=1)))
    async with AsyncClient(server.address, backoff_min_ms=10) as client:
        answer = await client.grab("c", "s", buyer_id="u")

    assert answer.status is Status.RETRY
    assert len(server.calls["GrabMany"]) == 2
    with pytest.raises(stockray.DeadlineExceeded) as raised:
        answer.raise_for_status()
    assert not raised.value.maybe_applied


async def test_an_attempt_is_not_begun_that_time_cannot_answer(server: ScriptedServer) -> None:
    """Cut off at the deadline it would leave in doubt what was refused for certain."""
    almost = timedelta(milliseconds=1990)
    server.on("GrabMany", Script(last=RETRY, wait=almost))
    server.on("ReceiveStock", receiving(almost))
    async with AsyncClient(server.address, timeout_ms=2000, backoff_min_ms=1) as client:
        line, single = await asyncio.gather(
            client.grab("c", "s", buyer_id="u"), client.receive_stock("s", quantity=5)
        )

    assert (line.status, single.status) == (Status.RETRY, Status.RETRY)
    assert len(server.calls["GrabMany"]) == len(server.calls["ReceiveStock"]) == 1


@pytest.mark.parametrize("doubt", [UNKNOWN, grpc.StatusCode.UNAVAILABLE])
async def test_a_line_that_once_lost_an_answer_reports_unknown(
    server: ScriptedServer, doubt: int | grpc.StatusCode
) -> None:
    server.on("GrabMany", Script(doubt, last=RETRY, wait=timedelta(minutes=1)))
    async with AsyncClient(server.address, backoff_min_ms=10) as client:
        answer = await client.grab("c", "s", buyer_id="u")

    assert answer.status is Status.UNKNOWN
    with pytest.raises(stockray.DeadlineExceeded) as raised:
        answer.raise_for_status()
    assert raised.value.maybe_applied
    assert raised.value.ids == (answer.request_id,)


async def test_what_the_edge_says_does_not_end_a_lost_line(server: ScriptedServer) -> None:
    """RATE_LIMITED speaks of the second attempt; the first may have reserved."""
    limited = common_pb2.LINE_STATUS_RATE_LIMITED
    server.on("GrabMany", Script(UNKNOWN, limited))
    async with AsyncClient(server.address, backoff_min_ms=1) as client:
        decided = await client.grab("c", "s", buyer_id="u")
        server.on("GrabMany", Script(UNKNOWN, last=limited, wait=timedelta(minutes=1)))
        undecided = await client.grab("c", "s", buyer_id="u")
        server.on("GrabMany", Script(last=limited))
        refused = await client.grab("c", "s", buyer_id="u")

    assert decided.ok
    assert undecided.status is Status.UNKNOWN
    assert refused.status is Status.RATE_LIMITED


async def test_a_shards_decision_ends_a_lost_line(server: ScriptedServer) -> None:
    server.on("GrabMany", Script(UNKNOWN, common_pb2.LINE_STATUS_SOLD_OUT))
    async with AsyncClient(server.address, backoff_min_ms=1) as client:
        answer = await client.grab("c", "s", buyer_id="u")

    assert answer.status is Status.SOLD_OUT


async def test_a_service_that_says_nothing_ends_in_unknown_at_the_deadline(
    server: ScriptedServer,
) -> None:
    async def silent(request: Any, context: Any) -> Any:
        await asyncio.Event().wait()

    server.on("GrabMany", silent)
    async with AsyncClient(server.address) as client:
        begun = time.monotonic()
        answer = await client.grab("c", "s", buyer_id="u", timeout_ms=200)
        took_s = time.monotonic() - begun

    assert answer.status is Status.UNKNOWN
    assert 0.15 < took_s < 9


async def test_a_line_that_never_flew_reports_retry(server: ScriptedServer) -> None:
    entered, opened = asyncio.Event(), asyncio.Event()

    async def slow(request: Any, context: Any) -> Any:
        entered.set()
        await opened.wait()
        return await reserve_all(request, context)

    server.on("GrabMany", slow)
    async with AsyncClient(server.address, in_flight_per_verb=1) as client:
        flying = asyncio.ensure_future(client.grab("c", "s", buyer_id="u"))
        await entered.wait()
        waiting = await client.grab("c", "s", buyer_id="u", timeout_ms=100)
        assert waiting.status is Status.RETRY
        opened.set()
        assert (await flying).ok

    assert server.lines("GrabMany") == [1]


async def test_a_short_deadline_is_kept_in_a_call_with_a_longer_one(
    server: ScriptedServer,
) -> None:
    opened = asyncio.Event()

    async def slow(request: Any, context: Any) -> Any:
        await opened.wait()
        return await reserve_all(request, context)

    server.on("GrabMany", slow)
    async with AsyncClient(server.address) as client:
        patient = asyncio.ensure_future(client.grab("c", "s", buyer_id="u-1"))
        hasty = asyncio.ensure_future(client.grab("c", "s", buyer_id="u-2", timeout_ms=100))
        assert (await hasty).status is Status.UNKNOWN
        opened.set()
        assert (await patient).ok

    assert server.lines("GrabMany") == [2]


async def test_nobody_listening_ends_in_time(server: ScriptedServer) -> None:
    await server.stop()
    async with AsyncClient(server.address, timeout_ms=200) as client:
        answer = await client.grab("c", "s", buyer_id="u")
        with pytest.raises(stockray.DeadlineExceeded) as raised:
            await client.receive_stock("s", quantity=1, request_id="doc-1")

    assert answer.status is Status.UNKNOWN
    assert raised.value.maybe_applied
    assert raised.value.ids == ("doc-1",)


async def test_a_server_that_comes_back_is_found_inside_the_deadline() -> None:
    first = ScriptedServer()
    await first.start()
    async with AsyncClient(first.address, backoff_min_ms=10) as client:
        assert (await client.grab("c", "s", buyer_id="u")).ok
        await first.stop()
        waiting = asyncio.ensure_future(client.grab("c", "s", buyer_id="u", request_id="id-1"))
        await asyncio.sleep(0.05)
        second = ScriptedServer()
        await second.start(int(first.address.rpartition(":")[2]))
        assert (await waiting).ok
        assert sent_ids(second) == {"id-1"}
    await second.stop()


async def test_overload_with_retry_info_waits_as_asked_and_sends_again(
    server: ScriptedServer,
) -> None:
    async def busy_once(request: Any, context: Any) -> Any:
        if len(server.calls["GrabMany"]) == 1:
            await refuse(
                context,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "OVERLOADED",
                retry_after=timedelta(milliseconds=120),
            )
        return await reserve_all(request, context)

    server.on("GrabMany", busy_once)
    async with AsyncClient(server.address, backoff_min_ms=1) as client:
        begun = time.monotonic()
        answer = await client.grab("c", "s", buyer_id="u")

    assert answer.ok
    assert time.monotonic() - begun >= 0.12


async def test_overload_without_retry_info_is_raised(server: ScriptedServer) -> None:
    async def busy(request: Any, context: Any) -> Any:
        await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")

    server.on("GrabMany", busy)
    async with AsyncClient(server.address) as client:
        with pytest.raises(stockray.Overloaded):
            await client.grab("c", "s", buyer_id="u")

    assert len(server.calls["GrabMany"]) == 1


async def test_only_undecided_lines_of_a_many_are_sent_again(server: ScriptedServer) -> None:
    async def some(request: Any, context: Any) -> Any:
        response = await reserve_all(request, context)
        if len(server.calls["GrabMany"]) == 1:
            for index in (3, 7):
                response.results[index].CopyFrom(answered(request.lines[index], RETRY))
        return response

    server.on("GrabMany", some)
    async with AsyncClient(server.address, backoff_min_ms=1) as client:
        answers = await client.grab_many([GrabLine("c", "s", f"u-{i}") for i in range(10)])

    assert [answer.reservation_id for answer in answers] == [f"r-u-{i}" for i in range(10)]
    first, second = server.calls["GrabMany"]
    assert [line.request_id for line in second.lines] == [
        first.lines[3].request_id,
        first.lines[7].request_id,
    ]


async def test_a_many_refused_as_a_whole_names_all_ids(server: ScriptedServer) -> None:
    async def forbid(request: Any, context: Any) -> Any:
        await refuse(context, grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")

    server.on("GrabMany", forbid)
    async with AsyncClient(server.address) as client:
        lines = [GrabLine("c", "s", "u", request_id=f"id-{i}") for i in range(3)]
        with pytest.raises(stockray.PermissionDenied) as raised:
            await client.grab_many(lines)

    assert raised.value.ids == ("id-0", "id-1", "id-2")
    assert not raised.value.maybe_applied


async def test_results_that_do_not_match_the_lines_are_a_server_error(
    server: ScriptedServer,
) -> None:
    async def short(request: Any, context: Any) -> Any:
        return seckill_service_pb2.GrabManyResponse()

    server.on("GrabMany", short)
    async with AsyncClient(server.address) as client:
        with pytest.raises(stockray.ServerError) as raised:
            await client.grab("c", "s", buyer_id="u")

    assert raised.value.reason == "NOT_DENSE"
    assert raised.value.maybe_applied


async def test_a_single_request_is_sent_again_with_its_id(server: ScriptedServer) -> None:
    statuses = [RETRY, UNKNOWN, common_pb2.LINE_STATUS_APPLIED]

    async def receive(request: Any, context: Any) -> Any:
        return inventory_service_pb2.ReceiveStockResponse(status=statuses.pop(0))

    server.on("ReceiveStock", receive)
    async with AsyncClient(server.address, backoff_min_ms=1) as client:
        answer = await client.receive_stock("s", quantity=5)

    assert answer.ok
    assert len({request.request_id for request in server.calls["ReceiveStock"]}) == 1


async def test_a_single_request_ends_as_unknown_once_it_lost_an_answer(
    server: ScriptedServer,
) -> None:
    server.on("ReceiveStock", receiving(timedelta(minutes=1), UNKNOWN))
    async with AsyncClient(server.address, backoff_min_ms=5) as client:
        answer = await client.receive_stock("s", quantity=5)

    assert answer.status is Status.UNKNOWN

"""Single calls share RPCs, in order, each with its own answer."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import grpc
import pytest
import stockray
from stockray import AsyncClient, GrabLine, Status
from stockray_proto.v1 import common_pb2, seckill_service_pb2

from tests.unit.client.scripted import ScriptedServer, answered, refuse, reserve_all, reserved


class Gate:
    """A handler that holds every call until it is opened."""

    def __init__(self) -> None:
        self.entered = asyncio.Semaphore(0)
        self.opened = asyncio.Event()

    async def __call__(self, request: Any, context: Any) -> Any:
        self.entered.release()
        await self.opened.wait()
        return await reserve_all(request, context)


async def test_the_example_of_the_contract_works_as_written(server: ScriptedServer) -> None:
    async with stockray.AsyncClient(server.address) as client:
        answer = await client.grab("double-11", "sku-1001", buyer_id="u-7", quantity=1)
        assert answer.ok
        paid = await client.confirm(answer.reservation_id, payment_id="p-1", paid_minor=9900)

    assert paid.ok
    assert paid.status is Status.CONFIRMED
    assert server.calls["ConfirmMany"][0].lines[0].paid_minor == 9900


async def test_calls_of_one_tick_fly_together(server: ScriptedServer) -> None:
    async with AsyncClient(server.address) as client:
        await asyncio.gather(*(client.grab("c", "s", buyer_id=f"u-{i}") for i in range(10)))

    assert server.lines("GrabMany") == [10]


async def test_what_waits_while_calls_fly_makes_the_next_call(server: ScriptedServer) -> None:
    gate = Gate()
    server.on("GrabMany", gate)
    async with AsyncClient(server.address) as client, asyncio.TaskGroup() as tasks:
        for _ in range(2):
            tasks.create_task(client.grab("c", "s", buyer_id="first"))
            await gate.entered.acquire()
        for i in range(50):
            tasks.create_task(client.grab("c", "s", buyer_id=f"u-{i}"))
            await asyncio.sleep(0)
        assert server.lines("GrabMany") == [1, 1]
        gate.opened.set()

    assert server.lines("GrabMany") == [1, 1, 50]


async def test_a_gathered_call_stays_within_its_lines_and_bytes(server: ScriptedServer) -> None:
    async with AsyncClient(
        server.address, gathered_lines_max=100, gathered_bytes_max=2_048
    ) as client:
        await asyncio.gather(*(client.grab("c", "s", buyer_id="u") for _ in range(120)))
        await asyncio.gather(*(client.release("r" * 100) for _ in range(50)))

    assert all(request.ByteSize() <= 2_048 for request in server.calls["GrabMany"])
    assert sum(server.lines("GrabMany")) == 120
    assert max(server.lines("ReleaseMany")) < 50


@pytest.mark.parametrize("seed", range(5))
async def test_every_waiter_gets_its_own_answer(server: ScriptedServer, seed: int) -> None:
    """Random batches, delays and refusals: what a waiter gets is of its own line, always."""
    chance = random.Random(seed)

    async def shuffled(request: Any, context: Any) -> Any:
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        results = [
            answered(line, common_pb2.LINE_STATUS_SOLD_OUT, message=line.buyer.buyer_id)
            if line.quantity % 3 == 0
            else answered(line, common_pb2.LINE_STATUS_RETRY)
            if chance.random() < 0.1
            else reserved(line)
            for line in request.lines
        ]
        return seckill_service_pb2.GrabManyResponse(results=results)

    server.on("GrabMany", shuffled)

    async def buyer(client: AsyncClient, number: int) -> None:
        for turn in range(5):
            name, quantity = f"u-{number}-{turn}", chance.randrange(1, 9)
            answer = await client.grab(
                "c", "s", buyer_id=name, quantity=quantity, request_id=f"id-{name}"
            )
            assert answer.request_id == f"id-{name}"
            if quantity % 3 == 0:
                assert (answer.status, answer.message) == (Status.SOLD_OUT, name)
            else:
                assert answer.reservation_id == f"r-{name}"
                assert answer.payable_minor == 9900 * quantity

    async with AsyncClient(
        server.address, gathered_lines_max=17, connections=2, backoff_min_ms=1
    ) as client:
        await asyncio.gather(*(buyer(client, number) for number in range(60)))


async def test_many_is_cut_into_calls_and_answered_in_order(server: ScriptedServer) -> None:
    async with AsyncClient(server.address, call_lines_max=100) as client:
        lines = [GrabLine("c", "s", f"u-{i}") for i in range(450)]
        answers = await client.grab_many(lines)
        assert await client.grab_many([]) == []

    assert [answer.reservation_id for answer in answers] == [f"r-u-{i}" for i in range(450)]
    assert sorted(server.lines("GrabMany")) == [50, 100, 100, 100, 100]


async def test_a_many_takes_4096_lines_a_call_by_default(server: ScriptedServer) -> None:
    async with AsyncClient(server.address) as client:
        await client.grab_many([GrabLine("c", "s", "u")] * 4_097)

    assert sorted(server.lines("GrabMany")) == [1, 4_096]


async def test_all_four_verbs_have_a_many(server: ScriptedServer) -> None:
    async with AsyncClient(server.address) as client:
        reserved_ = await client.reserve_many([stockray.ReserveLine("s", "u-1", quantity=2)])
        paid = await client.confirm_many([stockray.ConfirmLine("r-1", "p-1", 100)])
        freed = await client.release_many([stockray.ReleaseLine("r-2")])

    assert [reserved_[0].ok, paid[0].ok, freed[0].ok] == [True, True, True]
    assert server.calls["ReserveMany"][0].lines[0].quantity == 2


async def test_cancelling_one_waiter_leaves_the_shared_call_alone(server: ScriptedServer) -> None:
    gate = Gate()
    server.on("GrabMany", gate)
    async with AsyncClient(server.address) as client:
        waiters = [
            asyncio.ensure_future(client.grab("c", "s", buyer_id=f"u-{i}")) for i in range(3)
        ]
        await gate.entered.acquire()
        waiters[1].cancel()
        gate.opened.set()
        first, cancelled, last = await asyncio.gather(*waiters, return_exceptions=True)

    assert isinstance(cancelled, asyncio.CancelledError)
    assert isinstance(first, stockray.ReserveResult)
    assert isinstance(last, stockray.ReserveResult)
    assert (first.reservation_id, last.reservation_id) == ("r-u-0", "r-u-2")
    assert server.lines("GrabMany") == [3]


async def test_a_line_cancelled_before_it_flies_is_not_sent(server: ScriptedServer) -> None:
    gate = Gate()
    server.on("GrabMany", gate)
    async with AsyncClient(server.address, in_flight_per_verb=1) as client:
        flying = asyncio.ensure_future(client.grab("c", "s", buyer_id="u-0"))
        await gate.entered.acquire()
        waiting = asyncio.ensure_future(client.grab("c", "s", buyer_id="u-1"))
        await asyncio.sleep(0)
        waiting.cancel()
        gate.opened.set()
        await flying

    assert server.lines("GrabMany") == [1]


async def test_one_unreadable_line_does_not_fail_the_others(server: ScriptedServer) -> None:
    """The service refuses the call whole; the library finds the culprit by halving."""

    async def strict(request: Any, context: Any) -> Any:
        if any(line.sku_id == "bad sku" for line in request.lines):
            await refuse(
                context,
                grpc.StatusCode.INVALID_ARGUMENT,
                "INVALID_FIELD",
                violations=[("lines.sku_id", "has whitespace")],
            )
        return await reserve_all(request, context)

    server.on("GrabMany", strict)
    async with AsyncClient(server.address) as client:
        skus = ["bad sku" if i == 5 else "s" for i in range(16)]
        answers = await asyncio.gather(
            *(client.grab("c", sku, buyer_id="u") for sku in skus), return_exceptions=True
        )

    refused = [i for i, answer in enumerate(answers) if isinstance(answer, Exception)]
    assert refused == [5]
    assert isinstance(answers[5], stockray.InvalidRequest)


async def test_more_waiting_lines_than_allowed_raise_overloaded(server: ScriptedServer) -> None:
    gate = Gate()
    server.on("GrabMany", gate)
    async with AsyncClient(server.address, pending_lines_max=5, in_flight_per_verb=1) as client:
        waiters = [asyncio.ensure_future(client.grab("c", "s", buyer_id="u"))]
        await gate.entered.acquire()
        waiters += [asyncio.ensure_future(client.grab("c", "s", buyer_id="u")) for _ in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(stockray.Overloaded) as raised:
            await client.grab("c", "s", buyer_id="u")
        gate.opened.set()
        await asyncio.gather(*waiters)

    assert raised.value.reason == "PENDING_LINES_MAX"
    assert not raised.value.maybe_applied


async def test_connections_are_several_and_all_used(server: ScriptedServer) -> None:
    async with AsyncClient(server.address, connections=3) as client:
        for _ in range(6):
            await client.grab("c", "s", buyer_id="u")

    assert len(server.peers) == 3


async def test_caller_and_token_travel_with_every_call(server: ScriptedServer) -> None:
    async with AsyncClient(server.address, caller="shop-1", token="secret") as client:
        await client.grab("c", "s", buyer_id="u")
        await client.get_stock("s")

    for name in ("GrabMany", "GetStock"):
        assert server.metadata[name][0]["stockray-caller"] == "shop-1"
        assert server.metadata[name][0]["authorization"] == "Bearer secret"

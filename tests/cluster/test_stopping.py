"""An operator stops the service, starts a second one by mistake, and checks the books."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from stockray import AsyncClient, ReplicaRole, ReserveLine, Sku, Status
from stockray.testing import NotBalanced

from tests.helpers.sale import BackgroundSale
from tests.helpers.stack import FIRST_KIND, SHARDS, Stack, on_shard, pid_of, stockray, stop_process

on_first_kind = pytest.mark.parametrize("shared_stack", FIRST_KIND, indirect=True)
on_sqlite = pytest.mark.parametrize("shared_stack", ["sqlite"], indirect=True)
INVARIANTS = {"I1", "I2", "I3", "I4", "I5", "I6"}
LINES = 4_096


@on_first_kind
def test_a_second_server_on_the_same_directory_is_turned_away(stack: Stack) -> None:
    refused = stack.command("serve", "--listen", "127.0.0.1:0")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"in use by process {stack.cluster.pid}" in refused.stderr
    assert stack.cluster.running


@on_first_kind
async def test_verify_runs_beside_a_live_sale(stack: Stack) -> None:
    async with stack.client() as client:
        await stack.pairs(client)
        async with BackgroundSale(stack, client, "verify-live"):
            live = await asyncio.to_thread(
                stack.command, "verify", "--address", stack.listen, "-o", "json"
            )
        assert live.returncode == 0, live.stdout + live.stderr
        found = json.loads(live.stdout)
        assert found["ok"] is True
        assert set(found["invariants"]) == INVARIANTS
        assert found["invariants"]["I1"]["checked"] > 0
        assert found["invariants"]["I5"]["checked"] > 0


@on_first_kind
async def test_verify_names_the_answer_that_is_not_true(stack: Stack) -> None:
    async with stack.client() as client:
        sku_id = f"lie-{stack.kind}"
        await stock(client, sku_id)
        sold = await client.reserve(sku_id, buyer_id="u-1", quantity=1)
    with pytest.raises(NotBalanced, match=f"I2: .*refused and yet done: {sold.request_id}"):
        await stack.aio.verify([(sku_id, sold._replace(status=Status.SOLD_OUT))])
    with pytest.raises(NotBalanced, match=r"I2: .*acknowledged and lost: never-asked"):
        await stack.aio.verify([(sku_id, sold._replace(request_id="never-asked"))])
    books = await stack.aio.verify([(sku_id, sold)])
    assert books.live
    assert {count.invariant for count in books.invariants} == INVARIANTS


@on_first_kind
async def test_sigterm_drains_and_loses_nothing(stack: Stack) -> None:
    """Watchers are told, calls in flight are answered, SQL catches up, and the code is 0."""
    async with stack.client() as client, health_told(stack) as told:
        status = await stack.pairs(client)
        sku_id, other = (on_shard(shard, f"drain-{stack.kind}") for shard in range(SHARDS))
        for stocked in (sku_id, other):
            await stock(client, stocked)
        assert await asyncio.wait_for(told.get(), 10) == health_pb2.HealthCheckResponse.SERVING
        primary = pid_of(status, 0, ReplicaRole.PRIMARY)
        await stop_process(stack, primary, holding_lock=False)
        try:
            flying = asyncio.create_task(client.reserve_many(lines_of(sku_id)))
            # What is answered on the same connection later shows that the gateway has the call.
            for _ in range(2):
                assert (await client.get_stock(other)).ok
            os.kill(stack.cluster.pid, signal.SIGTERM)
            now = await asyncio.wait_for(told.get(), 20)
        finally:
            os.kill(primary, signal.SIGCONT)
        assert now == health_pb2.HealthCheckResponse.NOT_SERVING
        assert {answer.status for answer in await flying} == {Status.RESERVED}
    assert await stack.aio.stop() == 0
    books = stack.check_stopped()
    pools = [p for p in books.data["pools"] if p["sku_id"] == sku_id and not p["campaign_id"]]
    assert [(pool["reserved"], pool["available"]) for pool in pools] == [(LINES, 0)]
    printed = stack.command("verify", "-o", "json")
    assert printed.returncode == 0, printed.stdout + printed.stderr
    assert json.loads(printed.stdout)["ok"] is True


async def stock(client: AsyncClient, sku_id: str) -> None:
    """A SKU with as many units as the test asks for."""
    sku = Sku(sku_id=sku_id, name=sku_id, buffer_bps=0, currency_code="CNY")
    (await client.put_sku(sku)).raise_for_status()
    received = await client.receive_stock(sku_id, quantity=LINES, request_id=f"delivery-{sku_id}")
    received.raise_for_status()


def lines_of(sku_id: str) -> list[ReserveLine]:
    return [
        ReserveLine(sku_id, f"u-{number}", request_id=f"{sku_id}-{number}", quantity=1)
        for number in range(LINES)
    ]


@on_sqlite
def test_verify_names_a_row_that_was_changed_behind_its_back(
    shared_stack: Stack, tmp_path: Path
) -> None:
    """On a copy of what the stopped service left."""
    assert shared_stack.cluster.stop() == 0
    copy = tmp_path / "data"
    shutil.copytree(shared_stack.settings.data_dir, copy)
    with sqlite3.connect(copy / "tables.db") as tables:
        (reservation_id,) = tables.execute("SELECT reservation_id FROM reservations").fetchone()
        tables.execute(
            "UPDATE reservations SET quantity = quantity + 1 WHERE reservation_id = ?",
            (reservation_id,),
        )
    tables.close()
    found = stockray("verify", "--data-dir", str(copy), "-o", "json")
    assert found.returncode == 1, found.stderr
    report = json.loads(found.stdout)
    assert report["invariants"]["I5"]["violations"] > 0
    assert str(reservation_id) in json.dumps(report["invariants"]["I5"]["examples"])


@asynccontextmanager
async def health_told(stack: Stack) -> AsyncIterator["asyncio.Queue[int]"]:
    """What a watcher of the service's health is told, in order."""
    told: asyncio.Queue[int] = asyncio.Queue()

    async def watch(channel: grpc.aio.Channel) -> None:
        request = health_pb2.HealthCheckRequest(service="stockray.v1.InventoryService")
        with contextlib.suppress(grpc.aio.AioRpcError):  # The stream ends with the service.
            async for answer in health_pb2_grpc.HealthStub(channel).Watch(request):
                told.put_nowait(answer.status)

    async with grpc.aio.insecure_channel(stack.listen) as channel:
        watching = asyncio.create_task(watch(channel))
        try:
            yield told
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

"""A gateway over the real core, served by the grpc.aio front on a loopback port."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from stockray_proto.v1 import (
    commission_service_pb2_grpc,
    common_pb2,
    group_buy_service_pb2_grpc,
    inventory_service_pb2_grpc,
    reservation_pb2,
    seckill_service_pb2_grpc,
    stock_pb2,
)
from stockray_proto.v1 import inventory_service_pb2 as inv
from stockray_proto.v1 import seckill_service_pb2 as sec

from actors.projector import project
from persistence.sql.sink import SqlSink
from persistence.sql.views import SqlViews
from server.front_grpcio import GrpcioFront
from server.front_nghttp2 import Nghttp2Front
from server.handlers import HandlerTable
from server.lines import Lines
from server.services.table import Services
from server.translate.scalars import stamp
from tests.helpers.core_lines import START_MS, CoreLines, FakeClock

HOUR_MS = 3_600_000


class Gateway:
    """One gateway and a stock client of it."""

    def __init__(self, lines: CoreLines, services: Services, port: int) -> None:
        self.lines = lines
        self.clock = lines.clock
        self.services = services
        self.address = f"127.0.0.1:{port}"
        # Larger than the default, so that it is the gateway that refuses a large message.
        self.channel = grpc.aio.insecure_channel(
            self.address,
            options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)],
        )
        self.inventory: Any = inventory_service_pb2_grpc.InventoryServiceStub(self.channel)
        self.seckill: Any = seckill_service_pb2_grpc.SeckillServiceStub(self.channel)
        self.teams: Any = group_buy_service_pb2_grpc.GroupBuyServiceStub(self.channel)
        self.commission: Any = commission_service_pb2_grpc.CommissionServiceStub(self.channel)

    async def stock_up(self, sku_id: str = "tea", units: int = 10, price_minor: int = 500) -> None:
        """A SKU without buffer, with units."""
        sku = stock_pb2.Sku(
            sku_id=sku_id,
            name="Tea",
            buffer_bps=0,
            list_price_minor=price_minor,
            currency_code="CNY",
        )
        put = await self.inventory.PutSku(inv.PutSkuRequest(sku=sku))
        assert put.status == common_pb2.LINE_STATUS_APPLIED
        receipt = inv.ReceiveStockRequest(
            request_id=f"doc-{sku_id}", sku_id=sku_id, quantity=units, reason="first delivery"
        )
        received = await self.inventory.ReceiveStock(receipt)
        assert received.status == common_pb2.LINE_STATUS_APPLIED

    async def reserve(self, request_id: str, **fields: Any) -> reservation_pb2.ReserveResult:
        """One unit of tea for u-1, or what the fields say."""
        answer = await self.inventory.Reserve(inv.ReserveRequest(line=line(request_id, **fields)))
        result: reservation_pb2.ReserveResult = answer.result
        return result

    async def confirm(
        self, reservation_id: str, payment_id: str = "p-1", paid_minor: int = 500
    ) -> reservation_pb2.ConfirmResult:
        """A payment that came in."""
        paid = reservation_pb2.ConfirmLine(
            reservation_id=reservation_id,
            payment_id=payment_id,
            paid_minor=paid_minor,
            payment_channel="wechat",
        )
        answer = await self.inventory.Confirm(inv.ConfirmRequest(line=paid))
        result: reservation_pb2.ConfirmResult = answer.result
        return result


def line(request_id: str, **fields: Any) -> reservation_pb2.ReserveLine:
    """One unit of tea for u-1, or what the fields say."""
    fields = {"sku_id": "tea", "quantity": 1, "buyer": buyer("u-1"), **fields}
    return reservation_pb2.ReserveLine(request_id=request_id, **fields)


def buyer(buyer_id: str, **fields: Any) -> common_pb2.BuyerContext:
    """Somebody who buys."""
    return common_pb2.BuyerContext(buyer_id=buyer_id, **fields)


def campaign(
    campaign_id: str = "double-11", *, units: int = 6, **fields: Any
) -> sec.PutCampaignRequest:
    """A campaign of tea that is open now and ends in an hour."""
    body: dict[str, Any] = {
        "title": "Double Eleven",
        "currency_code": "CNY",
        "lines": [sec.CampaignLine(sku_id="tea", allocation_count=units, unit_price_minor=300)],
        "start_time": stamp(START_MS),
        "end_time": stamp(START_MS + HOUR_MS),
        **fields,
    }
    return sec.PutCampaignRequest(campaign=sec.Campaign(campaign_id=campaign_id, **body))


def details_of(error: grpc.aio.AioRpcError) -> dict[type, Any]:
    """The error's details by their class. Fails unless there is an ErrorInfo of ours."""
    status = rpc_status.from_call(error)
    assert status is not None, error
    found: dict[type, Any] = {}
    for packed in status.details:
        for kind in (
            error_details_pb2.ErrorInfo,
            error_details_pb2.BadRequest,
            error_details_pb2.RetryInfo,
        ):
            if packed.Is(kind.DESCRIPTOR):
                found[kind] = kind()
                packed.Unpack(found[kind])
    assert found[error_details_pb2.ErrorInfo].domain == "stockray"
    return found


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The reason in the error's ErrorInfo."""
    reason: str = details_of(error)[error_details_pb2.ErrorInfo].reason
    return reason


def fields_of(error: grpc.aio.AioRpcError) -> list[str]:
    """The fields that the error's BadRequest names, in its order."""
    bad = details_of(error)[error_details_pb2.BadRequest]
    return [violation.field for violation in bad.field_violations]


FRONTS: dict[str, type[Nghttp2Front | GrpcioFront]] = {
    "nghttp2": Nghttp2Front,
    "grpcio": GrpcioFront,
}
_chosen = ["nghttp2"]


@pytest.fixture(params=FRONTS)
def front_kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """The test runs once with each front behind `new_front`."""
    _chosen.append(request.param)
    yield request.param
    _chosen.pop()


def new_front(table: HandlerTable) -> Nghttp2Front | GrpcioFront:
    """A front of the kind that the test runs with."""
    return FRONTS[_chosen[-1]](table)


@asynccontextmanager
async def serving(
    lines: CoreLines, *, through: Lines | None = None, **options: Any
) -> AsyncIterator[Gateway]:
    """A gateway over these lines, with the given options of `Services`; `through` others that end
    in them."""
    services = Services(through or lines, now_ms=lines.clock.now_ms, **options)
    front = new_front(services.table)
    port = front.listen("127.0.0.1:0")
    await front.start()
    services.health.open()
    gateway = Gateway(lines, services, port)
    try:
        async with services.running():
            yield gateway
    finally:
        await gateway.channel.close()
        await front.stop(grace_s=0)


@pytest.fixture
async def lines() -> AsyncIterator[CoreLines]:
    async with CoreLines(FakeClock()).running() as running:
        yield running


class View:
    """The SQL view of the lines' journal, behind until `follow` is called."""

    def __init__(self, lines: CoreLines, url: str) -> None:
        self._lines = lines
        self.url = url
        self.sink = SqlSink(url, now_ms=lines.clock.now_ms)
        self.sink.upgrade()
        self._seq = 0
        self.views = SqlViews(url)

    def follow(self) -> None:
        """Apply what the journal has and the view has not."""
        new = [entry for entry in self._lines.entries if entry.seq > self._seq]
        batch = project(0, new)
        assert not batch.dead_letters
        self.sink.apply(
            0,
            incarnation="i",
            from_seq=self._seq,
            to_seq=batch.to_seq,
            rows=batch.rows,
            facts=batch.facts,
        )
        self._seq = batch.to_seq

    def touch(self, shard: int) -> None:
        """Say that the view has all there is of a shard now, as an idle projector does."""
        _, seq = self.sink.position(shard)
        self.sink.apply(shard, incarnation="i", from_seq=seq, to_seq=seq, rows=[])

    def close(self) -> None:
        self.sink.close()
        self.views.close()


@pytest.fixture
async def view(lines: CoreLines, tmp_path: Path) -> AsyncIterator[View]:
    made = View(lines, f"sqlite:///{tmp_path / 'tables.db'}")
    yield made
    made.close()


@pytest.fixture
async def gateway(lines: CoreLines, front_kind: str) -> AsyncIterator[Gateway]:
    async with serving(lines) as served:
        yield served

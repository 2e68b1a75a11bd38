"""The funnel: from share codes to commission, equal to what the rows say one by one."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from sqlalchemy import Engine, create_engine, insert
from stockray_proto.v1 import common_pb2 as com
from stockray_proto.v1 import inventory_service_pb2 as inv
from stockray_proto.v1 import ops_service_pb2 as ops
from stockray_proto.v1 import ops_service_pb2_grpc
from stockray_proto.v1 import seckill_service_pb2 as sec

from persistence.sql.tables_accounts import commission_orders, distributors, metadata
from server.services import funnel
from tests.helpers.core_lines import CoreLines
from tests.unit.server.conftest import Gateway, View, buyer, campaign, fields_of, serving
from tests.unit.server.group_buying import TeamShop
from tests.unit.server.test_ops import ToldCluster

pytestmark = pytest.mark.usefixtures("front_kind")


@pytest.fixture
def tables(view: View) -> Iterator[Engine]:
    """The view's database, with the tables of commission."""
    engine = create_engine(view.url)
    metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
async def gateway(lines: CoreLines, view: View, tables: Engine) -> AsyncIterator[Gateway]:
    async with serving(lines, views=view.views, cluster=ToldCluster()) as gateway:
        yield gateway


async def ask(gateway: Gateway, *campaign_ids: str, **fields: str) -> ops.GetFunnelResponse:
    stub: Any = ops_service_pb2_grpc.OpsServiceStub(gateway.channel)
    request = ops.GetFunnelRequest(campaign_ids=campaign_ids, **fields)  # type: ignore[arg-type]
    answer: ops.GetFunnelResponse = await stub.GetFunnel(request)
    return answer


async def grab(gateway: Gateway, name: str, *, code: str = "", channel: str = "") -> str:
    """One unit of tea at 300 in double-11: the reservation."""
    grabbed = sec.GrabRequest(
        line=sec.GrabLine(
            request_id=name,
            sku_id="tea",
            campaign_id="double-11",
            quantity=1,
            buyer=buyer(name),
            attribution=com.Attribution(share_code=code, channel=channel),
        )
    )
    result = (await gateway.seckill.Grab(grabbed)).result
    assert result.status == com.LINE_STATUS_RESERVED
    reservation_id: str = result.reservation_id
    return reservation_id


def earned(tables: Engine, reservation_id: str, commission_minor: int) -> None:
    """What all levels have of an order."""
    with tables.begin() as connection:
        row = {"reservation_id": reservation_id, "commission_minor": commission_minor}
        connection.execute(insert(commission_orders), [row])


def owns(tables: Engine, **codes: str) -> None:
    """Distributors by their share codes."""
    with tables.begin() as connection:
        rows = [{"distributor_id": name, "share_code": code} for name, code in codes.items()]
        connection.execute(insert(distributors), rows)


async def test_grabbed_orders_are_followed_to_their_commission(
    gateway: Gateway, view: View, tables: Engine
) -> None:
    owns(tables, bob="b0b", cat="ca7")
    await gateway.stock_up(units=20)
    await gateway.seckill.PutCampaign(campaign(units=10))
    paid = await grab(gateway, "u-1", code="b0b", channel="app")
    again = await grab(gateway, "u-2", code="b0b", channel="app")
    await grab(gateway, "u-3", code="b0b", channel="app")
    other = await grab(gateway, "u-4", code="b0b", channel="live")
    theirs = await grab(gateway, "u-5", code="ca7")
    await grab(gateway, "u-6", code="n0ne")
    await grab(gateway, "u-7")
    for at, reservation_id in enumerate((paid, again, other, theirs)):
        await gateway.confirm(reservation_id, f"p-{at}", 300)
    back = inv.ReturnUnitsRequest(request_id="back", reservation_id=again, quantity=1)
    assert (await gateway.inventory.ReturnUnits(back)).status == com.LINE_STATUS_RETURNED
    view.follow()
    earned(tables, paid, 45)
    earned(tables, again, 0)
    earned(tables, other, 30)
    found = await ask(gateway, "double-11", "no-campaign")
    assert found.age.source == com.DATA_SOURCE_SQL
    assert not found.truncated
    told = [
        (
            row.share_code,
            row.channel,
            row.distributor_id,
            row.seckill_reservation_count,
            row.seckill_confirmed_count,
            row.amount_minor,
            row.commission_minor,
        )
        for row in found.rows
    ]
    assert told == [
        ("b0b", "app", "bob", 3, 2, 600, 45),
        ("b0b", "live", "bob", 1, 1, 300, 30),
        ("ca7", "", "cat", 1, 1, 300, 0),
        ("n0ne", "", "", 1, 0, 0, 0),
    ]
    assert {row.campaign_id for row in found.rows} == {"double-11"}
    assert {row.currency_code for row in found.rows} == {"CNY"}
    live = await ask(gateway, "double-11", channel="live")
    assert [row.amount_minor for row in live.rows] == [300]
    bobs = await ask(gateway, "double-11", distributor_id="bob")
    assert [row.channel for row in bobs.rows] == ["app", "live"]


async def test_seats_count_as_paid_once_their_team_has_formed_at_their_final_price(
    gateway: Gateway, view: View, tables: Engine
) -> None:
    owns(tables, bob="b0b")
    shop = TeamShop(gateway)
    await shop.sell((2, 90), (3, 80))
    way = com.Attribution(share_code="b0b")
    team = await shop.start("ann", attribution=way)
    for name in ("bea", "cid"):
        await shop.comes(team, name, attribution=way)
    forming = await shop.start("dan", attribution=way)
    await shop.join(forming, "eve", attribution=way)
    view.follow()
    (row,) = (await ask(gateway, "together")).rows
    assert (row.group_reservation_count, row.group_confirmed_count) == (5, 3)
    assert (row.seckill_reservation_count, row.seckill_confirmed_count) == (0, 0)
    assert row.amount_minor == 3 * 80


async def test_a_long_answer_is_cut_and_says_so(
    gateway: Gateway, view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(funnel, "ROWS_MAX", 2)
    await gateway.stock_up(units=20)
    await gateway.seckill.PutCampaign(campaign(units=10))
    for number in range(3):
        await grab(gateway, f"u-{number}", code=f"c-{number}")
    view.follow()
    found = await ask(gateway, "double-11")
    assert ([row.share_code for row in found.rows], found.truncated) == (["c-0", "c-1"], True)
    two = await ask(gateway, "no-campaign", "double-11", channel="")
    assert (len(two.rows), two.truncated) == (2, True)


@pytest.mark.parametrize(
    ("campaign_ids", "fields", "wrong"),
    [
        ((), {"channel": "a b", "distributor_id": "b b"}, ["campaign_ids", "channel"]),
        (("ok", "a b"), {}, ["campaign_ids[1]"]),
        (tuple(f"c-{number}" for number in range(21)), {}, ["campaign_ids"]),
    ],
)
async def test_a_bad_funnel_names_every_field_that_is_wrong(
    gateway: Gateway, campaign_ids: tuple[str, ...], fields: dict[str, str], wrong: list[str]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(gateway, *campaign_ids, **fields)
    assert fields_of(caught.value)[: len(wrong)] == wrong

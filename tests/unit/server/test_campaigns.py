"""Campaigns: put, allocate, grab, pause, end, and units that go back, whoever dies meanwhile."""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from stockray_proto.v1 import common_pb2 as com
from stockray_proto.v1 import inventory_service_pb2 as inv
from stockray_proto.v1 import seckill_service_pb2 as sec

from actors.core import commands as c
from actors.core.outcomes import Outcome
from server.transfers import Transfers, own_name
from server.translate.scalars import stamp
from server.validate import is_id
from tests.helpers.core_lines import START_MS, CoreLines
from tests.unit.server.conftest import HOUR_MS, Gateway, buyer, campaign, fields_of


def grab_line(request_id: str, **fields: Any) -> sec.GrabLine:
    fields = {
        "sku_id": "tea",
        "campaign_id": "double-11",
        "quantity": 1,
        "buyer": buyer("u-1"),
        **fields,
    }
    return sec.GrabLine(request_id=request_id, **fields)


async def grab(gateway: Gateway, request_id: str, **fields: Any) -> Any:
    answer = await gateway.seckill.Grab(sec.GrabRequest(line=grab_line(request_id, **fields)))
    return answer.result


def units(lines: CoreLines, sku_id: str = "tea") -> tuple[int, int]:
    """(units that all pools of the SKU answer for, units in transit), each unit counted once: one
    that has arrived and whose departure is not booked yet stands in both pools."""
    pools = [pool for key, pool in lines.pools().items() if key[1] == sku_id]
    return sum(pool.total for pool in pools), sum(pool.in_transit for pool in pools)


async def test_a_campaign_gets_its_units_and_sells_them(gateway: Gateway) -> None:
    await gateway.stock_up(units=10)
    put = await gateway.seckill.PutCampaign(campaign(units=6))
    assert put.status == com.LINE_STATUS_APPLIED
    (line,) = put.campaign.lines
    assert (line.allocated_count, line.allocation_status) == (6, com.LINE_STATUS_APPLIED)
    assert (line.list_price_minor, line.stock.available_count) == (300, 6)
    assert line.stock.currency_code == "CNY"
    assert put.campaign.phase == sec.CAMPAIGN_PHASE_OPEN
    assert [session.session_id for session in put.campaign.sessions] == ["main"]
    assert put.campaign.payment_window.seconds == 15 * 60
    won = await grab(gateway, "r-1", quantity=6)
    assert (won.status, won.payable_minor) == (com.LINE_STATUS_RESERVED, 1_800)
    late = await grab(gateway, "r-2")
    assert (late.status, late.remaining_count) == (com.LINE_STATUS_SOLD_OUT, 0)
    read = await gateway.seckill.GetCampaign(sec.GetCampaignRequest(campaign_id="double-11"))
    assert read.campaign.lines[0].stock.reserved_count == 6
    assert read.age.as_of_time == stamp(START_MS)


async def test_a_grab_and_a_reserve_of_the_same_id_are_one_request(gateway: Gateway) -> None:
    await gateway.stock_up()
    await gateway.seckill.PutCampaign(campaign())
    grabbed = await grab(gateway, "r-1", session_id="main")
    reserved = await gateway.reserve("r-1", campaign_id="double-11")
    assert grabbed.reservation_id == reserved.reservation_id


async def test_grabs_come_in_many_and_name_alternatives(gateway: Gateway) -> None:
    await gateway.stock_up()
    await gateway.stock_up("cup")
    lines = [
        sec.CampaignLine(sku_id="tea", allocation_count=1, unit_price_minor=300),
        sec.CampaignLine(sku_id="cup", allocation_count=1, unit_price_minor=300),
    ]
    await gateway.seckill.PutCampaign(campaign(lines=lines))
    request = sec.GrabManyRequest(
        lines=[
            grab_line("r-1"),
            grab_line("r-2"),
            grab_line("r-3", campaign_id=""),
            grab_line("r-4", session_id="evening"),
        ]
    )
    results = (await gateway.seckill.GrabMany(request)).results
    assert [result.status for result in results] == [
        com.LINE_STATUS_RESERVED,
        com.LINE_STATUS_SOLD_OUT,
        com.LINE_STATUS_INVALID,
        com.LINE_STATUS_INVALID,
    ]
    assert list(results[1].alternative_sku_ids) == ["cup"]
    assert results[2].message.startswith("campaign_id")
    assert results[3].message.startswith("session_id")


async def test_a_claim_that_the_campaign_asks_for_lets_in(gateway: Gateway) -> None:
    await gateway.stock_up()
    await gateway.seckill.PutCampaign(campaign(required_claims=["member"]))
    assert (await grab(gateway, "r-1")).status == com.LINE_STATUS_NOT_ELIGIBLE
    member = buyer("u-1", claims=["new_user", "member"], ip="2001:db8::1")
    assert (await grab(gateway, "r-2", buyer=member)).status == com.LINE_STATUS_RESERVED


async def test_putting_the_same_again_changes_nothing_and_fetches_nothing(
    gateway: Gateway,
) -> None:
    await gateway.stock_up(units=10)
    first = await gateway.seckill.PutCampaign(campaign(units=6))
    second = await gateway.seckill.PutCampaign(campaign(units=6))
    assert first == second
    assert gateway.lines.decided[c.TRANSFER_OUT] == 1


async def test_what_the_base_pool_lacks_is_fetched_by_a_later_put(gateway: Gateway) -> None:
    await gateway.stock_up(units=4)
    put = await gateway.seckill.PutCampaign(campaign(units=6))
    assert put.status == com.LINE_STATUS_APPLIED
    (line,) = put.campaign.lines
    assert (line.allocated_count, line.allocation_status) == (
        4,
        com.LINE_STATUS_EXCEEDS_AVAILABLE,
    )
    assert line.allocation_message
    receipt = inv.ReceiveStockRequest(request_id="doc-2", sku_id="tea", quantity=5)
    await gateway.inventory.ReceiveStock(receipt)
    again = await gateway.seckill.PutCampaign(campaign(units=6))
    (line,) = again.campaign.lines
    assert (line.allocated_count, line.allocation_status) == (6, com.LINE_STATUS_APPLIED)


async def test_a_line_without_a_sku_says_so_and_the_others_go_on(gateway: Gateway) -> None:
    await gateway.stock_up()
    lines = [
        sec.CampaignLine(sku_id="tea", allocation_count=3, unit_price_minor=300),
        sec.CampaignLine(sku_id="ghost", allocation_count=3, unit_price_minor=300),
    ]
    put = await gateway.seckill.PutCampaign(campaign(lines=lines))
    told = {line.sku_id: line for line in put.campaign.lines}
    assert told["ghost"].allocation_status == com.LINE_STATUS_NOT_FOUND
    assert told["tea"].allocation_status == com.LINE_STATUS_APPLIED


async def test_units_that_an_operator_took_out_are_fetched_again(gateway: Gateway) -> None:
    """The first allocation's name was used up; the next one has another."""
    await gateway.stock_up(units=10)
    await gateway.seckill.PutCampaign(campaign(units=6))
    take = inv.TransferStockRequest(
        request_id="t-1", sku_id="tea", from_campaign_id="double-11", quantity=6
    )
    assert (await gateway.inventory.TransferStock(take)).arrived
    put = await gateway.seckill.PutCampaign(campaign(units=6))
    assert put.campaign.lines[0].allocated_count == 6
    assert units(gateway.lines) == (10, 0)


async def test_two_puts_at_once_allocate_once(gateway: Gateway) -> None:
    await gateway.stock_up(units=20)
    await asyncio.gather(*(gateway.seckill.PutCampaign(campaign(units=6)) for _ in range(8)))
    assert gateway.lines.pools()["double-11", "tea"].total == 6
    assert units(gateway.lines) == (20, 0)


async def test_a_conflict_is_told_with_its_reason(gateway: Gateway) -> None:
    await gateway.stock_up()
    await gateway.seckill.PutCampaign(campaign(units=6))
    put = await gateway.seckill.PutCampaign(campaign(units=2))
    assert put.status == com.LINE_STATUS_CAMPAIGN_CONFLICT
    assert "granted 6" in put.message


async def test_a_paused_campaign_sells_nothing_until_it_goes_on(gateway: Gateway) -> None:
    await gateway.stock_up()
    await gateway.seckill.PutCampaign(campaign())
    paused = await gateway.seckill.PauseCampaign(sec.PauseCampaignRequest(campaign_id="double-11"))
    assert paused.campaign.phase == sec.CAMPAIGN_PHASE_PAUSED
    assert (await grab(gateway, "r-1")).status == com.LINE_STATUS_PAUSED
    request = sec.PauseCampaignRequest(campaign_id="double-11", resume=True)
    resumed = await gateway.seckill.PauseCampaign(request)
    assert resumed.campaign.phase == sec.CAMPAIGN_PHASE_OPEN
    assert (await grab(gateway, "r-2")).status == com.LINE_STATUS_RESERVED


async def test_phases_follow_the_clock(gateway: Gateway) -> None:
    await gateway.stock_up()
    request = campaign(start_time=stamp(START_MS + 1_000))
    put = await gateway.seckill.PutCampaign(request)
    assert put.campaign.phase == sec.CAMPAIGN_PHASE_ANNOUNCED
    assert put.campaign.next_phase_time == stamp(START_MS + 1_000)
    assert (await grab(gateway, "r-1")).status == com.LINE_STATUS_NOT_STARTED
    gateway.clock.pass_ms(HOUR_MS)
    read = await gateway.seckill.GetCampaign(sec.GetCampaignRequest(campaign_id="double-11"))
    assert read.campaign.phase == sec.CAMPAIGN_PHASE_ENDED
    assert not read.campaign.HasField("next_phase_time")


async def test_an_ended_campaign_gives_back_what_it_did_not_sell(gateway: Gateway) -> None:
    await gateway.stock_up(units=10)
    await gateway.seckill.PutCampaign(campaign(units=6))
    held = await grab(gateway, "r-1", quantity=2)
    ended = await gateway.seckill.EndCampaign(sec.EndCampaignRequest(campaign_id="double-11"))
    assert (ended.status, ended.campaign.phase) == (
        com.LINE_STATUS_APPLIED,
        sec.CAMPAIGN_PHASE_ENDED,
    )
    assert ended.campaign.lines[0].stock.total_count == 2
    assert gateway.lines.pools()["", "tea"].available == 8
    again = await gateway.seckill.EndCampaign(sec.EndCampaignRequest(campaign_id="double-11"))
    assert again.status == com.LINE_STATUS_APPLIED
    # What is held can be paid; what is freed later goes back by a chore.
    assert (await gateway.confirm(held.reservation_id, paid_minor=600)).status == (
        com.LINE_STATUS_CONFIRMED
    )
    await gateway.inventory.ReturnUnits(
        inv.ReturnUnitsRequest(request_id="b", reservation_id=held.reservation_id, quantity=1)
    )
    await finish_all(gateway.lines)
    assert gateway.lines.pools()["", "tea"].available == 9
    assert units(gateway.lines) == (10, 0)


async def test_calls_for_an_unknown_campaign_find_none(gateway: Gateway) -> None:
    for call, request in (
        (gateway.seckill.GetCampaign, sec.GetCampaignRequest(campaign_id="x")),
        (gateway.seckill.PauseCampaign, sec.PauseCampaignRequest(campaign_id="x")),
        (gateway.seckill.EndCampaign, sec.EndCampaignRequest(campaign_id="x")),
    ):
        answer = await call(request)
        assert answer.status == com.LINE_STATUS_NOT_FOUND
        assert not answer.HasField("campaign")


@pytest.mark.parametrize("outcome", [Outcome.RETRY, Outcome.UNKNOWN, Outcome.INTERNAL])
async def test_a_campaign_call_that_was_not_decided_says_no_more(
    gateway: Gateway, outcome: Outcome
) -> None:
    for kind in (c.PUT_CAMPAIGN, c.GET_CAMPAIGN):
        gateway.lines.failures[kind] = [outcome]
    gateway.lines.failures[c.SET_CAMPAIGN_STATE] = [outcome, outcome]
    answers = [
        await gateway.seckill.PutCampaign(campaign()),
        await gateway.seckill.GetCampaign(sec.GetCampaignRequest(campaign_id="x")),
        await gateway.seckill.PauseCampaign(sec.PauseCampaignRequest(campaign_id="x")),
        await gateway.seckill.EndCampaign(sec.EndCampaignRequest(campaign_id="x")),
    ]
    assert [answer.status for answer in answers] == [outcome] * 4
    assert not any(answer.HasField("campaign") for answer in answers)


async def finish_all(lines: CoreLines) -> None:
    """What the gateways do with the chores that shards hand out, until there are none."""
    transfers = Transfers(lines, now_ms=lines.clock.now_ms)
    for _ in range(10):
        for chore in lines.chores():
            assert await transfers.finish(chore)
    assert not lines.chores()


@pytest.mark.parametrize("step", [c.TRANSFER_OUT, c.TRANSFER_IN, c.TRANSFER_DONE])
@pytest.mark.parametrize("act", ["allocate", "return"])
async def test_units_are_counted_once_when_the_gateway_dies_between_two_steps(
    gateway: Gateway, step: int, act: str
) -> None:
    """The call ends for good while `step` is in flight; nothing but the shard knows what is left.
    The step may or may not be decided later: here it is, after the chore was done."""
    await gateway.stock_up(units=10)
    if act == "return":
        await gateway.seckill.PutCampaign(campaign(units=6))
        call, request = gateway.seckill.EndCampaign, sec.EndCampaignRequest(campaign_id="double-11")
    else:
        call, request = gateway.seckill.PutCampaign, campaign(units=6)
    late = gateway.lines.hold(step)
    dying = call(request)
    await gateway.lines.waiting.wait()
    dying.cancel()
    gateway.lines.let_through(step)
    await finish_all(gateway.lines)
    late.set()
    await gateway.lines.settled()
    await finish_all(gateway.lines)
    assert units(gateway.lines) == (10, 0)
    there = gateway.lines.pools()["double-11", "tea"].total
    if act == "return":
        assert there == 0
    else:
        put = await gateway.seckill.PutCampaign(campaign(units=6))
        assert put.campaign.lines[0].allocated_count == 6
        assert units(gateway.lines) == (10, 0)


async def test_a_chore_that_the_shard_does_not_decide_is_tried_again_later(
    lines: CoreLines,
) -> None:
    lines.failures[c.TRANSFER_IN] = [Outcome.INTERNAL]
    transfers = Transfers(lines, now_ms=lines.clock.now_ms)
    assert not await transfers.finish((1, 3, b"k" * 16, "tea", "", "double-11", 5))
    assert not await transfers.finish((99, 3))


def test_names_of_the_services_own_transfers_are_always_ids() -> None:
    short = own_name("alloc", "double-11", "tea", "0+6")
    assert short == "alloc/double-11/tea/0+6"
    long = own_name("alloc", "c" * 128, "s" * 128, "0+1000000000#3")
    assert is_id(long)
    assert long != own_name("alloc", "c" * 127, "c" + "s" * 128, "0+1000000000#3")


async def test_a_bad_campaign_names_every_field_that_is_wrong(gateway: Gateway) -> None:
    bad = campaign(
        "",
        title="t" * 257,
        currency_code="cny",
        lines=[
            sec.CampaignLine(sku_id="tea", allocation_count=0, unit_price_minor=-1),
            sec.CampaignLine(sku_id="tea", allocation_count=1, limit_per_buyer=-1),
        ],
        end_time=stamp(START_MS),
        payment_window=Duration(seconds=86_401),
        limit_per_buyer=1_000_001,
        required_claims=["a b"],
        min_score=41,
        freed_unit_policy=sec.FREED_UNIT_POLICY_NEXT_WAVE,
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.seckill.PutCampaign(bad)
    assert fields_of(caught.value) == [
        "campaign.campaign_id",
        "campaign.title",
        "campaign.lines[0].allocation_count",
        "campaign.lines[0].unit_price_minor",
        "campaign.lines[1].sku_id",
        "campaign.lines[1].limit_per_buyer",
        "campaign.currency_code",
        "campaign.end_time",
        "campaign.payment_window",
        "campaign.limit_per_buyer",
        "campaign.required_claims[0]",
        "campaign.min_score",
        "campaign.freed_unit_policy",
    ]


async def test_sessions_are_one_and_called_main(gateway: Gateway) -> None:
    window = {"start_time": stamp(START_MS), "end_time": stamp(START_MS + HOUR_MS)}
    evening = sec.Session(session_id="evening", **window)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.seckill.PutCampaign(campaign(sessions=[evening, evening]))
    assert fields_of(caught.value) == [
        "campaign.sessions",
        "campaign.sessions[0].session_id",
    ]
    main = sec.Session(session_id="main", **window)
    put = await gateway.seckill.PutCampaign(
        campaign(sessions=[main], start_time=None, end_time=None)
    )
    assert put.campaign.start_time == stamp(START_MS)

"""Group campaigns: put, read, and kept apart from flash sales."""

from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from stockray_proto.v1 import common_pb2 as com
from stockray_proto.v1 import group_buy_service_pb2 as buy
from stockray_proto.v1 import reservation_pb2 as res
from stockray_proto.v1 import seckill_service_pb2 as sec

from actors.core import commands as c
from server.translate.scalars import stamp
from tests.helpers.core_lines import START_MS
from tests.unit.server.conftest import HOUR_MS, Gateway, campaign, fields_of
from tests.unit.server.group_buying import (
    FIXED,
    LADDER,
    TeamShop,
    group_campaign,
    group_line,
)


@pytest.fixture
def shop(gateway: Gateway) -> TeamShop:
    return TeamShop(gateway)


async def test_a_group_campaign_gets_its_units_and_tells_its_terms(shop: TeamShop) -> None:
    put = await shop.sell(*LADDER, rules={"leader_discount_bps": 500, "new_buyer_count": 2})
    (line,) = put.lines
    assert (line.allocated_count, line.allocation_status) == (100, com.LINE_STATUS_APPLIED)
    assert (line.unit_price_minor, line.list_price_minor) == (100, 100)
    assert [(tier.people, tier.unit_price_minor) for tier in line.tiers] == list(LADDER)
    assert line.stock.available_count == 100
    assert (put.phase, put.version) == (sec.CAMPAIGN_PHASE_OPEN, 1)
    assert put.rules == buy.GroupRules(
        window=Duration(seconds=3_600),
        new_buyer_count=2,
        teams_per_buyer=3,
        leader_discount_bps=500,
        nearly_full_count=1,
    )
    read = await shop.stub.GetGroupCampaign(buy.GetGroupCampaignRequest(campaign_id="together"))
    assert (read.status, read.campaign.rules) == (com.LINE_STATUS_FOUND, put.rules)
    assert read.age.source == com.DATA_SOURCE_SHARD


async def test_unset_rules_have_their_defaults(shop: TeamShop) -> None:
    request = group_campaign()
    request.campaign.ClearField("rules")
    answer = await shop.stub.PutGroupCampaign(request)
    assert answer.campaign.rules == buy.GroupRules(
        window=Duration(seconds=24 * 3_600), teams_per_buyer=3, nearly_full_count=1
    )


async def test_no_nearly_full_is_not_the_default_of_it(shop: TeamShop) -> None:
    put = await shop.sell(rules={"nearly_full_count": 0})
    assert put.rules.HasField("nearly_full_count")
    assert put.rules.nearly_full_count == 0


async def test_without_a_solo_price_the_list_price_is_the_first_tiers(shop: TeamShop) -> None:
    put = await shop.sell(lines=[group_line(*LADDER, unit_price_minor=0)])
    assert (put.lines[0].list_price_minor, put.lines[0].unit_price_minor) == (90, 0)


async def test_putting_the_same_again_fetches_nothing(shop: TeamShop) -> None:
    first = await shop.sell()
    second = await shop.stub.PutGroupCampaign(group_campaign(*FIXED))
    assert second.campaign == first
    assert shop.gateway.lines.decided[c.TRANSFER_OUT] == 1


async def test_a_campaign_stays_of_its_kind(shop: TeamShop) -> None:
    """A put by the other call would take the tiers away from teams that are forming, or give a
    flash sale's buyers some."""
    await shop.sell()
    plain = campaign("together", units=100, end_time=stamp(START_MS + 3 * HOUR_MS))
    answer = await shop.gateway.seckill.PutCampaign(plain)
    assert answer.status == com.LINE_STATUS_CAMPAIGN_CONFLICT
    assert "group campaign" in answer.message
    await shop.gateway.seckill.PutCampaign(campaign("double-11"))
    other = await shop.stub.PutGroupCampaign(group_campaign(campaign_id="double-11"))
    assert other.status == com.LINE_STATUS_CAMPAIGN_CONFLICT
    assert "flash sale" in other.message
    assert not other.HasField("campaign")


async def test_a_flash_sale_is_not_found_as_a_group_campaign(shop: TeamShop) -> None:
    await shop.gateway.stock_up()
    await shop.gateway.seckill.PutCampaign(campaign())
    for campaign_id in ("double-11", "no-campaign"):
        request = buy.GetGroupCampaignRequest(campaign_id=campaign_id)
        answer = await shop.stub.GetGroupCampaign(request)
        assert answer.status == com.LINE_STATUS_NOT_FOUND
        assert not answer.HasField("campaign")


async def test_terms_stand_once_a_team_was_opened(shop: TeamShop) -> None:
    await shop.sell()
    longer = group_campaign((4, 80))
    assert (await shop.stub.PutGroupCampaign(longer)).status == com.LINE_STATUS_APPLIED
    await shop.open("ann")
    answer = await shop.stub.PutGroupCampaign(group_campaign(*FIXED))
    assert answer.status == com.LINE_STATUS_CAMPAIGN_CONFLICT
    assert "a team was opened" in answer.message
    more = group_campaign((4, 80), title="Together again")
    assert (await shop.stub.PutGroupCampaign(more)).status == com.LINE_STATUS_APPLIED


async def test_an_ended_campaign_ends_its_teams(shop: TeamShop) -> None:
    await shop.sell(*LADDER)
    forming = await shop.start("ann")
    await shop.comes(forming, "bob")
    lonely = await shop.start("cat")
    await shop.gateway.seckill.EndCampaign(sec.EndCampaignRequest(campaign_id="together"))
    shop.gateway.lines.end_teams()
    assert (await shop.team(forming)).state == buy.TEAM_STATE_FORMED
    assert (await shop.team(lonely)).state == buy.TEAM_STATE_FAILED


async def test_a_bad_group_campaign_names_every_field_that_is_wrong(gateway: Gateway) -> None:
    tiers = [(0, -1), (501, 50), (501, 50)]
    bad = group_campaign(
        campaign_id="",
        currency_code="",
        lines=[
            group_line(*tiers, units=0, sku_id=""),
            group_line(sku_id="cup"),
            group_line(*((n, 100 - n) for n in range(1, 22)), sku_id="pot"),
        ],
        rules={
            "window": Duration(seconds=599),
            "new_buyer_count": 22,
            "teams_per_buyer": 1_001,
            "leader_discount_bps": 10_001,
            "nearly_full_count": 501,
        },
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.teams.PutGroupCampaign(bad)
    assert fields_of(caught.value) == [
        "campaign.campaign_id",
        "campaign.lines[0].sku_id",
        "campaign.lines[0].allocation_count",
        "campaign.lines[0].tiers[0].people",
        "campaign.lines[0].tiers[0].unit_price_minor",
        "campaign.lines[0].tiers[1].people",
        "campaign.lines[0].tiers[1].unit_price_minor",
        "campaign.lines[0].tiers[2].people",
        "campaign.lines[0].tiers[2].people",
        "campaign.lines[0].tiers[2].unit_price_minor",
        "campaign.lines[1].tiers",
        "campaign.lines[2].tiers",
        "campaign.currency_code",
        "campaign.rules.window",
        "campaign.rules.new_buyer_count",
        "campaign.rules.teams_per_buyer",
        "campaign.rules.leader_discount_bps",
        "campaign.rules.nearly_full_count",
    ]


async def test_seats_for_new_buyers_fit_the_smallest_team(gateway: Gateway) -> None:
    lines = [group_line((5, 80)), group_line((3, 80), sku_id="cup")]
    request = group_campaign(lines=lines, rules={"new_buyer_count": 4})
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.teams.PutGroupCampaign(request)
    assert fields_of(caught.value) == ["campaign.rules.new_buyer_count"]


SHARED: list[tuple[type[Message], type[Message], set[int]]] = [
    (sec.Campaign, buy.GroupCampaign, set()),
    (sec.CampaignLine, buy.GroupLine, set()),
    (res.ReserveResult, buy.SeatResult, {12}),
    (sec.GrabLine, buy.OpenTeamLine, {9}),
]


@pytest.mark.parametrize(("theirs", "ours", "not_shared"), SHARED)
def test_fields_that_messages_share_have_one_number(
    theirs: type[Message], ours: type[Message], not_shared: set[int]
) -> None:
    """What is written as one is read as the other."""

    def shape(field: Any) -> tuple[str, int, bool]:
        return field.name, field.type, field.is_repeated

    known = {field.number: shape(field) for field in ours.DESCRIPTOR.fields}
    for field in theirs.DESCRIPTOR.fields:
        if field.number not in not_shared:
            assert known[field.number] == shape(field)

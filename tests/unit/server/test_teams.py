"""Teams over the wire: opened, joined, left, read, suggested, completed."""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from stockray_proto.v1 import common_pb2 as com
from stockray_proto.v1 import group_buy_service_pb2 as buy
from stockray_proto.v1 import reservation_pb2 as res
from stockray_proto.v1 import seckill_service_pb2 as sec

from actors.core import team_commands as t
from actors.core.outcomes import Outcome
from server.translate.scalars import stamp
from tests.helpers.core_lines import START_MS
from tests.unit.server.conftest import HOUR_MS, Gateway, buyer, fields_of
from tests.unit.server.group_buying import (
    FIXED,
    LADDER,
    TeamShop,
    join_line,
    open_line,
)

NOBODYS_TEAM = "001" + "0" * 32


@pytest.fixture
def shop(gateway: Gateway) -> TeamShop:
    return TeamShop(gateway)


async def test_a_team_is_opened_joined_and_formed(shop: TeamShop) -> None:
    await shop.sell()
    opened = await shop.open("ann")
    assert opened.status == com.LINE_STATUS_RESERVED
    assert (opened.unit_price_minor, opened.payable_minor, opened.list_price_minor) == (80, 80, 100)
    assert (opened.currency_code, opened.free_count, opened.remaining_count) == ("CNY", 2, 99)
    assert opened.deadline_time == stamp(START_MS + 15 * 60_000)
    assert opened.team_deadline_time == stamp(START_MS + HOUR_MS)
    assert (await shop.join(opened.team_id, "bob")).status == com.LINE_STATUS_TEAM_NOT_OPEN
    await shop.pay(opened)
    bob = await shop.comes(opened.team_id, "bob", request_id="again")
    assert (bob.team_id, bob.free_count) == (opened.team_id, 1)
    forming = await shop.team(opened.team_id)
    assert (forming.state, forming.joinable) == (buy.TEAM_STATE_FORMING, True)
    assert (forming.paid_count, forming.free_count, forming.missing_count) == (2, 1, 1)
    assert forming.next_tier == buy.Tier(people=3, unit_price_minor=80)
    assert not forming.HasField("tier")
    await shop.comes(opened.team_id, "cat")
    formed = await shop.team(opened.team_id)
    assert (formed.state, formed.joinable) == (buy.TEAM_STATE_FORMED, False)
    assert (formed.paid_count, formed.free_count, formed.missing_count) == (3, 0, 0)
    assert (formed.tier.people, formed.final_unit_price_minor) == (3, 80)
    assert formed.end_time == stamp(START_MS)
    assert not formed.HasField("next_tier")


async def test_other_members_are_masked(shop: TeamShop) -> None:
    await shop.sell(*LADDER)
    team_id = await shop.start("ann-the-first")
    await shop.comes(team_id, "u-7")
    mine = await shop.join(team_id, "me")
    shop.gateway.clock.pass_ms(1_000)
    await shop.join(team_id, "x")
    seen = (await shop.team(team_id, viewer="me")).members
    assert [(one.buyer_id, one.own, one.leader, one.paid) for one in seen if one.buyer_id != "x***"]
    told = {one.buyer_id: (one.own, one.leader, one.paid, one.reservation_id) for one in seen}
    assert told == {
        "a***t": (False, True, True, ""),
        "u***7": (False, False, True, ""),
        "me": (True, False, False, mine.reservation_id),
        "x***": (False, False, False, ""),
    }
    team = await shop.team(team_id)
    assert (team.paid_count, team.unpaid_count, team.free_count) == (2, 2, 1)
    assert not any(member.own or member.reservation_id for member in team.members)

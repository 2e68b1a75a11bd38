"""Teams over the wire: opened, joined, left, read, suggested, completed."""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from stockray_proto.v1 import common_pb2 as com
from stockray_proto.v1 import group_buy_service_pb2 as buy
from stockray_proto.v1 import inventory_service_pb2 as inv
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
    group_line,
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


async def test_many_join_in_one_call_each_decided_by_itself(shop: TeamShop) -> None:
    await shop.sell(*LADDER)
    team_id = await shop.start("ann")
    lines = [
        join_line(team_id, "bob"),
        join_line(team_id, "bob", request_id="twice"),
        join_line("no-team", "cat"),
        join_line(team_id, "dan", quantity=0),
        join_line(NOBODYS_TEAM, "eve"),
        join_line(team_id, "fay"),
    ]
    answer = await shop.stub.JoinTeamMany(buy.JoinTeamManyRequest(lines=lines))
    assert [result.status for result in answer.results] == [
        com.LINE_STATUS_RESERVED,
        com.LINE_STATUS_ALREADY_IN_TEAM,
        com.LINE_STATUS_NOT_FOUND,
        com.LINE_STATUS_INVALID,
        com.LINE_STATUS_NOT_FOUND,
        com.LINE_STATUS_RESERVED,
    ]
    assert answer.results[3].message.startswith("quantity")
    assert [result.request_id for result in answer.results] == [line.request_id for line in lines]
    assert [result.free_count for result in answer.results] == [3, 0, 0, 0, 0, 2]


async def test_buyers_at_once_get_the_seats_that_there_are(shop: TeamShop) -> None:
    await shop.sell((10, 80))
    team_id = await shop.start("ann")
    answers = await asyncio.gather(*(shop.join(team_id, f"u-{n}") for n in range(40)))
    statuses = [answer.status for answer in answers]
    assert statuses.count(com.LINE_STATUS_RESERVED) == 9
    assert statuses.count(com.LINE_STATUS_TEAM_FULL) == 31


async def test_who_finds_a_team_full_is_told_others_and_never_the_own(shop: TeamShop) -> None:
    await shop.sell()
    full = await shop.start("ann")
    await shop.comes(full, "bob")
    await shop.comes(full, "cat")
    nearer = await shop.start("dan")
    await shop.comes(nearer, "eve")
    open_team = await shop.start("fay")
    refused = await shop.join(full, "gus")
    assert refused.status == com.LINE_STATUS_TEAM_CLOSED
    assert list(refused.other_team_ids) == [nearer, open_team]
    refused = await shop.join(full, "eve", request_id="eve-again")
    assert list(refused.other_team_ids) == [open_team]
    assert await shop.suggested("hal") == [nearer, open_team]
    assert await shop.suggested("eve") == [open_team]
    assert await shop.suggested("hal", limit=1) == [nearer]
    assert await shop.suggested("hal", sku_id="cup") == []


async def test_suggestions_show_the_leader_alone(shop: TeamShop) -> None:
    await shop.sell(*LADDER)
    team_id = await shop.start("ann")
    await shop.comes(team_id, "bob")
    request = buy.SuggestTeamsRequest(campaign_id="together", buyer_id="cat")
    answer = await shop.stub.SuggestTeams(request)
    (team,) = answer.teams
    assert (team.team_id, team.paid_count, team.missing_count) == (team_id, 2, 1)
    assert [(one.buyer_id, one.leader) for one in team.members] == [("a***n", True)]
    assert answer.age.source == com.DATA_SOURCE_SHARD


async def test_a_new_buyers_seat_is_for_new_buyers(shop: TeamShop) -> None:
    await shop.sell(rules={"new_buyer_count": 1})
    team_id = await shop.start("ann")
    await shop.comes(team_id, "bob")
    assert (await shop.team(team_id)).new_buyer_missing_count == 1
    assert (await shop.join(team_id, "cat")).status == com.LINE_STATUS_NEW_BUYERS_ONLY
    assert await shop.suggested("cat") == []
    assert await shop.suggested("cat", new_buyer=True) == [team_id]
    await shop.comes(team_id, "dan", new_buyer=True)
    team = await shop.team(team_id)
    assert (team.state, team.new_buyer_count) == (buy.TEAM_STATE_FORMED, 1)
    new = {one.buyer_id: one.new_buyer for one in team.members}
    assert new == {"a***n": False, "b***b": False, "d***n": True}


async def test_leaving_gives_the_money_back_and_the_next_one_leads(shop: TeamShop) -> None:
    await shop.sell(*LADDER)
    seat = await shop.open("ann")
    await shop.pay(seat)
    await shop.comes(seat.team_id, "bob")
    leave = buy.LeaveTeamRequest(reservation_id=seat.reservation_id, reason="changed my mind")
    left = await shop.stub.LeaveTeam(leave)
    assert (left.status, left.state) == (com.LINE_STATUS_LEFT, res.RESERVATION_STATE_RETURNED)
    assert (left.refund.amount_minor, left.refund.reason) == (90, res.REFUND_REASON_LEFT_TEAM)
    assert left.refund.payment_id == "p-ann-opens"
    assert await shop.stub.LeaveTeam(leave) == left
    (member,) = (await shop.team(seat.team_id)).members
    assert (member.buyer_id, member.leader) == ("b***b", True)


async def test_only_a_seat_of_a_forming_team_can_leave(shop: TeamShop) -> None:
    await shop.sell((2, 80))
    seat = await shop.open("ann")
    await shop.pay(seat)
    await shop.comes(seat.team_id, "bob")
    cases = [
        (seat.reservation_id, com.LINE_STATUS_TEAM_CLOSED),
        ("no-reservation", com.LINE_STATUS_NOT_FOUND),
        (NOBODYS_TEAM, com.LINE_STATUS_NOT_FOUND),
    ]
    for reservation_id, status in cases:
        answer = await shop.stub.LeaveTeam(buy.LeaveTeamRequest(reservation_id=reservation_id))
        assert (answer.status, answer.reservation_id) == (status, reservation_id)


async def test_a_ladder_forms_at_its_deadline_and_pays_the_difference_back(
    shop: TeamShop,
) -> None:
    await shop.sell(*LADDER)
    team_id = await shop.start("ann")
    for name in ("bob", "cat"):
        await shop.comes(team_id, name)
    await shop.pass_deadline()
    team = await shop.team(team_id)
    assert (team.state, team.tier.people, team.final_unit_price_minor) == (
        buy.TEAM_STATE_FORMED,
        3,
        80,
    )
    assert sorted(refund.amount_minor for refund in shop.refunds()) == [10, 10, 10]


async def test_a_failed_team_shows_who_had_paid(shop: TeamShop) -> None:
    await shop.sell()
    team_id = await shop.start("ann")
    await shop.join(team_id, "bob")
    await shop.pass_deadline()
    team = await shop.team(team_id)
    assert (team.state, team.paid_count, team.free_count) == (buy.TEAM_STATE_FAILED, 1, 0)
    assert [(one.buyer_id, one.paid) for one in team.members] == [("a***n", True)]
    assert not team.final_unit_price_minor


async def test_an_operator_completes_a_team_where_the_rules_allow_it(shop: TeamShop) -> None:
    await shop.sell(*LADDER, rules={"virtual_completion": True})
    team_id = await shop.start("ann")
    await shop.join(team_id, "bob")
    wrong = buy.CompleteTeamRequest(team_id=team_id, people=4, reason="show")
    refused = await shop.stub.CompleteTeam(wrong)
    assert (refused.status, refused.team.state) == (
        com.LINE_STATUS_INVALID,
        buy.TEAM_STATE_FORMING,
    )
    assert refused.message.startswith("people")
    request = buy.CompleteTeamRequest(team_id=team_id, people=5, reason="livestream")
    done = await shop.stub.CompleteTeam(request)
    assert (done.status, done.team.state) == (com.LINE_STATUS_APPLIED, buy.TEAM_STATE_FORMED)
    assert (done.team.paid_count, done.team.virtual_count, done.team.unpaid_count) == (1, 4, 0)
    assert done.team.final_unit_price_minor == 50
    assert (await shop.stub.CompleteTeam(request)).status == com.LINE_STATUS_APPLIED


async def test_a_team_is_not_completed_against_the_rules(shop: TeamShop) -> None:
    await shop.sell()
    team_id = await shop.start("ann")
    request = buy.CompleteTeamRequest(team_id=team_id, reason="livestream")
    answer = await shop.stub.CompleteTeam(request)
    assert answer.status == com.LINE_STATUS_NOT_ELIGIBLE
    assert "rules" in answer.message
    request = buy.CompleteTeamRequest(team_id="no-team", reason="livestream")
    assert (await shop.stub.CompleteTeam(request)).status == com.LINE_STATUS_NOT_FOUND


async def test_a_line_without_a_solo_price_is_for_teams_alone(shop: TeamShop) -> None:
    await shop.sell(lines=[group_line(*FIXED, unit_price_minor=0)])
    line = sec.GrabLine(
        request_id="r", sku_id="tea", campaign_id="together", quantity=1, buyer=buyer("ann")
    )
    answer = await shop.gateway.seckill.Grab(sec.GrabRequest(line=line))
    assert answer.result.status == com.LINE_STATUS_TEAM_ONLY


async def test_a_seat_of_a_forming_team_is_left_and_not_returned(shop: TeamShop) -> None:
    await shop.sell()
    seat = await shop.open("ann")
    await shop.pay(seat)
    back = inv.ReturnUnitsRequest(request_id="back", reservation_id=seat.reservation_id, quantity=1)
    answer = await shop.gateway.inventory.ReturnUnits(back)
    assert answer.status == com.LINE_STATUS_TEAM_FORMING


async def test_the_same_request_has_the_same_seat(shop: TeamShop) -> None:
    await shop.sell()
    first, again = [await shop.open("ann") for _ in range(2)]
    assert first == again
    other = await shop.open("ann", quantity=2)
    assert (other.status, other.HasField("remaining_count")) == (com.LINE_STATUS_ID_REUSED, False)


async def test_what_the_buyer_pays_may_be_less_and_never_more(shop: TeamShop) -> None:
    await shop.sell()
    cheap = await shop.open("ann", payable_minor=0)
    assert (cheap.status, cheap.payable_minor) == (com.LINE_STATUS_RESERVED, 0)
    dear = await shop.open("bob", payable_minor=81)
    assert dear.status == com.LINE_STATUS_INVALID
    assert dear.message.startswith("payable_minor")


@pytest.mark.parametrize("outcome", [Outcome.RETRY, Outcome.UNKNOWN, Outcome.INTERNAL])
async def test_what_was_not_decided_says_no_more(shop: TeamShop, outcome: Outcome) -> None:
    kinds = (t.OPEN_TEAM, t.JOIN_TEAM, t.LEAVE_TEAM, t.GET_TEAM, t.SUGGEST_TEAMS, t.COMPLETE_TEAM)
    for kind in kinds:
        shop.gateway.lines.failures[kind] = [outcome]
    answers = [
        await shop.open("ann"),
        await shop.join(NOBODYS_TEAM, "ann"),
        await shop.stub.LeaveTeam(buy.LeaveTeamRequest(reservation_id=NOBODYS_TEAM)),
        await shop.stub.GetTeam(buy.GetTeamRequest(team_id=NOBODYS_TEAM)),
        await shop.stub.SuggestTeams(
            buy.SuggestTeamsRequest(campaign_id="together", buyer_id="ann")
        ),
        await shop.stub.CompleteTeam(buy.CompleteTeamRequest(team_id=NOBODYS_TEAM, reason="x")),
    ]
    assert [answer.status for answer in answers] == [outcome] * len(kinds)
    waits = outcome is not Outcome.INTERNAL
    assert [answer.HasField("retry_after") for answer in answers] == [waits] * len(kinds)


BAD: list[tuple[str, Any, list[str]]] = [
    ("OpenTeam", buy.OpenTeamRequest(), ["line"]),
    (
        "OpenTeam",
        buy.OpenTeamRequest(
            line=open_line(
                "a b",
                request_id="",
                sku_id="",
                campaign_id="",
                quantity=0,
                order_id="a b",
                payable_minor=-1,
            )
        ),
        [
            "line.request_id",
            "line.sku_id",
            "line.campaign_id",
            "line.quantity",
            "line.buyer.buyer_id",
            "line.order_id",
            "line.payable_minor",
        ],
    ),
    (
        "JoinTeam",
        buy.JoinTeamRequest(
            line=join_line("", "", request_id="", buyer=buyer("", ip="here", claims=[""]))
        ),
        [
            "line.request_id",
            "line.team_id",
            "line.buyer.buyer_id",
            "line.buyer.ip",
            "line.buyer.claims[0]",
        ],
    ),
    ("LeaveTeam", buy.LeaveTeamRequest(reason="x" * 513), ["reservation_id", "reason"]),
    ("GetTeam", buy.GetTeamRequest(viewer_buyer_id="a b"), ["team_id", "viewer_buyer_id"]),
    (
        "SuggestTeams",
        buy.SuggestTeamsRequest(sku_id="a b", limit=51),
        ["campaign_id", "sku_id", "buyer_id", "limit"],
    ),
    ("CompleteTeam", buy.CompleteTeamRequest(people=501), ["team_id", "people", "reason"]),
    ("JoinTeamMany", buy.JoinTeamManyRequest(), ["lines"]),
    (
        "ListTeams",
        buy.ListTeamsRequest(page_size=-1, states=[9]),  # type: ignore[list-item]
        ["page_size", "campaign_id", "states[0]"],
    ),
]


@pytest.mark.parametrize(("call", "request_", "fields"), BAD)
async def test_a_bad_request_names_every_field_that_is_wrong(
    gateway: Gateway, call: str, request_: Any, fields: list[str]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(gateway.teams, call)(request_)
    assert fields_of(caught.value) == fields


async def test_long_ids_are_fine_each_by_itself(shop: TeamShop) -> None:
    await shop.sell()
    fields: dict[str, Any] = {"request_id": "r" * 128, "order_id": "o" * 128}
    opened = await shop.open("a" * 128, **fields)
    paid = await shop.gateway.confirm(opened.reservation_id, paid_minor=80)
    assert paid.status == com.LINE_STATUS_CONFIRMED
    who = buyer("b" * 128, device_id="d" * 128, ip="10.0.0.1", claims=["c" * 128])
    joined = await shop.join(opened.team_id, "", request_id="s" * 128, buyer=who)
    assert joined.status == com.LINE_STATUS_RESERVED

"""Group-buys by the client: seats, retries with the same id, the watch's end, the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
import stockray
from stockray import (
    AsyncClient,
    GroupCampaign,
    GroupLine,
    GroupRules,
    JoinTeamLine,
    Status,
    TeamState,
    Tier,
)
from stockray._codec import read, write
from stockray.cli import _app
from stockray_proto.v1 import common_pb2
from stockray_proto.v1 import group_buy_service_pb2 as wire
from stockray_proto.v1 import reservation_pb2 as reservations
from typer.testing import CliRunner, Result

from tests.unit.client.scripted import ScriptedServer, refuse

DEADLINE = datetime(2026, 11, 11, 12, tzinfo=UTC)


def seat(line: Any, status: Any = common_pb2.LINE_STATUS_RESERVED, **fields: Any) -> Any:
    """The result of one line."""
    if status != common_pb2.LINE_STATUS_RESERVED:
        return wire.SeatResult(status=status, request_id=line.request_id, **fields)
    result = wire.SeatResult(
        status=status,
        request_id=line.request_id,
        reservation_id=f"r-{line.buyer.buyer_id}",
        unit_price_minor=80,
        list_price_minor=100,
        payable_minor=80 * line.quantity,
        currency_code="CNY",
        remaining_count=9,
        team_id="t-1",
        free_count=2,
        **fields,
    )
    result.deadline_time.FromDatetime(DEADLINE)
    result.team_deadline_time.FromDatetime(DEADLINE + timedelta(hours=1))
    return result


async def join_all(request: Any, context: Any) -> Any:
    return wire.JoinTeamManyResponse(results=[seat(line) for line in request.lines])


async def test_a_seat_says_its_reservation_and_its_team(server: ScriptedServer) -> None:
    async def open_team(request: Any, context: Any) -> Any:
        return wire.OpenTeamResponse(result=seat(request.line))

    server.on("OpenTeam", open_team)
    async with AsyncClient(server.address) as client:
        opened = await client.open_team(
            "together",
            "tea",
            buyer_id="ann",
            quantity=2,
            new_buyer=True,
            claims=("member",),
            order_id="o-1",
            payable_minor=0,
        )
    sent = server.calls["OpenTeam"][0].line
    assert (sent.campaign_id, sent.sku_id, sent.quantity, sent.new_buyer) == (
        "together",
        "tea",
        2,
        True,
    )
    assert (sent.buyer.buyer_id, list(sent.buyer.claims)) == ("ann", ["member"])
    assert (sent.order_id, sent.payable_minor, sent.HasField("payable_minor")) == ("o-1", 0, True)
    assert opened == stockray.SeatResult(
        status=Status.RESERVED,
        request_id=sent.request_id,
        reservation_id="r-ann",
        unit_price_minor=80,
        list_price_minor=100,
        payable_minor=160,
        currency_code="CNY",
        deadline_time=DEADLINE,
        remaining_count=9,
        team_id="t-1",
        team_deadline_time=DEADLINE + timedelta(hours=1),
        free_count=2,
    )
    opened.raise_for_status()


async def test_joins_that_wait_share_a_call(server: ScriptedServer) -> None:
    server.on("JoinTeamMany", join_all)
    async with AsyncClient(server.address, in_flight_per_verb=1) as client:
        seats = await asyncio.gather(
            *(client.join_team("t-1", buyer_id=f"u-{n}") for n in range(50))
        )
        many = await client.join_team_many(
            JoinTeamLine("t-1", f"v-{n}", request_id=f"id-{n}") for n in range(3)
        )
    assert [one.reservation_id for one in seats] == [f"r-u-{n}" for n in range(50)]
    assert [one.request_id for one in many] == ["id-0", "id-1", "id-2"]
    assert len(server.calls["JoinTeamMany"]) < 5


async def test_a_lost_opening_is_asked_again_with_the_same_id(server: ScriptedServer) -> None:
    async def lose(request: Any, context: Any) -> Any:
        if len(server.calls["OpenTeam"]) == 1:
            await refuse(context, grpc.StatusCode.UNAVAILABLE, "DRAINING")
        if len(server.calls["OpenTeam"]) == 2:
            return wire.OpenTeamResponse(result=seat(request.line, common_pb2.LINE_STATUS_UNKNOWN))
        return wire.OpenTeamResponse(result=seat(request.line))

    server.on("OpenTeam", lose)
    async with AsyncClient(server.address, backoff_min_ms=1) as client:
        assert (await client.open_team("together", "tea", buyer_id="ann")).ok
    assert len({request.line.request_id for request in server.calls["OpenTeam"]}) == 1
    assert len(server.calls["OpenTeam"]) == 3


async def test_a_retry_after_a_lost_attempt_is_unknown(server: ScriptedServer) -> None:
    async def answer(request: Any, context: Any) -> Any:
        first = len(server.calls["OpenTeam"]) == 1
        status = common_pb2.LINE_STATUS_UNKNOWN if first else common_pb2.LINE_STATUS_RETRY
        return wire.OpenTeamResponse(result=seat(request.line, status))

    server.on("OpenTeam", answer)
    async with AsyncClient(server.address, timeout_ms=200, backoff_min_ms=1) as client:
        with pytest.raises(stockray.DeadlineExceeded) as raised:
            # The last attempt has an answer, or time was up before it came: raised either way.
            (await client.open_team("together", "tea", buyer_id="ann")).raise_for_status()
    assert raised.value.maybe_applied


@pytest.mark.parametrize("word", ["RATE_LIMITED", "BUYER_FROZEN", "INVALID", "INTERNAL"])
async def test_what_the_edge_says_does_not_end_a_lost_opening(
    server: ScriptedServer, word: str
) -> None:
    """It speaks of the second attempt; the first may have opened the team."""
    statuses: list[common_pb2.LineStatus.ValueType] = []

    async def answer(request: Any, context: Any) -> Any:
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        return wire.OpenTeamResponse(result=seat(request.line, status))

    server.on("OpenTeam", answer)
    of_edge = common_pb2.LineStatus.Value(f"LINE_STATUS_{word}")
    async with AsyncClient(server.address, backoff_min_ms=1) as client:
        statuses[:] = [common_pb2.LINE_STATUS_UNKNOWN, of_edge, common_pb2.LINE_STATUS_RESERVED]
        assert (await client.open_team("together", "tea", buyer_id="ann")).ok
        statuses[:] = [common_pb2.LINE_STATUS_UNKNOWN, of_edge]
        undecided = client.open_team("together", "tea", buyer_id="ann", timeout_ms=200)
        with pytest.raises(stockray.DeadlineExceeded) as raised:
            # The last attempt has an answer, or time was up before it came: raised either way.
            (await undecided).raise_for_status()
        assert raised.value.maybe_applied
        statuses[:] = [of_edge]
        answered = await client.open_team("together", "tea", buyer_id="ann")
        assert answered.status is Status[word]


async def test_joins_that_are_not_decided_are_asked_again(server: ScriptedServer) -> None:
    async def busy(request: Any, context: Any) -> Any:
        if len(server.calls["JoinTeamMany"]) == 1:
            status = common_pb2.LINE_STATUS_RETRY
            return wire.JoinTeamManyResponse(results=[seat(one, status) for one in request.lines])
        return await join_all(request, context)

    server.on("JoinTeamMany", busy)
    async with AsyncClient(server.address, backoff_min_ms=1) as client:
        assert (await client.join_team("t-1", buyer_id="ann")).ok
    first, second = server.calls["JoinTeamMany"]
    assert first == second


async def test_a_full_team_names_others_and_is_no_exception(server: ScriptedServer) -> None:
    async def full(request: Any, context: Any) -> Any:
        status = common_pb2.LINE_STATUS_TEAM_FULL
        results = [seat(one, status, other_team_ids=["t-2"]) for one in request.lines]
        return wire.JoinTeamManyResponse(results=results)

    server.on("JoinTeamMany", full)
    async with AsyncClient(server.address) as client:
        answer = await client.join_team("t-1", buyer_id="ann")
    assert (answer.status, answer.ok, answer.other_team_ids) == (Status.TEAM_FULL, False, ("t-2",))
    with pytest.raises(stockray.Refused):
        answer.raise_for_status()


async def test_leaving_is_done_and_tells_the_refund(server: ScriptedServer) -> None:
    async def leave(request: Any, context: Any) -> Any:
        return wire.LeaveTeamResponse(
            status=common_pb2.LINE_STATUS_LEFT,
            reservation_id=request.reservation_id,
            state=reservations.RESERVATION_STATE_RETURNED,
            refund=reservations.Refund(
                amount_minor=80, reason=reservations.REFUND_REASON_LEFT_TEAM
            ),
        )

    server.on("LeaveTeam", leave)
    async with AsyncClient(server.address) as client:
        left = await client.leave_team("r-1", reason="no")
    assert (left.ok, left.state) == (True, stockray.ReservationState.RETURNED)
    assert left.refund is not None
    assert (left.refund.amount_minor, left.refund.reason) == (80, stockray.RefundReason.LEFT_TEAM)


def changes(server: ScriptedServer, *streams: Sequence[Any]) -> None:
    """Scripts WatchTeam: each stream has these messages, then it ends."""

    async def stream(request: Any, context: Any) -> Any:
        turn = len(server.calls["WatchTeam"]) - 1

        async def messages() -> Any:
            for message in streams[turn]:
                yield message

        return messages()

    server.on("WatchTeam", stream)


def told(state: Any, paid: int) -> wire.WatchTeamResponse:
    """A message with the team."""
    team = wire.Team(team_id="t-1", state=state, paid_count=paid, capacity_count=3)
    team.members.add(buyer_id="u***7", paid=True)
    return wire.WatchTeamResponse(status=common_pb2.LINE_STATUS_FOUND, team=team)


FORMING, FORMED = wire.TEAM_STATE_FORMING, wire.TEAM_STATE_FORMED
QUIET = wire.WatchTeamResponse(status=common_pb2.LINE_STATUS_FOUND)
GONE = wire.WatchTeamResponse(status=common_pb2.LINE_STATUS_NOT_FOUND)


async def test_a_watch_goes_on_until_the_team_has_ended(server: ScriptedServer) -> None:
    changes(server, [told(FORMING, 1), QUIET], [told(FORMING, 2)], [told(FORMED, 3)])
    async with AsyncClient(server.address, backoff_min_ms=1) as client:
        seen = [change async for change in client.watch_team("t-1", viewer_buyer_id="me")]
    assert [None if one.team is None else one.team.paid_count for one in seen] == [1, None, 2, 3]
    assert seen[-1].team is not None
    assert (seen[-1].team.ended, seen[-1].team.state) == (True, TeamState.FORMED)
    assert server.calls["WatchTeam"][0].viewer_buyer_id == "me"


async def test_a_watch_of_no_team_is_one_change(server: ScriptedServer) -> None:
    changes(server, [GONE])
    async with AsyncClient(server.address) as client:
        (change,) = [change async for change in client.watch_team("t-1")]
    assert (change.status, change.team) == (Status.NOT_FOUND, None)


def test_a_watch_from_a_thread_ends_as_well(threaded: ScriptedServer) -> None:
    changes(threaded, [told(FORMING, 1), told(FORMED, 3)])
    with stockray.Client(threaded.address) as client:
        seen = list(client.watch_team("t-1", interval=timedelta(seconds=1)))
    assert len(seen) == 2
    assert threaded.calls["WatchTeam"][0].interval.seconds == 1


def test_a_group_campaign_survives_the_wire() -> None:
    campaign = GroupCampaign(
        campaign_id="together",
        currency_code="CNY",
        lines=(GroupLine(sku_id="tea", tiers=(Tier(people=3, unit_price_minor=80),)),),
        start_time=DEADLINE,
        rules=GroupRules(window=timedelta(hours=24), nearly_full_count=0, virtual_completion=True),
    )
    assert read(GroupCampaign, write(wire.GroupCampaign(), campaign)) == campaign


def test_a_rule_that_was_not_given_is_not_a_rule_of_zero() -> None:
    assert not write(wire.GroupRules(), GroupRules()).HasField("nearly_full_count")


def run(server: ScriptedServer, *words: str) -> Result:
    return CliRunner().invoke(_app.build(), [*words, "--address", server.address, "-o", "json"])


async def page(request: Any, context: Any) -> Any:
    """Two teams on two pages."""
    first = not request.page_token
    teams = [wire.Team(team_id="t-2" if first else "t-1", state=FORMED, paid_count=3)]
    return wire.ListTeamsResponse(teams=teams, next_page_token="more" if first else "")


def test_teams_are_listed_by_state(threaded: ScriptedServer) -> None:
    threaded.on("ListTeams", page)
    result = run(threaded, "team", "list", "together", "--state", "formed")
    assert result.exit_code == 0, result.stderr
    assert [team["team_id"] for team in json.loads(result.stdout)] == ["t-2", "t-1"]
    assert list(threaded.calls["ListTeams"][0].states) == [FORMED]
    assert run(threaded, "team", "list", "together", "--state", "happy").exit_code == 2


def test_a_team_is_shown_with_its_members(threaded: ScriptedServer) -> None:
    async def get(request: Any, context: Any) -> Any:
        if request.team_id != "t-1":
            return wire.GetTeamResponse(status=common_pb2.LINE_STATUS_NOT_FOUND)
        found = told(FORMING, 1)
        return wire.GetTeamResponse(status=found.status, team=found.team)

    threaded.on("GetTeam", get)
    result = run(threaded, "team", "show", "t-1", "--viewer", "me")
    assert json.loads(result.stdout)["team"]["members"][0]["buyer_id"] == "u***7"
    assert threaded.calls["GetTeam"][0].viewer_buyer_id == "me"
    assert run(threaded, "team", "show", "t-2").exit_code == 1


def test_a_team_is_watched_to_its_end(threaded: ScriptedServer) -> None:
    changes(threaded, [told(FORMING, 2), QUIET, told(FORMED, 3)], [GONE])
    watched = run(threaded, "team", "watch", "t-1")
    states = [json.loads(line)[0]["state"] for line in watched.stdout.splitlines()]
    assert (watched.exit_code, states) == (0, ["FORMING", "FORMED"])
    gone = run(threaded, "team", "watch", "t-2")
    assert (gone.exit_code, gone.stdout) == (1, "")


def test_teams_are_suggested_to_a_buyer(threaded: ScriptedServer) -> None:
    async def suggest(request: Any, context: Any) -> Any:
        return wire.SuggestTeamsResponse(
            status=common_pb2.LINE_STATUS_FOUND, teams=[told(FORMING, 2).team]
        )

    threaded.on("SuggestTeams", suggest)
    result = run(threaded, "team", "suggest", "together", "--buyer", "me", "--new-buyer")
    assert json.loads(result.stdout)[0]["team_id"] == "t-1"
    sent = threaded.calls["SuggestTeams"][0]
    assert (sent.buyer_id, sent.new_buyer, sent.limit) == ("me", True, 10)


def test_completing_a_team_needs_a_reason_and_a_yes(threaded: ScriptedServer) -> None:
    async def complete(request: Any, context: Any) -> Any:
        return wire.CompleteTeamResponse(
            status=common_pb2.LINE_STATUS_APPLIED, team=told(FORMED, 3).team
        )

    threaded.on("CompleteTeam", complete)
    words = ("team", "complete", "t-1", "--people", "3")
    assert run(threaded, *words).exit_code == 2
    assert run(threaded, *words, "--reason", "show").exit_code == 2
    assert threaded.calls["CompleteTeam"] == []
    assert run(threaded, *words, "--reason", "show", "--yes").exit_code == 0
    sent = threaded.calls["CompleteTeam"][0]
    assert (sent.team_id, sent.people, sent.reason) == ("t-1", 3, "show")

"""WatchTeam: the team, then its changes, then its end."""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from stockray_proto.v1 import common_pb2 as com
from stockray_proto.v1 import group_buy_service_pb2 as buy

from actors.core import team_commands as t
from actors.core.outcomes import Outcome
from server.services.polling import WatchLimits
from tests.helpers.core_lines import CoreLines
from tests.unit.server.conftest import HOUR_MS, Gateway, View, fields_of, reason_of, serving
from tests.unit.server.group_buying import TeamShop

pytestmark = pytest.mark.usefixtures("front_kind")


@pytest.fixture
def shop(gateway: Gateway) -> TeamShop:
    return TeamShop(gateway)


def watch(shop: TeamShop, team_id: str, **fields: Any) -> Any:
    """A stream of this team, as fast as may be."""
    request = buy.WatchTeamRequest(team_id=team_id, interval=Duration(nanos=100_000_000), **fields)
    return shop.stub.WatchTeam(request)


async def test_a_watcher_sees_a_team_fill_and_the_stream_ends_with_it(shop: TeamShop) -> None:
    await shop.sell()
    team_id = await shop.start("ann")
    async with asyncio.timeout(10):
        stream = watch(shop, team_id, viewer_buyer_id="bob")
        messages = aiter(stream)
        first = await anext(messages)
        assert (first.status, first.team.missing_count) == (com.LINE_STATUS_FOUND, 2)
        await shop.comes(team_id, "bob")
        second = await anext(messages)
        while second.team.paid_count < 2:
            second = await anext(messages)
        assert second.team.missing_count == 1
        assert [one.buyer_id for one in second.team.members] == ["a***n", "bob"]
        await shop.comes(team_id, "cat")
        rest = [message async for message in messages]
    assert rest[-1].team.state == buy.TEAM_STATE_FORMED
    assert await stream.code() is grpc.StatusCode.OK


async def test_an_ended_team_is_one_message(shop: TeamShop) -> None:
    await shop.sell()
    team_id = await shop.start("ann")
    await shop.pass_deadline()
    async with asyncio.timeout(10):
        (message,) = [message async for message in watch(shop, team_id)]
    assert message.team.state == buy.TEAM_STATE_FAILED


async def test_a_team_that_left_memory_is_one_message(lines: CoreLines, view: View) -> None:
    async with serving(lines, views=view.views) as gateway, asyncio.timeout(10):
        shop = TeamShop(gateway)
        await shop.sell()
        team_id = await shop.start("ann")
        await shop.pass_deadline()
        gateway.clock.pass_ms(3 * HOUR_MS)
        view.follow()
        lines.forget_teams()
        (message,) = [message async for message in watch(shop, team_id)]
        assert (message.status, message.team.state) == (
            com.LINE_STATUS_FOUND,
            buy.TEAM_STATE_FAILED,
        )
        for unknown in ("no-team", "001" + "0" * 32):
            (message,) = [message async for message in watch(shop, unknown)]
            assert message.status == com.LINE_STATUS_NOT_FOUND


async def test_many_watchers_of_a_team_cost_the_shard_what_one_does(shop: TeamShop) -> None:
    await shop.sell()
    team_id = await shop.start("ann")
    clock = asyncio.get_running_loop().time
    before, began_s = shop.gateway.lines.decided[t.GET_TEAM], clock()
    streams = [watch(shop, team_id) for _ in range(30)]
    async with asyncio.timeout(10):
        for stream in streams:
            await stream.read()
        await shop.join(team_id, "bob")
        seen = await asyncio.gather(*(stream.read() for stream in streams))
    assert {message.team.unpaid_count for message in seen} == {1}
    for stream in streams:
        stream.cancel()
    # One at once and one for each interval; 30 watchers that poll for themselves make 60.
    assert shop.gateway.lines.decided[t.GET_TEAM] - before <= 2 + (clock() - began_s) / 0.1


async def test_a_silent_shard_is_told_and_comes_back(shop: TeamShop) -> None:
    await shop.sell()
    team_id = await shop.start("ann")
    shop.gateway.lines.failures[t.GET_TEAM] = [Outcome.RETRY]
    async with asyncio.timeout(10):
        stream = watch(shop, team_id)
        first, second = await stream.read(), await stream.read()
        stream.cancel()
    assert (first.status, first.HasField("team")) == (com.LINE_STATUS_RETRY, False)
    assert (second.status, second.team.team_id) == (com.LINE_STATUS_FOUND, team_id)


async def test_a_stream_says_that_it_lives(lines: CoreLines) -> None:
    limits = WatchLimits(heartbeat_s=0.05)
    async with serving(lines, watch_limits=limits) as gateway, asyncio.timeout(10):
        shop = TeamShop(gateway)
        await shop.sell()
        stream = watch(shop, await shop.start("ann"))
        messages = [await stream.read() for _ in range(3)]
        stream.cancel()
    assert [message.HasField("team") for message in messages] == [True, False, False]


async def test_a_stream_ends_in_its_time(lines: CoreLines) -> None:
    limits = WatchLimits(stream_s=0.1)
    async with serving(lines, watch_limits=limits) as gateway, asyncio.timeout(10):
        shop = TeamShop(gateway)
        await shop.sell()
        stream = watch(shop, await shop.start("ann"))
        first, *_ = [message async for message in stream]
        assert first.HasField("team")
        assert await stream.code() is grpc.StatusCode.OK


async def test_a_drain_ends_the_stream(shop: TeamShop) -> None:
    await shop.sell()
    async with asyncio.timeout(10):
        stream = watch(shop, await shop.start("ann"))
        await stream.read()
        shop.gateway.services.health.drain()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
    assert reason_of(caught.value) == "DRAINING"


async def test_watched_teams_are_bounded(lines: CoreLines) -> None:
    async with serving(lines, watch_limits=WatchLimits(feeds_max=1)) as gateway:
        shop = TeamShop(gateway)
        await shop.sell()
        async with asyncio.timeout(10):
            stream = watch(shop, await shop.start("ann"))
            await stream.read()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await watch(shop, await shop.start("bob")).read()
            stream.cancel()
    assert reason_of(caught.value) == "TOO_MANY_STREAMS"


async def test_a_bad_watch_names_what_is_wrong(gateway: Gateway) -> None:
    request = buy.WatchTeamRequest(viewer_buyer_id="a b", interval=Duration(seconds=61))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.teams.WatchTeam(request).read()
    assert fields_of(caught.value) == ["team_id", "viewer_buyer_id", "interval"]

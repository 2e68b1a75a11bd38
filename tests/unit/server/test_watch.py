"""WatchStock: the first figures, then changes; one poll for all watchers of a pool."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from stockray_proto.v1 import inventory_service_pb2 as inv

from actors.core import commands as c
from actors.core.outcomes import Outcome
from server.admission import AdmissionLimits
from server.services.polling import WatchLimits
from tests.helpers.core_lines import CoreLines
from tests.unit.server.conftest import Gateway, campaign, fields_of, reason_of, serving

pytestmark = pytest.mark.usefixtures("front_kind")

FAST = Duration(nanos=100_000_000)


def watch(gateway: Gateway, *keys: tuple[str, str], interval: Duration = FAST) -> Any:
    """A stream of these pools, each (campaign id, SKU)."""
    pools = [inv.PoolKey(campaign_id=campaign_id, sku_id=sku_id) for campaign_id, sku_id in keys]
    return gateway.inventory.WatchStock(inv.WatchStockRequest(pools=pools, interval=interval))


def pools_asked_for(lines: CoreLines) -> Counter[tuple[str, str]]:
    """How often the lines are asked for each (campaign id, SKU) from now on."""
    asked: Counter[tuple[str, str]] = Counter()
    submit = lines.submit

    async def noting(commands: Sequence[Any]) -> Sequence[tuple[Any, ...]]:
        asked.update((one.campaign_id, one.sku_id) for one in commands if one.kind == c.GET_STOCK)
        return await submit(commands)

    lines.submit = noting  # type: ignore[method-assign]
    return asked


@pytest.fixture
async def stocked(gateway: Gateway) -> Gateway:
    await gateway.stock_up(units=10)
    await gateway.seckill.PutCampaign(campaign(units=6))
    return gateway


async def test_a_watcher_sees_all_pools_and_then_those_that_change(stocked: Gateway) -> None:
    async with asyncio.timeout(10):
        stream = watch(stocked, ("", "tea"), ("double-11", ""), ("", "ghost"))
        first = await stream.read()
        shown = {(stock.campaign_id, stock.sku_id): stock for stock in first.stocks}
        assert shown["", "tea"].available_count == 4
        assert shown["double-11", "tea"].available_count == 6
        assert shown["double-11", "tea"].currency_code == "CNY"
        assert [(key.campaign_id, key.sku_id) for key in first.missing_pools] == [("", "ghost")]
        await stocked.reserve("r-1", campaign_id="double-11")
        (stock,) = (await stream.read()).stocks
        assert (stock.campaign_id, stock.reserved_count) == ("double-11", 1)
        stream.cancel()


async def test_many_watchers_cost_the_shard_what_one_does(stocked: Gateway) -> None:
    """However long it takes: one poll for each interval that passes."""
    clock = asyncio.get_running_loop().time
    before, began_s = stocked.lines.decided[c.GET_STOCK], clock()
    streams = [watch(stocked, ("", "tea")) for _ in range(50)]
    async with asyncio.timeout(10):
        for stream in streams:
            await stream.read()
        for step in range(3):
            await stocked.reserve(f"r-{step}")
            seen = await asyncio.gather(*(stream.read() for stream in streams))
            assert {message.stocks[0].reserved_count for message in seen} == {step + 1}
    for stream in streams:
        stream.cancel()
    # The first one at once. 50 watchers that poll for themselves make 200 at least.
    assert stocked.lines.decided[c.GET_STOCK] - before <= 2 + (clock() - began_s) / 0.1


async def test_a_shard_that_is_silent_is_named_and_comes_back(stocked: Gateway) -> None:
    async with asyncio.timeout(10):
        stocked.lines.failures[c.GET_STOCK] = [Outcome.RETRY]
        stream = watch(stocked, ("", "tea"))
        first = await stream.read()
        assert (list(first.unreachable_shards), len(first.stocks)) == ([0], 0)
        second = await stream.read()
        assert (list(second.unreachable_shards), len(second.stocks)) == ([], 1)
        stream.cancel()


async def test_a_stream_says_that_it_lives(lines: CoreLines) -> None:
    limits = WatchLimits(heartbeat_s=0.05)
    async with serving(lines, watch_limits=limits) as gateway, asyncio.timeout(10):
        await gateway.stock_up()
        stream = watch(gateway, ("", "tea"))
        first, second, third = [await stream.read() for _ in range(3)]
        assert first.stocks
        assert not second.stocks
        assert not third.stocks
        stream.cancel()


async def test_a_stream_ends_in_its_time(lines: CoreLines) -> None:
    limits = WatchLimits(stream_s=0.1)
    async with serving(lines, watch_limits=limits) as gateway, asyncio.timeout(10):
        await gateway.stock_up()
        stream = watch(gateway, ("", "tea"))
        first, *_ = [message async for message in stream]
        assert first.stocks
        assert await stream.code() is grpc.StatusCode.OK


async def test_a_drain_ends_streams_so_that_clients_go_elsewhere(stocked: Gateway) -> None:
    async with asyncio.timeout(10):
        stream = watch(stocked, ("", "tea"))
        await stream.read()
        stocked.services.health.drain()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert reason_of(caught.value) == "DRAINING"


async def test_streams_and_watched_pools_are_bounded(lines: CoreLines) -> None:
    limits = {"limits": AdmissionLimits(streams_max=1), "watch_limits": WatchLimits(feeds_max=2)}
    async with serving(lines, **limits) as gateway, asyncio.timeout(10):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watch(gateway, ("", "a"), ("", "b"), ("", "c")).read()
        assert reason_of(caught.value) == "TOO_MANY_STREAMS"
        stream = watch(gateway, ("", "a"))
        await stream.read()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watch(gateway, ("", "a")).read()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert reason_of(caught.value) == "TOO_MANY_STREAMS"
        stream.cancel()


async def test_nobody_polls_what_nobody_watches(stocked: Gateway) -> None:
    async with asyncio.timeout(10):
        stream = watch(stocked, ("", "tea"))
        await stream.read()
        stream.cancel()
        while stocked.services.admission.streams:  # noqa: ASYNC110 (an ended stream tells nobody)
            await asyncio.sleep(0)
        asked = pools_asked_for(stocked.lines)
        other = watch(stocked, ("double-11", "tea"))
        await other.read()
        for step in range(3):
            await stocked.reserve(f"r-{step}", campaign_id="double-11")
            await other.read()
        other.cancel()
    # One may have been on its way.
    assert asked["", "tea"] <= 1
    assert asked["double-11", "tea"] >= 4


async def test_a_bad_watch_names_what_is_wrong(gateway: Gateway) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watch(gateway, interval=Duration(seconds=61)).read()
    assert fields_of(caught.value) == ["pools", "interval"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watch(gateway, ("", ""), ("a b", "")).read()
    assert fields_of(caught.value) == ["pools[0].sku_id", "pools[1].campaign_id"]

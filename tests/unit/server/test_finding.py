"""Finding a primary as soon as a link closes, and knowing the way to the heir before."""

import asyncio

from actors.shard import Role
from tests.helpers.gateways import desk
from tests.helpers.virtual_time import in_virtual_time, until


@in_virtual_time
async def test_a_closed_link_of_an_idle_shard_has_the_standby_promoted_at_once() -> None:
    async with desk(idle_ms=60_000, chores_ms=60_000) as gateway:
        pair, links = gateway.pair, gateway.links
        await pair.caught_up("b")
        pair["a"].kill()
        links["a"].on_closed()
        assert gateway.sender.primary_name == ""
        closed_at = asyncio.get_running_loop().time()
        await until(lambda: gateway.sender.primary_name == "b")
        assert asyncio.get_running_loop().time() - closed_at < 0.05
        assert pair["b"].role is Role.PRIMARY
        assert not links["a"].token, "it is greeted when it comes back"


@in_virtual_time
async def test_a_standby_that_came_back_is_greeted_before_it_is_needed() -> None:
    async with desk() as gateway:
        pair, links = gateway.pair, gateway.links
        await until(lambda: links["b"].token == pair["b"].shard.token)
        pair["b"].kill()
        links["b"].on_closed()
        assert links["b"].token == ""
        assert gateway.sender.primary_name == "a", "nothing is wrong with the primary"
        pair.start("b")
        await until(lambda: links["b"].token == pair["b"].shard.token, within_s=2)


@in_virtual_time
async def test_a_standby_that_does_not_come_back_is_greeted_again_and_again() -> None:
    async with desk() as gateway:
        pair, links = gateway.pair, gateway.links
        links["b"].pause()
        links["b"].forget()
        await asyncio.sleep(20)
        assert gateway.sender.primary_name == "a"
        assert links["b"].token == ""
        links["b"].resume()
        await until(lambda: links["b"].token == pair["b"].shard.token, within_s=2)

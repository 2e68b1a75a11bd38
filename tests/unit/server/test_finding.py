"""Finding a primary as soon as a link closes, and knowing the way to the heir before."""

import asyncio

from actors.core.outcomes import Outcome
from actors.shard import Promotion, Role
from tests.helpers.gateways import Desk, desk
from tests.helpers.shells import Pair, running
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


@in_virtual_time
async def test_a_primary_that_is_silent_for_a_second_is_not_replaced() -> None:
    async with desk() as gateway:
        await gateway.pair.caught_up("b")
        await asyncio.sleep(3)
        gateway.links["a"].pause()
        asked = gateway.asking(gateway.reserve("r1"))
        await asyncio.sleep(1.1)
        gateway.links["a"].resume()
        assert await asked == [Outcome.RESERVED]
        assert (gateway.sender.epoch, gateway.sender.false_alarms) == (1, 0)


@in_virtual_time
async def test_a_promotion_that_no_death_explains_is_counted() -> None:
    async with desk() as gateway:
        await gateway.pair.caught_up("b")
        await asyncio.sleep(3)
        gateway.links["a"].pause()
        assert await gateway.ask(gateway.reserve("r1")) == [Outcome.RESERVED]
        assert (gateway.sender.epoch, gateway.sender.false_alarms) == (2, 1)
        gateway.links["a"].resume()
        await until(lambda: not gateway.pair["a"].alive)
        gateway.pair.start("a")
        await gateway.pair.caught_up("a")
        await asyncio.sleep(3)
        gateway.pair["b"].kill()
        assert await gateway.ask(gateway.reserve("r2")) == [Outcome.RESERVED]
        assert gateway.sender.epoch == 3
        assert gateway.sender.false_alarms == 1, "the second one died"


@in_virtual_time
async def test_a_gateway_that_starts_replaces_no_primary_that_it_could_not_greet_yet() -> None:
    async with running(Pair()) as pair:
        await pair.promote("a")
        await pair.stock_up("a")
        await pair.caught_up("b")
        late = Desk(pair)
        late.links["a"].pause()
        task = asyncio.create_task(late.gather.run())
        asked = late.asking(late.reserve("r1"))
        await asyncio.sleep(0.5)
        late.links["a"].resume()
        assert await asked == [Outcome.RESERVED]
        assert late.sender.epoch == 1
        assert late.links["b"].promotions == 0
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@in_virtual_time
async def test_one_of_a_pair_takes_over_before_the_other_was_started() -> None:
    """As after a cold start of account shards, whose standbys are started last."""
    async with running(Pair()) as pair:
        await pair.promote("a")
        await pair.stock_up("a")
        for name in ("a", "b"):
            pair[name].kill()
    async with running(pair, "b") as again:
        late = Desk(again)
        late.links["a"].pause()
        task = asyncio.create_task(late.gather.run())
        assert await late.asking(late.reserve("r1")) == [Outcome.RESERVED]
        assert (late.sender.primary_name, late.sender.false_alarms) == ("b", 0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@in_virtual_time
async def test_a_gateway_holds_whoever_takes_over_to_the_answers_that_it_got() -> None:
    async with desk(chores_ms=60_000) as gateway:
        pair, links = gateway.pair, gateway.links
        await gateway.asking(gateway.reserve("r1"))
        last_seq = pair.journal.read_meta(0).last_seq
        await pair.caught_up("b")
        pair["a"].kill()
        links["a"].on_closed()
        await until(lambda: gateway.sender.primary_name == "b")
        assert links["b"].promoted_from == [(1, last_seq)]


@in_virtual_time
async def test_a_silent_primary_that_its_heir_ended_is_greeted_when_it_is_back() -> None:
    """An heir ends an owner that holds the journal: the search is past it by then."""
    async with desk() as gateway:
        pair, links = gateway.pair, gateway.links
        await pair.caught_up("b")
        await asyncio.sleep(3)
        links["a"].pause()
        promote = links["b"].promote

        async def promote_and_end_the_owner(seen_epoch: int, seen_seq: int) -> Promotion:
            pair["a"].kill()
            links["a"].on_closed()
            return await promote(seen_epoch, seen_seq)

        links["b"].promote = promote_and_end_the_owner
        assert await gateway.ask(gateway.reserve("r1")) == [Outcome.RESERVED]
        assert gateway.sender.primary_name == "b"
        links["a"].resume()
        pair.start("a")
        await until(lambda: links["a"].token == pair["a"].shard.token, within_s=2)

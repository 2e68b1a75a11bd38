"""The event feed while what it is read through is killed, and after its journal was trimmed.

A watcher that keeps its cursors sees every fact once, in the order of its shard, whatever dies.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from contextlib import aclosing

import pytest
from stockray import AsyncClient, Fact, FactKind, FeedCursor, Status

from tests.helpers.sale import BackgroundSale
from tests.helpers.stack import FIRST_KIND, SHARDS, Stack, until, within

Place = tuple[int, int, int]


class Watcher:
    """Takes facts from the feed and keeps them with the cursors."""

    def __init__(self, client: AsyncClient, cursors: Iterable[FeedCursor] = ()) -> None:
        self.facts: list[Fact] = []
        self.cursors = tuple(cursors)
        self._client = client

    async def watch(self) -> None:
        """For ever; batches are kept whole, as a database would keep them in one transaction."""
        batches = self._client.watch_events(self.cursors, oldest=True)
        async with aclosing(batches):  # type: ignore[type-var]
            async for batch in batches:
                self.facts += batch.facts
                self.cursors = batch.cursors

    async def watch_to(self, places: dict[int, int]) -> None:
        """Until all entries before these were told."""
        async with asyncio.timeout(60):
            watching = asyncio.create_task(self.watch())
            try:
                while not all(self.at(shard) >= seq for shard, seq in places.items()):
                    assert not watching.done(), watching
                    await asyncio.sleep(0.05)
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

    def at(self, shard: int) -> int:
        """The next entry of a shard."""
        return max((cursor.seq for cursor in self.cursors if cursor.shard == shard), default=0)

    @property
    def places(self) -> list[Place]:
        return [place(fact) for fact in self.facts]

    def told(self, kind: FactKind) -> Counter[str]:
        """How often each reservation was told."""
        return Counter(fact.reservation_id for fact in self.facts if fact.kind is kind)


def place(fact: Fact) -> Place:
    return fact.shard, fact.seq, fact.index


@pytest.mark.parametrize("shared_stack", FIRST_KIND, indirect=True)
async def test_every_fact_is_told_once_whatever_dies(stack: Stack) -> None:
    async with stack.client() as client, stack.client() as watching:
        await stack.pairs(client)
        live, restarted = Watcher(watching), Watcher(watching)
        following = asyncio.create_task(live.watch())
        async with BackgroundSale(stack, client, "feed") as sale:
            await stack.aio.kill_primary(sale.campaigns[0])
            assert (await client.freeze("feed:frozen", reason="a test")).ok
            await sale.goes_on()
            first = asyncio.create_task(restarted.watch())
            await sale.goes_on()
            await stack.aio.kill_gateway()
            # A consumer that is killed, too, and begins again with what it had kept.
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            await sale.goes_on()
            await stack.pairs(client)
            assert not following.done(), following
        status = await stack.settled(client)
        ends = {shard.shard: shard.seq + 1 for shard in status.shards}

        def caught_up() -> bool:
            return all(live.at(shard) >= seq for shard, seq in ends.items())

        assert await within(60, caught_up), (live.cursors, ends)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        assert restarted.facts
        await restarted.watch_to(ends)
        _check(live, sale)
        assert sorted(restarted.places) == sorted(live.places)

        # The journal lets go of all this, and a new watcher is told the same.
        for _ in range(2):
            for snapshot in (await client.take_snapshot()).results:
                assert snapshot.status is Status.APPLIED
        await until(
            client,
            # Few entries take many facts of orders: how many an account shard has, nobody knows.
            lambda s: all(one.first_seq > (1 if one.accounts else 100) for one in s.shards),
            "a trimmed journal",
        )
        late = Watcher(watching)
        await late.watch_to(ends)
        assert sorted(late.places) == sorted(live.places)
        assert {place(fact): fact for fact in late.facts} == {
            place(fact): fact for fact in live.facts
        }


def _check(live: Watcher, sale: BackgroundSale) -> None:
    """Every shard's facts come in order, each once, and all that buyers were told is among them."""
    for shard in range(SHARDS):
        places = [found for found in live.places if found[0] == shard]
        assert places == sorted(set(places))
    reserved = live.told(FactKind.RESERVED)
    assert set(reserved.values()) == {1}
    missing = {held for _, held in sale.winners.values()} - set(reserved)
    assert not missing, f"{len(missing)} were acknowledged and not told"
    confirmed = live.told(FactKind.CONFIRMED)
    assert sum(confirmed.values()) >= sum(sale.confirmed.values()) > 0
    frozen = [fact for fact in live.facts if fact.kind is FactKind.BUYER_FROZEN]
    assert [(fact.shard, fact.buyer_id) for fact in frozen] == [(SHARDS, "feed:frozen")]

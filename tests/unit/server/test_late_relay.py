"""A relay that stands still: it may hold a part of the journal and no more, the sale goes on, and
what was trimmed under it is found in SQL."""

import asyncio
from functools import partial
from pathlib import Path

import pytest

from actors.core import commands as c
from actors.core.codec import unpack_entry
from actors.core.identity import public_id, request_key
from actors.core.order_facts import order_facts
from actors.core.outcomes import Outcome
from actors.specs import RELAY_READER
from persistence.sql.views import KeptFacts, SqlViews
from tests.helpers.histories import Database, StoppedClock, projector
from tests.helpers.relays import STOCK, Stage, stage
from tests.helpers.shells import SLOT, Pair, limits
from tests.helpers.virtual_time import in_virtual_time, until

Patch = pytest.MonkeyPatch
JOURNAL_BYTES = 12_000


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path, tmp_path / "template.db")


class Shop:
    """A stock shard of its own journal, on a stage."""

    def __init__(self, on: Stage) -> None:
        self.on = on
        size = limits(journal_bytes_max=JOURNAL_BYTES, snapshot_every_ms=500, follow_pause_ms=40)
        self.pair = Pair(
            size, number=STOCK, journal=on.journal, clock=on.clock, late_readers=(RELAY_READER,)
        )
        self.orders = 0
        self._seen_seq = 0

    async def open(self) -> None:
        for name in "ab":
            self.pair.start(name)
        await self.pair.promote("a")
        await self.pair.stock_up("a", 10_000)

    async def sell(self) -> None:
        """One order, which makes a fact, with entries that do not."""
        self.orders += 1
        request = f"r{self.orders}"
        held = public_id(SLOT, request_key("web", request))
        soon_ms = self.on.clock.now_ms() + 5_000
        payment = f"p{self.orders}"
        paid = c.Confirm(c.CONFIRM, SLOT, soon_ms, "web", held, payment, 100, "alipay")
        for line, done in (
            (self.pair.reserve(request), Outcome.RESERVED),
            (paid, Outcome.CONFIRMED),
        ):
            (answer,) = await self.pair.do("a", line)
            assert answer[0] == done, "the sale goes on"
        self._note()
        await asyncio.sleep(0.1)

    def _note(self) -> None:
        """What the relay is to bring, before it is trimmed."""
        for entry in self.on.journal.read(STOCK, after_seq=self._seen_seq, max_bytes=10**9):
            content = unpack_entry(entry.data)
            self.on.told += [fact for _, fact in order_facts(content.records, content.now_ms)]
            self._seen_seq = entry.seq

    def close(self) -> None:
        for instance in self.pair.instances.values():
            instance.kill()


def test_a_relay_that_stands_still_stops_no_sale_and_loses_no_fact(
    monkeypatch: Patch, database: Database
) -> None:
    views = SqlViews(database.url)

    async def kept(shard: int, after_seq: int) -> KeptFacts:
        read = partial(views.list_facts, rows_max=20, bytes_max=3_000)
        return read(shard, after_seq=after_seq)

    @in_virtual_time
    async def body() -> None:
        async with stage(monkeypatch) as on:
            shop = Shop(on)
            await shop.open()
            follower, _ = projector(on.journal, database.sink, limits=limits(follow_pause_ms=40))
            following = asyncio.create_task(follower.run())
            for name in "ab":
                on.accounts.start(name)
            source, kill = on.relay(kept)
            await shop.sell()
            await until(on.have_all)
            await until(lambda: on.journal.positions(STOCK).get(RELAY_READER, 0) > 0)
            kill()
            stood_at = on.journal.positions(STOCK)[RELAY_READER]
            bytes_sold = held_bytes_max = 0
            while bytes_sold < 2 * JOURNAL_BYTES:
                before = on.journal.read_meta(STOCK).last_seq
                await shop.sell()
                newest = on.journal.read(STOCK, after_seq=before, max_bytes=10**9)
                bytes_sold += sum(len(entry.data) for entry in newest)
                held_bytes_max = max(held_bytes_max, on.journal.bytes_used(STOCK))
            assert JOURNAL_BYTES * 0.25 < held_bytes_max < JOURNAL_BYTES * 0.9
            assert on.journal.read_meta(STOCK).first_seq > stood_at + 1
            source, kill = on.relay(kept)
            await until(on.have_all)
            await shop.sell()
            await until(on.have_all)
            await asyncio.sleep(3)
            on.check()
            assert source.gap_entries == 0
            # It holds the journal again, now that it is where the others are.
            assert on.journal.positions(STOCK)[RELAY_READER] > stood_at
            following.cancel()
            shop.close()

    body()


@in_virtual_time
async def test_facts_that_the_relay_has_not_passed_are_kept_for_so_long(
    monkeypatch: Patch, database: Database
) -> None:
    monkeypatch.setattr("actors.projector.PRUNE_EVERY_S", 0.0)
    monkeypatch.setattr("actors.projector.NEEDED_MS_MAX", 90_000)
    async with stage(monkeypatch) as on:
        shop = Shop(on)
        await shop.open()
        for _ in range(5):
            await shop.sell()
        shop.close()
        views = SqlViews(database.url)
        clock = StoppedClock(on.clock.now_ms())
        follower, _ = projector(
            on.journal,
            database.sink,
            clock=clock,
            limits=limits(facts_keep_ms=60_000),
            needed_by=RELAY_READER,
        )
        following = asyncio.create_task(follower.run())

        def gone_to() -> int:
            return views.list_facts(STOCK, after_seq=0, rows_max=1, bytes_max=1).after_seq

        last_seq = on.journal.read_meta(STOCK).last_seq
        await until(lambda: follower.position == last_seq)
        clock.at_ms += 70_000
        await asyncio.sleep(3)
        assert gone_to() == 0, "the relay has passed nothing"
        on.journal.set_position(STOCK, RELAY_READER, 4)
        await until(lambda: gone_to() == 4)
        await asyncio.sleep(3)
        assert gone_to() == 4
        clock.at_ms += 30_000
        await until(lambda: gone_to() == last_seq)
        following.cancel()

"""EventService.Watch: no fact missed, none twice, from the journal and beyond it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from stockray_proto.v1 import event_service_pb2 as ev
from stockray_proto.v1 import event_service_pb2_grpc

from server.services.polling import WatchLimits
from tests.helpers.core_lines import START_MS, CoreLines
from tests.helpers.lines_journal import INCARNATION, LinesJournal
from tests.unit.server.conftest import Gateway, View, details_of, fields_of, reason_of, serving
from tests.unit.server.group_buying import TeamShop

pytestmark = pytest.mark.usefixtures("front_kind")

Place = tuple[int, int]


class Feed:
    """A gateway that serves the feed of these lines."""

    def __init__(self, gateway: Gateway, journal: LinesJournal) -> None:
        self.gateway = gateway
        self.journal = journal
        self.stub: Any = event_service_pb2_grpc.EventServiceStub(gateway.channel)

    def watch(self, **fields: Any) -> Any:
        """A stream, from the oldest fact if nothing else is said."""
        fields = {"start": ev.FEED_START_OLDEST, **fields}
        return self.stub.Watch(ev.WatchRequest(**fields))

    async def facts(self, count: int, **fields: Any) -> list[ev.Fact]:
        """The first so many facts of a stream."""
        stream = self.watch(**fields)
        found: list[ev.Fact] = []
        async with asyncio.timeout(10):
            while len(found) < count:
                found.extend((await stream.read()).facts)
        stream.cancel()
        assert len(found) == count
        return found

    async def refused(self, **fields: Any) -> grpc.aio.AioRpcError:
        """What a stream fails with."""
        return await ending(self.watch(**fields))


async def ending(stream: Any) -> grpc.aio.AioRpcError:
    """What a stream fails with, whatever it says before."""
    try:
        async with asyncio.timeout(10):
            async for _ in stream:
                pass
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the stream did not fail")


@asynccontextmanager
async def feeding(lines: CoreLines, **options: Any) -> AsyncIterator[Feed]:
    journal = LinesJournal(lines)
    async with serving(lines, journals=lambda _: journal, **options) as gateway:
        yield Feed(gateway, journal)


@pytest.fixture
async def feed(lines: CoreLines, view: View) -> AsyncIterator[Feed]:
    async with feeding(lines, views=view.views) as made:
        yield made


def place(fact: ev.Fact) -> Place:
    return fact.seq, fact.index


def cursor(seq: int, index: int = 0, incarnation: str = INCARNATION) -> ev.FeedCursor:
    return ev.FeedCursor(shard=0, seq=seq, index=index, incarnation=incarnation)


def names(facts: list[ev.Fact]) -> list[str]:
    return [ev.FactKind.Name(fact.kind).removeprefix("FACT_KIND_") for fact in facts]


async def sell_teas(gateway: Gateway, count: int) -> list[str]:
    """Stock, and so many reservations; two facts come before theirs."""
    await gateway.stock_up(units=count)
    return [(await gateway.reserve(f"r-{number}")).reservation_id for number in range(count)]


async def test_what_was_decided_is_told_in_its_order_and_refusals_are_not(feed: Feed) -> None:
    ids = await sell_teas(feed.gateway, 2)
    await feed.gateway.reserve("too-late")
    await feed.gateway.confirm(ids[0])
    facts = await feed.facts(5)
    assert names(facts) == ["SKU_PUT", "STOCK_RECEIVED", "RESERVED", "RESERVED", "CONFIRMED"]
    assert [place(fact) for fact in facts] == sorted(place(fact) for fact in facts)
    reserved, confirmed = facts[2], facts[4]
    assert (reserved.reservation_id, reserved.buyer_id, reserved.quantity) == (ids[0], "u-1", 1)
    assert (confirmed.reservation_id, confirmed.paid_minor) == (ids[0], 500)
    assert confirmed.time.ToMilliseconds() == START_MS


async def test_a_group_buy_is_told_from_its_opening_to_its_refunds(feed: Feed) -> None:
    shop = TeamShop(feed.gateway)
    await shop.sell((2, 90), (3, 80))
    team_id = await shop.start("ann")
    await shop.start("dan")
    for buyer_id in ("bob", "cat"):
        # Members who joined in the same millisecond are in the order of their keys.
        feed.gateway.clock.pass_ms(1)
        await shop.comes(team_id, buyer_id)
    await shop.pass_deadline()
    stream = feed.watch(campaign_id="together")
    found: list[ev.Fact] = []
    async with asyncio.timeout(10):
        while "TEAM_FAILED" not in names(found):
            found.extend((await stream.read()).facts)
    stream.cancel()
    assert {fact.campaign_id for fact in found} == {"together"}
    told = names(found)
    for kind in ("TEAM_OPENED", "SEAT_TAKEN", "CONFIRMED", "TEAM_LED", "TEAM_NEARLY_FULL"):
        assert kind in told
    at = told.index("TEAM_FORMED")
    assert told[at + 1 : at + 7] == ["SEAT_SETTLED", "REFUND_DUE"] * 3
    assert len(found[at].member_reservation_ids) == 3
    dues = [fact.refund for fact in found if fact.kind == ev.FACT_KIND_REFUND_DUE]
    assert [due.amount_minor for due in dues] == [10, 10, 10, 90]
    assert [due.compensation for due in dues] == [False, False, False, True]
    assert [fact.buyer_id for fact in found[at + 1 : at + 7 : 2]] == ["ann", "bob", "cat"]


async def test_from_any_place_the_rest_is_told_and_nothing_else(feed: Feed) -> None:
    await TeamShop(feed.gateway).sell((2, 90))
    for number in range(3):
        await feed.gateway.reserve(f"r-{number}")
    count = sum(len(message.facts) for message in [await first_facts(feed)])
    facts = await feed.facts(count)
    for done, fact in enumerate(facts[:-1], 1):
        seq, index = place(fact)
        rest = await feed.facts(count - done, cursors=[cursor(seq, index + 1)])
        assert [place(one) for one in rest] == [place(one) for one in facts[done:]]


async def first_facts(feed: Feed) -> ev.WatchResponse:
    """The first message with facts: there are fewer than fit into one."""
    stream = feed.watch()
    async with asyncio.timeout(10):
        message: ev.WatchResponse = await stream.read()
        while not message.facts:
            message = await stream.read()
    stream.cancel()
    return message


async def test_a_watcher_is_told_what_comes_and_where_to_go_on(feed: Feed) -> None:
    ids = await sell_teas(feed.gateway, 3)
    stream = feed.watch(start=ev.FEED_START_NOW)
    async with asyncio.timeout(10):
        first = await stream.read()
        assert not first.facts
        end = len(feed.gateway.lines.entries)
        assert list(first.cursors) == [cursor(end + 1)]
        await feed.gateway.confirm(ids[0])
        second = await stream.read()
    stream.cancel()
    assert names(list(second.facts)) == ["CONFIRMED"]
    assert list(second.cursors) == [cursor(end + 2)]
    await feed.gateway.confirm(ids[1], "p-2")
    (fact,) = await feed.facts(1, cursors=list(second.cursors))
    assert fact.payment_id == "p-2"


async def test_kinds_are_chosen_and_the_cursor_goes_past_the_others(lines: CoreLines) -> None:
    limits = WatchLimits(heartbeat_s=0.1)
    async with feeding(lines, watch_limits=limits) as feed:
        ids = await sell_teas(feed.gateway, 2)
        await feed.gateway.confirm(ids[1])
        (fact,) = await feed.facts(1, kinds=[ev.FACT_KIND_CONFIRMED])
        assert fact.reservation_id == ids[1]
        stream = feed.watch(kinds=[ev.FACT_KIND_REVOKED])
        async with asyncio.timeout(10):
            message = await stream.read()
            while list(message.cursors) != [cursor(len(lines.entries) + 1)]:
                message = await stream.read()
                assert not message.facts
        stream.cancel()


async def test_what_cannot_be_read_is_told_whatever_is_wanted(feed: Feed) -> None:
    await sell_teas(feed.gateway, 2)
    entries = feed.gateway.lines.entries
    damaged = next(at for at, entry in enumerate(entries) if entry.seq == len(entries))
    entries[damaged] = entries[damaged]._replace(data=b"of a later release")
    (fact,) = await feed.facts(1, kinds=[ev.FACT_KIND_REVOKED], campaign_id="sale")
    assert (fact.kind, fact.seq) == (ev.FACT_KIND_UNREADABLE, len(entries))


async def test_where_the_journal_was_trimmed_the_view_goes_on_and_then_the_journal(
    feed: Feed, view: View
) -> None:
    ids = await sell_teas(feed.gateway, 20)
    whole = await feed.facts(22)
    view.follow()
    feed.journal.trim()
    for reservation_id in ids[:5]:
        await feed.gateway.confirm(reservation_id, f"p-{reservation_id}")
    reads = feed.journal.reads
    facts = await feed.facts(27)
    assert facts[:22] == whole
    assert names(facts[22:]) == ["CONFIRMED"] * 5
    assert feed.journal.reads > reads
    seq, index = place(whole[9])
    rest = await feed.facts(17, cursors=[cursor(seq, index + 1)])
    assert [place(fact) for fact in rest] == [place(fact) for fact in facts[10:]]


async def test_a_gap_between_view_and_journal_is_told_and_never_passed_over(
    feed: Feed, view: View
) -> None:
    ids = await sell_teas(feed.gateway, 3)
    view.follow()
    await feed.gateway.confirm(ids[0])
    # As after a database was set back: nothing else lets the journal be trimmed further than it.
    feed.journal.trim()
    stream = feed.watch()
    found: list[ev.Fact] = []
    async with asyncio.timeout(20):
        message = await stream.read()
        while not message.unreachable_shards:
            found.extend(message.facts)
            message = await stream.read()
        assert names(found)[-1] == "RESERVED"
        view.follow()
        while "CONFIRMED" not in names(found):
            found.extend((await stream.read()).facts)
    stream.cancel()
    assert len(found) == len(set(map(place, found))) == 6


async def test_a_cursor_whose_facts_are_gone_is_refused_with_the_oldest(
    feed: Feed, view: View
) -> None:
    await sell_teas(feed.gateway, 10)
    whole = await feed.facts(12)
    view.follow()
    feed.journal.trim()
    gone_to = whole[3].seq
    feed.gateway.clock.pass_ms(60_000)
    assert view.sink.prune_facts(0, before_ms=START_MS + 1, up_to_seq=99, rows_max=4) == 4
    error = await feed.refused(cursors=[cursor(gone_to)])
    assert error.code() is grpc.StatusCode.OUT_OF_RANGE
    assert reason_of(error) == "CURSOR_TOO_OLD"
    info = details_of(error)[error_details_pb2.ErrorInfo]
    oldest = {"shard": "0", "oldest_seq": str(gone_to + 1), "incarnation": INCARNATION}
    assert dict(info.metadata) == oldest
    for fields in ({}, {"cursors": [cursor(gone_to + 1)]}):
        facts = await feed.facts(8, **fields)
        assert facts == whole[4:]


async def test_a_cursor_of_another_journal_or_beyond_the_end_is_refused(feed: Feed) -> None:
    await sell_teas(feed.gateway, 2)
    end = len(feed.gateway.lines.entries)
    for wrong in (cursor(1, 0, "other"), cursor(end + 2)):
        error = await feed.refused(cursors=[wrong])
        assert reason_of(error) == "CURSOR_UNKNOWN"
    facts = await feed.facts(4, cursors=[cursor(1, 0, "")])
    assert len(facts) == 4


async def test_all_that_is_wrong_with_a_request_is_told_at_once(feed: Feed) -> None:
    error = await feed.refused(
        cursors=[cursor(0, -1), cursor(1)],
        shards=[9, 0],
        kinds=[999],
        campaign_id="two words",
    )
    assert reason_of(error) == "INVALID_FIELD"
    assert fields_of(error) == [
        "campaign_id",
        "shards",
        "shards[0]",
        "shards",
        "cursors",
        "cursors[0].seq",
        "cursors[0].index",
        "kinds[0]",
    ]
    error = await feed.refused(cursors=[ev.FeedCursor(shard=3, seq=1)])
    assert fields_of(error) == ["cursors[0].shard"]


async def test_a_silent_journal_is_told_and_nothing_of_it_is_lost(feed: Feed) -> None:
    ids = await sell_teas(feed.gateway, 2)
    stream = feed.watch(start=ev.FEED_START_NOW)
    async with asyncio.timeout(20):
        await stream.read()
        feed.journal.silent = True
        assert list((await stream.read()).unreachable_shards) == [0]
        await feed.gateway.confirm(ids[0])
        feed.journal.silent = False
        found: list[ev.Fact] = []
        while not found:
            message = await stream.read()
            found.extend(message.facts)
    stream.cancel()
    assert names(found) == ["CONFIRMED"]
    assert not message.unreachable_shards


async def test_many_watchers_of_a_shard_cost_the_journal_what_one_does(feed: Feed) -> None:
    ids = await sell_teas(feed.gateway, 30)
    streams = [feed.watch(start=ev.FEED_START_NOW) for _ in range(30)]
    async with asyncio.timeout(20):
        for stream in streams:
            await stream.read()
        # The one reader stands at the end.
        await asyncio.sleep(0.2)
        before = feed.journal.reads
        for reservation_id in ids:
            await feed.gateway.confirm(reservation_id, f"p-{reservation_id}")
        for stream in streams:
            seen = 0
            while seen < len(ids):
                seen += len((await stream.read()).facts)
            assert seen == len(ids)
            stream.cancel()
    # Each watcher for itself would have read at least once for each of its messages.
    assert feed.journal.reads - before < 300


async def test_a_stream_ends_in_its_time_and_with_the_gateway(lines: CoreLines) -> None:
    limits = WatchLimits(stream_s=0.3, heartbeat_s=0.1)
    async with feeding(lines, watch_limits=limits) as feed, asyncio.timeout(10):
        await sell_teas(feed.gateway, 1)
        found, cursors = 0, []
        while found < 3:  # At once, unless the machine is too slow for a stream's time.
            stream = feed.watch(cursors=cursors)
            async for message in stream:
                found += len(message.facts)
                cursors = list(message.cursors)
                assert cursors
            assert await stream.code() is grpc.StatusCode.OK
        assert found == 3
    async with feeding(lines) as feed, asyncio.timeout(10):
        stream = feed.watch()
        await anext(aiter(stream))
        feed.gateway.services.health.drain()
        assert reason_of(await ending(stream)) == "DRAINING"

"""The verb of the event feed: it goes on where the last message ended."""

import json
from itertools import islice
from typing import Any

import grpc
import pytest
import stockray
from stockray import AsyncClient, FactKind, FeedCursor, format_cursors, parse_cursors
from stockray.cli import _app
from stockray_proto.v1 import event_service_pb2 as wire
from typer.testing import CliRunner, Result

from tests.unit.client.scripted import ScriptedServer, refuse

BEGIN = (wire.FeedCursor(shard=0, seq=5), wire.FeedCursor(shard=1, seq=9, incarnation="i"))


def told(seq: int, *, shard: int = 0) -> wire.WatchResponse:
    """A confirmation, and the cursor after it."""
    fact = wire.Fact(shard=shard, seq=seq, index=4, kind=wire.FACT_KIND_CONFIRMED)
    fact.reservation_id = f"r-{seq}"
    after = wire.FeedCursor(shard=shard, seq=seq + 1)
    return wire.WatchResponse(facts=[fact], cursors=[after])


def feed(server: ScriptedServer, *streams: list[wire.WatchResponse]) -> None:
    """Each stream has these messages; all but the last break."""

    async def stream(request: Any, context: Any) -> Any:
        turn = len(server.calls["Watch"])

        async def messages() -> Any:
            for message in streams[min(turn, len(streams)) - 1]:
                yield message
            if turn < len(streams):
                await refuse(context, grpc.StatusCode.UNAVAILABLE, "DRAINING")

        return messages()

    server.on("Watch", stream)


async def test_a_broken_watch_goes_on_where_the_last_batch_ended(server: ScriptedServer) -> None:
    feed(server, [wire.WatchResponse(cursors=BEGIN), told(5)], [told(6)], [told(7), told(11)])
    seen = []
    async with AsyncClient(server.address, backoff_min_ms=1) as client:
        async for batch in client.watch_events(kinds=[FactKind.CONFIRMED], campaign_id="sale"):
            seen += [fact.seq for fact in batch.facts]
            if len(seen) == 4:
                break
    assert seen == [5, 6, 7, 11]
    assert [cursor.seq for cursor in batch.cursors] == [12, 9]
    first, second, third = server.calls["Watch"][:3]
    assert (list(first.cursors), first.start) == ([], wire.FEED_START_NOW)
    assert list(second.cursors) == [wire.FeedCursor(shard=0, seq=6), BEGIN[1]]
    assert list(third.cursors) == [wire.FeedCursor(shard=0, seq=7), BEGIN[1]]
    assert {(request.campaign_id, *request.kinds) for request in (first, second, third)} == {
        ("sale", wire.FACT_KIND_CONFIRMED)
    }


async def test_a_cursor_that_is_too_old_raises(server: ScriptedServer) -> None:
    async def stream(request: Any, context: Any) -> Any:
        await refuse(context, grpc.StatusCode.OUT_OF_RANGE, "CURSOR_TOO_OLD")

    server.on("Watch", stream)
    async with AsyncClient(server.address) as client:
        with pytest.raises(stockray.InvalidRequest) as refused:
            await anext(aiter(client.watch_events([FeedCursor(shard=0, seq=1)])))
    assert refused.value.reason == "CURSOR_TOO_OLD"
    assert len(server.calls["Watch"]) == 1


def test_a_thread_watches_as_well(threaded: ScriptedServer) -> None:
    feed(threaded, [told(5), told(6)])
    with stockray.Client(threaded.address) as client:
        batches = client.watch_events(oldest=True)
        found = [fact.reservation_id for batch in islice(batches, 2) for fact in batch.facts]
    assert found == ["r-5", "r-6"]
    assert threaded.calls["Watch"][0].start == wire.FEED_START_OLDEST


def run(server: ScriptedServer, *words: str) -> Result:
    return CliRunner().invoke(_app.build(), [*words, "--address", server.address, "-o", "json"])


def test_the_command_line_shows_facts_and_says_where_to_go_on(threaded: ScriptedServer) -> None:
    both = told(5)
    both.facts.extend(told(6).facts)
    both.cursors[0].seq = 7
    feed(threaded, [wire.WatchResponse(cursors=BEGIN), both])
    shown = run(threaded, "events", "tail", "--oldest", "--limit", "1", "--kind", "confirmed")
    assert shown.exit_code == 0, shown.stderr
    assert [fact["reservation_id"] for fact in json.loads(shown.stdout)] == ["r-5"]
    # The second fact of the batch was not shown.
    kept = "0:5:5:,1:9:0:i"
    assert f"--from {kept}" in shown.stderr
    first = threaded.calls["Watch"][0]
    assert (first.start, list(first.kinds)) == (
        wire.FEED_START_OLDEST,
        [wire.FACT_KIND_CONFIRMED],
    )
    assert run(threaded, "events", "tail", "--limit", "1", "--from", kept).exit_code == 0
    assert list(threaded.calls["Watch"][-1].cursors) == [
        wire.FeedCursor(shard=0, seq=5, index=5),
        BEGIN[1],
    ]


@pytest.mark.parametrize("wrong", [("--from", "5"), ("--kind", "happy"), ("--limit", "-1")])
def test_the_command_line_says_what_it_cannot_use(
    threaded: ScriptedServer, wrong: tuple[str, str]
) -> None:
    refused = run(threaded, "events", "tail", *wrong)
    assert refused.exit_code == 2
    assert refused.stdout == ""
    assert wrong[0].lstrip("-") in refused.stderr


def test_cursors_survive_being_written_down() -> None:
    cursors = (
        FeedCursor(shard=0, seq=12, index=3, incarnation="a1"),
        FeedCursor(shard=7, seq=1),
    )
    assert parse_cursors(format_cursors(cursors)) == cursors
    assert parse_cursors("") == ()
    for wrong in ("1:2", "1:2:3", "a:1:2:", "1:-2:3:i"):
        with pytest.raises(ValueError, match="is no cursor"):
            parse_cursors(wrong)

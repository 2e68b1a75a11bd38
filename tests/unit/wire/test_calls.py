"""Calls of a connection without a socket: how they begin, end, are cut off and are counted."""

import pytest

from tests.helpers.h2_frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    HELLO,
    PREFACE,
    RST_STREAM,
    WINDOW_SIZE,
    WINDOW_UPDATE,
    frame,
    frames_in,
    goaway_of,
    literal,
    message,
    request,
    request_block,
    reset,
    settings,
    window_update,
)
from tests.helpers.wire_peers import Bench, Pair, turns
from wire.call import SMALL_ANSWER_BYTES
from wire.framing import frame_gzip
from wire.limits import WireLimits

LIMITS = WireLimits(message_bytes_max=100_000, upload_bytes_max=250_000, streams_max=50)


async def greeted(limits: WireLimits = LIMITS) -> Bench:
    """A connection whose peer has said hello."""
    bench = Bench(limits)
    await bench.say(HELLO)
    return bench


def kinds(data: bytes, stream: int) -> list[int]:
    """Kinds of the frames of a stream."""
    return [each.kind for each in frames_in(data) if each.stream == stream]


async def test_a_call_is_answered_once_its_request_has_ended() -> None:
    bench = await greeted()
    head = frame(HEADERS, END_HEADERS, 1, request_block())
    assert kinds(await bench.say(head + frame(DATA, 0, 1, message(b"hi"))), 1) == []
    answer = await bench.say(frame(DATA, END_STREAM, 1))
    assert kinds(answer, 1) == [HEADERS, DATA, HEADERS]
    assert bench.server.counters.calls.succeeded == 1
    assert bench.server.calls_open == 0


@pytest.mark.parametrize("pieces", [1, 2, 7])
async def test_a_request_may_come_in_any_pieces(pieces: int) -> None:
    bench = await greeted()
    whole = request(1, body=b"x" * 1_000)
    answer = b""
    for at in range(0, len(whole), pieces):
        answer += await bench.say(whole[at : at + pieces])
    assert kinds(answer, 1) == [HEADERS, DATA, HEADERS]
    assert bench.server.upload_bytes == 0


@pytest.mark.parametrize(
    "tail",
    [
        frame(DATA, END_STREAM, 1),
        frame(DATA, END_STREAM, 1, message(b"a") + message(b"b")),
        frame(DATA, 0, 1, message(b"a")) + frame(DATA, END_STREAM, 1, message(b"b")),
        frame(DATA, END_STREAM, 1, message(b"a")[:-1] + b""),
        frame(DATA, END_STREAM, 1, message(b"abc")[:6]),
        frame(DATA, END_STREAM, 1, message(b"a", flag=9)),
        frame(DATA, END_STREAM, 1, message(b"a", flag=1)),
        frame(DATA, END_STREAM, 1, b"\0"),
        frame(DATA, 0, 1, message(b"", length=2**31)),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, literal(b"x", b"y")),
    ],
)
async def test_a_request_that_is_not_one_message_ends_with_a_status_alone(tail: bytes) -> None:
    bench = await greeted()
    answer = await bench.say(frame(HEADERS, END_HEADERS, 1, request_block()) + tail)
    assert kinds(answer, 1)[0] == HEADERS
    assert DATA not in kinds(answer, 1)
    assert bench.service.begun == 0
    assert bench.server.counters.calls.failed == 1
    assert bench.server.upload_bytes == 0
    assert bench.server.calls_open == 0


async def test_a_request_may_end_with_trailers() -> None:
    bench = await greeted()
    answer = await bench.say(
        frame(HEADERS, END_HEADERS, 1, request_block())
        + frame(DATA, 0, 1, message(b"hi"))
        + frame(HEADERS, END_HEADERS | END_STREAM, 1, literal(b"x", b"y"))
    )
    assert kinds(answer, 1) == [HEADERS, DATA, HEADERS]


async def test_a_whole_request_that_does_not_end_counts_as_being_received() -> None:
    """A message that has come whole is held until its stream ends, and must not be free."""
    bench = await greeted()
    await bench.say(settings([(WINDOW_SIZE, 100_000)]) + window_update(0, 100_000))
    for stream in (1, 3):
        head = frame(HEADERS, END_HEADERS, stream, request_block())
        body = message(b"x" * 90_000)
        parts = [frame(DATA, 0, stream, body[at : at + 16_000]) for at in range(0, 90_005, 16_000)]
        await bench.say(head + b"".join(parts))
    assert bench.server.upload_bytes == 180_000
    assert bench.server.calls_open == 2
    head = frame(HEADERS, END_HEADERS, 5, request_block())
    parts = [frame(DATA, 0, 5, body[at : at + 16_000]) for at in range(0, 90_005, 16_000)]
    answer = await bench.say(head + b"".join(parts))
    assert kinds(answer, 5)[0] == HEADERS
    assert bench.server.upload_bytes == 180_000
    await bench.say(reset(1) + frame(DATA, END_STREAM, 3))
    assert bench.server.upload_bytes == 0
    assert bench.server.calls_open == 0


async def test_compressed_messages_of_a_stream_stay_packed_until_they_are_read() -> None:
    """A window full of them would unpack to a thousand times its size."""
    bench = await greeted(WireLimits())
    extra = [(b"grpc-encoding", b"gzip")]
    head = frame(HEADERS, END_HEADERS, 1, request_block("/test/Deaf", extra))
    bomb = frame_gzip(b"\0" * 1_000_000)
    await bench.say(head + b"".join(frame(DATA, 0, 1, bomb) for _ in range(20)))
    (call,) = bench.service.held
    await bench.say(frame(DATA, END_STREAM, 1))
    got = [await call.read() for _ in range(20)]
    assert {len(each) for each in got if each is not None} == {1_000_000}
    assert await call.read() is None


async def test_a_bad_compressed_message_of_a_stream_ends_the_call_when_it_is_read() -> None:
    bench = await greeted()
    extra = [(b"grpc-encoding", b"gzip")]
    head = frame(HEADERS, END_HEADERS, 1, request_block("/test/Chat", extra))
    answer = await bench.say(head + frame(DATA, 0, 1, message(b"no gzip", flag=1)))
    assert kinds(answer, 1) == [HEADERS, RST_STREAM]
    assert bench.server.calls_open == 0


async def test_a_reset_reaches_the_handler_once_and_what_it_says_then_is_dropped() -> None:
    bench = await greeted()
    await bench.say(request(1, "/test/Hold"))
    assert kinds(await bench.say(reset(1)), 1) == []
    assert bench.service.cancelled == 1
    (call,) = bench.service.held
    call.reply(b"late")
    call.fail(13, "late")
    await turns()
    assert bench.transport.take() == b""
    assert bench.server.counters.calls.failed == 1


async def test_a_reset_in_the_same_read_as_the_request_is_no_harm() -> None:
    bench = await greeted()
    await bench.say(request(1) + reset(1) + request(3) + request(5, "/test/Chat") + reset(5))
    assert bench.server.calls_open == 0
    assert bench.service.ended == bench.service.begun - 2


async def test_a_lost_connection_tells_every_handler() -> None:
    bench = await greeted()
    for stream in range(1, 21, 2):
        await bench.say(request(stream, "/test/Hold"))
    await bench.say(request(21, "/test/Deaf"))
    half = frame(DATA, 0, 23, message(b"x" * 90)[:50])
    await bench.say(request(23, "/test/Hold", None) + half)
    assert bench.server.upload_bytes == 50
    bench.transport.lose()
    await turns()
    assert bench.service.cancelled == 11
    bench.leaves_nothing()


async def test_a_handler_that_fails_when_it_is_told_does_not_keep_the_news_from_others() -> None:
    bench = await greeted()
    await bench.say(request(1, "/test/Hold") + request(3, "/test/Hold"))

    def broken() -> None:
        raise RuntimeError("a bug")

    bench.service.held[0].on_cancel = broken
    bench.transport.lose()
    assert bench.service.cancelled == 1
    bench.leaves_nothing()


async def test_the_deadline_tells_the_handler_and_the_caller() -> None:
    bench = await greeted()
    block = request_block("/test/Hold", [(b"grpc-timeout", b"1m")])
    await bench.say(
        frame(HEADERS, END_HEADERS, 1, block) + frame(DATA, END_STREAM, 1, message(b""))
    )
    await bench.service.until(lambda: bench.service.cancelled == 1)
    await turns()
    assert kinds(bench.transport.take(), 1) == [HEADERS]
    assert bench.server.calls_open == 0


async def test_the_deadline_of_a_request_that_has_not_come_whole_gives_back_its_bytes() -> None:
    bench = await greeted()
    block = request_block("/test/Hold", [(b"grpc-timeout", b"0m")])
    part = frame(DATA, 0, 1, message(b"x" * 900)[:500])
    await bench.say(frame(HEADERS, END_HEADERS, 1, block) + part)
    await bench.ended()
    assert bench.server.upload_bytes == 0
    assert bench.service.begun == 0


async def test_what_comes_of_a_call_that_is_over_is_for_nobody() -> None:
    """The end of its request comes before the caller has heard that it is over."""
    bench = await greeted()
    block = request_block("/test/Hold", [(b"grpc-timeout", b"0m")])
    part = frame(DATA, 0, 1, message(b"x" * 900)[:500])
    bench.connection.data_received(frame(HEADERS, END_HEADERS, 1, block) + part)
    (call,) = bench.connection.calls.values()
    bench.connection._expire(call)
    bench.connection.data_received(frame(DATA, END_STREAM, 1, b"more"))
    assert kinds(await bench.say(b""), 1) == [HEADERS]
    assert (bench.server.upload_bytes, bench.server.calls_open) == (0, 0)


async def test_calls_beyond_the_limit_of_all_connections_are_refused() -> None:
    bench = await greeted(WireLimits(calls_max=2))
    answer = await bench.say(b"".join(request(s, "/test/Hold") for s in (1, 3, 5)))
    assert kinds(answer, 5) == [HEADERS]
    assert bench.service.begun == 2
    await bench.say(reset(1))
    await bench.say(request(7, "/test/Hold"))
    assert bench.service.begun == 3


async def test_streams_beyond_the_limit_are_refused_without_a_call() -> None:
    bench = await greeted()
    many = b"".join(request(s, "/test/Hold") for s in range(1, 201, 2))
    assert goaway_of(await bench.say(many)) == (99, 1), "the limit was acknowledged"
    assert bench.service.begun == bench.service.cancelled == 50
    assert not bench.connection.calls
    assert bench.server.calls_open == 0
    unaware = Bench(LIMITS)
    answer = await unaware.say(PREFACE + settings() + many)
    refused = [each for each in frames_in(answer) if each.kind == RST_STREAM]
    assert len(refused) == 50
    assert {each.payload for each in refused} == {(7).to_bytes(4, "big")}
    assert unaware.service.begun == len(unaware.connection.calls) == 50


async def test_a_stream_that_nobody_reads_holds_its_backlog_and_no_more() -> None:
    bench = Bench(WireLimits(stream_backlog_bytes=64 * 1024))
    await bench.say(HELLO + settings([(WINDOW_SIZE, 0)]))
    await bench.say(request(1, "/test/Pour") + request(3))
    await turns(100)
    waiting = bench.connection.h2.queued_body_size(1)
    assert waiting <= (64 + 16 + 1) * 1024
    assert kinds(await bench.say(request(5)), 5) == [HEADERS]
    assert bench.connection.h2.queued_body_size(5) > 0
    await bench.say(window_update(1, 200_000))
    await turns(100)
    assert bench.connection.h2.queued_body_size(1) > 0
    await bench.say(reset(1))
    assert bench.service.ended == 1
    assert bench.connection.h2.queued_body_size(1) == 0


async def test_large_answers_that_nobody_takes_are_bounded() -> None:
    bench = Bench(WireLimits(outbound_bytes_max=1_000_000))
    await bench.say(HELLO + settings([(WINDOW_SIZE, 0)]))
    size = b"%d" % (10 * SMALL_ANSWER_BYTES)
    for stream in range(1, 101, 2):
        await bench.say(request(stream, "/test/Big", size))
    assert bench.connection.h2.queued_body_size() <= 1_000_000
    assert bench.server.counters.calls.failed > 40
    # A lone answer may always go, whatever its size.
    other = Bench(WireLimits(outbound_bytes_max=1_000))
    await other.say(HELLO)
    answer = await other.say(request(1, "/test/Big", size))
    assert kinds(answer, 1)[0:2] == [HEADERS, DATA]


async def test_a_handler_that_reads_nothing_closes_its_window_and_no_other() -> None:
    limits = WireLimits(stream_window_bytes=65_535, connection_window_bytes=1_000_000)
    bench = await greeted(limits)
    await bench.say(request(1, "/test/Deaf", None))
    body = b"".join(message(b"y" * 9_000) for _ in range(7))
    answer = await bench.say(
        b"".join(frame(DATA, 0, 1, body[at : at + 9_005]) for at in range(0, len(body), 9_005))
    )
    assert WINDOW_UPDATE not in kinds(answer, 1)
    assert kinds(await bench.say(request(3)), 3) == [HEADERS, DATA, HEADERS]
    # What was not read is given back to the connection's window when the stream is over.
    for stream in range(5, 105, 2):
        await bench.say(request(stream, "/test/Deaf", None))
        await bench.say(b"".join(frame(DATA, 0, stream, body[:9_005]) for _ in range(7)))
        await bench.say(reset(stream))
    assert not bench.transport.closing
    assert bench.service.ended == 50
    over = await bench.say(frame(DATA, 0, 1, body[:9_005]))
    assert goaway_of(over) == (103, 3), "more than the window is a breach"
    assert bench.service.ended == 51
    assert bench.server.calls_open == 0


async def test_both_ends_of_ours_agree_on_large_messages_and_small_windows() -> None:
    small = WireLimits(stream_window_bytes=65_535, connection_window_bytes=65_535)
    pair = Pair(small, small)
    got: list[tuple[int, int]] = []
    for size in (3_000_000, 1, 70_000):
        pair.client.start(
            "/test/Echo", b"x" * size, lambda code, body, _: got.append((code, len(body)))
        )
    await pair.exchange(1_000)
    assert sorted(got) == [(0, 1), (0, 70_000), (0, 3_000_000)]
    assert pair.bench.server.upload_bytes == 0

"""Limits of time, with the time as an argument: nothing waits for a peer for ever."""

import pytest
from structlog.testing import capture_logs

from tests.helpers.h2_frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    HELLO,
    PING,
    PREFACE,
    WINDOW_SIZE,
    frame,
    frames_in,
    goaway_of,
    message,
    request,
    request_block,
    settings,
    window_update,
)
from tests.helpers.wire_peers import Bench, Pair, turns
from wire.limits import WireLimits

LIMITS = WireLimits(
    handshake_ms=5_000,
    upload_stall_ms=10_000,
    upload_ms=30_000,
    write_stall_ms=20_000,
    keepalive_ms=60_000,
    keepalive_timeout_ms=10_000,
    idle_ms=300_000,
    age_grace_ms=10_000,
)


class Clock:
    """Looks at a connection each second, as its listener does."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.now_s = bench.connection.opened_at

    async def pass_s(self, seconds: int) -> bytes:
        """That many looks; what was said meanwhile."""
        for _ in range(seconds):
            self.now_s += 1
            self.bench.connection.look(self.now_s, 1.0)
            await turns(2)
        return self.bench.transport.take()


async def greeted(limits: WireLimits = LIMITS, hello: bytes = HELLO) -> tuple[Bench, Clock]:
    """A connection whose peer has said hello."""
    bench = Bench(limits)
    await bench.say(hello)
    return bench, Clock(bench)


@pytest.mark.parametrize("said", [b"", PREFACE[:10], PREFACE, PREFACE + settings()[:5]])
async def test_a_peer_that_does_not_finish_its_greeting_is_closed(said: bytes) -> None:
    bench, clock = await greeted(hello=said)
    await clock.pass_s(4)
    assert not bench.transport.closing
    with capture_logs() as logs:
        out = await clock.pass_s(3)
    assert goaway_of(out) == (0, 4)
    assert [line["event"] for line in logs] == ["connection_ended"]
    bench.leaves_nothing()


async def test_a_greeting_byte_by_byte_does_not_buy_time() -> None:
    bench, clock = await greeted(hello=b"")
    for byte in PREFACE[:6]:
        await bench.say(bytes((byte,)))
        await clock.pass_s(1)
    assert bench.transport.lost


@pytest.mark.parametrize("path", ["/test/Echo", "/test/Chat"])
async def test_a_message_that_stops_coming_ends_its_call(path: str) -> None:
    bench, clock = await greeted()
    part = frame(DATA, 0, 1, message(b"x" * 1_000)[:500])
    await bench.say(frame(HEADERS, END_HEADERS, 1, request_block(path)) + part)
    await clock.pass_s(9)
    assert bench.server.upload_bytes == 500
    out = await clock.pass_s(2)
    assert next(each.kind for each in frames_in(out) if each.stream == 1) == HEADERS
    assert bench.server.upload_bytes == 0
    assert not bench.transport.closing


@pytest.mark.parametrize("path", ["/test/Echo", "/test/Chat"])
async def test_a_message_that_trickles_ends_its_call_too(path: str) -> None:
    bench, clock = await greeted()
    await bench.say(frame(HEADERS, END_HEADERS, 1, request_block(path)))
    whole = message(b"x" * 1_000)
    for second in range(29):
        await bench.say(frame(DATA, 0, 1, whole[second : second + 1]))
        await clock.pass_s(1)
    assert bench.server.calls_open == 1
    await clock.pass_s(2)
    assert bench.server.calls_open == 0
    assert bench.server.upload_bytes == 0


async def test_a_stream_between_two_messages_may_be_silent_for_long() -> None:
    bench, clock = await greeted()
    await bench.say(frame(HEADERS, END_HEADERS, 1, request_block("/test/Chat")))
    for _ in range(10):
        await clock.pass_s(50)
        await bench.say(frame(DATA, 0, 1, message(b"still here")))
    assert bench.server.calls_open == 1


async def test_a_silent_peer_is_asked_and_closed_if_it_does_not_answer() -> None:
    bench, clock = await greeted()
    await clock.pass_s(58)
    pings = [each for each in frames_in(await clock.pass_s(4)) if each.kind == PING]
    assert len(pings) == 1
    await bench.say(frame(PING, ACK, 0, pings[0].payload))
    await clock.pass_s(62)
    with capture_logs() as logs:
        await clock.pass_s(12)
    assert [line["event"] for line in logs] == ["connection_silent"]
    bench.leaves_nothing()


@pytest.mark.parametrize("pings", [False, True])
async def test_a_peer_that_takes_none_of_its_answers_is_closed(pings: bool) -> None:
    """Its socket takes nothing, or its window is closed. That it goes on asking does not help."""
    bench, clock = await greeted(hello=HELLO + settings([(WINDOW_SIZE, 0)]))
    if not pings:
        bench.transport.fill()
    await bench.say(request(1, "/test/Big", b"600000"))
    with capture_logs() as logs:
        for _ in range(24):
            await clock.pass_s(1)
            if pings and not bench.transport.closing:
                await bench.say(frame(PING, 0, 0, b"12345678"))
    assert [line["event"] for line in logs] == ["connection_stuck"]
    bench.leaves_nothing()


async def test_a_peer_that_takes_its_answer_slowly_is_not_closed() -> None:
    bench, clock = await greeted(hello=HELLO + settings([(WINDOW_SIZE, 0)]))
    await bench.say(request(1, "/test/Big", b"600000"))
    for _ in range(30):
        await clock.pass_s(5)
        await bench.say(window_update(1, 1_000))
    assert not bench.transport.closing


async def test_an_idle_connection_is_closed_in_good_order() -> None:
    bench, clock = await greeted()
    await bench.say(request(1))
    out = b""
    for _ in range(72):
        said = await clock.pass_s(5)
        asked = [each for each in frames_in(said) if each.kind == PING and not each.flags]
        out += said
        for ping in asked:
            if not bench.transport.closing:
                out += await bench.say(frame(PING, ACK, 0, ping.payload))
    goaways = [each.payload[:8] for each in frames_in(out) if each.kind == GOAWAY]
    assert goaways == [b"\x7f\xff\xff\xff\0\0\0\0", b"\0\0\0\1\0\0\0\0"]


async def test_an_old_connection_lets_its_calls_end_and_takes_no_more() -> None:
    bench, clock = await greeted(WireLimits(age_ms=10_000, age_grace_ms=60_000))
    await bench.say(request(1, "/test/Hold"))
    out = await clock.pass_s(11)
    (ping,) = [each for each in frames_in(out) if each.kind == PING]
    assert goaway_of(out) == (2**31 - 1, 0)
    # A call that was on its way is still taken; then comes the last word.
    await bench.say(request(3, "/test/Hold"))
    out = await bench.say(frame(PING, ACK, 0, ping.payload))
    assert goaway_of(out) == (3, 0)
    await bench.say(request(5, "/test/Hold"))
    assert [call.stream_id for call in bench.service.held] == [1, 3]
    for call in bench.service.held:
        call.reply(b"")
    await turns()
    out = bench.transport.take()
    ended = [e.stream for e in frames_in(out) if e.kind == HEADERS and e.flags & END_STREAM]
    assert ended == [1, 3]


async def test_a_client_gives_up_a_server_that_says_nothing() -> None:
    pair = Pair(client_limits=WireLimits(keepalive_ms=1, keepalive_timeout_ms=1))
    await pair.exchange()
    got: list[int] = []
    pair.client.start("/test/Hold", b"", lambda code, *_: got.append(code))
    await pair.exchange()
    await pair.client.gone
    assert got == [14]
    assert pair.client.in_flight == 0

"""Our own client, against our own server and against bytes that no server of ours would say."""

import asyncio
import gc
import weakref

import pytest

from tests.helpers.h2_frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    HELLO,
    PREFACE,
    RST_STREAM,
    frame,
    frames_in,
    literal,
    message,
    reset,
    settings,
)
from tests.helpers.wire_peers import MemoryTransport, Pair, turns
from wire.client import WireClient, WireError
from wire.limits import WireLimits

Answer = tuple[int, bytes, str]


class Server:
    """Bytes of a server, said to our client."""

    def __init__(self, limits: WireLimits | None = None) -> None:
        self.client = WireClient("test", limits or WireLimits(), b"http")
        self.transport = MemoryTransport(self.client)
        self.client.connection_made(self.transport)
        self.answers: list[Answer] = []
        self.client.data_received(HELLO.removeprefix(PREFACE))
        self.transport.take()

    def start(self, path: str = "/test/Echo") -> int:
        """Begin a call, whose answer is kept."""
        return self.client.start(path, b"hi", lambda *answer: self.answers.append(answer))

    async def say(self, data: bytes) -> bytes:
        """Let the client hear this; what it says."""
        await turns()
        if not self.transport.closing:
            self.client.data_received(data)
        await turns()
        return self.transport.take()


def headers(stream: int, *pairs: tuple[bytes, bytes], end: bool = False) -> bytes:
    """A HEADERS frame."""
    block = b"".join(literal(name, value) for name, value in pairs)
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block)


HEAD = ((b":status", b"200"), (b"content-type", b"application/grpc"))
OK = (b"grpc-status", b"0")


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        (headers(1, *HEAD) + frame(DATA, 0, 1, message(b"a")) + headers(1, OK, end=True), 0, ""),
        (
            headers(1, *HEAD, (b"grpc-status", b"5"), (b"grpc-message", b"no%21"), end=True),
            5,
            "no!",
        ),
        (headers(1, *HEAD) + headers(1, (b"grpc-status", b"9"), end=True), 9, ""),
        (headers(1, *HEAD) + headers(1, OK, end=True), 13, "without a message"),
        (headers(1, *HEAD) + frame(DATA, END_STREAM, 1, message(b"a")), 13, ""),
        (headers(1, *HEAD) + headers(1, (b"grpc-status", b"x"), end=True), 2, "grpc-status"),
        (headers(1, (b":status", b"503"), end=True), 2, "503"),
        (headers(1, *HEAD, (b"grpc-encoding", b"snappy")), 12, "snappy"),
        (headers(1, *HEAD) + frame(DATA, 0, 1, message(b"a") * 2), 13, "several"),
        (headers(1, *HEAD) + frame(DATA, 0, 1, message(b"", length=2**31)), 8, "2147483648"),
        (headers(1, *HEAD) + frame(DATA, 0, 1, message(b"a", flag=1)), 13, "compressed"),
        (reset(1, 7), 14, ""),
        (reset(1, 8), 1, ""),
        (reset(1, 11), 8, ""),
        (reset(1, 2), 13, ""),
        (frame(GOAWAY, 0, 0, bytes(8)), 14, ""),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", 14, ""),
    ],
)
async def test_every_way_to_answer_is_an_answer(answer: bytes, code: int, says: str) -> None:
    server = Server()
    assert server.start() == 1
    await server.say(answer)
    server.transport.lose()
    ((got, body, detail),) = server.answers
    assert got == code
    assert says in detail
    assert (body == b"a") is (code == 0)
    assert server.client.in_flight == 0


async def test_a_lost_connection_answers_every_call_even_if_one_is_not_to_be_told() -> None:
    server = Server()
    for _ in range(3):
        server.start()

    def broken(*_answer: object) -> None:
        raise RuntimeError("a bug")

    server.client.start("/test/Echo", b"", broken)
    for _ in range(3):
        server.start()
    server.transport.lose()
    assert [code for code, *_ in server.answers] == [14] * 6
    assert server.client.gone.done()
    server.start()
    assert server.answers[-1][0] == 14


@pytest.mark.parametrize(
    "breach", [frame(DATA, 0, 0, b"x"), b"HTTP/1.1 400 Bad Request\r\n\r\n", settings([(4, 2**31)])]
)
async def test_a_server_that_breaks_the_rules_is_left_at_once(breach: bytes) -> None:
    server = Server()
    server.start()
    await server.say(breach)
    assert [code for code, *_ in server.answers] == [14]
    assert server.client.gone.done()


async def test_a_server_that_goes_away_answers_the_calls_it_took_and_no_others() -> None:
    server = Server()
    assert [server.start() for _ in range(3)] == [1, 3, 5]
    await server.say(frame(GOAWAY, 0, 0, (1).to_bytes(4, "big") + bytes(4)))
    assert [code for code, *_ in server.answers] == [14, 14], "3 and 5 were never taken"
    assert server.start() == 0
    assert server.answers[-1][2] == "the server is going away"
    await server.say(headers(1, *HEAD, OK, end=True))
    assert server.answers[-1][0] == 13


async def test_calls_beyond_the_limit_are_refused_here() -> None:
    server = Server(WireLimits(streams_max=2))
    assert [server.start() for _ in range(3)] == [1, 3, 0]
    assert server.answers[0][0] == 8


async def test_calls_beyond_the_servers_limit_wait_for_their_turn() -> None:
    pair = Pair(WireLimits(streams_max=5))
    await pair.exchange()
    codes: list[int] = []
    for _ in range(200):
        pair.client.start("/test/Echo", b"", lambda code, *_: codes.append(code))
    await pair.exchange(500)
    assert codes == [0] * 200


async def test_a_call_that_is_cancelled_is_reset_and_its_late_answer_is_dropped() -> None:
    pair = Pair()
    call = asyncio.ensure_future(pair.client.call("/test/Hold", b""))
    await pair.exchange()
    call.cancel()
    await pair.exchange()
    assert call.cancelled()
    assert pair.bench.service.cancelled == 1
    server = Server()
    stream = server.start()
    await turns()
    server.client.cancel(stream)
    out = await server.say(headers(1, *HEAD, OK, end=True))
    assert [each.kind for each in frames_in(out) if each.stream == 1][-1] == RST_STREAM
    assert [code for code, *_ in server.answers] == [1]


async def test_a_refused_call_says_why() -> None:
    pair = Pair()
    call = asyncio.ensure_future(pair.client.call("/test/None", b"", timeout_ms=5_000))
    await pair.exchange()
    with pytest.raises(WireError, match="gRPC code 12: unknown method /test/None"):
        await call


async def test_a_deadline_travels_and_comes_back_as_a_status() -> None:
    pair = Pair()
    call = asyncio.ensure_future(pair.client.call("/test/Hold", b"", timeout_ms=1))
    await pair.exchange()
    await pair.bench.service.until(lambda: pair.bench.service.cancelled == 1)
    await pair.exchange()
    with pytest.raises(WireError, match="deadline"):
        await call


async def test_a_client_that_is_over_is_forgotten() -> None:
    """No timer holds it, and no circle that waits for the collector."""
    server = Server()
    server.start()
    await server.say(settings())
    server.transport.lose()
    server.transport.protocol = None
    left = weakref.ref(server.client)
    gc.disable()
    try:
        del server
        await turns()
        assert left() is None
    finally:
        gc.enable()

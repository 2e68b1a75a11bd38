"""Stock gRPC clients over real sockets: all four kinds of calls, and every way to end one."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from tests.helpers.wire_peers import Service
from wire.call import MethodEntry, ServerCall
from wire.limits import WireLimits
from wire.server import WireServer

LIMITS = WireLimits(message_bytes_max=4_000_000)


class Served:
    """A server in this process, and stock stubs for it."""

    def __init__(self, service: Service, server: WireServer, channel: grpc.aio.Channel) -> None:
        self.service, self.server, self.channel = service, server, channel

    def unary(self, path: str) -> grpc.aio.UnaryUnaryMultiCallable:
        """A stub for bytes."""
        return self.channel.unary_unary(path)

    def stream(self, path: str) -> grpc.aio.StreamStreamMultiCallable:
        """A stub for bytes."""
        return self.channel.stream_stream(path)


def more_routes(service: Service) -> None:
    """What only these tests call."""

    def fail(call: ServerCall, message: bytes) -> None:
        call.initial_metadata = [("first", "1")]
        call.fail(9, "nein: ü %", [("grpc-status-details-bin", message), ("more-bin", b"\0\xff")])

    def mirror(call: ServerCall, _message: bytes) -> None:
        sent = {key: value for key, value in call.metadata.items() if key.startswith("x-")}
        call.initial_metadata = list(sent.items())
        call.reply(b"", trailers=list(sent.items()))

    async def total(call: ServerCall) -> None:
        count = 0
        while (message := await call.read()) is not None:
            count += len(message)
        await call.send(b"%d" % count)

    service.routes["/test/Fail"] = MethodEntry(unary=fail)
    service.routes["/test/Mirror"] = MethodEntry(unary=mirror)
    service.routes["/test/Total"] = MethodEntry(stream=total)


@pytest.fixture(params=["tcp", "unix"])
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Served]:
    """On TCP and on a Unix socket."""
    service = Service()
    more_routes(service)
    server = WireServer(service.routes.get, limits=LIMITS)
    if request.param == "tcp":
        target = f"127.0.0.1:{await server.listen_tcp('127.0.0.1', 0)}"
    else:
        target = f"unix:{tmp_path}/s"
        await server.listen_unix(f"{tmp_path}/s")
    sizes = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    async with grpc.aio.insecure_channel(target, options=sizes) as channel:
        yield Served(service, server, channel)
    await server.drain(grace_s=5)
    assert not server.connections
    assert (server.calls_open, server.upload_bytes) == (0, 0)


@pytest.mark.parametrize("size", [0, 1, 65_536, 3_999_000])
async def test_a_message_of_any_size_goes_there_and_back(served: Served, size: int) -> None:
    assert await served.unary("/test/Echo")(b"x" * size) == b"x" * size


async def test_a_thousand_calls_at_once_are_all_answered(served: Served) -> None:
    echo = served.unary("/test/Echo")
    sent = [b"%d" % number for number in range(1_000)]
    assert await asyncio.gather(*(echo(each) for each in sent)) == sent


@pytest.mark.parametrize("size", [10, 200_000])
async def test_gzip_goes_both_ways(served: Served, size: int) -> None:
    echo = served.unary("/test/Echo")
    assert await echo(b"x" * size, compression=grpc.Compression.Gzip) == b"x" * size


async def test_an_encoding_that_is_not_known_is_unimplemented(served: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.unary("/test/Echo")(b"x" * 99_999, compression=grpc.Compression.Deflate)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "deflate" in str(caught.value.details())


async def test_an_unknown_method_is_unimplemented(served: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.unary("/none/Such")(b"")
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(("path", "said"), [("Echo", b"x" * 4_000_001), ("Big", b"4000001")])
async def test_a_message_that_is_too_large_is_refused_either_way(
    served: Served, path: str, said: bytes
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.unary(f"/test/{path}")(said)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "4000001" in str(caught.value.details())
    assert await served.unary("/test/Echo")(b"on") == b"on"


async def test_a_status_comes_with_its_message_and_its_details(served: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.unary("/test/Fail")(b"\x08\x09\xff")
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.details() == "nein: ü %"
    trailers = dict(caught.value.trailing_metadata())
    assert trailers["grpc-status-details-bin"] == b"\x08\x09\xff"
    assert trailers["more-bin"] == b"\0\xff"


async def test_metadata_goes_there_and_back_before_and_after_the_answer(served: Served) -> None:
    sent = (("x-text", "a b"), ("x-empty", ""), ("x-raw-bin", bytes(range(256))))
    call = served.unary("/test/Mirror")(b"", metadata=sent)
    await call
    assert {**dict(await call.initial_metadata())} | dict(sent) == dict(
        await call.initial_metadata()
    )
    assert dict(await call.trailing_metadata()) == dict(sent)


async def test_metadata_beyond_the_limit_fails_its_own_call_at_most(served: Served) -> None:
    echo = served.unary("/test/Echo")
    assert await echo(b"", metadata=(("x", "y" * 7_000),)) == b""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await echo(b"", metadata=(("x", "y" * 20_000),))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await echo(b"on") == b"on"
    assert served.server.counters.opened == 1, "on the same connection"


async def test_a_deadline_ends_the_call_and_tells_the_handler(served: Served) -> None:
    while not served.service.begun:  # Once, unless it passes before the call arrives.
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.unary("/test/Hold")(b"", timeout=0.05)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await served.service.until(lambda: served.service.cancelled == served.service.begun)


async def test_a_caller_that_cancels_reaches_the_handler(served: Served) -> None:
    for path in ("/test/Hold", "/test/Hold"):
        call = served.unary(path)(b"")
        begun = served.service.begun
        await served.service.until(lambda begun=begun: served.service.begun > begun)  # type: ignore[misc]
        call.cancel()
    pouring = served.channel.unary_stream("/test/Pour")(b"")
    assert await pouring.read()
    pouring.cancel()
    await served.service.until(lambda: served.service.cancelled == 3)
    assert served.service.ended == 1


async def test_a_conversation_goes_back_and_forth(served: Served) -> None:
    chat = served.stream("/test/Chat")()
    for number in range(200):
        await chat.write(b"%d" % number)
        assert await chat.read() == b"%d" % number
    await chat.done_writing()
    assert await chat.read() is grpc.aio.EOF
    assert await chat.code() == grpc.StatusCode.OK


async def test_many_messages_are_one_answer(served: Served) -> None:
    total = served.channel.stream_unary("/test/Total")

    async def said() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 50_000

    assert await total(said()) == b"5000000"


async def test_a_stream_goes_as_fast_as_it_is_read_and_others_are_served(served: Served) -> None:
    pouring = served.channel.unary_stream("/test/Pour")(b"")
    read = await pouring.read()
    echo = served.unary("/test/Echo")
    for _ in range(50):
        assert await echo(b"x" * 10_000) == b"x" * 10_000
    (connection,) = served.server.connections
    assert connection.waiting_bytes() <= LIMITS.stream_backlog_bytes + 2 * len(read)
    pouring.cancel()


async def test_a_handler_that_reads_nothing_stops_its_own_caller_only(served: Served) -> None:
    deaf = served.stream("/test/Deaf")()

    async def say() -> None:
        while True:
            await deaf.write(b"x" * 100_000)

    saying = asyncio.ensure_future(say())
    echo = served.unary("/test/Echo")
    for _ in range(100):
        assert await echo(b"x" * 10_000) == b"x" * 10_000
    (call,) = served.service.held
    assert sum(len(message) for message in call._messages) <= LIMITS.stream_window_bytes
    saying.cancel()
    deaf.cancel()
    await served.service.until(lambda: served.service.ended == 1)


async def test_what_a_busy_client_says_with_its_calls_is_no_chatter() -> None:
    """grpc's own clients send a PING and window updates with every few calls."""
    service = Service()
    server = WireServer(service.routes.get, limits=WireLimits(chatter_burst=20, chatter_per_s=1))
    port = await server.listen_tcp("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        echo = channel.unary_unary("/test/Echo")

        async def call_often() -> None:
            for _ in range(100):
                assert await echo(b"a" * 500) == b"a" * 500

        await asyncio.gather(*(call_often() for _ in range(10)))
    assert server.counters.opened == 1
    assert server.counters.cut_off == 0
    await server.drain(grace_s=5)

"""The handler table: all four kinds of calls, metadata both ways, reflection and channelz."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.wrappers_pb2 import StringValue
from grpc_channelz.v1 import channelz_pb2 as cz
from grpc_channelz.v1 import channelz_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from stockray_proto.v1 import common_pb2

from server.admission import MESSAGE_BYTES_MAX, Admission, AdmissionLimits
from server.errors import Code, StockrayStatus
from server.handlers import CallContext, HandlerTable, Invocation, Method
from tests.unit.server.conftest import Gateway, details_of, new_front, reason_of

pytestmark = pytest.mark.usefixtures("front_kind")


def refusal(code: Code = Code.ABORTED) -> StockrayStatus:
    return StockrayStatus(code=code, reason=common_pb2.ERROR_REASON_NO_SHARD, message="no: ünfair")


class Letters:
    """One call of each kind over strings."""

    def __init__(self) -> None:
        self.seen: list[CallContext] = []

    def methods(self) -> list[Method]:
        return [
            Method(path="/t.T/Upper", request=StringValue, unary=self.upper),
            Method(path="/t.T/Spell", request=StringValue, stream=self.spell),
            Method(path="/t.T/Join", request=StringValue, client_stream=self.join),
            Method(path="/t.T/Swap", request=StringValue, bidi=self.swap),
        ]

    async def upper(self, request: Any, context: CallContext) -> Any:
        self.note(context)
        return StringValue(value=request.value.upper())

    async def spell(self, request: Any, context: CallContext) -> AsyncIterator[Any]:
        self.note(context)
        for letter in request.value:
            if letter == "!":
                context.abort(refusal())
            yield StringValue(value=letter)

    async def join(self, requests: AsyncIterator[Any], context: CallContext) -> Any:
        self.note(context)
        return StringValue(value="".join([request.value async for request in requests]))

    async def swap(self, requests: AsyncIterator[Any], context: CallContext) -> AsyncIterator[Any]:
        self.note(context)
        async for request in requests:
            if request.value == "stop":
                return
            yield StringValue(value=request.value.swapcase())

    def note(self, context: CallContext) -> None:
        """Remember the call, and send back what its metadata asks for."""
        self.seen.append(context)
        if "echo" in context.metadata:
            context.initial_metadata.append(("first", context.metadata["echo"]))
            context.trailing_metadata.append(("last-bin", context.metadata["echo-bin"]))
        if "refuse" in context.metadata:
            context.abort(refusal(Code.DATA_LOSS))


class Served:
    """The table behind a channel."""

    def __init__(self, letters: Letters, table: HandlerTable, channel: grpc.aio.Channel) -> None:
        self.letters = letters
        self.table = table
        self.channel = channel

    def call(self, kind: str, name: str) -> Any:
        """`kind` as the channel names it, for example "stream_unary"."""
        make: Callable[..., Any] = getattr(self.channel, kind)
        return make(
            f"/t.T/{name}",
            request_serializer=lambda text: StringValue(value=text).SerializeToString(),
            response_deserializer=lambda data: StringValue.FromString(data).value,
        )


@asynccontextmanager
async def letters(limits: AdmissionLimits | None = None) -> AsyncIterator[Served]:
    """The table, served."""
    admission = Admission(limits)
    admission.open()
    made = Letters()
    table = HandlerTable(made.methods(), admission)
    front = new_front(table)
    port = front.listen("127.0.0.1:0")
    await front.start()
    options = [("grpc.use_local_subchannel_pool", 1)]
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            yield Served(made, table, channel)
    finally:
        await front.stop(grace_s=0)


async def replies(call: Any) -> list[str]:
    return [answer async for answer in call]


async def test_all_four_kinds_of_calls_are_served() -> None:
    async with letters() as served:
        assert await served.call("unary_unary", "Upper")("tea") == "TEA"
        assert await replies(served.call("unary_stream", "Spell")("tea")) == ["t", "e", "a"]
        assert await served.call("stream_unary", "Join")(iter("tea")) == "tea"
        assert await replies(served.call("stream_stream", "Swap")(iter("tEa"))) == ["T", "e", "A"]
        counters = served.table.counters
        assert (counters.started, counters.succeeded, counters.failed) == (4, 4, 0)
        assert served.table.admission.streams == served.table.admission.bytes == 0


async def test_a_stream_may_end_before_its_requests_do() -> None:
    async with letters() as served:
        call = served.call("stream_stream", "Swap")()
        await call.write("a")
        assert await call.read() == "A"
        await call.write("stop")
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
        assert served.table.admission.streams == served.table.admission.bytes == 0


KINDS = [
    ("unary_unary", "Upper"),
    ("unary_stream", "Spell"),
    ("stream_unary", "Join"),
    ("stream_stream", "Swap"),
]


async def finish(call: Any, kind: str) -> None:
    """Let a call run to its end, whatever the end is."""
    with suppress(grpc.aio.AioRpcError):
        await (replies(call) if kind.endswith("stream") else call)


@pytest.mark.parametrize(("kind", "name"), KINDS)
@pytest.mark.parametrize("refuse", [False, True])
async def test_metadata_of_both_kinds_goes_both_ways(kind: str, name: str, refuse: bool) -> None:
    async with letters() as served:
        sent = [("echo", "text"), ("echo-bin", b"\x00\xff")]
        request: Any = iter("ab") if kind.startswith("stream") else "ab"
        if refuse and kind.startswith("stream"):
            request = None  # grpcio calls a request that meets the end of its call INTERNAL.
        metadata = (*sent, *[("refuse", "please")] * refuse)
        call = served.call(kind, name)(request, metadata=metadata)
        await finish(call, kind)
        wanted = grpc.StatusCode.DATA_LOSS if refuse else grpc.StatusCode.OK
        assert await call.code() is wanted
        first = dict(await call.initial_metadata())
        # Of answers in a stream grpc.aio forgets what comes first when an error comes with it.
        assert first["first"] == "text" if first or not refuse else kind.endswith("_stream")
        trailing = dict(await call.trailing_metadata())
        assert trailing["last-bin"] == b"\x00\xff"
        assert ("grpc-status-details-bin" in trailing) is refuse
        (context,) = served.letters.seen
        assert (context.metadata["echo"], context.metadata["echo-bin"]) == ("text", b"\x00\xff")
        assert (context.identity, context.peer.split(":")[0]) == ("", "ipv4")
        assert served.table.counters.failed == refuse


async def test_an_error_after_answers_keeps_its_details() -> None:
    async with letters() as served:
        call = served.call("unary_stream", "Spell")("ab!")
        assert [await call.read(), await call.read()] == ["a", "b"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.ABORTED
        assert caught.value.details() == "no: ünfair"
        assert details_of(caught.value)


async def test_each_message_of_a_stream_has_the_limits_of_a_message() -> None:
    async with letters() as served:
        large = "a" * MESSAGE_BYTES_MAX
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.call("stream_unary", "Join")(iter(["a", large]))
        assert reason_of(caught.value) == "MESSAGE_TOO_LARGE"
        raw = served.channel.stream_unary("/t.T/Join")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await raw(iter([b"\xff"]))
        assert reason_of(caught.value) == "MALFORMED_MESSAGE"
        assert served.table.admission.streams == served.table.admission.bytes == 0


async def test_streams_of_all_kinds_are_counted_against_one_limit() -> None:
    async with letters(AdmissionLimits(streams_max=1)) as served:
        held = served.call("stream_stream", "Swap")()
        await held.write("a")
        assert await held.read() == "A"
        for kind, name in KINDS[1:]:
            request: Any = None if kind.startswith("stream") else "ab"
            call = served.call(kind, name)(request)
            await finish(call, kind)
            assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await served.call("unary_unary", "Upper")("a") == "A"
        await held.done_writing()
        assert await held.read() is grpc.aio.EOF


async def test_a_stream_that_is_cancelled_gives_back_all_it_held() -> None:
    async with letters() as served:
        call = served.call("stream_stream", "Swap")()
        await call.write("a")
        assert await call.read() == "A"
        call.cancel()
        while served.table.admission.streams:
            assert await served.call("unary_unary", "Upper")("a") == "A"
        assert served.table.admission.bytes == 0
        counters = served.table.counters
        assert counters.started == counters.succeeded + counters.failed


def test_a_method_has_exactly_one_handler() -> None:
    with pytest.raises(ValueError, match="one handler"):
        Method(path="/t.T/None", request=StringValue)
    made = Letters()
    with pytest.raises(ValueError, match="one handler"):
        Method(path="/t.T/Two", request=StringValue, unary=made.upper, bidi=made.swap)


async def test_a_call_made_as_another_kind_than_its_own_is_a_fault_of_the_front() -> None:
    admission = Admission()
    admission.open()
    upper, spell, join, swap = Letters().methods()
    table = HandlerTable((), admission)
    invocation = Invocation("", {}, None)
    with pytest.raises(TypeError, match="no unary call"):
        await table.call(spell, b"", invocation)
    with pytest.raises(TypeError, match="no client stream"):
        await table.call_client_stream(swap, none(), invocation)
    with pytest.raises(TypeError, match="no server stream"):
        await anext(table.call_stream(upper, b"", invocation))
    with pytest.raises(TypeError, match="no stream both ways"):
        await anext(table.call_bidi(join, none(), invocation))


async def none() -> AsyncIterator[bytes]:
    """No requests."""
    return
    yield b""


@pytest.mark.parametrize("package", ["grpc.reflection.v1alpha", "grpc.reflection.v1"])
async def test_reflection_describes_every_service_it_lists(gateway: Gateway, package: str) -> None:
    info = gateway.channel.stream_stream(
        f"/{package}.ServerReflection/ServerReflectionInfo",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    call: Any = info()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    answer = await call.read()
    names = [service.name for service in answer.list_services_response.service]
    assert {f"{package}.ServerReflection", "grpc.channelz.v1.Channelz"} <= set(names)
    for name in names:
        await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=name))
        (file, *_) = (await call.read()).file_descriptor_response.file_descriptor_proto
        described = descriptor_pb2.FileDescriptorProto.FromString(file)
        services = {f"{described.package}.{service.name}" for service in described.service}
        assert name in services
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_channelz_counts_calls_and_names_the_socket(gateway: Gateway) -> None:
    stub: Any = channelz_pb2_grpc.ChannelzStub(gateway.channel)
    before = (await stub.GetServers(cz.GetServersRequest())).server[0]
    assert (await gateway.reserve("r-1")).request_id == "r-1"
    with pytest.raises(grpc.aio.AioRpcError):
        await gateway.reserve("r 2")
    server = (await stub.GetServer(cz.GetServerRequest(server_id=1))).server
    assert server.data.calls_started - before.data.calls_started == 3
    assert server.data.calls_succeeded - before.data.calls_succeeded == 2
    assert server.data.calls_failed - before.data.calls_failed == 1
    assert server.data.last_call_started_timestamp.ToMilliseconds() == gateway.clock.now_ms()
    (listening,) = server.listen_socket
    socket = await stub.GetSocket(cz.GetSocketRequest(socket_id=listening.socket_id))
    port = int(gateway.address.rpartition(":")[2])
    assert socket.socket.local.tcpip_address.port == port
    assert socket.socket.local.tcpip_address.ip_address == bytes([127, 0, 0, 1])
    sockets = await stub.GetServerSockets(cz.GetServerSocketsRequest(server_id=1))
    assert sockets.end
    top = await stub.GetTopChannels(cz.GetTopChannelsRequest())
    assert top.end
    assert not top.channel
    for call, request in (
        (stub.GetServer, cz.GetServerRequest(server_id=2)),
        (stub.GetSocket, cz.GetSocketRequest(socket_id=77)),
        (stub.GetChannel, cz.GetChannelRequest(channel_id=1)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(request)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND

"""A server that is drained under load: every call is answered, or provably was never taken."""

import asyncio
from collections import Counter

import grpc
import pytest

from tests.helpers.h2_frames import (
    ACK,
    END_STREAM,
    GOAWAY,
    HEADERS,
    HELLO,
    PING,
    Frame,
    frame,
    frames_in,
    request,
)
from tests.helpers.wire_peers import RawPeer, Service, turns
from wire.call import MethodEntry, ServerCall
from wire.client import WireClient, WireError
from wire.server import WireServer

CLIENTS = 40


class Counting(Service):
    """Counts what it begins and what it answers, a little later."""

    def __init__(self) -> None:
        super().__init__()
        self.answered = 0
        self.routes["/test/Soon"] = MethodEntry(unary=self.soon)

    def soon(self, call: ServerCall, message: bytes) -> None:
        """Answers some turns of the loop later."""
        self.begun += 1
        asyncio.get_running_loop().call_later(0.002, self.answer, call, message)

    def answer(self, call: ServerCall, message: bytes) -> None:
        """Now."""
        assert not call.closed, "a call that was taken is gone"
        self.answered += 1
        call.reply(message)


class Stubborn:
    """A peer that goes on calling whatever GOAWAY it hears, until it is hung up on."""

    def __init__(self, peer: RawPeer) -> None:
        self._peer = peer
        self._next = 1
        self.ended: set[int] = set()
        self.goaways: list[int] = []

    async def call(self) -> None:
        """Sixteen calls in flight, each answer begins the next."""
        await self._peer.say(HELLO + b"".join(self._begin() for _ in range(16)))
        heard = bytearray()
        try:
            while data := await self._peer.reader.read(65_536):
                heard += data
                for each in frames_in(bytes(heard)):
                    del heard[: 9 + len(each.payload)]
                    await self._hear(each)
        except OSError:
            return

    async def _hear(self, each: Frame) -> None:
        if each.kind == GOAWAY:
            self.goaways.append(int.from_bytes(each.payload[:4], "big"))
        elif each.kind == HEADERS and each.flags & END_STREAM:
            self.ended.add(each.stream)
            await self._peer.say(self._begin())
        elif each.kind == PING and not each.flags & ACK:
            await self._peer.say(frame(PING, ACK, 0, each.payload))

    def _begin(self) -> bytes:
        stream, self._next = self._next, self._next + 2
        return request(stream, "/test/Soon")


async def served() -> tuple[Counting, WireServer, int]:
    """A service, its server, and the port."""
    service = Counting()
    server = WireServer(service.routes.get)
    return service, server, await server.listen_tcp("127.0.0.1", 0)


@pytest.mark.parametrize("answers_before", [0, 1, 500, 3_000])
async def test_every_call_up_to_the_last_goaway_is_answered(answers_before: int) -> None:
    service, server, port = await served()
    clients = [Stubborn(await RawPeer.connect(port)) for _ in range(CLIENTS)]
    calling = [asyncio.ensure_future(client.call()) for client in clients]
    while service.answered < answers_before or service.begun < CLIENTS:
        await turns(1)
    await server.drain(grace_s=20)
    await asyncio.wait_for(asyncio.gather(*calling), 20)
    assert service.begun == service.answered
    taken = 0
    for client in clients:
        first, last = client.goaways
        assert first == 2**31 - 1
        assert client.ended == set(range(1, last + 1, 2))
        taken += len(client.ended)
    assert taken == service.answered
    assert not server.connections


async def test_our_client_knows_of_each_call_whether_it_was_taken() -> None:
    service, server, port = await served()
    codes: Counter[int] = Counter()

    async def call_until_refused() -> None:
        client = await WireClient.connect_tcp("127.0.0.1", port)

        async def call() -> None:
            while True:
                try:
                    await client.call("/test/Soon", b"")
                except WireError as error:
                    codes[error.code] += 1
                    return
                codes[0] += 1

        await asyncio.gather(*(call() for _ in range(16)))
        await client.gone

    calling = [asyncio.ensure_future(call_until_refused()) for _ in range(CLIENTS)]
    while service.answered < 1_000:
        await turns(1)
    await server.drain(grace_s=20)
    await asyncio.wait_for(asyncio.gather(*calling), 20)
    assert codes == {0: service.answered, 14: 16 * CLIENTS}
    assert service.begun == service.answered


async def test_stock_clients_notice_nothing_when_another_server_is_there() -> None:
    """Retries of calls that were never taken are the client's own (gRPC's transparent retry)."""
    service = Counting()
    first, second = WireServer(service.routes.get), WireServer(service.routes.get)
    port = await first.listen_tcp("127.0.0.1", 0, reuse_port=True)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        soon = channel.unary_unary("/test/Soon")
        answers = []

        async def call() -> None:
            for number in range(200):
                answers.append(await soon(b"%d" % number, wait_for_ready=True))

        callers = [asyncio.ensure_future(call()) for _ in range(10)]
        while service.answered < 200:
            await turns(1)
        await second.listen_tcp("127.0.0.1", port, reuse_port=True)
        await first.drain(grace_s=20)
        await asyncio.wait_for(asyncio.gather(*callers), 20)
        assert len(answers) == 2_000
        assert service.begun == service.answered
    await second.drain(grace_s=5)


async def test_calls_that_do_not_end_are_cut_off_when_the_grace_is_over() -> None:
    service = Service()
    server = WireServer(service.routes.get)
    port = await server.listen_tcp("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/test/Hold")(b"")
        await service.until(lambda: service.begun == 1)
        await server.drain(grace_s=0.05)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert caught.value.details() == "the server is going away"
    assert service.cancelled == 1
    assert not server.connections

"""A service for the wire's tests, a transport without a socket, and a peer that sends bytes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from tests.helpers.h2_frames import Frame, frames_in
from wire.call import MethodEntry, ServerCall
from wire.client import WireClient
from wire.limits import WireLimits
from wire.server import WireServer
from wire.server_connection import ServerConnection

CHUNK = b"x" * 16_384


class Service:
    """Routes of every kind, and what happened to their calls."""

    def __init__(self) -> None:
        self.held: list[ServerCall] = []
        """Calls of `/test/Hold`, which nobody answers unless a test does."""
        self.begun = 0
        self.cancelled = 0
        self.ended = 0
        """Streaming handlers that are over."""
        self.changed = asyncio.Event()
        """Set when one of these changes; wait for it with `until`."""
        self.routes = {
            "/test/Echo": MethodEntry(unary=self.echo),
            "/test/Hold": MethodEntry(unary=self.hold),
            "/test/Big": MethodEntry(unary=self.big),
            "/test/Chat": MethodEntry(stream=self.chat),
            "/test/Deaf": MethodEntry(stream=self.deaf),
            "/test/Pour": MethodEntry(stream=self.pour),
        }

    def echo(self, call: ServerCall, message: bytes) -> None:
        """Answers what came, compressed if it came so."""
        self.begun += 1
        call.reply(message, compress=call.sent_gzip)

    def big(self, call: ServerCall, message: bytes) -> None:
        """Answers as many bytes as it is told."""
        call.reply(b"x" * int(message))

    def hold(self, call: ServerCall, message: bytes) -> None:
        """Keeps the call."""
        self.begun += 1
        self.held.append(call)
        call.on_cancel = self._cancel
        self.changed.set()

    async def chat(self, call: ServerCall) -> None:
        """Answers each message with itself."""
        async with self.counted():
            while (message := await call.read()) is not None:
                await call.send(message)

    async def deaf(self, call: ServerCall) -> None:
        """Reads nothing until it is cancelled."""
        self.held.append(call)
        async with self.counted():
            await asyncio.Event().wait()

    async def pour(self, call: ServerCall) -> None:
        """Sends without end."""
        self.held.append(call)
        async with self.counted():
            while True:
                await call.send(CHUNK)

    async def until(self, true: Callable[[], bool]) -> None:
        """Waits until something is so. The test's time limit is the limit."""
        while not true():
            self.changed.clear()
            await self.changed.wait()

    @asynccontextmanager
    async def counted(self) -> AsyncIterator[None]:
        """Counts a streaming handler."""
        self.begun += 1
        self.changed.set()
        try:
            yield
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.ended += 1
            self.changed.set()

    def _cancel(self) -> None:
        self.cancelled += 1
        self.changed.set()


class MemoryTransport(asyncio.Transport):
    """What a connection writes, kept; a peer that stops taking is `full`."""

    def __init__(self, protocol: Any) -> None:
        super().__init__({"peername": ("127.0.0.1", 5000)})
        self.protocol = protocol
        self.out = bytearray()
        self.reading = True
        self.closing = False
        self.lost = False
        self._high = 65_536
        self._waiting = 0
        self._full = False
        self._paused = False

    def write(self, data: Any) -> None:
        """See asyncio.Transport."""
        assert not self.lost, "written to after the connection was lost"
        self.out += data
        if self._full:
            self._waiting += len(data)
            if self._waiting > self._high and not self._paused:
                self._paused = True
                self.protocol.pause_writing()

    def fill(self) -> None:
        """The peer takes nothing from now on."""
        self._full = True

    def drain(self) -> None:
        """The peer takes everything again."""
        self._full, self._waiting = False, 0
        if self._paused:
            self._paused = False
            self.protocol.resume_writing()

    def take(self) -> bytes:
        """What was written since the last time."""
        out = bytes(self.out)
        self.out.clear()
        return out

    def is_closing(self) -> bool:
        """See asyncio.Transport."""
        return self.closing

    def close(self) -> None:
        """See asyncio.Transport."""
        self.closing = True
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self.lose)

    def abort(self) -> None:
        """See asyncio.Transport."""
        self.closing = True
        asyncio.get_running_loop().call_soon(self.lose)

    def lose(self) -> None:
        """The connection is gone."""
        if not self.lost:
            self.lost = self.closing = True
            self.protocol.connection_lost(None)

    def can_write_eof(self) -> bool:
        """See asyncio.Transport."""
        return False

    def pause_reading(self) -> None:
        """See asyncio.Transport."""
        self.reading = False

    def resume_reading(self) -> None:
        """See asyncio.Transport."""
        self.reading = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See asyncio.Transport."""
        self._high = 65_536 if high is None else high

    def get_write_buffer_size(self) -> int:
        """See asyncio.Transport."""
        return self._waiting


class Bench:
    """A server's connection without a socket, and what to look at."""

    def __init__(
        self, limits: WireLimits | None = None, *, server: WireServer | None = None
    ) -> None:
        self.service = Service()
        self.server = server or WireServer(self.service.routes.get, limits=limits)
        self.connection = ServerConnection(self.server)
        self.transport = MemoryTransport(self.connection)
        self.connection.connection_made(self.transport)

    async def say(self, data: bytes) -> bytes:
        """Bytes of the peer, and what was answered to them within a few turns of the loop."""
        if not self.transport.closing:
            self.connection.data_received(data)
        await turns()
        return self.transport.take()

    async def ended(self) -> None:
        """Waits until no call is open. The test's time limit is the limit."""
        while self.server.calls_open:  # noqa: ASYNC110 - the listener has no event for it.
            await asyncio.sleep(0.001)

    def leaves_nothing(self) -> None:
        """Asserts that a lost connection has let go of everything."""
        assert self.transport.lost
        assert not self.server.connections
        assert not self.connection.calls
        assert self.server.upload_bytes == 0
        assert self.server.calls_open == 0


async def turns(count: int = 8) -> None:
    """Let what is due happen."""
    for _ in range(count):
        await asyncio.sleep(0)


class Pair:
    """Our client and our server, joined without a socket."""

    def __init__(
        self, limits: WireLimits | None = None, client_limits: WireLimits | None = None
    ) -> None:
        self.bench = Bench(limits)
        self.client = WireClient("test", client_limits or WireLimits(), b"http")
        self.transport = MemoryTransport(self.client)
        self.client.connection_made(self.transport)

    async def exchange(self, rounds: int = 50) -> None:
        """Carry bytes both ways until nobody says anything."""
        there, back = self.transport, self.bench.transport
        for _ in range(rounds):
            await turns()
            out, answer = there.take(), back.take()
            if not out and not answer:
                return
            if out and not back.closing:
                self.bench.connection.data_received(out)
            if answer and not there.closing:
                self.client.data_received(answer)


class RawPeer:
    """A peer over a real socket that says whatever bytes it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.heard = bytearray()

    @classmethod
    async def connect(cls, port: int) -> "RawPeer":
        """To a port of this machine."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def say(self, data: bytes) -> None:
        """Send, as long as there is somebody."""
        self.writer.write(data)
        try:
            await self.writer.drain()
        except OSError:
            return

    async def frames(self) -> list[Frame]:
        """Everything until the other end closes."""
        await self.read_to_end()
        return list(frames_in(bytes(self.heard)))

    async def read_to_end(self) -> bytes:
        """Everything until the other end closes, however it does."""
        try:
            while data := await self.reader.read(65_536):
                self.heard += data
        except OSError:
            pass
        return bytes(self.heard)

    async def read_until(self, wanted: bytes) -> bool:
        """Whether these bytes come before the other end closes."""
        while wanted not in self.heard:
            try:
                data = await self.reader.read(65_536)
            except OSError:
                return False
            if not data:
                return False
            # The search is for something at the end; what came long before it is forgotten.
            del self.heard[: -len(wanted)]
            self.heard += data
        return True

    def abort(self) -> None:
        """Be gone, without a word."""
        cast(asyncio.WriteTransport, self.writer.transport).abort()

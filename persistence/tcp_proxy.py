"""A TCP proxy on loopback that can be told to misbehave: partitions for tests, without namespaces.

Rules
-----
* It runs in a thread of its own, which ends with `close` or with the process. A call that sets a
  mode returns when the mode is in force: no byte passes afterwards that it forbids.
* The newest mode counts, for every peer or (`pid=`) for the connections of one process, which
  beats the mode for every peer. `pass_on()` without a pid forgets all modes.
* Stalled bytes keep their order and are delivered when passing begins again, also when the peer
  has closed its end meanwhile: a request that its sender gave up may take effect much later, as
  behind a real partition. Cut connections lose what was held.
* At most BUFFER_BYTES are held for each direction of a connection; then its sender's writes wait.
* Which process a connection belongs to is read from /proc, so `pid=` needs Linux and peers of the
  same user and network namespace. A connection shared by a fork belongs to both processes.
"""

import asyncio
import contextlib
import enum
import functools
import os
import socket
import struct
import threading
from collections import deque
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NamedTuple, Self

BUFFER_BYTES = 262_144
CHUNK_BYTES = 65_536
CONNECTIONS_MAX = 1_024
RULES_MAX = 64
DELAY_MAX_MS = 60_000
CALL_TIMEOUT_S = 10.0
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of zero seconds: closing resets the connection."""


class Direction(enum.Enum):
    """Which way bytes go: requests from the peer to the target, answers back."""

    BOTH = "both"
    REQUESTS = "requests"
    ANSWERS = "answers"


class ProxyError(Exception):
    """The proxy is not running, or was asked for more than its limits."""


class _Mode(NamedTuple):
    """How one direction's bytes are treated, and whether connections may be at all."""

    refuses: bool = False
    stalls: Direction | None = None
    delay_ms: int = 0
    delays: Direction = Direction.BOTH

    def stalled(self, way: Direction) -> bool:
        return self.stalls in (way, Direction.BOTH)

    def delay_s(self, way: Direction) -> float:
        return self.delay_ms / 1_000 if self.delays in (way, Direction.BOTH) else 0.0


class TcpProxy:
    """Listens on 127.0.0.1, forwards to one target; passes everything on until told otherwise."""

    def __init__(self, target_host: str, target_port: int, *, port: int = 0) -> None:
        """The target need not run yet: peers are cut while it does not. `port` 0 picks one."""
        self._target: tuple[socket.AddressFamily, Any] = (
            socket.AF_INET,
            (target_host, target_port),
        )
        self._port = port
        self._running: tuple[asyncio.AbstractEventLoop, threading.Thread] | None = None
        self._listener: asyncio.Task[None] | None = None
        self._rules: dict[int | None, _Mode] = {}
        self._connections: dict[_Connection, asyncio.Task[None]] = {}

    @classmethod
    def to_unix(cls, path: str | os.PathLike[str], *, port: int = 0) -> Self:
        """A proxy whose target is a Unix socket; peers still come by TCP."""
        proxy = cls("", 0, port=port)
        proxy._target = (socket.AF_UNIX, os.fspath(path))
        return proxy

    @property
    def port(self) -> int:
        """The port it listens on. ProxyError before the first start, unless it was given."""
        if not self._port:
            raise ProxyError("port: the proxy was not started, so it has none yet")
        return self._port

    @property
    def address(self) -> str:
        """host:port that peers connect to. ProxyError before the first start."""
        return f"127.0.0.1:{self.port}"

    @property
    def connections_count(self) -> int:
        """Connections that are open, or whose last bytes are still held back."""
        return len(self._connections)

    @property
    def held_bytes(self) -> int:
        """Bytes that the proxy holds at this moment, of all connections and both directions."""
        return sum(pump.held_bytes for c in tuple(self._connections) for pump in c.pumps)

    def start(self) -> Self:
        """Returns when it listens. OSError when the port is taken; ProxyError when it runs."""
        if self._running is not None:
            raise ProxyError("the proxy runs already")
        listener = socket.create_server(("127.0.0.1", self._port), backlog=128)
        listener.setblocking(False)
        self._port = int(listener.getsockname()[1])
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=_run, args=(loop,), name="tcp-proxy", daemon=True)
        thread.start()
        self._running = (loop, thread)
        self._call(self._listen(listener))
        return self

    def close(self) -> None:
        """Cut all connections and stop listening. Idempotent. A later start takes the same port
        and passes everything on."""
        if self._running is None:
            return
        loop, thread = self._running
        self._call(self._stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(CALL_TIMEOUT_S)
        self._running = None

    def __enter__(self) -> Self:
        return self if self._running is not None else self.start()

    def __exit__(self, *_trouble: object) -> None:
        self.close()

    def pass_on(self, *, pid: int | None = None) -> None:
        """Deliver what is held and all that comes; without `pid` for everybody, whatever was set
        for single processes."""
        self._call(self._set(_Mode(), pid))

    def stall(self, direction: Direction = Direction.BOTH, *, pid: int | None = None) -> None:
        """Hold bytes back; connections stay open, and new ones are taken."""
        self._call(self._set(_Mode(stalls=direction), pid))

    def refuse(self, *, pid: int | None = None) -> None:
        """Reset the open connections, and each new one as soon as it is made."""
        self._call(self._set(_Mode(refuses=True), pid))

    def delay(
        self, delay_ms: int, direction: Direction = Direction.BOTH, *, pid: int | None = None
    ) -> None:
        """Deliver bytes this much later, each way that `direction` names: 10 ms in both make a
        round trip 20 ms longer. At most DELAY_MAX_MS; throughput is not limited beyond what
        BUFFER_BYTES in flight allow."""
        if not 0 <= delay_ms <= DELAY_MAX_MS:
            raise ProxyError(f"delay_ms: {delay_ms} is not from 0 to {DELAY_MAX_MS}")
        self._call(self._set(_Mode(delay_ms=delay_ms, delays=direction), pid))

    def _call(self, act: Coroutine[Any, Any, None]) -> None:
        if self._running is None:
            act.close()
            raise ProxyError("the proxy is not running")
        asyncio.run_coroutine_threadsafe(act, self._running[0]).result(CALL_TIMEOUT_S)

    async def _listen(self, listener: socket.socket) -> None:
        self._listener = asyncio.create_task(self._accept(listener))

    async def _stop(self) -> None:
        assert self._listener is not None
        self._listener.cancel()
        await asyncio.gather(self._listener, return_exceptions=True)
        await self._cut(list(self._connections))
        self._rules.clear()

    async def _set(self, mode: _Mode, pid: int | None) -> None:
        if pid is None and mode == _Mode():
            self._rules.clear()
        elif pid not in self._rules and len(self._rules) >= RULES_MAX:
            raise ProxyError(f"pid: at most {RULES_MAX} modes can be set at once")
        else:
            self._rules[pid] = mode
        for connection in self._connections:
            connection.follow(self._mode_of(connection))
        await self._cut([c for c in self._connections if c.mode.refuses])

    def _mode_of(self, connection: "_Connection") -> _Mode:
        for pid, mode in self._rules.items():
            if pid is not None and connection.belongs_to(pid):
                return mode
        return self._rules.get(None, _Mode())

    async def _cut(self, connections: list["_Connection"]) -> None:
        tasks = [self._connections[connection] for connection in connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                peer, peer_address = await loop.sock_accept(listener)
                connection = _Connection(peer, (int(peer_address[1]), self._port))
                connection.follow(self._mode_of(connection))
                if connection.mode.refuses or len(self._connections) >= CONNECTIONS_MAX:
                    _reset(peer)
                    continue
                task = asyncio.create_task(connection.run(*self._target))
                self._connections[connection] = task
                task.add_done_callback(functools.partial(self._forget, connection))
        finally:
            listener.close()

    def _forget(self, connection: "_Connection", _task: "asyncio.Task[None]") -> None:
        del self._connections[connection]
        connection.close()


class _Connection:
    """One peer, its own connection to the target, and a pump for each direction."""

    def __init__(self, peer: socket.socket, ports: tuple[int, int]) -> None:
        peer.setblocking(False)
        self.mode = _Mode()
        self.pumps = (_Pump(self, Direction.REQUESTS), _Pump(self, Direction.ANSWERS))
        self._peer = peer
        self._ports = ports
        self._inode = 0
        self._owners: set[int] = set()

    def follow(self, mode: _Mode) -> None:
        """From now on the bytes are treated so."""
        self.mode = mode
        for pump in self.pumps:
            pump.stir()

    def belongs_to(self, pid: int) -> bool:
        """Whether the process has, or had when last asked, the peer's end of it."""
        self._inode = self._inode or _inode_of(*self._ports)
        if self._inode and self._inode in _sockets_of(pid):
            self._owners.add(pid)
        return pid in self._owners

    async def run(self, family: socket.AddressFamily, target: Any) -> None:
        """Until both directions have ended, one side was reset, or this is cancelled."""
        server = socket.socket(family, socket.SOCK_STREAM)
        server.setblocking(False)
        requests, answers = self.pumps
        try:
            await asyncio.get_running_loop().sock_connect(server, target)
            for end in (self._peer, server):
                if end.family is socket.AF_INET:
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.TaskGroup() as pumping:
                for act in (
                    *requests.tasks(self._peer, server),
                    *answers.tasks(server, self._peer),
                ):
                    pumping.create_task(act)
        except* (OSError, asyncio.CancelledError):
            # Cut, or one side was reset: the other one learns it by a reset as well.
            _reset(server)
            _reset(self._peer)
        finally:
            server.close()
            self.close()

    def close(self) -> None:
        """Close the peer's end, also of a connection that was cut before it ran. Idempotent."""
        self._peer.close()


class _Pump:
    """One direction of a connection: reads ahead up to the limit, delivers as the mode allows."""

    def __init__(self, connection: _Connection, way: Direction) -> None:
        self.held_bytes = 0
        self._connection = connection
        self._way = way
        self._chunks: deque[tuple[float, bytes | OSError]] = deque()
        self._stirred = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def stir(self) -> None:
        """Something changed: have the writer look again."""
        self._stirred.set()

    def tasks(
        self, source: socket.socket, sink: socket.socket
    ) -> tuple[Coroutine[Any, Any, None], Coroutine[Any, Any, None]]:
        return self._read(source), self._write(sink)

    async def _read(self, source: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        chunk: bytes | OSError = b"-"
        while chunk and not isinstance(chunk, OSError):
            await self._room.wait()
            try:
                chunk = await loop.sock_recv(source, CHUNK_BYTES)
                self.held_bytes += len(chunk)
            except OSError as error:
                chunk = error
            if self.held_bytes > BUFFER_BYTES - CHUNK_BYTES:
                self._room.clear()
            self._chunks.append((loop.time(), chunk))
            self.stir()

    async def _write(self, sink: socket.socket) -> None:
        """Deliver until the source's end has been delivered too. A reset of the source is raised
        when all that came before it is delivered."""
        while True:
            await self._allowed()
            came, chunk = self._chunks[0]
            if isinstance(chunk, OSError):
                raise chunk
            if not chunk:
                with contextlib.suppress(OSError):
                    sink.shutdown(socket.SHUT_WR)
                return
            # Nothing is awaited between the question whether it may pass and the sending.
            try:
                sent = sink.send(chunk)
            except BlockingIOError:
                await _writable(sink)
                continue
            except OSError:
                # Nobody is there to take it; what flows the other way shows how this ends.
                sent = len(chunk)
            if sent == len(chunk):
                self._chunks.popleft()
            else:
                self._chunks[0] = (came, chunk[sent:])
            self.held_bytes -= sent
            self._room.set()

    async def _allowed(self) -> None:
        """Until there is a chunk, and it may pass."""
        loop = asyncio.get_running_loop()
        while True:
            self._stirred.clear()
            wait_s: float | None = None
            if self._chunks and not self._connection.mode.stalled(self._way):
                due_s = self._chunks[0][0] + self._connection.mode.delay_s(self._way)
                wait_s = due_s - loop.time()
                if wait_s <= 0:
                    return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._stirred.wait()


async def _writable(sink: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(sink, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(sink)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


def _reset(end: socket.socket) -> None:
    """Close it so that the other side is told of a reset, not of an orderly end."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    end.close()


def _inode_of(peer_port: int, proxy_port: int) -> int:
    """The peer's socket between the two ports; 0 when it is gone."""
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            ports = [int(fields[column].rpartition(":")[2], 16) for column in (1, 2)]
            if ports == [peer_port, proxy_port]:
                return int(fields[9])
    return 0


def _sockets_of(pid: int) -> set[int]:
    """Inodes of the process's sockets; none when it is gone or another user's."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                name = os.readlink(descriptor)
                if name.startswith("socket:["):
                    found.add(int(name[8:-1]))
    return found

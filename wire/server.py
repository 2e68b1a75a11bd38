"""A listener: accepts connections on TCP or a Unix socket and serves a route table on them.

Several processes may listen on one TCP port (SO_REUSEPORT): the kernel spreads connections over
them. A listener that is drained takes no connection, lets the calls that it accepted end, and then
closes; whoever comes to the port afterwards reaches another process, or nobody.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from wire.call import UNIMPLEMENTED, MethodEntry
from wire.counters import ListenerCounters
from wire.headers import Metadata
from wire.limits import WireLimits
from wire.log_gate import LogGate
from wire.server_connection import ServerConnection

Route = Callable[[str], MethodEntry | None]
Unknown = Callable[[str], tuple[int, str, Metadata]]

LOOK_EVERY_S = 1.0
BACKLOG = 4_096


class WireServer:
    """Serves what `route` knows. Make it on the loop that it is to run on."""

    def __init__(
        self,
        route: Route,
        *,
        limits: WireLimits | None = None,
        tls: ssl.SSLContext | None = None,
        unknown: Unknown | None = None,
    ) -> None:
        self.limits = limits or WireLimits()
        self.counters = ListenerCounters()
        self.upload_bytes = 0
        """Of requests that have come in part, over all connections."""
        self.calls_open = 0
        """Calls whose streams are not over, over all connections."""
        self.log_gate = LogGate()
        self.connections: set[ServerConnection] = set()
        self.numbers: Iterator[int] = count(1)
        """For connections, in the order in which they came."""
        self._route = route
        self._unknown = unknown or _unimplemented
        self._known: dict[bytes, MethodEntry] = {}
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._listeners: list[asyncio.Server] = []
        self._unix_paths: list[Path] = []
        self._draining = False
        self._handshake_s = None if tls is None else self.limits.handshake_ms / 1000
        self._all_gone = asyncio.Event()
        self._looking: asyncio.TimerHandle | None = None

    async def listen_tcp(self, host: str, port: int, *, reuse_port: bool = False) -> int:
        """Accept on a port; answers it (of port 0, the one that was free). OSError if it cannot."""
        listener = await self._loop.create_server(
            lambda: ServerConnection(self),
            host,
            port,
            ssl=self._tls,
            reuse_port=reuse_port,
            backlog=BACKLOG,
            ssl_handshake_timeout=self._handshake_s,
        )
        self._accept(listener)
        return int(listener.sockets[0].getsockname()[1])

    async def listen_socket(self, bound: socket.socket) -> None:
        """Accept on a socket that is bound already."""
        listener = await self._loop.create_server(
            lambda: ServerConnection(self),
            sock=bound,
            ssl=self._tls,
            backlog=BACKLOG,
            ssl_handshake_timeout=self._handshake_s,
        )
        self._accept(listener)

    async def listen_unix(self, path: str) -> None:
        """Accept on a socket file that only this user may open. A file left there is replaced."""
        place = _without_file(Path(path))
        listener = await self._loop.create_unix_server(
            lambda: ServerConnection(self), path, backlog=BACKLOG
        )
        os.chmod(path, 0o600)
        self._unix_paths.append(place)
        self._accept(listener)

    async def drain(self, *, grace_s: float) -> None:
        """Take no more; let accepted calls end, cut off what is left after `grace_s`."""
        self._draining = True
        self._stop_listening()
        for connection in list(self.connections):
            connection.drain()
        try:
            async with asyncio.timeout(grace_s):
                await self._gone()
        except TimeoutError:
            for connection in list(self.connections):
                connection.cut_calls()
            await self._end_all()
        self._stop_looking()

    async def close(self) -> None:
        """End everything now."""
        self._draining = True
        self._stop_listening()
        await self._end_all()
        self._stop_looking()

    def route(self, path: bytes) -> MethodEntry | None:
        """See Owner. Only paths that exist are remembered."""
        entry = self._known.get(path)
        if entry is None:
            entry = self._route(path.decode("latin-1"))
            if entry is not None:
                self._known[path] = entry
        return entry

    def unknown(self, path: bytes) -> tuple[int, str, Metadata]:
        """See Owner."""
        return self._unknown(path.decode("latin-1")[:200])

    def came(self, connection: ServerConnection) -> bool:
        """See Owner."""
        if self._draining or len(self.connections) >= self.limits.connections_max:
            self.counters.turned_away += 1
            return False
        self.counters.opened += 1
        self.connections.add(connection)
        self._all_gone.clear()
        return True

    def went(self, connection: ServerConnection) -> None:
        """See Owner."""
        if connection in self.connections:
            self.connections.discard(connection)
            self.counters.closed += 1
            if not self.connections:
                self._all_gone.set()

    def _accept(self, listener: asyncio.Server) -> None:
        self._listeners.append(listener)
        if self._looking is None:
            self._looking = self._loop.call_later(LOOK_EVERY_S, self._look)

    def _look(self) -> None:
        self._looking = self._loop.call_later(LOOK_EVERY_S, self._look)
        now = self._loop.time()
        for connection in list(self.connections):
            connection.look(now, LOOK_EVERY_S)
        self._limit_answers()

    def _limit_answers(self) -> None:
        """Close those that hold most of the answers that wait, while they are too many."""
        waiting = [(each.waiting_bytes(), each) for each in self.connections]
        excess = sum(size for size, _ in waiting) - self.limits.outbound_total_bytes_max
        if excess <= 0:
            return
        for size, connection in sorted(waiting, key=lambda each: each[0], reverse=True):
            if excess <= 0:
                return
            connection.give_up()
            excess -= size

    def _stop_looking(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for place in self._unix_paths:
            place.unlink(missing_ok=True)
        self._unix_paths.clear()

    async def _gone(self) -> None:
        while self.connections:
            await self._all_gone.wait()

    async def _end_all(self) -> None:
        """Give last words a moment to leave, then end."""
        try:
            async with asyncio.timeout(1):
                for connection in list(self.connections):
                    connection.close()
                await self._gone()
        except TimeoutError:
            for connection in list(self.connections):
                connection.abort()
            await self._gone()


def _unimplemented(path: str) -> tuple[int, str, Metadata]:
    return UNIMPLEMENTED, f"unknown method {path}", ()


def _without_file(place: Path) -> Path:
    """Make room for a socket file."""
    place.unlink(missing_ok=True)
    return place

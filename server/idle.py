"""Idle connections: `python -m server.idle` opens so many and holds them, a process of its own.

Each makes HTTP/2's handshake, answers PINGs and makes no call. It prints one JSON object when all
stand, and another with how many still stand when its standard input ends.
"""

import argparse
import asyncio
import json
import resource
import sys
from collections.abc import Sequence
from typing import Any

import uvloop
from ngh2 import Connection, NGH2Error, Role, SettingsReceived

from server.load import CannotConnect, connect, tls_context

OPENING_AT_ONCE = 100
SPARE_FILES = 200
"""Files and sockets that a process needs for other things."""
HANDSHAKE_TIMEOUT_S = 30.0


class IdleConnection(asyncio.Protocol):
    """`stands` is done when the peer's SETTINGS have come."""

    def __init__(self) -> None:
        self.alive = True
        self.stands: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: Any = None
        self._http2 = Connection(Role.CLIENT)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's: the handshake leaves."""
        self._transport = transport
        self._http2.initiate_connection()
        self._transport.write(self._http2.data_to_send())

    def data_received(self, data: bytes) -> None:
        """asyncio's: SETTINGS and PINGs are answered."""
        try:
            self._http2.receive_data(data)
        except NGH2Error:
            self._transport.abort()
            return
        for event in self._http2.events():
            if isinstance(event, SettingsReceived) and not self.stands.done():
                self.stands.set_result(None)
        answer = self._http2.data_to_send()
        if answer:
            self._transport.write(answer)

    def connection_lost(self, error: Exception | None) -> None:
        """asyncio's."""
        self.alive = False
        if not self.stands.done():
            self.stands.set_exception(CannotConnect("the peer closed the connection"))
            self.stands.exception()  # Nobody may be waiting for it any more.


def allow_files(wanted: int) -> bool:
    """Raise this process's limit of open files, as far as it may be; whether `wanted` fit. What it
    starts afterwards has the same limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = max(soft, wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return wanted <= hard


async def hold(target: str, connections: int, ca: str) -> tuple[int, int]:
    """Open them all, print, wait for the end of input: (how many stood, how many still do).
    CannotConnect."""
    tls = tls_context(ca) if ca else None
    opening = asyncio.Semaphore(OPENING_AT_ONCE)

    async def one() -> IdleConnection:
        async with opening:
            made = await connect(target, IdleConnection, tls)
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                await made.stands
            return made

    try:
        held = await asyncio.gather(*(one() for _ in range(connections)))
    except (OSError, TimeoutError) as error:
        raise CannotConnect(
            f"cannot open {connections} connections to {target}: {error}"
        ) from error
    print(json.dumps({"open": sum(made.alive for made in held)}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    return len(held), sum(made.alive for made in held)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m server.idle", description=__doc__)
    parser.add_argument("--target", required=True, help="host:port or unix:/path")
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--ca", default="", help="TLS, checked against this certificate")
    options = parser.parse_args(arguments)
    if not allow_files(options.connections + SPARE_FILES):
        print(
            f"error: {options.connections} connections need as many open files; "
            "raise the hard limit (ulimit -Hn)",
            file=sys.stderr,
        )
        return 2
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            _, alive = runner.run(hold(options.target, options.connections, options.ca))
    except CannotConnect as error:
        print(f"error: {error}", file=sys.stderr)
        return 4
    print(json.dumps({"alive": alive}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

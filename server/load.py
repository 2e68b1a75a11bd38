"""A load generator with unique ids: `python -m server.load`, a process of its own.

A closed loop: so many unary calls in flight over so many connections, `Grab` or `JoinTeam` of one
unit or an echo of a grab's bytes, against any gRPC server. It prints one JSON object. Every answer
is checked (`load_calls.py`) and every failure counted (`load_connection.py`).

With `--wait` it connects, warms up, prints "ready", starts at the first line on standard input and
ends with that input: so several generators start at once, and CPU is read around the measured part
alone.
"""

import argparse
import asyncio
import base64
import gc
import json
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from ngh2 import Header
from stockray_proto.v1 import common_pb2

from server.load_calls import (
    ECHOED,
    MALFORMED,
    RESERVED,
    WRONG_ID,
    Calls,
    EchoCalls,
    GrabCalls,
    JoinCalls,
)
from server.load_connection import LoadConnection, Tally

ANSWER_GRACE_S = 15.0
"""How long answers are waited for when no more calls are made; a call's deadline is 10 s."""
CALL_TIMEOUT = b"10S"
CONNECT_TIMEOUT_S = 10.0
RECONNECT_PAUSE_S = 0.02
DEADLINE_EXCEEDED = 4
Made = TypeVar("Made", bound=asyncio.Protocol)
KINDS = ("echo", "grab", "join")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """One generator's work."""

    target: str
    """host:port, or unix:/path."""
    kind: str = "grab"
    """One of `KINDS`."""
    campaign_id: str = "bench"
    sku_id: str = "bench-sku"
    team_ids_file: str = ""
    """Of "join": the teams to join, an id a line."""
    prefix: str = "load"
    """Of all request ids and buyers; no two generators of a run have the same."""
    in_flight: int = 64
    """Over all connections, at least one on each."""
    connections: int = 1
    seconds: float = 5.0
    warm_up_s: float = 0.5
    calls_max: int = 0
    """No more calls than these, without warm-up; 0: as many as there is time for."""
    ca: str = ""
    """File with the certificate that the server's is checked against; empty: no TLS."""

    def __post_init__(self) -> None:
        """ValueError, naming the field."""
        host, _, port = self.target.rpartition(":")
        if not self.target.startswith("unix:/") and not (host and port.isdigit()):
            raise ValueError(f"target: {self.target!r} is neither host:port nor unix:/path")
        if not 1 <= self.connections <= self.in_flight:
            raise ValueError("in_flight: at least one call for each of the connections")
        if self.kind not in KINDS:
            raise ValueError(f"kind: {self.kind!r} is none of {', '.join(KINDS)}")
        if (self.kind == "join") != bool(self.team_ids_file):
            raise ValueError("team_ids_file: for kind join, and only for it")


def calls_of(options: LoadOptions) -> Calls:
    """What the options say is called. ValueError, OSError for a file of teams that is none."""
    if options.kind == "join":
        team_ids = Path(options.team_ids_file).read_text(encoding="ascii").split()
        return JoinCalls(options.prefix, team_ids=team_ids)
    make = EchoCalls if options.kind == "echo" else GrabCalls
    return make(options.prefix, campaign_id=options.campaign_id, sku_id=options.sku_id)


class CannotConnect(Exception):
    """The target does not take connections."""


class Abandoned(Exception):
    """Whoever started this generator ended before it was to start."""


class Load:
    """One generator: `open`, then `run` for the warm-up and for what is measured, then `close`."""

    def __init__(self, options: LoadOptions) -> None:
        self._options = options
        self._numbers: Iterator[int] = iter(
            range(options.calls_max) if options.calls_max else count()
        )
        self._calls = calls_of(options)
        self._tls = tls_context(options.ca) if options.ca else None
        self._headers: list[Header] = [
            (b":method", b"POST"),
            (b":scheme", b"https" if options.ca else b"http"),
            (b":path", self._calls.path.encode()),
            (b":authority", b"localhost"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"grpc-timeout", CALL_TIMEOUT),
        ]
        self._connections: list[LoadConnection] = []

    async def open(self) -> None:
        """All connections. CannotConnect."""
        try:
            for _ in range(self._options.connections):
                self._connections.append(await self._connect())
        except (OSError, TimeoutError) as error:
            raise CannotConnect(f"cannot connect to {self._options.target}: {error}") from error

    async def run(self, seconds: float) -> tuple[Tally, float]:
        """The loop for so long, and what it took with the last answers."""
        tally = Tally()
        began = time.perf_counter()
        share, rest = divmod(self._options.in_flight, self._options.connections)
        async with asyncio.TaskGroup() as tasks:
            for place in range(self._options.connections):
                in_flight = share + (place < rest)
                tasks.create_task(self._keep_running(place, in_flight, tally, began + seconds))
        return tally, time.perf_counter() - began

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            connection.close()

    @property
    def reserved_runs(self) -> list[tuple[int, int]]:
        """See `GrabCalls.reserved_runs`; an echo reserves nothing."""
        return self._calls.reserved_runs() if isinstance(self._calls, GrabCalls) else []

    async def _keep_running(self, place: int, in_flight: int, tally: Tally, until: float) -> None:
        """One connection's loop, on another connection when it is lost."""
        while in_flight:
            connection = self._connections[place]
            grace_s = until - time.perf_counter() + ANSWER_GRACE_S
            try:
                await asyncio.wait_for(connection.run(in_flight, tally, until), grace_s)
            except TimeoutError:
                left = connection.abandon()
                tally.calls += left
                tally.errors[DEADLINE_EXCEEDED] += left
            if not connection.lost or time.perf_counter() >= until:
                return
            await self._replace(place, until)

    async def _replace(self, place: int, until: float) -> None:
        while time.perf_counter() < until:
            try:
                self._connections[place] = await self._connect()
                return
            except (OSError, TimeoutError):
                await asyncio.sleep(RECONNECT_PAUSE_S)

    async def _connect(self) -> LoadConnection:
        return await connect(
            self._options.target,
            lambda: LoadConnection(self._calls, self._numbers, self._headers),
            self._tls,
        )


async def connect(target: str, make: Callable[[], Made], tls: ssl.SSLContext | None = None) -> Made:
    """A protocol connected to host:port or unix:/path. OSError, TimeoutError."""
    loop = asyncio.get_running_loop()
    name = "localhost" if tls else None
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        if target.startswith("unix:"):
            path = target.removeprefix("unix:")
            return (await loop.create_unix_connection(make, path))[1]
        host, _, port = target.rpartition(":")
        made = await loop.create_connection(make, host, int(port), ssl=tls, server_hostname=name)
        return made[1]


def tls_context(ca: str) -> ssl.SSLContext:
    """For HTTP/2 with a server whose certificate for "localhost" the file's one has signed."""
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["h2"])
    return context


def as_data(load: Load, tally: Tally, took_s: float, cpu_s: float) -> dict[str, Any]:
    """What a generator prints. Counts are of the measured part; `reserved_runs` of all."""
    statuses = dict(tally.statuses)
    done = sum(statuses.get(status, 0) for status in (RESERVED, ECHOED))
    malformed, wrong_ids = statuses.pop(MALFORMED, 0), statuses.pop(WRONG_ID, 0)
    return {
        "calls": tally.calls,
        "done": done,
        "seconds": took_s,
        "rate_per_s": round(done / took_s, 1),
        "statuses": {status_name(status): number for status, number in statuses.items()},
        "errors": {str(code): number for code, number in tally.errors.items()},
        "malformed": malformed,
        "wrong_ids": wrong_ids,
        "lost_connections": tally.lost_connections,
        "cpu_us_per_call": round(cpu_s * 1e6 / max(1, tally.calls), 2),
        **{
            f"p{str(p).replace('.', '_')}_ms": tally.latency_us.get_value_at_percentile(p) / 1000
            for p in (50, 99, 99.9)
        },
        "latency_us": base64.b64encode(tally.latency_us.encode()).decode(),
        "reserved_runs": load.reserved_runs,
    }


def status_name(status: int) -> str:
    """As people write it."""
    if status == ECHOED:
        return "ECHOED"
    known = common_pb2.LineStatus.DESCRIPTOR.values_by_number.get(status)
    return known.name.removeprefix("LINE_STATUS_") if known else str(status)


async def generate(options: LoadOptions, *, wait: bool) -> dict[str, Any]:
    """One generator from its connections to its result. CannotConnect."""
    load = Load(options)
    await load.open()
    try:
        if options.warm_up_s and not options.calls_max:
            await load.run(options.warm_up_s)
        if wait:
            print("ready", flush=True)
            if not await asyncio.to_thread(sys.stdin.readline):
                raise Abandoned("whoever was to say when to start is gone")
        # What is there stays: walking it again and again would be latency that nobody else has.
        gc.collect()
        gc.freeze()
        cpu_s = time.process_time()
        tally, took_s = await load.run(options.seconds)
        return as_data(load, tally, took_s, time.process_time() - cpu_s)
    finally:
        load.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m server.load", description=__doc__)
    parser.add_argument("--target", required=True, help="host:port or unix:/path")
    parser.add_argument("--kind", choices=KINDS, default="grab")
    parser.add_argument("--campaign", dest="campaign_id", default="bench")
    parser.add_argument("--sku", dest="sku_id", default="bench-sku")
    parser.add_argument("--team-ids-file", default="", help="of the teams to join, an id a line")
    parser.add_argument("--prefix", default="load", help="of all ids; its own for each generator")
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warm-up-s", type=float, default=0.5)
    parser.add_argument(
        "--calls-max", type=int, default=0, help="end after so many; 0: at the time"
    )
    parser.add_argument("--ca", default="", help="TLS, checked against this certificate")
    parser.add_argument("--wait", action="store_true", help="say ready, start at a line of input")
    parsed = vars(parser.parse_args(arguments))
    wait = parsed.pop("wait")
    try:
        options = LoadOptions(**parsed)
    except ValueError as error:
        parser.error(str(error))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            result = runner.run(generate(options, wait=wait))
    except (CannotConnect, Abandoned) as error:
        print(f"error: {error}", file=sys.stderr)
        return 4
    print(json.dumps(result), flush=True)
    if wait:
        sys.stdin.read()  # Whoever waited for this reads this process's CPU next.
    return 0


if __name__ == "__main__":
    sys.exit(main())

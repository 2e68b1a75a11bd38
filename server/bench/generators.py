"""Load generators as child processes, and h2load where it is installed.

All generators of a row connect and warm up, then start at once; CPU is read around the measured
part. What they sold is kept, to be looked for in the journal at the end.
"""

import asyncio
import base64
import json
import re
import shutil
import sys
from collections import Counter
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

from hdrh.histogram import HdrHistogram

from server.bench.processes import Roles, Watch
from server.bench.result import AckedSales, CannotMeasure, Measured
from server.load import LoadOptions
from server.load_calls import ECHO_PATH, EchoCalls
from server.load_connection import LATENCY_US_MAX

LINE_BYTES_MAX = 64 * 1024 * 1024
"""Of a generator's result: it has the runs of reserved numbers."""
H2LOAD_WARM_UP_S = 1
H2LOAD_WATCHED = 0.9
"""The part of its time in which its CPU is read: before it ends."""
_FINISHED = re.compile(r"finished in [^,]+, ([\d.]+) req/s")
_REQUESTS = re.compile(r"requests: (\d+) total, .* (\d+) succeeded, (\d+) failed")


class Generators:
    """Makes load on one target after the other."""

    def __init__(self, processes: int, acked: AckedSales) -> None:
        self._processes = processes
        self._acked = acked
        self._numbers = count(1)

    async def measure(self, name: str, options: LoadOptions, roles: Roles) -> Measured:
        """One row. `options` are those of all generators together. CannotMeasure."""
        children = [_Child(one) for one in self._split(options)]
        try:
            for child in children:
                await child.start()
            for child in children:
                await child.until_ready()
            watch = Watch({"client": [child.pid for child in children], **roles})
            for child in children:
                child.go()
            # A child closes what it has open only when it is told so: its CPU can still be read.
            found = [await child.result() for child in children]
            shares = watch.shares()
        finally:
            for child in children:
                await child.end()
        for child, one in zip(children, found, strict=True):
            runs = [(a, b) for a, b in one["reserved_runs"]]
            self._acked.add(child.options.prefix, runs, child.options.campaign_id)
        return _row(name, found, shares)

    def _split(self, options: LoadOptions) -> list[LoadOptions]:
        """Each generator's part of the work, with ids of its own."""
        number = min(self._processes, options.in_flight)
        data = asdict(options)
        parts = []
        for place in range(number):
            in_flight = options.in_flight // number + (place < options.in_flight % number)
            connections = min(in_flight, max(1, options.connections // number))
            parts.append(
                LoadOptions(
                    **data
                    | {
                        "in_flight": in_flight,
                        "connections": connections,
                        "prefix": f"g{next(self._numbers)}",
                    }
                )
            )
        return parts


class _Child:
    def __init__(self, options: LoadOptions) -> None:
        self.options = options
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        given = {key.replace("_", "-"): value for key, value in asdict(self.options).items()}
        given["campaign"], given["sku"] = given.pop("campaign-id"), given.pop("sku-id")
        flags = [f"--{key}={value}" for key, value in given.items()]
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "server.load", "--wait", *flags),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES_MAX,
        )

    @property
    def process(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("the generator was not started")
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    async def until_ready(self) -> None:
        if await self._line() != b"ready\n":
            raise CannotMeasure(f"a load generator ended before it began, on {self.options.target}")

    def go(self) -> None:
        self._write(b"go\n")

    async def result(self) -> dict[str, Any]:
        line = await self._line()
        if not line:
            raise CannotMeasure(f"a load generator ended without result, on {self.options.target}")
        return dict(json.loads(line))

    async def end(self) -> None:
        if self._process is None:
            return
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def _line(self) -> bytes:
        if self.process.stdout is None:
            raise RuntimeError("the generator has no standard output")
        return await self.process.stdout.readline()

    def _write(self, line: bytes) -> None:
        if self.process.stdin is None:
            raise RuntimeError("the generator has no standard input")
        self.process.stdin.write(line)


def _row(name: str, found: list[dict[str, Any]], shares: Any) -> Measured:
    latency = HdrHistogram(1, LATENCY_US_MAX, 3)
    refused: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    for one in found:
        latency.add(HdrHistogram.decode(base64.b64decode(one["latency_us"])))
        refused.update(one["statuses"])
        errors.update(one["errors"])
        for kind in ("malformed", "wrong_ids", "lost_connections"):
            errors[kind] += one[kind]
    for sale in ("RESERVED", "ECHOED"):
        refused.pop(sale, None)
    done = sum(one["done"] for one in found)
    return Measured(
        name=name,
        rate_per_s=round(sum(one["done"] / one["seconds"] for one in found), 1),
        p50_ms=latency.get_value_at_percentile(50) / 1000,
        p99_ms=latency.get_value_at_percentile(99) / 1000,
        p99_9_ms=latency.get_value_at_percentile(99.9) / 1000,
        cpu_us_per_line={
            role: round(used * 1e6 / max(1, done), 2) for role, used in shares.cpu_s.items()
        },
        cores=shares.cores,
        wanted=shares.wanted,
        limit=shares.limit,
        refused=dict(refused),
        errors={kind: number for kind, number in errors.items() if number},
    )


def has_h2load() -> bool:
    """Whether h2load is installed (package nghttp2-client)."""
    return shutil.which("h2load") is not None


async def measure_h2load(
    name: str, options: LoadOptions, roles: Roles, directory: Path
) -> Measured:
    """The same echo by h2load, which repeats one body and calls a gRPC error a success: good for a
    floor alone. CannotMeasure when it fails, or when calls of it failed."""
    calls = EchoCalls(options.prefix, campaign_id=options.campaign_id, sku_id=options.sku_id)
    body = directory / "h2load-body"
    body.write_bytes(calls.request(0))
    scheme = "https" if options.ca else "http"
    process = await asyncio.create_subprocess_exec(
        "h2load",
        f"--duration={max(1, round(options.seconds))}",
        f"--warm-up-time={H2LOAD_WARM_UP_S}",
        f"--clients={options.connections}",
        f"--max-concurrent-streams={max(1, options.in_flight // options.connections)}",
        f"--data={body}",
        "--header=content-type: application/grpc",
        "--header=te: trailers",
        f"{scheme}://{options.target}{ECHO_PATH}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    await asyncio.sleep(H2LOAD_WARM_UP_S)
    watch = Watch({"client": [process.pid], **roles})
    watched_s = options.seconds * H2LOAD_WATCHED
    await asyncio.sleep(watched_s)
    shares = watch.shares()
    output = (await process.communicate())[0].decode(errors="replace")
    finished, requests = _FINISHED.search(output), _REQUESTS.search(output)
    if not finished or not requests or requests[1] != requests[2] or requests[1] == "0":
        raise CannotMeasure(f"h2load on {options.target}: {output[-500:]}")
    rate = float(finished[1])
    return Measured(
        name=name,
        rate_per_s=rate,
        p50_ms=None,
        p99_ms=None,
        p99_9_ms=None,
        cpu_us_per_line={
            role: round(used * 1e6 / max(1.0, rate * watched_s), 2)
            for role, used in shares.cpu_s.items()
        },
        cores=shares.cores,
        wanted=shares.wanted,
        limit=shares.limit,
    )

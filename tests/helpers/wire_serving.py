"""The wire's test service in a process of its own, so that its memory and CPU can be looked at.

Run as a module it serves on a free port until its standard input ends, and prints the port.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import uvloop

from tests.helpers.wire_peers import Service
from wire.call import MethodEntry, ServerCall
from wire.client import WireClient
from wire.limits import WireLimits
from wire.server import WireServer

ROOT = Path(__file__).resolve().parents[2]
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Serving:
    """A child process that serves `Service`, and what an operator would see of it."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, log: Path) -> None:
        self._process = process
        self.port = port
        self._log = log

    @classmethod
    async def start(cls, limits: dict[str, int], log: Path, port: int = 0) -> "Serving":
        """Start one. Its logs go to the file."""
        with log.open("wb") as lines:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", __name__, json.dumps(limits), str(port)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=lines,
                cwd=ROOT,
            )
        assert process.stdout is not None
        said = await process.stdout.readline()
        assert said, f"it did not start: see {log}"
        return cls(process, int(said), log)

    async def stop(self) -> str:
        """End it in good order; what it logged."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        return self.logged()

    def logged(self) -> str:
        """Its log so far."""
        return self._log.read_text()

    def memory_bytes(self) -> int:
        """What it has in memory now."""
        pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def memory_peak_bytes(self) -> int:
        """The most since `forget_peak`."""
        status = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        (peak,) = [line.split()[1] for line in status if line.startswith("VmHWM")]
        return int(peak) * 1024

    def forget_peak(self) -> None:
        """Begin to look for the most memory anew."""
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")

    def cpu_s(self) -> float:
        """Processor time so far."""
        text = Path(f"/proc/{self._process.pid}/stat").read_text()
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    async def numbers(self) -> dict[str, int]:
        """What it holds, asked on a connection of its own (which is one of `connections`)."""
        client = await WireClient.connect_tcp("127.0.0.1", self.port)
        try:
            found: dict[str, int] = json.loads(await client.call("/test/Numbers", b""))
        finally:
            client.close()
        return found


async def serve(limits: dict[str, Any], port: int) -> None:
    """Serve until standard input ends."""
    service = Service()
    server = WireServer(service.routes.get, limits=WireLimits(**limits))

    def numbers(call: ServerCall, _message: bytes) -> None:
        found = {
            "connections": len(server.connections),
            "calls_open": server.calls_open,
            "upload_bytes": server.upload_bytes,
            "cut_off": server.counters.cut_off,
            "turned_away": server.counters.turned_away,
            "begun": service.begun,
            "ended": service.ended,
            "pid": os.getpid(),
        }
        call.reply(json.dumps(found).encode())

    service.routes["/test/Numbers"] = MethodEntry(unary=numbers)
    print(await server.listen_tcp("127.0.0.1", port, reuse_port=port > 0), flush=True)
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, sys.stdin.read)
    await server.drain(grace_s=1)


if __name__ == "__main__":
    uvloop.run(serve(json.loads(sys.argv[1]), int(sys.argv[2])))

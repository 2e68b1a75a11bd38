"""What idle connections cost: memory each in the gateways, and the rate of a sale beside them."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from server.bench.processes import open_files_max, resident_bytes
from server.bench.result import CannotMeasure
from server.idle import SPARE_FILES

SETTLE_S = 1.0
"""After connections were opened, before memory is read."""


class Held:
    """Idle connections that stand."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.bytes_each = 0.0
        self.alive_at_end = 0


@asynccontextmanager
async def idle_connections(
    target: str, wanted: int, gateways: Sequence[int], ca: str
) -> AsyncIterator[Held]:
    """Opens them for as long as the block runs. CannotMeasure when a limit of open files is too
    low, or not all could be opened."""
    for pid in gateways:
        if open_files_max(pid) < wanted // len(gateways) + SPARE_FILES:
            raise CannotMeasure(
                f"a gateway may have {open_files_max(pid)} open files, too few for {wanted} "
                "connections: raise the limit (ulimit -n) where this is started"
            )
    before = sum(resident_bytes(pid) for pid in gateways)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "server.idle", f"--target={target}"),
        *(f"--connections={wanted}", f"--ca={ca}"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("a child without pipes")
    held = Held(wanted)
    try:
        line = await process.stdout.readline()
        if not line or json.loads(line)["open"] != wanted:
            raise CannotMeasure(f"{wanted} idle connections could not be opened to {target}")
        await asyncio.sleep(SETTLE_S)
        after = sum(resident_bytes(pid) for pid in gateways)
        held.bytes_each = (after - before) / wanted
        yield held
        process.stdin.close()
        line = await process.stdout.readline()
        held.alive_at_end = int(json.loads(line)["alive"]) if line else 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()

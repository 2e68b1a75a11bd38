"""How long a service takes from `stockray serve` to its first sale, with many reservations open.

The service is stopped and started on the same stores; each start ends with a sale on every shard.
Ray's own start is told apart: it is the same for an empty cluster. And so is the CPU that service
and Ray took until then, which on a shared machine says more than the clock.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from stockray import AsyncClient, ClientOptions, Status, StockrayError

from server.bench.log_times import LogTimes
from server.bench.processes import usage_of
from server.bench.result import SKU, CannotMeasure, Say
from server.children import ServeChild, descendants

SALE_WITHIN_S = 60.0
PAUSE_S = 0.01


def measure_cold_starts(
    arguments: Sequence[str],
    *,
    starts: int,
    log: Path,
    logs: Path,
    campaigns: Sequence[str],
    ca: bytes | None,
    numbers: Iterator[int],
    say: Say,
) -> dict[str, float]:
    """Start so often; the median of each part, in seconds."""
    parts: dict[str, list[float]] = {}
    for number in range(starts):
        say(f"cold start {number + 1} of {starts}")
        wall, began = time.time(), time.perf_counter()
        with ServeChild(arguments, log=log) as child:
            child.wait_ready()
            asyncio.run(_first_sales(child.listen, ca, campaigns, numbers))
            took = time.perf_counter() - began
            ray = float(child.ready["seconds"]["ray"])
            found = {"to_first_sale": took, "of_that_ray": ray, "without_ray": took - ray}
            family = (child.pid, *descendants(child.pid))
            found["cpu"] = sum(usage_of(pid).cpu_s for pid in family)
            found |= _parts(LogTimes(logs, wall), child.ready["seconds"])
            child.terminate()
        for name, seconds in found.items():
            parts.setdefault(name, []).append(seconds)
    return {
        "starts": starts,
        "worst_without_ray": round(max(parts["without_ray"]), 2),
        **{name: round(median(values), 2) for name, values in parts.items()},
    }


def _parts(times: LogTimes, seconds: dict[str, float]) -> dict[str, float]:
    """Until Ray was asked to start; and of the shard that was ready first, until its process had
    begun, its load, its tail; then until the gateway served."""
    ready, serves = times.first("caught_up"), times.first("gateway_serves")
    found = {"before_ray": float(seconds["checks"])}
    if ready is not None and serves is not None:
        load_ms, tail_ms = ready.fields["load_ms"], ready.fields["tail_ms"]
        found["process_begun_at"] = (ready.after_ms - load_ms - tail_ms) / 1000
        found |= {"load": load_ms / 1000, "tail": tail_ms / 1000}
        found["gateway_serves_at"] = serves.after_ms / 1000
    return found


async def _first_sales(
    listen: str, ca: bytes | None, campaigns: Sequence[str], numbers: Iterator[int]
) -> None:
    """One sale of every campaign."""
    options = ClientOptions(tls=ca is not None, tls_ca_pem=ca)
    async with AsyncClient(listen, options=options) as client, asyncio.timeout(SALE_WITHIN_S):
        for campaign_id in campaigns:
            while not await _sold(client, campaign_id, next(numbers)):  # noqa: ASYNC110 - no event
                await asyncio.sleep(PAUSE_S)


async def _sold(client: AsyncClient, campaign_id: str, number: int) -> bool:
    try:
        answer = await client.grab(campaign_id, SKU, buyer_id=f"cold-{number}")
    except StockrayError as error:
        if not error.retriable:
            raise
        return False
    if answer.status in (Status.RETRY, Status.UNKNOWN):
        return False
    if answer.status is not Status.RESERVED:
        raise CannotMeasure(f"the first sale after a start was answered {answer.status.name}")
    return True

"""Open reservations in crowds, for what is measured with many of them."""

import asyncio
from collections.abc import Iterator, Sequence

from stockray import AsyncClient, GrabLine, Status

from server.bench.result import SKU, CannotMeasure
from server.demo import until_settled

LINES_A_CALL = 4_000
CALLS_AT_ONCE = 2
SETTLED_BASE_S, WRITTEN_A_SECOND = 60.0, 4_000
"""How long SQL may take to have all of them."""
TRIES_MAX = 50
TRY_AGAIN_S = 0.2


async def open_reservations(
    client: AsyncClient, campaigns: Sequence[str], numbers: Iterator[int], count: int
) -> None:
    """Reserve so many units, one a buyer, spread over the campaigns; returns when standbys and SQL
    have them all. CannotMeasure if the service does not take them."""
    sizes = iter([min(LINES_A_CALL, count - at) for at in range(0, count, LINES_A_CALL)])

    async def caller() -> None:
        for size in sizes:
            await _open(client, campaigns, numbers, size)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CALLS_AT_ONCE):
            tasks.create_task(caller())
    await until_settled(client, timeout_s=SETTLED_BASE_S + count / WRITTEN_A_SECOND)


async def _open(
    client: AsyncClient, campaigns: Sequence[str], numbers: Iterator[int], count: int
) -> None:
    left = count
    for _ in range(TRIES_MAX):
        lines = [
            GrabLine(campaigns[at % len(campaigns)], SKU, f"b-{next(numbers)}")
            for at in range(left)
        ]
        found = await client.grab_many(lines)
        left -= sum(1 for answer in found if answer.status is Status.RESERVED)
        if not left:
            return
        # RETRY or UNKNOWN: the machine is busy. Whoever is not told yes asks again, as another.
        await asyncio.sleep(TRY_AGAIN_S)
    raise CannotMeasure(f"{left} of {count} reservations could not be opened")

"""Lines to the shards that fetch what left memory: see `actors/core/forgetting.py`.

A command that a shard answers RECALL has decided nothing. Its row is read from SQL, and the
command goes to the shard again with the row, or with word that SQL has none. When SQL does not
answer in time the caller is told RETRY: nothing was applied.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import structlog

from actors.clock import Clock
from actors.core import commands as c
from actors.core.commission_commands import RecalledOrder, RecalledWithdrawal
from actors.core.forgetting import recall_key
from actors.core.identity import SLOT_COUNT, parse_account_id, public_id
from actors.core.outcomes import Outcome
from persistence.errors import StorageError
from persistence.sql.views import SqlViews
from server.lines import Lines
from server.waiting import INTERNAL, RETRY, UNKNOWN, Answer

log = structlog.get_logger()

THREADS = 4
WAITING_MAX = 1_000
"""Rows being fetched at once; commands on more are answered RETRY."""
LOOK_TIMEOUT_MS = 2_500

_RECALL = int(Outcome.RECALL)

FindRow = Callable[[str], Mapping[str, Any] | None]
"""The row in SQL of a reservation, or with an account slot of a withdrawal, by its id. Blocks.
StorageError."""


class RecallingLines:
    """`Lines` whose answers are never RECALL."""

    def __init__(self, lines: Lines, find_row: FindRow, clock: Clock) -> None:
        self._lines = lines
        self._find_row = find_row
        self._clock = clock
        self._waiting = 0
        self._tasks: set[asyncio.Task[list[Answer]]] = set()
        """Of commands that came one by one, at most `WAITING_MAX`."""
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="recall")

    async def submit(self, commands: Sequence[Any]) -> Sequence[tuple[Any, ...]]:
        """See `Lines.submit`."""
        answers = await self._lines.submit(commands)
        if _RECALL not in {answer[0] for answer in answers}:
            return answers
        wanted = [at for at, answer in enumerate(answers) if answer[0] == _RECALL]
        told = list(answers)
        again = await self._again([commands[at] for at in wanted])
        for at, answer in zip(wanted, again, strict=True):
            told[at] = answer
        return told

    def put(self, command: Any, on_answer: Callable[[Answer], object]) -> None:
        """See `Lines.put`. Only an answer that asks for recall makes a task."""
        self._lines.put(command, partial(self._told, command, on_answer))

    def _told(self, command: Any, on_answer: Callable[[Answer], object], answer: Answer) -> None:
        if answer[0] != _RECALL:
            on_answer(answer)
        elif len(self._tasks) >= WAITING_MAX:
            on_answer(RETRY)
        else:
            task = asyncio.get_running_loop().create_task(self._again([command]))
            self._tasks.add(task)
            task.add_done_callback(partial(self._recalled_one, on_answer))

    def _recalled_one(
        self, on_answer: Callable[[Answer], object], task: "asyncio.Task[list[Answer]]"
    ) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            on_answer(UNKNOWN)
        elif (error := task.exception()) is not None:
            log.error("recall_failed", error=repr(error))
            on_answer(INTERNAL)
        else:
            on_answer(task.result()[0])

    async def _again(self, commands: Sequence[Any]) -> list[Answer]:
        """The answers to commands that a shard answered RECALL."""
        told = [RETRY] * len(commands)
        found = await asyncio.gather(*(self._recalled(command) for command in commands))
        ready = [(at, again) for at, again in enumerate(found) if again is not None]
        second = await self._lines.submit([again for _, again in ready]) if ready else ()
        for (at, _), answer in zip(ready, second, strict=True):
            told[at] = RETRY if answer[0] == _RECALL else answer
        return told

    def shard_of(self, slot: int) -> int:
        """See `Lines.shard_of`."""
        return self._lines.shard_of(slot)

    def close(self) -> None:
        """No more rows are fetched."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _recalled(self, command: Any) -> c.Recalled | None:
        """The command with its row; None if that could not be had in time."""
        key = recall_key(command)
        left_ms = min(command.deadline_ms - self._clock.now_ms(), LOOK_TIMEOUT_MS)
        if key is None or left_ms <= 0 or self._waiting >= WAITING_MAX:
            return None
        self._waiting += 1
        try:
            async with asyncio.timeout(left_ms / 1000):
                row = await asyncio.get_running_loop().run_in_executor(
                    self._threads, self._find_row, public_id(command.slot, key)
                )
        except (StorageError, TimeoutError) as error:
            log.warning("row_not_recalled", slot=command.slot, error=str(error))
            return None
        finally:
            self._waiting -= 1
        head = (c.RECALLED, command.slot, command.deadline_ms, command.caller)
        if row is None:
            return c.Recalled(*head, (), command)
        of_account = command.slot >= SLOT_COUNT
        found = recalled_withdrawal(row) if of_account else recalled_row(row)
        return c.Recalled(*head, found, command)


def forgotten_in(views: SqlViews) -> FindRow:
    """Finds rows in these views."""

    def find(row_id: str) -> Mapping[str, Any] | None:
        if parse_account_id(row_id) is not None:
            return views.get_withdrawal(row_id)
        return views.get_reservation(row_id)

    return find


def recalled_row(row: Mapping[str, Any]) -> c.RecalledRow:
    """A row of SQL as a shard takes it back; one without the columns of `seats` is no seat."""
    return c.RecalledRow(
        row["campaign_id"],
        row["sku_id"],
        row["buyer_id"],
        row["quantity"],
        row["returned_quantity"],
        row["state"],
        row["fulfilment"],
        row["fingerprint"],
        row["reserved_ms"],
        row["first_deadline_ms"],
        row["deadline_ms"],
        row["payment_begun_ms"] > 0,
        row["list_price_minor"],
        row["unit_price_minor"],
        row["payable_minor"],
        row["payment_id"],
        row["payment_channel"],
        row["paid_minor"],
        *_seat(row),
    )


def recalled_withdrawal(row: Mapping[str, Any]) -> RecalledWithdrawal:
    """A row of `withdrawals` as a shard takes it back."""
    return RecalledWithdrawal(*(row[name] for name in RecalledWithdrawal._fields))


def recalled_order(row: Mapping[str, Any]) -> RecalledOrder:
    """A row of `commission_orders` as a shard takes it back."""
    shares = [
        (level, *(row[f"level{level}_{name}"] for name in ("id", "bps", "minor", "state")))
        for level in (1, 2)
        if row[f"level{level}_id"]
    ]
    return RecalledOrder(
        row["referrer_id"],
        row["quantity"],
        row["returned_quantity"],
        row["base_minor"],
        row["version"],
        row["month"],
        row["earned_ms"],
        row["matures_ms"],
        row["delivered"] > 0,
        tuple(shares),
    )


def _seat(row: Mapping[str, Any]) -> tuple[Any, ...]:
    if not row.get("team_id"):
        return ()
    return row["team_id"], row["new_buyer"] > 0, row["settled_minor"], row["joined_ms"]

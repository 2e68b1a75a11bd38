"""Units between slots: out of the source, into the target, done at the source.

Rules
-----
* Each step is decided by one shard and is idempotent by the transfer's id, so any gateway may
  repeat any of them; units are in the source's total until the last one.
* A transfer that left is finished, never undone, except that its target turned it away. Whoever
  is asked to finish it goes on from the second step; a gateway that dies between two steps leaves
  a chore, which the source's shard hands to another.
* Transfers of the service itself are named after what was granted before, so that two gateways
  that want the same thing do it once.
* RETRY and UNKNOWN are asked again with the same id until `deadline_ms`.
"""

import asyncio
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import structlog

from actors.core import commands as c
from actors.core.chores import FINISH_TRANSFER, RETURN_LEFTOVER
from actors.core.outcomes import Outcome
from actors.core.state import TRANSFER_ARRIVED, TRANSFER_TURNED_AWAY
from server.handlers import OWN_CALLER, wall_ms
from server.lines import Lines
from server.translate.scalars import WAITING, slot_of_pool
from server.translate.stock import item
from server.validate import ID_LENGTH_MAX

CHORE_DEADLINE_MS = 5_000
FIRST_PAUSE_MS = 10
LAST_PAUSE_MS = 320

log = structlog.get_logger("server.transfers")


class Moved(NamedTuple):
    """How far a transfer came."""

    outcome: int
    """Of the first step; APPLIED once the units have left, whatever followed."""
    left_now: bool = False
    """The units were in transit when the first step was answered, so they left by this attempt or
    by one that was not finished. False for a transfer that had ended before."""
    arrived: bool | None = None
    """None while the units are on the way, or did not leave."""


class Transfers:
    """Moves units for the services, and finishes what shards find unfinished."""

    def __init__(self, lines: Lines, *, now_ms: Callable[[], int] = wall_ms) -> None:
        self._lines = lines
        self._now_ms = now_ms

    async def move(self, out: c.TransferOut) -> Moved:
        """All three steps, as far as they come until the command's deadline."""
        answer = await self.ask(out)
        outcome, key, state = answer[0], item(answer, 1, b""), item(answer, 2, 0)
        if outcome != Outcome.APPLIED:
            return Moved(outcome)
        if state in (TRANSFER_ARRIVED, TRANSFER_TURNED_AWAY):
            return Moved(outcome, False, state == TRANSFER_ARRIVED)
        arrived = await self._finish(
            slot=out.slot,
            transfer_id=key,
            sku_id=out.sku_id,
            to_campaign_id=out.to_campaign_id,
            quantity=out.quantity,
            deadline_ms=out.deadline_ms,
        )
        return Moved(outcome, True, arrived)

    async def finish(self, chore: Sequence[Any]) -> bool:
        """Do one chore of `actors/core/chores.py`. False if it is to be tried again later."""
        kind, slot, *fields = chore
        deadline_ms = self._now_ms() + CHORE_DEADLINE_MS
        if kind == FINISH_TRANSFER:
            transfer_id, sku_id, _, to_campaign_id, quantity = fields
            arrived = await self._finish(
                slot=slot,
                transfer_id=transfer_id,
                sku_id=sku_id,
                to_campaign_id=to_campaign_id,
                quantity=quantity,
                deadline_ms=deadline_ms,
            )
            return arrived is not None
        if kind == RETURN_LEFTOVER:
            campaign_id, sku_id, available, granted = fields
            moved = await self.give_back(
                campaign_id=campaign_id,
                sku_id=sku_id,
                available=available,
                granted=granted,
                deadline_ms=deadline_ms,
            )
            return moved.arrived is True
        log.warning("unknown_chore", kind=kind, slot=slot)
        return False

    async def allocate(
        self,
        *,
        campaign_id: str,
        sku_id: str,
        granted: int,
        quantity: int,
        attempt: int,
        deadline_ms: int,
    ) -> Moved:
        """Units of a SKU's base pool to a campaign's line that was granted `granted` before.

        `attempt` is raised by whoever found that a transfer of this name had ended before and the
        line lacks the units again (an operator took them out)."""
        again = f"#{attempt}" if attempt else ""
        name = own_name("alloc", campaign_id, sku_id, f"{granted}+{quantity}{again}")
        return await self.move(
            c.TransferOut(
                c.TRANSFER_OUT,
                slot_of_pool("", sku_id),
                deadline_ms,
                OWN_CALLER,
                name,
                sku_id,
                "",
                campaign_id,
                quantity,
                "allocation",
            )
        )

    async def give_back(
        self, *, campaign_id: str, sku_id: str, available: int, granted: int, deadline_ms: int
    ) -> Moved:
        """Leftover units of an ended campaign's line to the SKU's base pool."""
        return await self.move(
            c.TransferOut(
                c.TRANSFER_OUT,
                slot_of_pool(campaign_id, sku_id),
                deadline_ms,
                OWN_CALLER,
                own_name("return", campaign_id, sku_id, str(granted)),
                sku_id,
                campaign_id,
                "",
                available,
                "end of the campaign",
            )
        )

    async def _finish(
        self,
        *,
        slot: int,
        transfer_id: bytes,
        sku_id: str,
        to_campaign_id: str,
        quantity: int,
        deadline_ms: int,
    ) -> bool | None:
        """Steps two and three. Whether the units arrived; None if that is not known in time."""
        entered = await self.ask(
            c.TransferIn(
                c.TRANSFER_IN,
                slot_of_pool(to_campaign_id, sku_id),
                deadline_ms,
                OWN_CALLER,
                transfer_id,
                sku_id,
                to_campaign_id,
                quantity,
            )
        )
        if entered[0] != Outcome.APPLIED:
            return None
        arrived = bool(entered[1])
        # If this one fails, the units are counted at both ends' books as in transit until the
        # chore closes the source's; whether they arrived is certain already.
        await self.ask(
            c.TransferDone(c.TRANSFER_DONE, slot, deadline_ms, OWN_CALLER, transfer_id, arrived)
        )
        return arrived

    async def ask(self, command: Any) -> tuple[Any, ...]:
        """One command, asked again while it is RETRY or UNKNOWN and its deadline has not passed."""
        pause_ms = FIRST_PAUSE_MS
        while True:
            (answer,) = await self._lines.submit([command])
            left_ms = command.deadline_ms - self._now_ms()
            if answer[0] not in WAITING or left_ms <= pause_ms:
                return answer
            await asyncio.sleep(pause_ms / 1_000)
            pause_ms = min(2 * pause_ms, LAST_PAUSE_MS)


def own_name(kind: str, campaign_id: str, sku_id: str, step: str) -> str:
    """The request id of one of the service's own transfers: readable, or if that would be longer
    than an id may be, with a digest in place of the two ids."""
    name = f"{kind}/{campaign_id}/{sku_id}/{step}"
    if len(name) <= ID_LENGTH_MAX:
        return name
    digest = blake2b(f"{len(campaign_id)}:{campaign_id}{sku_id}".encode(), digest_size=16)
    return f"{kind}/{digest.hexdigest()}/{step}"

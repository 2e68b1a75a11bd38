"""Telling the commission programme of freezes: what a frozen distributor earned is held, not lost.

A buyer's freeze is decided in the buyer's account slot, and the programme is another one's. So the
first says what the programme does not know of (a chore, as of `actors/core/chores.py`), and any
gateway tells it and then says that it was told. Both steps are idempotent, and they have an order:
each says as of when, so one that was long on its way, or comes twice, undoes no later one. A hold
ends by itself when its freeze would have. Of a buyer who is no distributor there is nothing to be
told, so whoever becomes one is looked at then (`hold_new`).
"""

from collections.abc import Callable, Sequence
from typing import Any

from actors.core.commission_commands import HOLD_DISTRIBUTOR, HoldDistributor
from actors.core.identity import PROGRAMME_SLOT, account_slot
from actors.core.outcomes import Outcome
from actors.core.risk_commands import GET_PROFILE, HOLD_TOLD, GetProfile, HoldTold
from server.handlers import OWN_CALLER, wall_ms
from server.lines import Lines

Answer = tuple[Any, ...]

TELL_DEADLINE_MS = 5_000
HELD = (Outcome.APPLIED, Outcome.FOUND)
KNOWN = (*HELD, Outcome.NOT_DISTRIBUTOR)
"""What the programme says once it knows: most buyers are no distributors."""


class Holds:
    """Tells what is to be told."""

    def __init__(self, lines: Lines, *, now_ms: Callable[[], int] = wall_ms) -> None:
        self._lines = lines
        self._now_ms = now_ms

    async def finish(self, chore: Sequence[Any]) -> bool:
        """One chore (TELL_HOLD, slot, buyer, until, reason, as of). False if it is to be tried
        again."""
        _, slot, buyer_id, until_ms, reason, as_of_ms = chore
        deadline_ms = self._now_ms() + TELL_DEADLINE_MS
        answer = await self._hold(buyer_id, until_ms, as_of_ms, reason, deadline_ms)
        if answer[0] not in KNOWN:
            return False
        told = HoldTold(HOLD_TOLD, slot, deadline_ms, OWN_CALLER, buyer_id, as_of_ms)
        (answer,) = await self._lines.submit([told])
        return bool(answer[0] == Outcome.NOTED)

    async def hold_new(self, applied: Answer, distributor_id: str, deadline_ms: int) -> Answer:
        """The answer to who applied, after the hold if the buyer was frozen before. It is told of a
        freeze that is over, too: the telling of its beginning may still be on its way, and then
        finds a distributor. UNKNOWN if that cannot be told: who applies again is looked at again.
        """
        slot = account_slot(distributor_id)
        read = GetProfile(GET_PROFILE, slot, deadline_ms, OWN_CALLER, distributor_id)
        (answer,) = await self._lines.submit([read])
        if answer[0] != Outcome.FOUND:
            return (Outcome.UNKNOWN,)
        _, until_ms, _, _, reason, _, _, as_of_ms = answer[1]
        if not as_of_ms:
            return applied
        answer = await self._hold(distributor_id, until_ms, as_of_ms, reason, deadline_ms)
        return (applied[0], answer[1]) if answer[0] in HELD else (Outcome.UNKNOWN,)

    async def _hold(
        self, buyer_id: str, until_ms: int, as_of_ms: int, reason: str, deadline_ms: int
    ) -> Answer:
        hold = HoldDistributor(
            HOLD_DISTRIBUTOR,
            PROGRAMME_SLOT,
            deadline_ms,
            OWN_CALLER,
            buyer_id,
            until_ms,
            as_of_ms,
            reason,
        )
        (answer,) = await self._lines.submit([hold])
        return answer

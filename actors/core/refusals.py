"""Saying no, and remembering it."""

from typing import Any

from actors.core.outcomes import Outcome
from actors.core.records import REQUEST_REFUSED, RequestRefused
from actors.core.state import ShardState, SlotState

RETRY_AFTER_MS = 1_000


def refuse(
    state: ShardState, slot: int, key: bytes, fingerprint: int, outcome: Outcome, *advice: Any
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Answer (outcome, *advice), with the record that remembers it.

    RETRY is no refusal. When the table of refusals is full the answer is RETRY: a shard never
    forgets one early."""
    if outcome is Outcome.RETRY or state.refusal_count >= state.refusal_count_max:
        return (Outcome.RETRY,), ()
    return (outcome, *advice), (RequestRefused(REQUEST_REFUSED, slot, key, fingerprint, outcome),)


def refused_before(slot: SlotState, key: bytes, fingerprint: int) -> Outcome | None:
    """What this request was answered when it was refused, ID_REUSED if that was another request."""
    remembered = slot.refusals.get(key)
    if remembered is None:
        return None
    return Outcome(remembered[1]) if remembered[0] == fingerprint else Outcome.ID_REUSED

"""Taking order facts from the relay: each once, in the order of its source, or not at all.

The mark of a source and what its fact does are journalled in one entry, so whoever asks for the
marks after a kill on either side knows what was done, and goes on from there.
"""

from collections.abc import Callable, Sequence
from typing import Any

from actors.core import facts as f
from actors.core import relay_commands as c
from actors.core.earning import earn
from actors.core.outcomes import Outcome
from actors.core.relay_records import FACT_TAKEN, FactTaken
from actors.core.risk import note
from actors.core.state import NO_MARK, ShardState, SlotState

Decision = tuple[tuple[Any, ...], tuple[Any, ...]]
FactHandler = Callable[[ShardState, SlotState, Any, int], Sequence[Any]]


FACT_HANDLERS: dict[int, FactHandler] = {
    f.ORDER_BOUND: earn,
    f.ORDER_EARNED: earn,
    f.ORDER_REDUCED: earn,
    f.ORDER_DELIVERED: earn,
    f.PAYMENT_FAILED: note,
    f.UNPAID_EXPIRY: note,
    f.ORDER_RETURNED: note,
}
"""Kind of fact -> the records that it makes in its slot."""


def follows(state: ShardState, command: c.TakeFact) -> bool:
    """Whether a fact is the next one of its source, so that it will be taken."""
    mark = state.sources.get(command.source, NO_MARK)
    stands = mark[1:]
    if mark[0] == command.incarnation and stands >= (command.seq, command.fact_index):
        return False
    return stands == (command.after_seq, command.after_index)


def take_fact(state: ShardState, command: c.TakeFact, now_ms: int) -> Decision:
    """(APPLIED), or with the mark that stands: (NOTED, incarnation, seq, index) of a fact that was
    taken before, (OUT_OF_ORDER, incarnation, seq, index) of one that does not follow."""
    mark = state.sources.get(command.source, NO_MARK)
    stands = mark[1:]
    # A journal that was made anew may be numbered below its predecessor's end.
    if mark[0] == command.incarnation and stands >= (command.seq, command.fact_index):
        return (Outcome.NOTED, *mark), ()
    if stands != (command.after_seq, command.after_index):
        return (Outcome.OUT_OF_ORDER, *mark), ()
    taken = FactTaken(
        FACT_TAKEN,
        command.slot,
        command.source,
        command.incarnation,
        command.seq,
        command.fact_index,
    )
    fact = command.fact
    if not fact:
        return (Outcome.APPLIED,), (taken,)
    effect = FACT_HANDLERS[fact.kind](state, state.slot(command.slot), fact, now_ms)
    return (Outcome.APPLIED,), (taken, *effect)


def get_marks(state: ShardState, command: c.GetMarks, now_ms: int) -> Decision:
    """(FOUND, ((source, incarnation, seq, index), ...))."""
    return (Outcome.FOUND, tuple((source, *mark) for source, mark in state.sources.items())), ()

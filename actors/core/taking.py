"""Taking order facts from the relay: each once, in the order of its source, or not at all.

Rules
-----
* A line has many facts. Each is decided when what those before it do is folded: an order earns by
  the binding of the line before it, and entries of the ledger are numbered on.
* The mark of the source and what the facts did are journalled in one entry, so whoever asks for the
  marks after a kill on either side knows what was done, and goes on from there. The mark stands
  behind the last fact that was taken; in the entry it comes before what they did.
* A fact that cannot be taken ends its line: those before it stay taken, the answer says how many
  they are, and the relay goes on from there.
"""

from collections.abc import Callable, Sequence
from typing import Any

from actors.core import facts as f
from actors.core import forgetting_accounts as memory
from actors.core import relay_commands as c
from actors.core.earning import earn
from actors.core.evolve import evolve
from actors.core.outcomes import Outcome, Undecided
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


def take_facts(
    state: ShardState,
    command: c.TakeFacts,
    now_ms: int,
    records: list[Any],
    *,
    recalled: bool = False,
) -> tuple[Any, ...]:
    """Decide facts one after the other, fold what they do and add it to the open entry's records.

    (APPLIED, how many) when all were taken, (RECALL, how many) if the next one is about an order
    that may have left memory; `recalled`: that of the first is back, or never was. With the mark
    that stands: (NOTED, 0, incarnation, seq, index) if all were taken before, (OUT_OF_ORDER, 0,
    incarnation, seq, index) if they do not follow. Undecided, with (INTERNAL, how many), if
    deciding on the next one failed."""
    mark = state.sources.get(command.source, NO_MARK)
    try:
        known, follows = command.were_taken(mark), command.follow(mark)
    except Exception as error:
        raise Undecided((Outcome.INTERNAL, 0)) from error
    if known or not follows:
        return (Outcome.NOTED if known else Outcome.OUT_OF_ORDER, 0, *mark)
    # A journal that was made anew may be numbered below its predecessor's end.
    place = mark[1:] if mark[0] == command.incarnation else NO_MARK[1:]
    effects: list[Any] = []
    taken = 0
    failure: Exception | None = None
    for placed in command.facts:
        back = recalled and not taken
        try:
            effect = _effect(state, placed, place, now_ms, asks=state.forgets and not back)
        except Exception as error:  # noqa: BLE001 - a poison fact must not take the shard with it
            failure = error
            break
        if effect is None:
            break
        # From here on an exception must end the process, as in `act.py`.
        for record in effect:
            evolve(state, record)
        effects.extend(effect)
        place, taken = placed[:2], taken + 1
    if taken:
        of = (command.slot, command.source, command.incarnation)
        stands = FactTaken(FACT_TAKEN, *of, *place)
        evolve(state, stands)
        records.append(stands)
        records.extend(effects)
    if failure is not None:
        raise Undecided((Outcome.INTERNAL, taken)) from failure
    return (Outcome.APPLIED if taken == len(command.facts) else Outcome.RECALL, taken)


def _effect(
    state: ShardState, placed: c.Placed, after: c.Place, now_ms: int, *, asks: bool
) -> Sequence[Any] | None:
    """What a fact does. None: its order may be forgotten, if that is asked at all."""
    seq, index, number, fields = placed
    if (seq, index) <= after:
        raise ValueError(f"a fact at {(seq, index)} after one at {after}")
    if not fields:
        return ()
    slot, fact = state.slot(number), c.made_fact(fields)
    if asks and memory.order_may_be_forgotten(slot, fact):
        return None
    return FACT_HANDLERS[fact.kind](state, slot, fact, now_ms)


def get_marks(state: ShardState, command: c.GetMarks, now_ms: int) -> Decision:
    """(FOUND, ((source, incarnation, seq, index), ...))."""
    return (Outcome.FOUND, tuple((source, *mark) for source, mark in state.sources.items())), ()

"""act(state, command, now, records) -> answer: decide, and fold at once what was decided.

So a primary does with every line. What was decided is folded and added to the records of the open
entry before the next line is looked at.

Rules
-----
* An exception while a command is decided is `Undecided`, which has its answer: nothing of what
  failed was folded. One while a record is folded is a bug, and passes through: nothing of the open
  entry is journalled, and the process must end with it.
* What SQL has of a forgotten row is put back before the command is decided, and stays, whatever
  becomes of the command.
"""

from collections.abc import Sequence
from typing import Any

from actors.core.commands import RECALLED, Recalled
from actors.core.decide import CHANGES_ITS_VIEW, answer_after, decide
from actors.core.evolve import evolve
from actors.core.forgetting import recall
from actors.core.outcomes import Outcome, Undecided
from actors.core.relay_commands import TAKE_FACTS
from actors.core.state import ShardState
from actors.core.taking import take_facts

_INTERNAL = (Outcome.INTERNAL,)


def act(state: ShardState, command: Any, now_ms: int, records: list[Any]) -> tuple[Any, ...]:
    """The answer; its records are folded, and behind those of the open entry. Undecided."""
    kind = command[0]
    if kind == TAKE_FACTS:
        return take_facts(state, command, now_ms, records)
    if kind == RECALLED:
        _bring_back(state, command, records)
        if command.command.kind == TAKE_FACTS:
            return take_facts(state, command.command, now_ms, records, recalled=True)
    try:
        answer, decided = decide(state, command, now_ms)
    except Exception as error:
        raise Undecided(_INTERNAL) from error
    if not decided:
        return answer
    _fold(state, decided, records)
    return answer_after(state, command, answer) if kind in CHANGES_ITS_VIEW else answer


def _bring_back(state: ShardState, command: Recalled, records: list[Any]) -> None:
    try:
        brought = recall(state, command)
    except Exception as error:
        raise Undecided(_INTERNAL) from error
    _fold(state, brought, records)


def _fold(state: ShardState, decided: Sequence[Any], records: list[Any]) -> None:
    for record in decided:
        evolve(state, record)
        records.append(record)

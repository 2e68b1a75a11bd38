"""What the relay asks of an account shard. Part of `commands.py`, whose rules hold here."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from actors.core import facts

TAKE_FACT, GET_MARKS = 100, 101


class TakeFact(NamedTuple):
    """An order fact, or with () none: the source's entries up to (seq, fact_index) have no more for
    this shard. Taken if the shard's mark of the source stands at (after_seq, after_index)."""

    kind: int
    slot: int
    """Of the account that it concerns."""
    deadline_ms: int
    caller: str
    source: int
    """The stock shard."""
    incarnation: str
    """Of its journal."""
    after_seq: int
    after_index: int
    seq: int
    fact_index: int
    """Among the facts of the entry for this shard; ENTRY_END of the last."""
    fact: Any


class GetMarks(NamedTuple):
    """How far this shard has the facts of every source."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str


ENTRY_END = 2**31 - 1
"""Index of a mark that stands behind all facts of its entry."""


def _take_fact(fields: Sequence[Any]) -> TakeFact:
    fact = fields[-1]
    return TakeFact._make((*fields[:-1], facts.MAKE[fact[0]](fact) if fact else fact))


MAKE: dict[int, Callable[[Sequence[Any]], Any]] = {
    TAKE_FACT: _take_fact,
    GET_MARKS: GetMarks._make,
}
"""See `commands.MAKE`."""

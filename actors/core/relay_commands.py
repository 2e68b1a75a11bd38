"""What the relay asks of an account shard. Part of `commands.py`, whose rules hold here."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from actors.core import facts as f
from actors.core.state import Mark

TAKE_FACTS, GET_MARKS = 100, 101

Place = tuple[int, int]
"""Of a fact among those of its source for this shard: its entry, and its index there."""
Placed = tuple[int, int, int, Any]
"""(Entry, index, slot, fact): a fact for the account that it concerns, and its place. The index of
the last of an entry is ENTRY_END. A fact () is none: up to this place there are no more."""


class TakeFacts(NamedTuple):
    """Facts of one source that follow each other, and the first of them the shard's mark of it."""

    kind: int
    slot: int
    """Any of the shard; each fact has its own."""
    deadline_ms: int
    caller: str
    source: int
    """The stock shard."""
    incarnation: str
    """Of its journal."""
    after_seq: int
    after_index: int
    facts: Sequence[Placed]
    """As they travelled: made into facts one by one, so that none fails for another."""

    def first_fact(self) -> Any:
        """The first one, made; () if it is none."""
        return made_fact(self.facts[0][-1])

    def were_taken(self, mark: Mark) -> bool:
        """Whether a shard with this mark has all of them."""
        last = tuple(self.facts[-1][:2])
        return mark[0] == self.incarnation and mark[1:] >= last

    def follow(self, mark: Mark) -> bool:
        """Whether the first is the next one of a shard with this mark."""
        follows = mark[1:] == (self.after_seq, self.after_index)
        return follows and not self.were_taken(mark)


class GetMarks(NamedTuple):
    """How far this shard has the facts of every source."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str


ENTRY_END = 2**31 - 1
"""Index of a mark that stands behind all facts of its entry."""


def made_fact(fields: Sequence[Any]) -> Any:
    """The fact that travelled as these fields; () of none."""
    return f.MAKE[fields[0]](fields) if fields else ()


def fact_slots(line: Sequence[Any]) -> set[int]:
    """The slots of the facts of a TakeFacts that is still an array."""
    return {placed[2] for placed in line[TakeFacts._fields.index("facts")]}


MAKE: dict[int, Callable[[Sequence[Any]], Any]] = {
    TAKE_FACTS: TakeFacts._make,
    GET_MARKS: GetMarks._make,
}
"""See `commands.MAKE`."""

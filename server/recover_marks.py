"""How far account shards have the facts of stock shards, in a recovery.

A recovered stock shard may end before what an account shard has taken of it: those entries are
lost, and their numbers will be given to others. So every mark is moved to the journals that the
recovery makes, and back to where they begin. What a lost entry's fact did stays: it was so once.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from actors.core import state as s
from actors.core.relay_commands import ENTRY_END
from actors.core.relay_records import FACT_TAKEN, FactTaken


class MarkRow(NamedTuple):
    """Of `marks`."""

    slot: int
    generation: int
    seq: int
    shard: int
    source: int
    incarnation: str
    source_seq: int
    source_index: int
    updated_ms: int


def put_mark(state: s.ShardState, row: MarkRow) -> None:
    """As SQL has it."""
    state.sources[row.source] = (row.incarnation, row.source_seq, row.source_index)


def moved_marks(
    states: Sequence[s.ShardState], slots_of: Sequence[int], incarnation: str
) -> Iterator[FactTaken]:
    """A record for every mark, to be journalled by its shard. `incarnation`: of the journals that
    go on where `states` end."""
    for shard, state in enumerate(states):
        for source, (_, seq, index) in sorted(state.sources.items()):
            end = states[source].seq
            place = (seq, index) if seq <= end else (end, ENTRY_END)
            slot = slots_of.index(shard, len(slots_of) // 2)
            yield FactTaken(FACT_TAKEN, slot, source, incarnation, *place)

"""What records of the relay do to an account shard's state. See `evolve.py`."""

from actors.core.relay_records import FactTaken
from actors.core.state import ShardState, SlotState


def fact_taken(state: ShardState, slot: SlotState, record: FactTaken) -> None:
    """The source's facts are here up to this one."""
    state.sources[record.source] = (record.incarnation, record.source_seq, record.fact_index)

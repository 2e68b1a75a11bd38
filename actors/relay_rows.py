"""Records of the relay as SQL rows. See `rows.py`."""

from collections.abc import Sequence

from actors.core.relay_records import FactTaken
from actors.stock_rows import Row

MARKS = "marks"
"""A table of shards, not of slots: `RowBatch` adds which one to its key."""


def fact_taken(record: FactTaken, now_ms: int) -> Sequence[Row]:
    columns = {
        "incarnation": record.incarnation,
        "source_seq": record.source_seq,
        "source_index": record.fact_index,
        "updated_ms": now_ms,
    }
    return [(MARKS, {"source": record.source}, columns)]

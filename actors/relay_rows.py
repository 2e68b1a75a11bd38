"""Marks of the relay as SQL rows. See `rows.py`."""

from typing import Any

from actors.core.relay_records import FactTaken

MARKS = "marks"
"""A table of shards, not of slots: `RowBatch` adds which one to its key."""


def mark(record: FactTaken, now_ms: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Key, without the shard, and other columns of the row that a source's last mark makes."""
    columns = {
        "slot": record.slot,
        "incarnation": record.incarnation,
        "source_seq": record.source_seq,
        "source_index": record.fact_index,
        "updated_ms": now_ms,
    }
    return {"source": record.source}, columns

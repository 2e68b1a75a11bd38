"""What an account shard journals of the relay. Part of `records.py`, whose rules hold here."""

from collections.abc import Callable
from typing import Any, NamedTuple

FACT_TAKEN = 100


class FactTaken(NamedTuple):
    """The shard has all facts of a stock shard (`source`) up to (source_seq, fact_index) of that
    one's journal. What those since the source's mark before this one did is in the records that
    follow, in the order of the facts."""

    kind: int
    slot: int
    source: int
    incarnation: str
    """Of the source's journal."""
    source_seq: int
    fact_index: int


RECORDS: dict[int, Callable[..., Any]] = {FACT_TAKEN: FactTaken}
"""See `records.RECORDS`."""

"""The simulated database keeps the two promises of the port that the simulator rests on."""

import pytest

from actors.projector import project
from persistence.errors import OutcomeUnknown, PositionMoved
from persistence.ports import Entry
from tests.helpers.histories import busy_day
from tests.sim.sink import MemorySink


def batch(first: int, last: int) -> dict[str, object]:
    """A day's entries from one to another, as the projector applies them."""
    entries = busy_day(7).journal[first:last]
    made = project(0, [Entry(seq, 1, "", data) for seq, data in enumerate(entries, first + 1)])
    return {"incarnation": "x", "from_seq": first, "to_seq": made.to_seq, "rows": made.rows}


def test_a_batch_that_starts_elsewhere_changes_nothing() -> None:
    sink = MemorySink()
    sink.apply(0, **batch(0, 10))  # type: ignore[arg-type]
    before = sink.rows("reservations")
    with pytest.raises(PositionMoved):
        sink.apply(0, **batch(0, 20))  # type: ignore[arg-type]
    assert sink.rows("reservations") == before
    assert sink.position(0) == ("x", 10)


def test_older_rows_do_not_overwrite_newer_ones() -> None:
    sink, again = MemorySink(), MemorySink()
    for made in (sink, again):
        made.apply(0, **batch(0, 40))  # type: ignore[arg-type]
    again.places[0] = ("x", 0)
    again.apply(0, **batch(0, 10))  # type: ignore[arg-type]
    for table in sink.tables:
        assert again.rows(table) == sink.rows(table)


def test_a_commit_of_unknown_outcome_is_there_or_is_not() -> None:
    for doubt, position in (("before", ("", 0)), ("after", ("x", 10))):
        sink = MemorySink()
        sink.doubt = lambda doubt=doubt: doubt  # type: ignore[misc]
        with pytest.raises(OutcomeUnknown):
            sink.apply(0, **batch(0, 10))  # type: ignore[arg-type]
        assert sink.position(0) == position

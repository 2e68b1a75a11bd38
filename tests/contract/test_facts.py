"""What SQL keeps of the feed: with its entries, in order, for as long as it is kept; on SQLite and
on a real MariaDB."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from persistence.errors import PositionMoved
from persistence.ports import FactRow
from persistence.sql.sink import SqlSink
from persistence.sql.views import KeptFacts, SqlViews
from tests.helpers.databases import KINDS, empty_database, execute


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return empty_database(request.param, request, tmp_path)


@pytest.fixture
def sink(url: str) -> Iterator[SqlSink]:
    sink = SqlSink(url)
    sink.upgrade()
    yield sink
    sink.close()


@pytest.fixture
def views(url: str) -> Iterator[SqlViews]:
    views = SqlViews(url)
    yield views
    views.close()


def fact(seq: int, size: int = 10) -> FactRow:
    return FactRow(seq, 1_000 * seq, bytes([seq % 256]) * size)


def keep(sink: SqlSink, from_seq: int, to_seq: int, *facts: FactRow, shard: int = 3) -> None:
    sink.apply(
        shard, incarnation="inc", from_seq=from_seq, to_seq=to_seq, rows=[], facts=list(facts)
    )


def kept(views: SqlViews, after_seq: int = 0, rows: int = 100, size: int = 10**6) -> KeptFacts:
    return views.list_facts(3, after_seq=after_seq, rows_max=rows, bytes_max=size)


def test_facts_appear_with_the_position_and_say_how_far_they_go(
    sink: SqlSink, views: SqlViews
) -> None:
    assert kept(views) == KeptFacts((), 0, 0, "")
    keep(sink, 0, 5, fact(2), fact(4))
    keep(sink, 0, 9, fact(7), shard=4)
    assert kept(views) == KeptFacts([fact(2), fact(4)], 5, 0, "inc")
    assert kept(views, after_seq=2) == KeptFacts([fact(4)], 5, 0, "inc")
    assert kept(views, after_seq=5) == KeptFacts([], 5, 0, "inc")


def test_facts_of_a_batch_that_lost_its_place_are_not_kept(sink: SqlSink, views: SqlViews) -> None:
    keep(sink, 0, 5, fact(2))
    with pytest.raises(PositionMoved):
        keep(sink, 0, 7, fact(6))
    assert kept(views).rows == [fact(2)]


def test_a_read_is_bounded_by_rows_and_by_bytes_and_goes_on_where_it_ended(
    sink: SqlSink, views: SqlViews
) -> None:
    rows = [fact(seq, size=1_000) for seq in range(1, 8)]
    keep(sink, 0, 10, *rows)
    for bounds in ({"rows": 2}, {"size": 2_500}, {"rows": 7, "size": 2_000}):
        found: list[FactRow] = []
        at = 0
        for _ in range(4):
            part = kept(views, after_seq=at, **bounds)
            assert len(part.rows) <= 2
            found += part.rows
            at = part.to_seq
        assert (found, at) == (rows, 10)
    # One that is too large by itself is read all the same.
    assert kept(views, size=1).rows == rows[:1]


def test_old_facts_are_removed_in_slices_and_it_is_noted_how_far(
    sink: SqlSink, views: SqlViews
) -> None:
    keep(sink, 0, 10, *(fact(seq) for seq in range(1, 10)))
    keep(sink, 0, 10, fact(1), shard=4)
    assert sink.prune_facts(3, up_to_seq=9, before_ms=1_000, rows_max=100) == 0
    assert kept(views).after_seq == 0
    assert sink.prune_facts(3, up_to_seq=9, before_ms=6_000, rows_max=3) == 3
    assert kept(views) == KeptFacts([fact(seq) for seq in range(4, 10)], 10, 3, "inc")
    assert sink.prune_facts(3, up_to_seq=9, before_ms=6_000, rows_max=3) == 2
    assert sink.prune_facts(3, up_to_seq=9, before_ms=6_000, rows_max=3) == 0
    assert (kept(views).after_seq, kept(views).rows[0]) == (5, fact(6))
    assert views.list_facts(4, after_seq=0, rows_max=9, bytes_max=99).rows == [fact(1)]
    assert sink.prune_facts(5, up_to_seq=9, before_ms=6_000, rows_max=3) == 0


def test_facts_that_somebody_needs_are_removed_no_further_than_said(
    sink: SqlSink, views: SqlViews
) -> None:
    keep(sink, 0, 10, *(fact(seq) for seq in (1, 2, 5, 7)))
    assert sink.prune_facts(3, before_ms=90_000, up_to_seq=0, rows_max=9) == 0
    assert sink.prune_facts(3, before_ms=90_000, up_to_seq=6, rows_max=9) == 3
    assert kept(views) == KeptFacts([fact(7)], 10, 5, "inc")


def test_a_database_of_before_says_that_its_facts_begin_at_its_position(
    sink: SqlSink, views: SqlViews, url: str
) -> None:
    keep(sink, 0, 40)
    execute(url, "DROP TABLE facts")
    execute(url, "ALTER TABLE positions DROP COLUMN facts_after_seq")
    execute(url, "UPDATE alembic_version SET version_num = '0004'")
    sink.upgrade()
    keep(sink, 40, 42, fact(41))
    assert kept(views, after_seq=40) == KeptFacts([fact(41)], 42, 40, "inc")

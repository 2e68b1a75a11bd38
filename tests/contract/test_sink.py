"""The contract of `Sink`, on SQLite and on a real MariaDB."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymysql.cursors import RE_INSERT_VALUES
from sqlalchemy.dialects import mysql

from persistence.errors import (
    NotApplied,
    PositionMoved,
    StorageError,
    WrongRevision,
)
from persistence.ports import DeadLetter, Rows, Sink
from persistence.sql.sink import SqlSink
from persistence.sql.tables import transfers
from persistence.sql.upsert import _compiled
from tests.helpers.databases import (
    KINDS,
    empty_database,
    execute,
    pool_rows,
    reservation_rows,
)

INT64_MAX = 2**63 - 1
AVAILABLE = "SELECT generation, seq, available FROM pools"


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return empty_database(request.param, request, tmp_path)


@pytest.fixture
def sink(url: str) -> Iterator[SqlSink]:
    sink = SqlSink(url)
    sink.upgrade()
    yield sink
    sink.close()


def apply(sink: Sink, from_seq: int, to_seq: int, *rows: Rows, incarnation: str = "inc") -> None:
    sink.apply(3, incarnation=incarnation, from_seq=from_seq, to_seq=to_seq, rows=rows)


def test_rows_and_position_appear_together(sink: SqlSink, url: str) -> None:
    assert sink.position(3) == ("", 0)
    apply(sink, 0, 7, pool_rows((1, 7, 100)))
    assert sink.position(3) == ("inc", 7)
    assert execute(url, AVAILABLE) == [(1, 7, 100)]


def test_an_error_in_the_middle_changes_nothing(sink: SqlSink, url: str) -> None:
    apply(sink, 0, 1, pool_rows((1, 1, 100)))
    bad = reservation_rows({"reservation_id": "r1", "quantity": None})
    with pytest.raises(StorageError) as refused:
        apply(sink, 1, 2, pool_rows((1, 2, 50)), bad)
    assert not refused.value.retriable
    assert sink.position(3) == ("inc", 1)
    assert execute(url, AVAILABLE) == [(1, 1, 100)]
    apply(sink, 1, 2, pool_rows((1, 2, 50)))
    assert execute(url, AVAILABLE) == [(1, 2, 50)]


@pytest.mark.parametrize(
    ("column", "value"), [("quantity", 2**63), ("order_id", "half a pair \ud83d")]
)
def test_a_value_that_cannot_be_stored_is_refused_for_good(
    sink: SqlSink, column: str, value: object
) -> None:
    with pytest.raises(StorageError) as refused:
        apply(sink, 0, 1, reservation_rows({"reservation_id": "r1", column: value}))
    assert not refused.value.retriable
    assert sink.position(3) == ("", 0)


def test_a_replayed_batch_changes_nothing(sink: SqlSink, url: str) -> None:
    batch = (pool_rows((1, 5, 100)), reservation_rows({"reservation_id": "r1", "quantity": 2}))
    apply(sink, 0, 5, *batch)
    before = execute(url, AVAILABLE), execute(url, "SELECT * FROM reservations")
    apply(sink, 5, 6, *batch)
    assert (execute(url, AVAILABLE), execute(url, "SELECT * FROM reservations")) == before


def test_an_equal_sequence_with_other_values_stays_out(sink: SqlSink, url: str) -> None:
    apply(sink, 0, 5, pool_rows((1, 5, 100)))
    apply(sink, 5, 6, pool_rows((1, 5, 99)))
    assert execute(url, AVAILABLE) == [(1, 5, 100)]


@pytest.mark.parametrize(
    ("stored", "sent", "wins"),
    [
        ((1, 5), (1, 6), True),
        ((1, 5), (1, 4), False),
        ((1, 900), (2, 1), True),
        ((2, 1), (1, 900), False),
    ],
)
def test_generation_first_and_sequence_then_decide(
    sink: SqlSink, url: str, stored: tuple[int, int], sent: tuple[int, int], wins: bool
) -> None:
    apply(sink, 0, 1, pool_rows((*stored, 100)))
    apply(sink, 1, 2, pool_rows((*sent, 200)))
    assert execute(url, AVAILABLE) == [(*sent, 200) if wins else (*stored, 100)]


def test_within_a_batch_the_newest_row_of_a_key_wins_in_any_order(sink: SqlSink, url: str) -> None:
    apply(sink, 0, 9, pool_rows((1, 9, 1), (1, 3, 3), (2, 1, 7), (1, 8, 2)))
    assert execute(url, AVAILABLE) == [(2, 1, 7)]


def test_a_partial_row_changes_only_its_own_columns(sink: SqlSink, url: str) -> None:
    apply(sink, 0, 1, reservation_rows({"reservation_id": "r1", "order_id": "o", "quantity": 2}))
    apply(sink, 1, 2, reservation_rows({"reservation_id": "r1", "state": 4, "seq": 2}))
    listed = execute(url, "SELECT order_id, quantity, state, seq FROM reservations")
    assert listed == [("o", 2, 4, 2)]


def test_a_partial_row_may_be_the_first_one_of_its_key(sink: SqlSink, url: str) -> None:
    apply(sink, 0, 1, reservation_rows({"reservation_id": "r1", "state": 4}))
    assert execute(url, "SELECT state, claims_json, paid_minor FROM reservations") == [(4, "", 0)]


def test_whole_and_partial_rows_of_one_table_may_share_a_batch(sink: SqlSink, url: str) -> None:
    whole = reservation_rows({"reservation_id": "r1", "quantity": 2})
    part = reservation_rows({"reservation_id": "r1", "state": 4, "seq": 2})
    apply(sink, 0, 2, whole, part)
    assert execute(url, "SELECT quantity, state FROM reservations") == [(2, 4)]


def test_rows_that_the_guard_would_drop_silently_are_an_error(sink: SqlSink) -> None:
    with pytest.raises(ValueError, match="two rows of pools"):
        apply(sink, 0, 1, pool_rows((1, 1, 5), (1, 1, 6)))
    with pytest.raises(ValueError, match="two rows of reservations"):
        apply(
            sink,
            0,
            1,
            reservation_rows({"reservation_id": "r1", "quantity": 2}),
            reservation_rows({"reservation_id": "r1", "state": 4}),
        )
    assert sink.position(3) == ("", 0)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (Rows(table="positions", columns=("shard",), values=[(1,)]), "no table 'positions'"),
        (Rows(table="nowhere", columns=("x",), values=[(1,)]), "no table 'nowhere'"),
        (Rows(table="skus", columns=("sku_id", "generation"), values=[("s", 1)]), "lack seq"),
        (Rows(table="skus", columns=("color",), values=[("red",)]), "no column color"),
    ],
)
def test_rows_that_no_table_takes_are_an_error(sink: SqlSink, rows: Rows, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        apply(sink, 0, 1, rows)


def test_a_second_consumer_finds_the_position_moved(sink: SqlSink, url: str) -> None:
    other = SqlSink(url)
    apply(sink, 0, 4, pool_rows((1, 4, 100)))
    for from_seq in (0, 3, 5):
        with pytest.raises(PositionMoved) as moved:
            apply(other, from_seq, 9, pool_rows((9, 9, 0)))
        assert moved.value.position == 4
    assert execute(url, AVAILABLE) == [(1, 4, 100)]
    other.close()


def test_another_incarnation_cannot_go_on_from_this_one(sink: SqlSink, url: str) -> None:
    apply(sink, 0, 4, pool_rows((1, 4, 100)))
    for from_seq in (0, 4):
        with pytest.raises(PositionMoved):
            apply(sink, from_seq, 9, pool_rows((9, 9, 0)), incarnation="other")
    assert sink.position(3) == ("inc", 4)
    assert execute(url, AVAILABLE) == [(1, 4, 100)]


def test_a_batch_cannot_begin_where_nothing_was_applied(sink: SqlSink) -> None:
    with pytest.raises(PositionMoved) as moved:
        apply(sink, 3, 4)
    assert moved.value.position == 0


def test_of_two_consumers_at_once_each_step_is_made_by_one(sink: SqlSink, url: str) -> None:
    steps = 30
    made: list[int] = []

    def consume(consumer: SqlSink) -> None:
        while (at := consumer.position(3)[1]) < steps:
            try:
                apply(consumer, at, at + 1, pool_rows((1, at + 1, steps - at)))
            except (PositionMoved, NotApplied):
                continue
            made.append(at)

    rivals = [SqlSink(url) for _ in range(2)]
    threads = [threading.Thread(target=consume, args=(rival,)) for rival in rivals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(made) == list(range(steps))
    assert execute(url, AVAILABLE) == [(1, steps, 1)]
    for rival in rivals:
        rival.close()


def test_shards_keep_positions_of_their_own(sink: SqlSink) -> None:
    sink.apply(0, incarnation="a", from_seq=0, to_seq=2, rows=())
    sink.apply(1, incarnation="b", from_seq=0, to_seq=9, rows=())
    assert (sink.position(0), sink.position(1)) == (("a", 2), ("b", 9))


AGE = "SELECT updated_ms FROM positions"


def dated_rows(seq: int, *times: int) -> Rows:
    """Pools of one entry, each with its time."""
    columns = ("campaign_id", "sku_id", "generation", "seq", "updated_ms")
    values = [("", f"sku {at}", 1, seq, at) for at in times]
    return Rows(table="pools", columns=columns, values=values)


def test_a_view_is_as_old_as_its_youngest_row_however_late_it_came(url: str) -> None:
    sink = SqlSink(url, now_ms=lambda: 5_000)
    sink.upgrade()
    apply(sink, 0, 1, pool_rows((1, 1, 1)))
    assert execute(url, AGE) == [(0,)], "nothing says of when it is"
    apply(sink, 1, 3, dated_rows(3, 700, 900, 800), pool_rows((1, 2, 1), sku_id="x"))
    assert execute(url, AGE) == [(900,)]
    apply(sink, 3, 4, dated_rows(4, 600))
    apply(sink, 4, 9)
    assert (sink.position(3), execute(url, AGE)) == (("inc", 9), [(900,)]), "it never gets older"
    sink.close()


def test_an_empty_batch_that_stays_says_that_the_view_has_all(url: str) -> None:
    now_ms = 5_000
    sink = SqlSink(url, now_ms=lambda: now_ms)
    sink.upgrade()
    apply(sink, 0, 0)
    assert (sink.position(3), execute(url, AGE)) == (("inc", 0), [(5_000,)])
    apply(sink, 0, 7, dated_rows(7, 4_000))
    now_ms = 6_000
    apply(sink, 7, 7)
    apply(sink, 7, 7)
    assert (sink.position(3), execute(url, AGE)) == (("inc", 7), [(6_000,)])
    now_ms = 7_000
    apply(sink, 7, 7, dated_rows(8, 6_500))
    sink.apply(
        3,
        incarnation="inc",
        from_seq=7,
        to_seq=7,
        rows=[],
        dead_letters=[DeadLetter(7, 0, "", b"")],
    )
    assert execute(url, AGE) == [(6_000,)], "a part of a batch says nothing of the rest"
    with pytest.raises(PositionMoved):
        apply(sink, 6, 6)
    assert execute(url, AGE) == [(6_000,)]
    sink.close()


def test_dead_letters_are_kept_with_their_reason(sink: SqlSink, url: str) -> None:
    letters = [
        DeadLetter(seq=5, at=0, reason="no such kind", record=bytes(range(256)) * 400),
        DeadLetter(seq=5, at=1, reason="x" * 5000, record=b""),
    ]
    for at in (0, 5):
        sink.apply(3, incarnation="inc", from_seq=at, to_seq=at + 5, rows=(), dead_letters=letters)
    kept = execute(url, "SELECT shard, seq, idx, reason, record FROM dead_letters ORDER BY idx")
    assert kept == [(3, 5, 0, "no such kind", letters[0].record), (3, 5, 1, "x" * 1024, b"")]


def test_ids_are_equal_only_byte_by_byte(sink: SqlSink, url: str) -> None:
    ids = ["a", "A", "a ", "ä", "a\u0308", "😀", "😁", "%s", "'\\", "a\x00"]
    apply(sink, 0, 1, *(pool_rows((1, 1, n), sku_id=name) for n, name in enumerate(ids)))
    stored = execute(url, "SELECT available, sku_id FROM pools ORDER BY available")
    assert stored == list(enumerate(ids))


def test_the_greatest_numbers_fit(sink: SqlSink, url: str) -> None:
    apply(sink, 0, 1, pool_rows((2**31 - 1, INT64_MAX, -INT64_MAX)))
    apply(sink, 1, INT64_MAX)
    assert execute(url, AVAILABLE) == [(2**31 - 1, INT64_MAX, -INT64_MAX)]
    assert sink.position(3) == ("inc", INT64_MAX)


def test_a_batch_larger_than_a_statement_is_one_transaction(sink: SqlSink, url: str) -> None:
    count = 5_001
    many = [{"reservation_id": f"r{n:05}", "quantity": n} for n in reversed(range(count))]
    apply(sink, 0, 1, reservation_rows(*many))
    (row,) = execute(url, "SELECT COUNT(*), MIN(quantity), MAX(quantity) FROM reservations")
    assert row == (count, 0, count - 1)
    spoilt = [{"reservation_id": f"s{n:05}", "quantity": n} for n in range(count)]
    spoilt[-1]["quantity"] = None
    with pytest.raises(StorageError):
        apply(sink, 1, 2, reservation_rows(*spoilt))
    assert execute(url, "SELECT COUNT(*) FROM reservations") == [(count,)]


def test_a_database_without_tables_says_what_to_run(url: str) -> None:
    sink = SqlSink(url)
    for call in (sink.require_revision, lambda: sink.position(3), lambda: apply(sink, 0, 1)):
        with pytest.raises(WrongRevision, match="stockray db upgrade"):
            call()
    sink.close()


@pytest.mark.parametrize(
    "bad",
    [
        "postgresql://me:secret@host/db",
        "mysql://me:secret@host/db",
        "mysql+pymysql://me:secret@host",
        "sqlite:///relative/path.db",
        "sqlite://",
        "secret",
    ],
)
def test_a_bad_url_names_the_setting_and_no_password(bad: str) -> None:
    with pytest.raises(ValueError, match="setting `database`") as refused:
        SqlSink(bad)
    assert "secret" not in str(refused.value)


def test_an_unreachable_database_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        sink = SqlSink(f"mysql+pymysql://me:secret@{where}/stock", timeout_ms=1_000)
        with pytest.raises(NotApplied, match="setting `database`") as refused:
            sink.position(0)
    assert where in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere" / "tables.db"
    with pytest.raises(NotApplied, match=str(missing)):
        SqlSink(f"sqlite:///{missing}").position(0)


def test_on_mysql_8_an_upsert_is_sent_as_one_statement() -> None:
    """MySQL 8 gets the row alias instead of VALUES(); PyMySQL must still see one INSERT in it."""
    dialect: Any = mysql.dialect(paramstyle="format")
    # What SQLAlchemy sets on its first connection to MySQL 8.0.20 or newer.
    dialect._requires_alias_for_on_duplicate_key = True
    text = _compiled(dialect, transfers, ("transfer_id", "generation", "seq", "state")).text
    assert " AS new ON DUPLICATE KEY UPDATE state = IF(new.generation > " in text
    assert RE_INSERT_VALUES.match(text)

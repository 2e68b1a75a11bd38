"""The migrations against the tables they promise, on SQLite and on a real MariaDB."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import CreateTable

from persistence.errors import NotApplied, WrongRevision
from persistence.ports import FactRow, Rows
from persistence.private import PrivateMariaDB
from persistence.sql.migrate import needed_revision
from persistence.sql.sink import SqlSink
from persistence.sql.tables import buyer_part, metadata, reservations
from persistence.sql.views import SqlViews
from tests.helpers.databases import (
    KINDS,
    database_on,
    empty_database,
    execute,
    pool_rows,
    reservation_rows,
)

OF_ACCOUNTS = (
    "distributors",
    "bonds",
    "commission_rates",
    "commission_orders",
    "commission_entries",
    "statements",
    "withdrawals",
    "risk_profiles",
    "marks",
)
"""In the order in which they are made."""
CUT_OFF_AT = "commission_entries"


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return empty_database(request.param, request, tmp_path)


@pytest.fixture
def sink(url: str) -> Iterator[SqlSink]:
    sink = SqlSink(url)
    yield sink
    sink.close()


def describe(url: str) -> dict[str, Any]:
    """Everything about the tables that could differ."""
    engine = create_engine(url)
    try:
        seen = inspect(engine)
        names = sorted(set(seen.get_table_names()) - {"alembic_version"})
        if engine.dialect.name == "mysql":
            # Its own words, sorted: the order of indexes is of no consequence.
            texts = [execute(url, f"SHOW CREATE TABLE {name}")[0][1] for name in names]
            return {
                name: sorted(line.rstrip(",") for line in text.splitlines())
                for name, text in zip(names, texts, strict=True)
            }
        rows = execute(
            url, "SELECT name, sql FROM sqlite_master WHERE tbl_name <> 'alembic_version'"
        )
        # A column that was added stands without the line break of one that was there at first.
        return {name: sql and " ".join(sql.split()) for name, sql in rows}
    finally:
        engine.dispose()


def test_an_upgrade_from_nothing_reaches_the_needed_revision(sink: SqlSink) -> None:
    needed = needed_revision()
    assert sink.revision() == ("", needed)
    with pytest.raises(WrongRevision, match="no tables yet; run `stockray db upgrade`"):
        sink.require_revision()
    sink.upgrade()
    assert sink.revision() == (needed, needed)
    sink.require_revision()


def test_an_upgrade_run_twice_changes_nothing(sink: SqlSink, url: str) -> None:
    sink.upgrade()
    sink.apply(0, incarnation="i", from_seq=0, to_seq=1, rows=[pool_rows((1, 1, 5))])
    before = describe(url)
    sink.upgrade()
    assert describe(url) == before
    assert sink.position(0) == ("i", 1)


def test_migrations_make_exactly_the_tables_of_the_code(
    request: pytest.FixtureRequest, sink: SqlSink, url: str, tmp_path: Path
) -> None:
    sink.upgrade()
    if url.startswith("sqlite"):
        other = f"sqlite:///{tmp_path / 'other.db'}"
    else:
        other = database_on(request.getfixturevalue("mariadb_server").url)
    engine = create_engine(other)
    metadata.create_all(engine)
    engine.dispose()
    migrated = describe(url)
    assert migrated == describe(other)
    assert set(metadata.tables) <= set(migrated)


def test_an_upgrade_that_was_cut_off_can_be_run_again(sink: SqlSink, url: str) -> None:
    sink.upgrade()
    whole = describe(url)
    drop_index = "DROP INDEX ix_reservations_order"
    execute(url, drop_index if url.startswith("sqlite") else f"{drop_index} ON reservations")
    execute(url, "DROP TABLE refunds")
    execute(url, "DELETE FROM alembic_version")
    assert describe(url) != whole
    sink.upgrade()
    assert describe(url) == whole
    sink.require_revision()


def test_a_database_of_the_first_revision_loses_its_rarely_used_indexes(
    sink: SqlSink, url: str
) -> None:
    sink.upgrade()
    whole = describe(url)
    by_order = "order_id, reserved_ms, reservation_id"
    if url.startswith("sqlite"):
        execute(url, "DROP INDEX ix_reservations_order")
        execute(url, f"CREATE INDEX ix_reservations_order ON reservations ({by_order})")
    execute(url, "CREATE INDEX ix_reservations_id ON reservations (reservation_id)")
    execute(url, "UPDATE alembic_version SET version_num = '0001'")
    assert describe(url) != whole
    with pytest.raises(WrongRevision, match="is at revision 0001"):
        sink.require_revision()
    sink.upgrade()
    assert describe(url) == whole
    sink.require_revision()


def test_a_database_of_before_group_buys_gets_its_tables_and_keeps_its_rows(
    sink: SqlSink, url: str
) -> None:
    sink.upgrade()
    sink.apply(0, incarnation="i", from_seq=0, to_seq=1, rows=[pool_rows((1, 1, 5))])
    whole = describe(url)
    for table in ("teams", "seats"):
        execute(url, f"DROP TABLE {table}")
    execute(url, "UPDATE alembic_version SET version_num = '0003'")
    assert describe(url) != whole
    with pytest.raises(WrongRevision, match="is at revision 0003"):
        sink.require_revision()
    sink.upgrade()
    assert describe(url) == whole
    assert execute(url, "SELECT available FROM pools") == [(5,)]


@pytest.mark.parametrize(
    ("index", "table"),
    [("ix_teams_campaign", "teams"), ("ix_seats_team", "seats"), ("ix_seats_buyer", "seats")],
)
def test_tables_of_group_buys_that_were_cut_off_without_an_index_get_it(
    sink: SqlSink, url: str, index: str, table: str
) -> None:
    sink.upgrade()
    whole = describe(url)
    drop = f"DROP INDEX {index}"
    execute(url, drop if url.startswith("sqlite") else f"{drop} ON {table}")
    execute(url, "UPDATE alembic_version SET version_num = '0003'")
    assert describe(url) != whole
    sink.upgrade()
    assert describe(url) == whole


def test_a_database_of_before_account_shards_gets_its_tables_and_keeps_its_rows(
    sink: SqlSink, url: str
) -> None:
    sink.upgrade()
    whole = describe(url)
    for table in OF_ACCOUNTS:
        execute(url, f"DROP TABLE {table}")
    execute(url, "UPDATE alembic_version SET version_num = '0005'")
    held = {"reservation_id": "r", "buyer_id": "b", "share_code": "code", "paid_minor": 7}
    facts = [FactRow(seq=1, at_ms=5, data=b"told")]
    batch = [pool_rows((1, 1, 5)), reservation_rows(held)]
    sink.apply(0, incarnation="i", from_seq=0, to_seq=1, rows=batch, facts=facts)
    kept = [f"SELECT * FROM {table}" for table in ("pools", "reservations", "facts", "positions")]
    before = [execute(url, read) for read in kept]
    assert all(before)
    with pytest.raises(WrongRevision, match="is at revision 0005"):
        sink.require_revision()
    sink.upgrade()
    assert describe(url) == whole
    assert [execute(url, read) for read in kept] == before
    # As it is when the upgrade was cut off: a table without its indexes, and none of the later.
    for index in metadata.tables[CUT_OFF_AT].indexes:
        drop = f"DROP INDEX {index.name}"
        execute(url, drop if url.startswith("sqlite") else f"{drop} ON {CUT_OFF_AT}")
    for table in OF_ACCOUNTS[OF_ACCOUNTS.index(CUT_OFF_AT) + 1 :]:
        execute(url, f"DROP TABLE {table}")
    execute(url, "UPDATE alembic_version SET version_num = '0005'")
    assert describe(url) != whole
    sink.upgrade()
    assert describe(url) == whole
    entry = ("generation", "seq", "entry_id", "expense_minor")
    earned = Rows(table="commission_entries", columns=entry, values=[(1, 2, 1, -3)])
    sink.apply(0, incarnation="i", from_seq=1, to_seq=2, rows=[earned])
    assert execute(url, "SELECT expense_minor FROM commission_entries") == [(-3,)]


def test_two_upgrades_at_once_take_turns(url: str) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            SqlSink(url).upgrade()
        except BaseException as error:  # noqa: BLE001 - it is looked at by the test's own thread.
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert execute(url, "SELECT version_num FROM alembic_version") == [(needed_revision(),)]


def test_a_database_of_a_newer_release_is_left_alone(sink: SqlSink, url: str) -> None:
    sink.upgrade()
    execute(url, "UPDATE alembic_version SET version_num = '9999'")
    views = SqlViews(url)
    for opened in (sink, views):
        with pytest.raises(WrongRevision, match=r"9999.* a newer release migrated it"):
            opened.require_revision()
    with pytest.raises(WrongRevision, match="newer release"):
        sink.upgrade()
    views.close()


def test_an_upgrade_of_an_unreachable_database_says_where() -> None:
    sink = SqlSink("mysql+pymysql://me:secret@127.0.0.1:1/stock", timeout_ms=1_000)
    with pytest.raises(NotApplied, match=r"127\.0\.0\.1:1 .*setting `database`") as refused:
        sink.upgrade()
    assert "secret" not in str(refused.value)


def test_a_database_that_does_not_exist_is_named(mariadb_server: PrivateMariaDB) -> None:
    url = database_on(mariadb_server.url)
    execute(url, f"DROP DATABASE {url.rsplit('/', 1)[1].split('?')[0]}")
    with pytest.raises(NotApplied, match="Unknown database"):
        SqlSink(url).upgrade()


def test_reservations_are_partitioned_by_buyer_on_a_server(mariadb_server: PrivateMariaDB) -> None:
    url = database_on(mariadb_server.url)
    sink = SqlSink(url)
    sink.upgrade()
    sink.close()
    partitions = execute(
        url,
        "SELECT partition_method, partition_expression FROM information_schema.partitions "
        "WHERE table_schema = DATABASE() AND table_name = 'reservations'",
    )
    assert partitions == [("HASH", "`buyer_part`")] * 16


def test_on_mysql_8_ids_have_a_collation_that_it_knows() -> None:
    """It has no utf8mb4_nopad_bin; that of MariaDB is tested by what it stores."""
    text = str(CreateTable(reservations).compile(dialect=mysql.dialect()))
    assert "utf8mb4_nopad_bin" not in text
    assert "COLLATE utf8mb4_0900_bin" in text
    assert "PARTITION BY HASH(buyer_part)" in text


def test_a_buyers_part_never_changes() -> None:
    """The stored rows lie where this number said; another one would lose them."""
    assert [buyer_part(buyer) for buyer in ("", "buyer-1", "买家", "😀")] == [0, 36, 29, 4]

"""The tables of account shards, written and read on SQLite and on a real MariaDB."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Select

from actors.projector import project
from persistence.ports import Rows
from persistence.sql.dump import SqlDump
from persistence.sql.paging import Page
from persistence.sql.sink import SqlSink
from persistence.sql.tables import buyer_part
from persistence.sql.tables_accounts import metadata as all_tables
from persistence.sql.views import SqlViews
from tests.helpers.databases import (
    KINDS,
    assert_indexed,
    empty_database,
    execute,
    explained,
    reservation_rows,
)
from tests.helpers.histories import (
    INCARNATION,
    follow,
    full_day,
    journal_of,
    verify_view,
    violated,
)

TABLES = (
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
STEPS = 100


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return empty_database(request.param, request, tmp_path)


@pytest.fixture
def sink(url: str) -> Iterator[SqlSink]:
    sink = SqlSink(url)
    sink.upgrade()
    yield sink
    sink.close()


@pytest.fixture(scope="module", params=KINDS)
def shared_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests whose rows do not meet."""
    return empty_database(request.param, request, tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="module")
def shared(shared_url: str) -> Iterator[SqlSink]:
    sink = SqlSink(shared_url)
    sink.upgrade()
    yield sink
    sink.close()


@pytest.fixture(scope="module")
def views(shared: SqlSink, shared_url: str) -> Iterator[SqlViews]:
    views = SqlViews(shared_url)
    yield views
    views.close()


def dump(url: str) -> Mapping[str, list[tuple[Any, ...]]]:
    """All rows of the tables, with all columns."""
    found = {}
    with closing(SqlDump(url)) as source, source.open() as view:
        for table in TABLES:
            columns = [column.name for column in all_tables.tables[table].columns]
            found[table] = sorted(view.rows(table, columns))
    return found


@pytest.fixture(scope="module")
def journals() -> Mapping[int, Any]:
    """Journals of days with everything that an account shard decides, forgets and recalls."""
    return {seed: journal_of(full_day(seed, STEPS).journal) for seed in (8, 10)}


def test_a_history_leaves_the_rows_of_its_fold_in_batches_of_any_size(
    sink: SqlSink, url: str, journals: Mapping[int, Any], tmp_path: Path
) -> None:
    """The same rows on any kind of database."""
    follow(sink, journals[8], batch=3)
    assert violated(verify_view(url, journals[8])) == {}
    other = f"sqlite:///{tmp_path / 'other.db'}"
    with closing(SqlSink(other)) as whole:
        whole.upgrade()
        follow(whole, journals[8], batch=1_000)
    assert dump(url) == dump(other)
    assert [table for table, rows in dump(url).items() if not rows] == []


def test_batches_that_come_again_change_nothing(
    sink: SqlSink, url: str, journals: Mapping[int, Any]
) -> None:
    follow(sink, journals[10], batch=50)
    assert violated(verify_view(url, journals[10])) == {}
    before = dump(url)
    entries = journals[10].read(0, after_seq=0, max_bytes=10**9)
    last = entries[-1].seq
    for upto in (len(entries) // 3, len(entries)):
        again = project(0, entries[:upto]).rows
        sink.apply(0, incarnation=INCARNATION, from_seq=last, to_seq=last, rows=again)
        assert dump(url) == before


def rows(table: str, *found: Mapping[str, Any], seq: int = 1) -> Rows:
    """Rows with the columns of the first."""
    columns = ("generation", "seq", *found[0])
    values = [(1, seq, *row.values()) for row in found]
    return Rows(table=table, columns=columns, values=values)


def put(sink: SqlSink, *batch: Rows) -> None:
    at = sink.position(0)[1]
    sink.apply(0, incarnation="i", from_seq=at, to_seq=at + 1, rows=batch)


CHANGES: Sequence[tuple[str, Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]] = (
    ("distributors", {"distributor_id": "d"}, {"share_code": "c", "state": 3}, {"state": 4}),
    (
        "bonds",
        {"buyer_id": "b", "from_ms": 5, "distributor_id": "d"},
        {"share_code": "c", "until_ms": 8},
        {"until_ms": 9},
    ),
    (
        "commission_orders",
        {"reservation_id": "r"},
        {"base_minor": 700, "returned_quantity": 0},
        {"returned_quantity": 2},
    ),
    ("withdrawals", {"withdrawal_id": "w"}, {"amount_minor": 70, "state": 8}, {"state": 9}),
    ("risk_profiles", {"buyer_id": "b"}, {"whole_ms": 9, "frozen": 0}, {"frozen": 1}),
    (
        "marks",
        {"shard": 3, "source": 1},
        {"incarnation": "i", "source_seq": 4},
        {"source_seq": 5},
    ),
)
"""Table, key, columns of a first change, and those of the next."""


@pytest.mark.parametrize(("table", "key", "whole", "part"), CHANGES, ids=[x[0] for x in CHANGES])
def test_a_later_change_replaces_its_own_columns_and_an_earlier_one_nothing(  # noqa: PLR0917
    shared: SqlSink,
    shared_url: str,
    table: str,
    key: Mapping[str, Any],
    whole: Mapping[str, Any],
    part: Mapping[str, Any],
) -> None:
    (name, value), *_ = key.items()
    where = f"WHERE {name} = {value!r}"
    read = f"SELECT {', '.join([*key, *whole, 'seq'])} FROM {table} {where}"
    put(shared, rows(table, {**key, **whole}, seq=5))
    put(shared, rows(table, {**key, **part}, seq=6))
    wanted = (*key.values(), *{**whole, **part}.values(), 6)
    assert execute(shared_url, read) == [wanted]
    put(shared, rows(table, {**key, **whole}, seq=5))
    put(shared, rows(table, {**key, **whole}, seq=6))
    assert execute(shared_url, read) == [wanted]


NAMES = ["a", "A", "a ", "ä", "a\u0308", "😀", "😁", "%s", "b", "B", "_", "z"]
"""Equal to each other only byte by byte."""


def listed(pages: Iterator[Page], name: str) -> list[Any]:
    return [row[name] for page in pages for row in page.rows]


def walk(query: Any, *, size: int, **wanted: Any) -> Iterator[Page]:
    """All pages of a listing."""
    after = None
    while True:
        page = query(**wanted, page_size=size, after=after)
        assert len(page.rows) <= size
        yield page
        after = page.after
        if after is None:
            return


def test_distributors_are_paged_by_the_bytes_of_their_ids(shared: SqlSink, views: SqlViews) -> None:
    found = [{"distributor_id": name, "state": 1 + (name == "z")} for name in NAMES]
    put(shared, rows("distributors", *found))
    for size in (1, 3, len(NAMES) - 1, 100):
        pages = walk(views.list_distributors, size=size, state=1)
        assert listed(pages, "distributor_id") == sorted(NAMES[:-1], key=str.encode)
    assert listed(walk(views.list_distributors, size=3, state=2), "distributor_id") == ["z"]


def test_entries_are_paged_newest_first_of_one_distributor_and_month(
    shared: SqlSink, views: SqlViews
) -> None:
    found = [
        {
            "entry_id": number,
            "distributor_id": NAMES[number % 2],
            "month": 202311 + number // 14,
            "expense_minor": -number,
        }
        for number in range(1, 40)
    ]
    put(shared, rows("commission_entries", *found))
    for name, month in itertools.product(NAMES[:2], (0, 202311, 202313)):
        mine = [
            row["entry_id"]
            for row in found
            if row["distributor_id"] == name and month in {0, row["month"]}
        ]
        pages = walk(partial(views.list_entries, name), size=4, month=month)
        assert listed(pages, "entry_id") == mine[::-1]
    assert views.list_entries("a ", page_size=4).rows == [], "another id"
    assert (views.has_entry(39), views.has_entry(40)) == (True, False)


def test_statements_are_paged_newest_first_and_found_by_month(
    shared: SqlSink, views: SqlViews
) -> None:
    months = [202311, 202312, *range(202401, 202410)]
    found = [
        {"distributor_id": name, "month": month, "closing_minor": -month}
        for name in ("a", "A")
        for month in months
    ]
    put(shared, rows("statements", *found))
    pages = walk(partial(views.list_statements, "a"), size=4)
    assert listed(pages, "month") == months[::-1]
    made = views.get_statement("A", 202312)
    assert made is not None
    assert (made["distributor_id"], made["closing_minor"]) == ("A", -202312)
    assert views.get_statement("a", 202310) is None


def test_withdrawals_of_one_instant_are_each_on_one_page(shared: SqlSink, views: SqlViews) -> None:
    found = [
        {
            "withdrawal_id": f"w{number * 7919 % 100:02}",
            "distributor_id": NAMES[number % 2],
            "state": 1 + number % 3,
            "requested_ms": number // 6,
        }
        for number in range(60)
    ]
    put(shared, rows("withdrawals", *found))
    for state, name in itertools.product((1, 2, 3), ("", "a", "A")):
        mine = [
            (row["requested_ms"], row["withdrawal_id"])
            for row in found
            if row["state"] == state and name in {"", row["distributor_id"]}
        ]
        pages = list(walk(views.list_withdrawals, size=4, state=state, distributor_id=name))
        seen = [(row["requested_ms"], row["withdrawal_id"]) for page in pages for row in page.rows]
        assert seen == sorted(mine, reverse=True)


def order(name: str, **changes: Any) -> dict[str, Any]:
    """A reservation of a sale that was paid with 300."""
    fields = {
        "reservation_id": name,
        "buyer_id": f"buyer of {name}",
        "campaign_id": "sale",
        "share_code": "one",
        "channel": "web",
        "paid_minor": 300,
        "currency_code": "CNY",
        "confirmed_ms": 5,
    }
    return fields | changes


def seat(name: str, **changes: Any) -> dict[str, Any]:
    part = buyer_part(f"buyer of {name}")
    fields = {"buyer_part": part, "reservation_id": name, "team_id": "t"}
    return fields | {"settled_minor": 0, "settled_ms": 0} | changes


def brought(name: str, commission_minor: int) -> dict[str, Any]:
    """An order by a distributor, with what all levels have of it."""
    return {"reservation_id": name, "commission_minor": commission_minor}


FUNNEL = (
    "share_code",
    "channel",
    "distributor_id",
    "seckill_reservations",
    "seckill_confirmed",
    "group_reservations",
    "group_confirmed",
    "amount_minor",
    "commission_minor",
)


def funnel(views: SqlViews, **asked: Any) -> list[tuple[Any, ...]]:
    """Its rows; a sum may come as a decimal."""
    found: Sequence[Mapping[str, Any]] = views.funnel("sale", **{"rows_max": 10, **asked})
    return [
        (*[row[name] for name in FUNNEL[:3]], *[int(row[n]) for n in FUNNEL[3:]]) for row in found
    ]


def test_a_funnel_adds_up_what_each_code_and_channel_brought(
    shared: SqlSink, views: SqlViews
) -> None:
    put(
        shared,
        reservation_rows(
            order("r1"),
            order("r2", confirmed_ms=0, paid_minor=0),
            order("r3", channel="app"),
            order("r4"),
            order("r5"),
            order("r6", share_code="One"),
            order("r7", share_code=""),
            order("r8", campaign_id="other"),
        ),
        # Of r4 a part was paid back when its team had formed; the team of r5 is forming.
        rows(
            "seats",
            seat("r4", settled_minor=40, settled_ms=7),
            seat("r5"),
        ),
        rows("distributors", {"distributor_id": "dot", "share_code": "one"}),
        rows(
            "commission_orders",
            brought("r1", 35),
            brought("r4", 26),
            brought("r8", 999),
        ),
    )
    app = ("one", "app", "dot", 1, 1, 0, 0, 300, 0)
    web = ("one", "web", "dot", 2, 1, 2, 1, 300 + 260, 35 + 26)
    nobody = ("One", "web", "", 1, 1, 0, 0, 300, 0)
    assert funnel(views) == [nobody, app, web]
    assert funnel(views, channel="app") == [app]
    assert funnel(views, distributor_id="dot") == [app, web]
    assert funnel(views, distributor_id="DOT") == []
    assert funnel(views, rows_max=2) == [nobody, app]


def test_every_query_of_accounts_walks_an_index(
    views: SqlViews, shared_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries: list[Select[Any]] = []
    monkeypatch.setattr(views, "_rows", lambda query: queries.append(query) or [])
    views.list_distributors(state=1, after=("d",))
    views.has_entry(5)
    views.list_entries("d", after=(9,))
    views.list_entries("d", month=202311, after=(9,))
    views.get_statement("d", 202311)
    views.list_statements("d", after=(202311,))
    views.list_withdrawals(state=1, after=(9, "w"))
    views.list_withdrawals(state=1, distributor_id="d", after=(9, "w"))
    for query in queries:
        assert "SCAN" not in assert_indexed(shared_url, query)
    assert len(queries) == 9, "of which one finds the month from which entries go on"


def test_the_funnel_finds_what_an_order_earned_by_its_key(
    views: SqlViews, shared_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row for each order of a campaign, not one for each entry."""
    queries: list[Select[Any]] = []
    monkeypatch.setattr(views, "_rows", queries.append)
    views.funnel("c1", rows_max=10)
    steps = explained(shared_url, *queries)
    if shared_url.startswith("sqlite"):
        walks = [step[3] for step in steps if step[3].startswith(("SEARCH", "SCAN"))]
        walks.remove("SCAN parts")  # A row for each share code and channel.
        assert all(walk.startswith("SEARCH ") and " INDEX " in walk for walk in walks), walks
        (walk,) = (walk for walk in walks if "commission_" in walk)
        assert walk.startswith("SEARCH commission_orders ")
        assert walk.endswith("(reservation_id=?)")
        return
    (row,) = (row for row in steps if str(row[2]).startswith("commission_"))
    assert (row[2], row[3], row[5]) == ("commission_orders", "eq_ref", "PRIMARY")

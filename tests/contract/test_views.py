"""The read side over the rows that the sink wrote, on SQLite and on a real MariaDB."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Select

from persistence.errors import NotApplied, WrongRevision
from persistence.ports import Rows
from persistence.sql.paging import Page
from persistence.sql.sink import SqlSink
from persistence.sql.tables import buyer_part
from persistence.sql.views import RefundFilter, ReservationFilter, ShardPosition, SqlViews
from tests.helpers.databases import (
    KINDS,
    assert_indexed,
    empty_database,
    reservation_rows,
)

COUNT = 240
BASE_MS = 1_700_000_000_000


def reservation(n: int) -> dict[str, Any]:
    """Every fourth shares its time with three others, so that a page must break ties by id."""
    return {
        "reservation_id": f"r{n * 7919 % 1000:04}",
        "buyer_id": f"buyer {n % 6}",
        "campaign_id": f"campaign {n % 4}",
        "sku_id": f"sku {n % 3}",
        "order_id": f"order {n}" if n % 2 else "",
        "state": n % 5,
        "reserved_ms": BASE_MS + n // 4,
    }


ALL = [reservation(n) for n in range(COUNT)]


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return empty_database(request.param, request, tmp_path)


@pytest.fixture
def sink(url: str) -> Iterator[SqlSink]:
    sink = SqlSink(url, now_ms=lambda: BASE_MS)
    sink.upgrade()
    sink.apply(0, incarnation="i", from_seq=0, to_seq=1, rows=[reservation_rows(*ALL)])
    yield sink
    sink.close()


@pytest.fixture
def views(sink: SqlSink, url: str) -> Iterator[SqlViews]:
    views = SqlViews(url)
    views.require_revision()
    yield views
    views.close()


def ids(page: Page) -> list[str]:
    return [row["reservation_id"] for row in page.rows]


def expected(**wanted: Any) -> list[str]:
    found = [row for row in ALL if all(row[name] == value for name, value in wanted.items())]
    found.sort(key=lambda row: (row["reserved_ms"], row["reservation_id"]))
    return [row["reservation_id"] for row in found]


FILTERS: list[dict[str, Any]] = [
    {"buyer_id": "buyer 2"},
    {"campaign_id": "campaign 1"},
    {"sku_id": "sku 2"},
    {"order_id": "order 7"},
    {"state": 0},
    {"buyer_id": "buyer 3", "state": 1},
    {"campaign_id": "campaign 1", "sku_id": "sku 0", "state": 3},
]


@pytest.mark.parametrize("wanted", FILTERS, ids="+".join)
@pytest.mark.parametrize("newest_first", [False, True])
def test_pages_list_every_match_once_and_in_order(
    views: SqlViews, wanted: dict[str, Any], newest_first: bool
) -> None:
    listed: list[str] = []
    after: tuple[Any, ...] | None = None
    while True:
        page = views.list_reservations(
            ReservationFilter(**wanted), page_size=3, after=after, newest_first=newest_first
        )
        assert len(page.rows) <= 3
        listed += ids(page)
        if page.after is None:
            break
        after = page.after
    want = expected(**wanted)
    assert want
    assert listed == (want[::-1] if newest_first else want)


def test_a_time_range_includes_its_start_and_not_its_end(views: SqlViews) -> None:
    wanted = ReservationFilter(state=0, from_ms=BASE_MS + 5, to_ms=BASE_MS + 10)
    found = {row["reserved_ms"] for row in views.list_reservations(wanted).rows}
    times = {row["reserved_ms"] for row in ALL if row["state"] == 0}
    assert found == {at for at in times if BASE_MS + 5 <= at < BASE_MS + 10}
    assert BASE_MS + 5 in found


def test_a_last_page_that_is_just_full_is_known_to_be_the_last(views: SqlViews) -> None:
    count = len(expected(buyer_id="buyer 2"))
    page = views.list_reservations(ReservationFilter(buyer_id="buyer 2"), page_size=count)
    assert (len(page.rows), page.after) == (count, None)


def test_a_row_written_between_two_pages_shifts_nothing(sink: SqlSink, views: SqlViews) -> None:
    wanted = ReservationFilter(buyer_id="buyer 2")
    first = views.list_reservations(wanted, page_size=5)
    early = reservation(2) | {"reservation_id": "early", "reserved_ms": BASE_MS - 1}
    sink.apply(0, incarnation="i", from_seq=1, to_seq=2, rows=[reservation_rows(early)])
    second = views.list_reservations(wanted, page_size=5, after=first.after)
    assert ids(first) + ids(second) == expected(buyer_id="buyer 2")[:10]


def test_a_buyer_sees_only_rows_whose_id_is_exactly_theirs(views: SqlViews) -> None:
    for other in ("BUYER 2", "buyer 2 ", "buyer"):
        assert views.list_reservations(ReservationFilter(buyer_id=other)).rows == []


@pytest.mark.parametrize("wanted", [ReservationFilter(), ReservationFilter(from_ms=1, to_ms=2)])
def test_a_listing_without_an_indexed_filter_is_refused(
    views: SqlViews, wanted: ReservationFilter
) -> None:
    with pytest.raises(ValueError, match="give a buyer, campaign, SKU, order, team or state"):
        views.list_reservations(wanted)


@pytest.mark.parametrize("page_size", [0, 1_001])
def test_a_page_size_out_of_bounds_is_refused(views: SqlViews, page_size: int) -> None:
    with pytest.raises(ValueError, match="page_size must be 1 to 1000"):
        views.list_reservations(ReservationFilter(state=0), page_size=page_size)


def test_a_reservation_is_found_by_its_id(views: SqlViews) -> None:
    found = views.get_reservation(ALL[7]["reservation_id"])
    assert found is not None
    assert {name: found[name] for name in ALL[7]} == ALL[7]
    assert views.get_reservation("never made") is None


def test_refunds_are_listed_soonest_due_first(sink: SqlSink, views: SqlViews) -> None:
    columns = ("refund_id", "generation", "seq", "state", "due_ms", "campaign_id", "buyer_id")
    values = [
        (f"f{n}", 1, 1, n % 2, 1_000 - n, f"sale {n % 3}", f"buyer {n % 4}") for n in range(10)
    ]
    rows = Rows(table="refunds", columns=columns, values=values)
    sink.apply(0, incarnation="i", from_seq=1, to_seq=2, rows=[rows])
    due = RefundFilter(state=1)
    first = views.list_refunds(due, page_size=3)
    assert [row["refund_id"] for row in first.rows] == ["f9", "f7", "f5"]
    rest = views.list_refunds(due, page_size=3, after=first.after)
    assert ([row["refund_id"] for row in rest.rows], rest.after) == (["f3", "f1"], None)
    cases = [
        (RefundFilter(state=1, due_before_ms=993), ["f9"]),
        (RefundFilter(state=1, campaign_id="sale 0"), ["f9", "f3"]),
        (RefundFilter(state=1, campaign_id="sale 0", buyer_id="buyer 1"), ["f9"]),
        (RefundFilter(state=0, buyer_id="buyer 1"), []),
    ]
    for wanted, found in cases:
        assert [row["refund_id"] for row in views.list_refunds(wanted).rows] == found


def test_stock_is_listed_by_pool(sink: SqlSink, views: SqlViews) -> None:
    columns = ("campaign_id", "sku_id", "generation", "seq", "available")
    values = [(c, s, 1, 1, 5) for c in ("", "c1", "c2") for s in ("s1", "s2")]
    rows = Rows(table="pools", columns=columns, values=values)
    sink.apply(0, incarnation="i", from_seq=1, to_seq=2, rows=[rows])

    def pools(page: Page) -> list[tuple[str, str]]:
        return [(row["campaign_id"], row["sku_id"]) for row in page.rows]

    first = views.list_stock(page_size=4)
    assert pools(first) == [("", "s1"), ("", "s2"), ("c1", "s1"), ("c1", "s2")]
    assert pools(views.list_stock(after=first.after)) == [("c2", "s1"), ("c2", "s2")]
    assert pools(views.list_stock(sku_id="s2")) == [("", "s2"), ("c1", "s2"), ("c2", "s2")]
    assert pools(views.list_stock(campaign_id="")) == [("", "s1"), ("", "s2")]
    assert views.list_stock(campaign_id="c2", sku_id="s1").rows[0]["available"] == 5


def test_campaigns_are_listed_by_state(sink: SqlSink, views: SqlViews) -> None:
    columns = ("campaign_id", "generation", "seq", "state", "config_json")
    config = '{"name": "' + "😀" * 50_000 + '"}'
    values = [(f"c{n}", 1, 1, n % 2, config) for n in range(4)]
    rows = Rows(table="campaigns", columns=columns, values=values)
    sink.apply(0, incarnation="i", from_seq=1, to_seq=2, rows=[rows])
    assert [row["campaign_id"] for row in views.list_campaigns(state=1).rows] == ["c1", "c3"]
    first = views.list_campaigns(page_size=3)
    rest = views.list_campaigns(page_size=3, after=("c2",))
    assert first.after == ("c2",)
    assert [row["campaign_id"] for row in rest.rows] == ["c3"]
    assert rest.rows[0]["config_json"] == config


@pytest.fixture
def with_teams(sink: SqlSink) -> None:
    """Team t1 with a paid seat, an unpaid one of a new buyer, and one that expired."""
    columns = ("team_id", "generation", "seq", "campaign_id", "state", "opened_ms")
    teams = [(f"t{n}", 1, 1, "c1", 1 + n % 2, 1_000 + n // 2) for n in range(6)]
    seats = (
        *("buyer_part", "reservation_id", "generation", "seq", "team_id", "buyer_id"),
        *("new_buyer", "settled_minor", "joined_ms"),
    )
    held = [
        {"reservation_id": "x1", "buyer_id": "ann", "state": 2, "payment_id": "p1"},
        {"reservation_id": "x2", "buyer_id": "bob", "state": 1, "payment_id": ""},
        {"reservation_id": "x3", "buyer_id": "cat", "state": 3, "payment_id": ""},
    ]
    values = [
        (buyer_part(buyer), name, 1, 1, "t1", buyer, new, settled, joined_ms)
        for name, buyer, new, settled, joined_ms in (
            ("x1", "ann", 0, 7, 30),
            ("x2", "bob", 1, 0, 20),
            ("x3", "cat", 1, 0, 10),
        )
    ]
    rows = [
        Rows(table="teams", columns=columns, values=teams),
        Rows(table="seats", columns=seats, values=values),
        reservation_rows(*held),
    ]
    sink.apply(0, incarnation="i", from_seq=1, to_seq=2, rows=rows)


@pytest.mark.usefixtures("with_teams")
def test_teams_of_a_state_are_listed_newest_first(views: SqlViews) -> None:
    first = views.list_teams(campaign_id="c1", state=2, page_size=2, newest_first=True)
    assert [row["team_id"] for row in first.rows] == ["t5", "t3"]
    rest = views.list_teams(campaign_id="c1", state=2, after=first.after, newest_first=True)
    assert ([row["team_id"] for row in rest.rows], rest.after) == (["t1"], None)
    assert views.list_teams(campaign_id="c2", state=2).rows == []
    found = views.get_team("t4")
    assert found is not None
    assert (found["opened_ms"], views.get_team("t9")) == (1_002, None)


@pytest.mark.usefixtures("with_teams")
def test_seats_are_read_with_their_reservations(views: SqlViews) -> None:
    seats = views.list_seats("t1")
    assert [(row["buyer_id"], row["state"], row["payment_id"]) for row in seats] == [
        ("cat", 3, ""),
        ("bob", 1, ""),
        ("ann", 2, "p1"),
    ]
    counted = views.count_seats(["t1", "t2"], [1, 2])
    told = {(row["team_id"], row["state"]): (row["seats"], row["new_buyers"]) for row in counted}
    assert told == {("t1", 1): (1, 1), ("t1", 2): (1, 0)}
    listed = views.list_reservations(ReservationFilter(team_id="t1"), page_size=2)
    rest = views.list_reservations(ReservationFilter(team_id="t1"), after=listed.after)
    assert ids(listed) + ids(rest) == ["x1", "x2", "x3"]
    assert {row["team_id"] for row in listed.rows} == {"t1"}
    assert ids(views.list_reservations(ReservationFilter(team_id="t1", state=3))) == ["x3"]
    with pytest.raises(ValueError, match="at most 1000 teams"):
        views.count_seats(["t"] * 1_001, [1])


@pytest.mark.usefixtures("with_teams")
def test_a_reservation_says_whether_it_is_a_seat(views: SqlViews) -> None:
    names = ("team_id", "new_buyer", "settled_minor", "joined_ms")
    for reservation_id, seat in (("x1", ("t1", 0, 7, 30)), ("r0000", ("", 0, 0, 0))):
        found = views.get_reservation(reservation_id)
        assert found is not None
        assert tuple(found[name] for name in names) == seat


def test_positions_tell_the_age_of_the_view(sink: SqlSink, views: SqlViews) -> None:
    columns = ("campaign_id", "sku_id", "generation", "seq", "updated_ms")
    rows = Rows(table="pools", columns=columns, values=[("", "a", 1, 9, 70), ("", "b", 1, 9, 90)])
    sink.apply(4, incarnation="j", from_seq=0, to_seq=9, rows=[rows])
    sink.apply(0, incarnation="i", from_seq=1, to_seq=1, rows=[])
    assert views.positions() == [
        ShardPosition(shard=0, incarnation="i", seq=1, updated_ms=BASE_MS),
        ShardPosition(shard=4, incarnation="j", seq=9, updated_ms=90),
    ]


def test_every_query_walks_an_index(
    views: SqlViews, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries: list[Select[Any]] = []

    def record(query: Select[Any]) -> list[Any]:
        queries.append(query)
        return []

    monkeypatch.setattr(views, "_rows", record)
    for wanted in FILTERS:
        after = (BASE_MS, "r0001")
        views.list_reservations(ReservationFilter(**wanted, from_ms=1), after=after)
        views.list_reservations(ReservationFilter(**wanted), after=after, newest_first=True)
    views.get_reservation("r")
    refund_filters = ("buyer_id", "campaign_id", "reservation_id", "payment_id")
    for name in refund_filters:
        views.list_refunds(RefundFilter(state=1, **{name: "x"}), after=(1, "f"))
    views.list_refunds(RefundFilter(state=1, due_before_ms=9), after=(1, "f"))
    views.list_stock(sku_id="s", after=("c", "s"))
    views.list_stock(campaign_id="c")
    views.list_campaigns(state=1, after=("c",))
    views.list_reservations(ReservationFilter(team_id="t", state=1), after=(1, "r"))
    views.get_campaign("c")
    views.get_team("t")
    views.list_teams(campaign_id="c", state=1, after=(1, "t"), newest_first=True)
    views.list_seats("t")
    views.count_seats(["t", "u"], [1, 2])
    assert len(queries) == 2 * len(FILTERS) + len(refund_filters) + 11
    for query in queries:
        steps = assert_indexed(url, query)
        for name in refund_filters:
            if f"refunds.{name} = " in str(query) and url.startswith("sqlite"):
                assert f"{name}=?" in steps, "it walks the index of its own id"


def test_many_threads_may_ask_at_once(sink: SqlSink, url: str) -> None:
    views = SqlViews(url, connections=2)

    def ask(n: int) -> list[str]:
        return ids(views.list_reservations(ReservationFilter(buyer_id=f"buyer {n % 6}")))

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, range(48)))
    assert answers == [expected(buyer_id=f"buyer {n % 6}") for n in range(48)]
    views.close()


def test_a_database_without_tables_says_what_to_run(url: str) -> None:
    views = SqlViews(url)
    for call in (views.require_revision, views.positions):
        with pytest.raises(WrongRevision, match="stockray db upgrade"):
            call()
    views.close()


def test_an_unreachable_database_is_named() -> None:
    views = SqlViews("mysql+pymysql://me:secret@127.0.0.1:1/stock", timeout_ms=500)
    with pytest.raises(NotApplied, match=r"127\.0\.0\.1:1 .*setting `database`"):
        views.positions()

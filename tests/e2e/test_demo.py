"""The main job, as anybody runs it: a sale through a kill, and books that balance."""

import json
from typing import Any

import pytest

from persistence.private import PrivateMariaDB, PrivateRedis
from tests.helpers.services import require
from tests.helpers.stack import stockray

KEYS = {
    "sold",
    "refused",
    "retried",
    "oversold",
    "acked_lost",
    "applied_twice",
    "balanced",
    "kills",
    "failover_gap_ms",
    "rate_per_s",
    "p50_ms",
    "p99_ms",
    "p99_9_ms",
}
TEAM_KEYS = {"teams_formed", "teams_failed", "stranded_minor"}
UNITS = 1_000
GAP_MAX_MS = 2_500
"""A gateway that dies with the primary takes longer to come back."""


@pytest.mark.parametrize(
    ("flags", "stores"),
    [
        ((), ("SQLite files", "SQLite")),
        # Both sales of the distributors below are on these.
        pytest.param(
            ("--private-services",), ("Redis", "MySQL / MariaDB"), marks=pytest.mark.extended
        ),
    ],
    ids=["embedded", "cluster"],
)
def test_the_demo_balances_its_books_through_a_kill(
    flags: tuple[str, ...], stores: tuple[str, str]
) -> None:
    if flags:
        require(PrivateRedis.available() and PrivateMariaDB.available(), "Redis, MariaDB missing")
    done = stockray("demo", "--buyers", "5000", "--units", str(UNITS), "-o", "json", *flags)
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-4_000:]
    books = json.loads(done.stdout)
    assert books.keys() >= KEYS
    assert (books["journal"], books["database"]) == stores
    assert books["balanced"] is True
    assert (books["oversold"], books["acked_lost"], books["applied_twice"]) == (0, 0, 0)
    assert books["kills"] == 1
    assert UNITS // 2 < books["sold"] <= UNITS, "the sale must have sold out, or nearly so"
    assert books["refused"] > 0
    assert books["retried"] > 0
    assert 0 < books["failover_gap_ms"] < GAP_MAX_MS
    assert 0 < books["p50_ms"] <= books["p99_ms"] <= books["p99_9_ms"]
    for report in (books["live"], books["stopped"]):
        assert all(found["violations"] == 0 for found in report["invariants"].values())
        assert all(found["checked"] > 0 for found in report["invariants"].values())


def check_teams(books: Any) -> None:
    """The group-buy of a demo, in which all that can become of a payment did."""
    assert books.keys() >= KEYS | TEAM_KEYS
    assert books["balanced"] is True
    assert books["stranded_minor"] == 0
    assert books["teams_formed"] > 0
    assert books["teams_failed"] > 0
    found = books["group_buy"]
    assert found["kills"] == 1
    assert found["paid_minor"] == found["kept_minor"] + found["refund_due_minor"]
    assert found["kept_minor"] > 0
    assert found["refund_due_minor"] > 0
    assert found["late_payments"]["pay after the end: REFUND_DUE"] > 0
    assert found["statuses"]["TEAM_FULL"] + found["statuses"]["NEW_BUYERS_ONLY"] > 0
    assert found["statuses"]["leave LEFT"] > 0
    for report in (books["live"], books["stopped"]):
        tea = [pool for pool in report["pools"] if pool["campaign_id"] == "tea-together"]
        assert sum(pool["sold"] for pool in tea) == found["units_sold"]


@pytest.mark.extended
def test_a_group_buy_through_a_kill_ends_in_the_same_books() -> None:
    """Without distributors; with them it is below."""
    small = ("--buyers", "3000", "--units", str(UNITS), "-o", "json")
    done = stockray("demo", "--with-teams", *small, timeout_s=240)
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-4_000:]
    books = json.loads(done.stdout)
    assert books["kills"] == 1
    check_teams(books)


@pytest.mark.parametrize(
    "flags",
    [pytest.param((), marks=pytest.mark.extended), ("--private-services",)],
    ids=["embedded", "cluster"],
)
def test_distributors_bring_both_sales_and_each_cent_of_theirs_is_in_the_ledger(
    flags: tuple[str, ...],
) -> None:
    if flags:
        require(PrivateRedis.available() and PrivateMariaDB.available(), "Redis, MariaDB missing")
    small = ("--buyers", "3000", "--units", str(UNITS), "-o", "json")
    done = stockray("demo", "--integrated", *flags, *small, timeout_s=240)
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-4_000:]
    books = json.loads(done.stdout)
    assert books.keys() >= {"ledger_sum_minor", "statements_reconcile"}
    check_teams(books)
    assert books["statements_reconcile"] is True
    assert (books["oversold"], books["stranded_minor"], books["ledger_sum_minor"]) == (0, 0, 0)
    assert books["killed"][1:] == ["the primary of the accounts", "the relay"]
    found = books["commission"]
    assert not found["problems"]
    assert set(found["funnel"]) == {"flash-sale", "evening-sale", "tea-together"}
    assert all(total["commission_minor"] > 0 for total in found["funnel"].values())
    balances = found["balances"]
    assert (
        min(balances["frozen_minor"], balances["available_minor"], balances["paid_out_minor"]) > 0
    )
    assert sum(balances.values()) == 0
    assert min(line["closing_minor"] for line in found["statements"]) < 0, "a debt"
    assert found["sale"]["confirmed"] > 0

"""The benchmark, as anybody runs it: all its rows, and books that balance. Its numbers are not
judged here: a test's machine is nobody's measure."""

import json
import shutil

import pytest

from persistence.private import PrivateMariaDB, PrivateRedis
from tests.helpers.services import require
from tests.helpers.stack import stockray

ROWS = {
    "echo_grpcio_8",
    "echo_grpcio_16",
    "echo_nghttp2_8",
    "echo_nghttp2_16",
    "grab_unary_1",
    "grab_unary_8",
    "grab_unary_16",
    "grab_aio",
    "grab_many",
    "join_team_8",
    "join_many",
    "client_gathered",
    "accrual",
}
RATIOS = {
    "grab_to_echo",
    "grab_many_to_echo",
    "join_to_grab",
    "join_many_to_grab_many",
    "client_to_echo",
    "grab_to_echo_8",
    "grab_to_echo_16",
    "echo_nghttp2_to_echo_8",
    "echo_nghttp2_to_echo_16",
}
WAITING = {"RETRY", "UNKNOWN"}
"""What a journal that a busy machine slows down may answer: neither a sale nor a refusal."""
SMALL = (
    *("--seconds", "0.5", "--callers", "8", "--crowd", "16", "--many-lines", "50"),
    *("--accrual-orders", "400", "-o", "json"),
)
FOLLOWED = {"relay", "accounts", "accounts_standby"}


@pytest.mark.parametrize(
    ("flags", "named", "roles"),
    [
        (
            (
                *("--kills", "1", "--cold-starts", "1", "--shards", "2"),
                *("--idle-connections", "50", "--open-reservations", "500"),
            ),
            ROWS,
            set(),
        ),
        pytest.param(
            ("--tls", "--gateways", "2", "--generators", "2", "--repeats", "3", "--rows", "grab"),
            {name for name in ROWS if name.startswith("grab")},
            set(),
            marks=pytest.mark.extended,
        ),
        pytest.param(
            ("--private-services", "--front", "grpcio", "--rows", "grab_unary_8,client"),
            {"grab_unary_8", "client_gathered"},
            {"journal"},
            marks=pytest.mark.extended,
        ),
    ],
    ids=["embedded", "tls", "cluster"],
)
def test_the_benchmark_measures_its_rows_and_its_books_balance(
    flags: tuple[str, ...], named: set[str], roles: set[str]
) -> None:
    if "--private-services" in flags:
        require(PrivateRedis.available() and PrivateMariaDB.available(), "Redis, MariaDB missing")
    require("--tls" not in flags or shutil.which("openssl") is not None, "openssl is missing")
    done = stockray("bench", *SMALL, *flags, timeout_s=300)
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-4_000:]
    found = json.loads(done.stdout)
    rows = {row["name"]: row for row in found["results"]}
    assert rows.keys() >= named
    if named == ROWS:
        assert found["ratios"].keys() >= RATIOS
        assert rows["accrual"]["cpu_us_per_line"].keys() >= FOLLOWED
        followed = rows["accrual"]["accrual"]
        assert followed["orders"] == 400
        assert 0 < followed["in_ledger_after_s"] <= followed["in_sql_after_s"]
        assert followed["together_us_a_fact"] > 0
    for name in named:
        row = rows[name]
        assert row["rate_per_s"] > 0, name
        assert row["refused"].keys() <= WAITING, name
        assert row["errors"] == {}, name
        assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["p99_9_ms"], name
        assert row["cpu_us_per_line"].keys() == row["cores"].keys() == row["wanted"].keys()
    path = {"client", "gateway", "shard", "standby", "projector"} | roles
    assert rows["grab_unary_8"]["cpu_us_per_line"].keys() >= path
    assert found["ok"] is True
    assert found["acks_checked"] > 0
    assert all(law["violations"] == 0 for law in found["invariants"].values())
    if "--kills" in flags:
        gap, cold = found["failover_gap_ms"], found["cold_start_s"]
        assert 0 < gap["median"] <= gap["worst"]
        assert gap["detect"] + gap["promote"] + gap["first_sale"] <= gap["worst"] + 1
        assert 0 < gap["second_kill_load"] < gap["second_kill"], "it had to load first"
        assert cold["of_that_ray"] + cold["without_ray"] == pytest.approx(
            cold["to_first_sale"], 0.1
        )
        assert 0 <= cold["load"] < cold["without_ray"], "500 rows load in less than is told"
        assert (found["idle"]["connections"], found["idle"]["alive_at_end"]) == (50, 50)
        assert found["memory"]["open_reservations"] == 500


@pytest.mark.parametrize(
    ("flags", "named"),
    [(("--against", "echo,oracle"), "no such peer 'oracle'"), (("--front", "h3"), "front (flag)")],
    ids=["peer", "front"],
)
def test_what_nobody_knows_is_named(flags: tuple[str, ...], named: str) -> None:
    done = stockray("bench", *flags)
    assert done.returncode == 2
    assert named in done.stderr

"""A short soak as anybody would start it: too short to judge memory, long enough for the rest."""

import json
from pathlib import Path

import pytest

from tests.helpers.stack import stockray

MINUTES, RATE = 0.5, 400
TIMEOUT_S = 200
JUDGED = {
    "handles gateway",
    "handles shard 0",
    "handles shard 1",
    "threads gateway",
    "threads shard 1",
    "processes",
    "entries not in SQL",
    "SQL file",
    "logs",
}
"""What has to be judged also in a run as short as this."""


@pytest.mark.timeout(TIMEOUT_S + 10)
def test_a_short_soak_sells_in_all_ways_and_finds_nothing_that_grows(tmp_path: Path) -> None:
    chart = tmp_path / "soak.svg"
    words = ("--minutes", str(MINUTES), "--rate", str(RATE), "--chart", str(chart), "-o", "json")
    done = stockray("soak", *words, timeout_s=TIMEOUT_S)
    assert done.stdout, done.stderr[-4_000:]
    found = json.loads(done.stdout)
    told = (found["culprits"], found["wrong_answers"], found["statuses"], done.stderr[-2_000:])
    assert done.returncode == 0, told
    assert found["ok"] is True
    assert found["drained"] is True
    assert found["processes_left"] == []
    assert all(law["violations"] == 0 for law in found["verify"]["invariants"].values())
    measures = found["measures"]
    assert {name for name, measure in measures.items() if measure["judged"]} >= JUDGED
    # Who looks at nothing sees nothing grow.
    for name in ("memory shard 0", "memory gcs", "GCS actors", "snapshot files", "journal bytes"):
        assert measures[name]["highest"] > 0, name
    for kind in ("sales", "refusals", "payments", "begun", "documents", "refunds", "campaigns"):
        assert found["done"][kind] > 0, kind
    for status in ("release RELEASED", "return RETURNED", "again RESERVED", "fail NOTED"):
        assert found["statuses"][status] > 0, status
    assert "open files and sockets" in chart.read_text()


@pytest.mark.parametrize(
    ("words", "named"), [(("--minutes", "0.01"), "minutes"), (("--rate", "0"), "rate")]
)
def test_a_soak_that_makes_no_sense_is_refused_by_name(words: tuple[str, ...], named: str) -> None:
    done = stockray("soak", *words)
    assert done.returncode == 2
    assert named in done.stderr

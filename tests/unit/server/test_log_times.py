"""When processes of the service logged something, as a benchmark asks."""

import json
from datetime import UTC, datetime
from pathlib import Path

from server.bench.log_times import LogTimes

MOMENT = datetime(2026, 11, 11, 12, 0, 0, tzinfo=UTC)


def line(event: str, second: float, **fields: object) -> str:
    at = datetime.fromtimestamp(MOMENT.timestamp() + second, UTC)
    return json.dumps({"event": event, "timestamp": at.isoformat(), **fields}) + "\n"


def test_the_first_line_of_an_event_after_the_moment_is_found_in_whichever_log(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.log").write_text(line("promoted", -5) + line("promoted", 2, shard=1))
    (tmp_path / "b.log").write_text(line("promoted", 1.5, shard=0) + line("caught_up", 1))
    times = LogTimes(tmp_path, MOMENT.timestamp())
    promoted, of_one = times.first("promoted"), times.first("promoted", shard=1)
    assert promoted is not None
    assert of_one is not None
    assert (round(promoted.after_ms), promoted.fields["shard"]) == (1500, 0)
    assert round(of_one.after_ms) == 2000
    assert times.first("fenced") is None


def test_what_is_no_whole_line_of_a_log_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text('Traceback:\n[1]\n{"event": "x"}\n' + line("x", 1) + '{"eve')
    found = LogTimes(tmp_path, MOMENT.timestamp()).first("x")
    assert found is not None
    assert round(found.after_ms) == 1000

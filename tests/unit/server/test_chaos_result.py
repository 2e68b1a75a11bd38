"""Gaps, progress, alarms and the verdict of a chaos run, from times that are made up."""

import sys
from array import array
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from stockray import DeadlineExceeded, InvalidRequest, ServerError, Status

from server.chaos.checks import new_checks
from server.chaos.gaps import (
    PROGRESS_S,
    Span,
    calm_gap_s,
    check_progress,
    commission_gaps_of,
    explained_by,
    gaps_by_kind,
    gaps_of,
)
from server.chaos.history import FAIL, OK, UNKNOWN, History, Operation, outcome_of, outcome_of_error
from server.chaos.result import ChaosResult, Judged
from server.chaos.show import draw_chaos, show_chaos, timeline
from server.chaos.tail import Promotion
from server.chart import ChartsMissing, Marked, Panel, bars, draw, per_second
from server.verify import Invariant, Report

EVERY_S = 0.1
STEP_MS = 1_000 * EVERY_S


def sales(*silences: tuple[float, float], until_s: float = 100.0) -> list[float]:
    """One sale each 100 ms from second 0 on, but none in these spans."""
    times = [round(n * EVERY_S, 3) for n in range(int(until_s / EVERY_S))]
    return [t for t in times if not any(begin <= t < end for begin, end in silences)]


def kill(at_s: float, shard: int | None = 0, kind: str = "primary-kill") -> Span:
    return Span(kind, "pid 1", at_s, at_s, shard)


def test_a_gap_is_the_longest_silence_from_the_fault_on() -> None:
    gaps = gaps_of([kill(10.0)], [sales((5.0, 8.0), (10.0, 10.5), (12.0, 13.5))], ended_s=100.0)
    assert gaps[0].gap_ms == pytest.approx(1_500, abs=STEP_MS)


def test_a_gap_is_that_of_the_shards_concerned() -> None:
    both = [sales(), sales((10.0, 14.0))]
    (own,) = gaps_of([kill(10.0, 0)], both, ended_s=100.0)
    (anywhere,) = gaps_of([kill(10.0, None)], both, ended_s=100.0)
    assert own.gap_ms == pytest.approx(STEP_MS)
    assert (anywhere.gap_ms, anywhere.shard) == (pytest.approx(4_000, abs=STEP_MS), 1)


def test_a_shard_that_never_sells_again_has_a_gap_to_the_end() -> None:
    assert gaps_of([kill(10.0)], [sales((10.0, 999.0))], ended_s=25.0)[0].gap_ms == pytest.approx(
        15_000
    )


def test_a_gap_ends_where_the_next_fault_begins() -> None:
    gaps = gaps_of([kill(10.0), kill(15.0)], [sales((16.0, 20.0))], ended_s=100.0)
    assert [gap.gap_ms for gap in gaps] == [
        pytest.approx(STEP_MS),
        pytest.approx(4_000, abs=2 * STEP_MS),
    ]


def test_the_calm_gap_is_the_longest_silence_that_no_fault_explains() -> None:
    stood = [sales((10.0, 14.0), (30.0, 31.0)), sales((50.0, 52.0))]
    calm_s = calm_gap_s([kill(10.0)], stood, began_s=0.0, ended_s=60.0)
    assert calm_s == pytest.approx(2.0, abs=2 * EVERY_S)
    calm_s = calm_gap_s([kill(10.0), kill(49.0)], stood, began_s=0.0, ended_s=60.0)
    assert calm_s == pytest.approx(1.0, abs=2 * EVERY_S)


def test_gaps_are_told_by_kind() -> None:
    spans = [kill(10.0), kill(40.0), kill(70.0)]
    found = gaps_by_kind(
        gaps_of(spans, [sales((10.0, 11.0), (40.0, 43.0), (70.0, 72.0))], ended_s=100.0)
    )
    assert found == {"primary-kill": {"median": 2_000.0, "worst": 3_000.0, "count": 3}}


@pytest.mark.parametrize(
    ("silence", "violations"),
    [((10.0, 10.0 + PROGRESS_S - 1), 0), ((10.0, 10.0 + PROGRESS_S + 1), 1)],
)
def test_a_shard_that_stands_still_too_long_after_a_fault_is_found(
    silence: tuple[float, float], violations: int
) -> None:
    found = Invariant()
    both = [sales(), sales(silence)]
    check_progress([kill(10.0)], both, both, ended_s=100.0, found=found)
    assert (found.checked, found.violations) == (4, 2 * violations)


def test_a_fault_right_after_another_must_let_the_sale_go_on_for_both() -> None:
    found, stood = Invariant(), [sales((10.0, 500.0))]
    check_progress([kill(10.0), kill(12.0)], stood, stood, ended_s=100.0, found=found)
    assert (found.checked, found.violations) == (2, 2)


def test_a_shard_that_stands_still_while_nothing_is_wrong_is_found() -> None:
    """Also when it had sold something right after the fault."""
    found, stood = Invariant(), [sales((12.0, 12.0 + PROGRESS_S + 1))]
    check_progress([kill(10.0)], stood, stood, ended_s=100.0, found=found)
    assert [example.partition(":")[2] for example in found.examples] == [
        " no sale for 31.1 s beside the time of faults"
    ]


def test_the_time_of_a_fault_itself_is_no_stand_still() -> None:
    found, stood = Invariant(), [sales((10.0, 70.0))]
    held = Span("journal-stop", "redis", 10.0, 65.0, None)
    check_progress([held], stood, stood, ended_s=100.0, found=found)
    assert found.violations == 0


def test_a_silence_that_begins_under_a_fault_is_laid_to_it_to_its_end() -> None:
    spans, stood = [kill(10.0)], [sales((15.0, 45.0))]
    (gap,) = gaps_of(spans, stood, ended_s=100.0)
    assert gap.gap_ms == pytest.approx(30_000, abs=STEP_MS)
    assert calm_gap_s(spans, stood, began_s=0.0, ended_s=100.0) == pytest.approx(EVERY_S)
    assert explained_by(45.0, 0, spans, stood[0]) is spans[0]


def test_a_sale_that_was_asked_for_before_the_fault_is_no_progress() -> None:
    found, stood = Invariant(), [sales()]
    check_progress([kill(10.0)], stood, [[9.9] * len(stood[0])], ended_s=100.0, found=found)
    assert found.violations == 1


def test_a_run_without_faults_must_have_sold_everywhere() -> None:
    found = Invariant()
    check_progress([], [sales(), []], [sales(), []], ended_s=100.0, found=found)
    assert found.violations == 1


def test_a_promotion_is_laid_to_a_fault_of_its_shard_or_is_a_false_alarm() -> None:
    spans = [kill(10.0, 0), kill(50.0, 1), Span("journal-stop", "redis", 70.0, 74.0, None)]
    times = sales()
    after = explained_by(10.5, 0, spans, times)
    assert after is not None
    assert after.kind == "primary-kill"
    assert explained_by(9.8, 0, spans, times) is spans[0], "acts are noted after they were done"
    assert explained_by(10.5, 1, spans, times) is None
    assert explained_by(45.0, 0, spans, times) is None
    assert explained_by(72.0, 1, spans, times) is spans[2]
    promotion = Promotion(0, 2, 10.5)
    assert not Judged(promotion, "primary-kill").false_alarm
    assert Judged(promotion, "").false_alarm
    assert Judged(promotion, "journal-stop").false_alarm, "a slow journal topples nobody"


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (Status.RESERVED, OK),
        (Status.REFUND_DUE, OK),
        (Status.SOLD_OUT, FAIL),
        (Status.RETRY, FAIL),
        (Status.UNKNOWN, UNKNOWN),
        (Status.INTERNAL, UNKNOWN),
    ],
)
def test_an_answer_is_done_not_done_or_unknown(status: Status, outcome: str) -> None:
    assert outcome_of(status) == outcome


def test_an_error_is_not_done_only_if_the_client_says_so() -> None:
    assert outcome_of_error(DeadlineExceeded("late", maybe_applied=True)) == UNKNOWN
    assert outcome_of_error(DeadlineExceeded("late")) == FAIL
    assert outcome_of_error(ServerError("fault")) == UNKNOWN
    with pytest.raises(InvalidRequest):
        outcome_of_error(InvalidRequest("a fault of the load itself"))


def sold(number: int, ended_s: float) -> Operation:
    """One reservation."""
    head = (number, "grab", 0, "sale", "tea", "ann", 1, f"request:{number}", "")
    return Operation(*head, ended_s - 0.01, ended_s, OK, "RESERVED", ())


def result(**changes: Any) -> ChaosResult:
    """A run in which everything held."""
    history = History(1)
    for number, ended_s in enumerate(sales((10.0, 11.0), until_s=40.0)):
        history.add(sold(number, ended_s))
    checks = new_checks()
    for found in checks.values():
        found.checked = 1
    report = Report()
    report.shards.append({"shard": 0})
    spans = [kill(10.0)]
    fields: dict[str, Any] = {
        "seed": 7,
        "began_s": 0.0,
        "ended_s": 40.0,
        "history": history,
        "planned": 2,
        "spans": spans,
        "skipped": [("disk-full-journal", "no tmpfs here")],
        "failed": [],
        "gaps": gaps_of(spans, history.sales, ended_s=40.0),
        "commission_gaps": commission_gaps_of([kill(10.0)], [9.0, 12.0], ended_s=40.0),
        "calm_gap_ms": 100.0,
        "doubts": {"took_effect": 1, "did_not": 1},
        "promotions": [Judged(Promotion(0, 2, 10.3), "primary-kill")],
        "checks": checks,
        "report": report,
        "units_oversold": 0,
        "settle_s": 1.0,
    }
    return ChaosResult(**{**fields, **changes})


def test_a_run_in_which_everything_held_is_ok() -> None:
    found = result()
    assert found.ok
    data = found.as_data()
    assert data["gap_ms"] == {"primary-kill": {"median": 1_000.0, "worst": 1_000.0, "count": 1}}
    assert data["commission_gap_ms"] == {}, "a kill of stock alone"
    assert (data["operations"], data["faults"], data["faults_planned"]) == (390, 1, 2)
    assert data["skipped"] == [{"kind": "disk-full-journal", "reason": "no tmpfs here"}]
    assert (data["lost_acks"], data["phantom_refusals"], data["oversold"]) == (0, 0, 0)


@pytest.mark.parametrize("name", list(new_checks()))
def test_a_run_is_not_ok_when_a_check_failed_or_had_nothing_to_look_at(name: str) -> None:
    failed, idle = result(), result()
    failed.checks[name].check(False, "wrong")
    idle.checks[name].checked = 0
    assert not failed.ok
    assert not idle.ok


@pytest.mark.parametrize(
    "changes",
    [
        {"failed": ["head-kill: it could not be started again"]},
        {"spans": [], "gaps": []},
        {"report": None},
        {"report": Report()},
        {"units_oversold": 1},
        {"history": History(1)},
    ],
)
def test_a_run_that_could_not_be_carried_out_or_reckoned_is_not_ok(changes: dict[str, Any]) -> None:
    assert not result(**changes).ok


def test_a_history_has_an_end() -> None:
    history = History(1, operations_max=2)
    assert [history.number(), history.full, history.number(), history.full] == [1, False, 2, True]


def test_a_history_is_written_as_lines(tmp_path: Path) -> None:
    found = result()
    found.history.write(tmp_path / "history.jsonl")
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert len(lines) == len(found.history.operations)
    assert '"status": "RESERVED"' in lines[0]


def test_the_timeline_shows_the_silence_under_the_fault() -> None:
    lines = timeline(result())
    row, marks = lines[1].partition("|")[2], lines[2].partition("|")[2]
    assert row[10] == " " or row[10] < row[9]
    assert marks[10] == "A"
    assert marks.replace("|", "").strip() == "A"


def test_a_report_names_what_failed_and_what_was_skipped() -> None:
    found = result()
    found.checks["order"].check(False, "x stands before y")
    console = Console(file=StringIO(), width=200)
    show_chaos(found, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for words in ("x stands before y", "no tmpfs here", "It does not hold", "primary-kill"):
        assert words in text


def test_bars_tell_little_from_nothing() -> None:
    assert bars([0, 1, 500, 1_000]) == " ▁▄█"
    assert bars([5, 10], top=100) == "▁▁"
    assert bars([]) == ""


def test_times_are_counted_by_the_second() -> None:
    assert per_second([9.9, 10.0, 10.99, 11.0, 99.0], begin_s=10.0, seconds=3) == [2, 1, 0]


def test_a_picture_has_its_series_and_spans_in_it(tmp_path: Path) -> None:
    draw_chaos(result(), tmp_path / "chaos.svg")
    text = (tmp_path / "chaos.svg").read_text()
    assert text.startswith("<?xml")
    assert "acknowledged sales" in text
    assert "primary-kill" in text


@pytest.mark.parametrize(
    ("panels", "message"),
    [
        ([], "panels"),
        ([Panel("a", "b", {"memory": ([1.0], [1.0, 2.0])})], "memory"),
    ],
)
def test_a_picture_of_nothing_is_refused(tmp_path: Path, panels: list[Panel], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw(tmp_path / "x.svg", panels, [Marked("a", 0, 1)], title="t")


def test_without_matplotlib_a_picture_says_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    panel = Panel("a", "b", {"memory": (array("d", [1.0]), array("d", [2.0]))})
    with pytest.raises(ChartsMissing, match="charts"):
        draw(tmp_path / "x.svg", [panel], [], title="t")

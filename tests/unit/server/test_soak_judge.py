"""The judge of a soak can fail: it finds leaks, and lets sawteeth, spikes and what is kept be."""

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from server.soak.bounds import bounds_of
from server.soak.judge import Bound, Sample, Verdict, judge, slope
from server.soak.result import SoakError, SoakOptions, SoakResult
from server.soak.show import draw_soak, short, spark

SECONDS, EVERY_S = 600, 2
MB = 1_000_000
SALES_PER_S = 800


def judged(value: Callable[[float], float], bound: Bound, *, seconds: int = SECONDS) -> Verdict:
    samples = [
        Sample(float(time_s), {"it": value(time_s)}, {"sales": SALES_PER_S * time_s})
        for time_s in range(0, seconds, EVERY_S)
    ]
    return judge(samples, {"it": bound})[0]


def noisy(value: Callable[[float], float], *, by: float) -> Callable[[float], float]:
    random = Random(7)
    return lambda time_s: value(time_s) + random.uniform(-by, by)


def test_a_leak_of_forty_bytes_a_sale_is_caught_through_noise() -> None:
    leak = noisy(lambda time_s: 200 * MB + 40 * SALES_PER_S * time_s, by=3 * MB)
    found = judged(leak, Bound(fixed=6 * MB))
    assert found.judged
    assert not found.holds
    assert found.growth == pytest.approx(40 * SALES_PER_S * SECONDS / 2, rel=0.1)


def test_one_handle_leaked_every_twenty_seconds_is_caught() -> None:
    assert not judged(lambda time_s: 70 + time_s // 20, Bound(fixed=8)).holds


def test_a_leak_that_begins_after_the_warm_up_is_caught() -> None:
    late = judged(lambda time_s: 50 * MB + max(0, time_s - 400) * MB / 4, Bound(fixed=6 * MB))
    assert not late.holds


@pytest.mark.parametrize("period_s", [7, 30, 75])
def test_the_teeth_of_a_trimmed_journal_are_no_growth(period_s: int) -> None:
    found = judged(lambda time_s: 30 * MB * (time_s % period_s) / period_s, Bound(fixed=8 * MB))
    assert found.judged
    assert found.holds


def test_a_saw_whose_teeth_get_longer_is_caught() -> None:
    found = judged(
        lambda time_s: time_s * MB / 10 * (0.5 + (time_s % 30) / 60), Bound(fixed=8 * MB)
    )
    assert not found.holds


def test_a_spike_and_a_fall_are_no_growth() -> None:
    found = judged(
        lambda time_s: 900 * MB if 500 <= time_s < 540 else 100 * MB, Bound(fixed=6 * MB)
    )
    assert found.holds
    assert judged(lambda time_s: 900 * MB - time_s * MB, Bound(fixed=0)).holds


def test_what_was_filled_during_the_warm_up_is_no_growth() -> None:
    assert judged(lambda time_s: min(time_s, 120) * MB, Bound(fixed=6 * MB)).holds


def test_what_is_kept_for_every_sale_is_judged_for_every_sale() -> None:
    kept = Bound(fixed=MB, per={"sales": 150})
    assert judged(lambda time_s: 140 * SALES_PER_S * time_s, kept).holds
    assert not judged(lambda time_s: 170 * SALES_PER_S * time_s, kept).holds


def test_a_look_above_the_ceiling_is_caught_whatever_the_slope_is() -> None:
    assert not judged(lambda time_s: 9.0 if time_s == 100 else 1.0, Bound(fixed=9, ceiling=8)).holds


def test_a_run_that_is_too_short_for_a_measure_says_so() -> None:
    found = judged(lambda time_s: time_s * MB, Bound(fixed=MB, warm_up_s=100), seconds=110)
    assert not found.judged
    assert not judge([], {"it": Bound(fixed=1)})[0].judged


def test_the_slope_of_one_moment_is_none() -> None:
    assert slope([]) == 0.0
    assert slope([(1.0, 5.0), (1.0, 9.0)]) == 0.0
    assert slope([(0.0, 1.0), (2.0, 5.0)]) == 2.0


def test_a_result_names_the_culprit_and_is_not_ok(tmp_path: Path) -> None:
    result = SoakResult(options=SoakOptions(directory=tmp_path, minutes=1))
    result.samples = [
        Sample(float(second), {"handles gateway": 70.0 + second}, {"sales": second, "calls": 2})
        for second in range(60)
    ]
    result.verdicts = judge(result.samples, {"handles gateway": bounds_of(1)["handles gateway"]})
    assert result.culprits == ["handles gateway"]
    assert result.ok is False
    assert result.as_data()["measures"]["handles gateway"]["holds"] is False
    draw_soak(result, tmp_path / "soak.svg")
    drawn = (tmp_path / "soak.svg").read_text()
    assert "grows: handles gateway" in drawn
    assert "open files and sockets" in drawn


def test_bounds_are_for_every_shard_and_none_is_without_an_end() -> None:
    bounds = bounds_of(3)
    assert {f"memory shard {shard}" for shard in range(3)} < bounds.keys()
    assert all(0 <= bound.fixed < 100 * MB for bound in bounds.values())


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"minutes": 0.1}, "minutes"), ({"rate": 0.0}, "rate"), ({"rate": 1e9}, "rate")],
)
def test_a_soak_that_makes_no_sense_is_refused_by_name(
    changes: dict[str, float], named: str, tmp_path: Path
) -> None:
    with pytest.raises(SoakError, match=named):
        SoakOptions(directory=tmp_path, **changes)


def test_a_series_is_shown_in_a_few_characters() -> None:
    assert spark([1.0, 2.0, 4.0]) == "▂▄█"
    assert len(spark([float(n) for n in range(1_000)])) <= 40
    assert (short(1_500_000), short(1_500), short(0)) == ("1.5 M", "1,500", "0")

"""Whether a series of measurements grows more than it may.

How it works
------------
* A run has a warm-up: its first half, or longer for what takes longer to fill. Only what comes
  after it is judged; a measure whose warm-up the run is too short for is said to be not judged.
* The growth of a measure is the slope of Theil and Sen (the median of the slopes of all pairs) over
  the medians of short windows, times the time that was judged; but no more than its floor or its
  ceiling has risen from the first third to the last. Neither a spike nor the teeth of a saw (a
  journal that is trimmed, a heap that is collected) make a growth, if a tooth is shorter than a
  third of what is judged; a leak does.
* A bound is a fixed allowance, which covers noise and pages of an allocator, plus so much for each
  thing that was done meanwhile: what has to be kept for every sale is judged for every sale.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import median
from typing import NamedTuple

WINDOWS = 24
"""Most windows that a judged series is cut into."""
POINTS_MIN = 6
"""A slope through fewer says nothing."""


class Sample(NamedTuple):
    """One look at everything. A measure may be missing, if it is not looked at each time."""

    time_s: float
    """Since the sale began."""
    values: Mapping[str, float]
    done: Mapping[str, int]
    """What the sale had done by then, by kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """How much a measure may grow in the judged part of a run."""

    fixed: float
    """Whatever was done."""
    per: Mapping[str, float] = field(default_factory=dict)
    """For each thing done, by kind."""
    warm_up_s: float = 0.0
    """It is not steady before that time."""
    ceiling: float = 0.0
    """No look at it may exceed this; 0: none."""


class Verdict(NamedTuple):
    """What was found of one measure."""

    measure: str
    judged: bool
    """False: the run is too short, or there were too few looks."""
    begin: float
    """Median of the first window that is judged."""
    end: float
    """Of the last."""
    growth: float
    allowed: float
    highest: float
    """Of all looks."""
    ceiling: float

    @property
    def holds(self) -> bool:
        """Whether the bound was kept, as far as is known."""
        below = not self.ceiling or self.highest <= self.ceiling
        return below and (not self.judged or self.growth <= self.allowed)


def judge(samples: Sequence[Sample], bounds: Mapping[str, Bound]) -> list[Verdict]:
    """One verdict for each bound, in their order."""
    return [_judge_one(samples, name, bound) for name, bound in bounds.items()]


def _judge_one(samples: Sequence[Sample], name: str, bound: Bound) -> Verdict:
    seen = [sample for sample in samples if name in sample.values]
    highest = max((sample.values[name] for sample in seen), default=0.0)
    end_s = samples[-1].time_s if samples else 0.0
    begin_s = max(end_s / 2, bound.warm_up_s)
    steady = [sample for sample in seen if sample.time_s >= begin_s]
    # A quarter of a run is too little to tell a slope from a tooth.
    if len(steady) < POINTS_MIN or end_s - begin_s < end_s / 4:
        return Verdict(name, False, 0.0, 0.0, 0.0, 0.0, highest, bound.ceiling)
    windows = _windows([(sample.time_s, sample.values[name]) for sample in steady])
    span_s = steady[-1].time_s - steady[0].time_s
    allowed = bound.fixed + sum(
        weight * (steady[-1].done.get(kind, 0) - steady[0].done.get(kind, 0))
        for kind, weight in bound.per.items()
    )
    return Verdict(
        name,
        True,
        windows[0][1],
        windows[-1][1],
        min(slope(windows) * span_s, _rise([sample.values[name] for sample in steady])),
        allowed,
        highest,
        bound.ceiling,
    )


def _windows(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """(middle, median) of up to WINDOWS parts of even size, each of them not empty."""
    count = min(WINDOWS, len(points))
    parts = [
        points[index * len(points) // count : (index + 1) * len(points) // count]
        for index in range(count)
    ]
    return [(median(t for t, _ in part), median(v for _, v in part)) for part in parts]


def _rise(values: Sequence[float]) -> float:
    """By how much the floor or the ceiling (a tenth of the values is beyond) would have risen over
    all, by their rise from the first third to the last."""
    third = max(1, len(values) // 3)
    first, last = sorted(values[:third]), sorted(values[-third:])
    floor, ceiling = third // 10, third - 1 - third // 10
    # Between the middles of the two lie two thirds of the time.
    return 1.5 * max(last[floor] - first[floor], last[ceiling] - first[ceiling])


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The median of the slopes of all pairs of (time, value); 0 for less than two times."""
    slopes = [
        (later - earlier) / (end_s - begin_s)
        for (begin_s, earlier), (end_s, later) in combinations(points, 2)
        if end_s > begin_s
    ]
    return median(slopes) if slopes else 0.0

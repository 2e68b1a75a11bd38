"""How long a fault stopped the sale, and whether it went on: from the times of sales alone."""

import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from server.verify import Invariant

PROGRESS_S = 30.0
"""Within this time after a fault's end every shard sells again; else the run has failed."""
WATCHED_S = 20.0
"""A fault's gap is looked for until so long after its end, or until the next fault begins."""
CALM_AFTER_S = 5.0
"""So long after a fault's end the next silence is not laid to it."""
PROMOTED_S = 20.0
"""A promotion up to so long after a fault's end is laid to it."""
LEAD_S = 1.0
"""How much earlier than its span a fault may work: acts are noted after they were done."""


class Span(NamedTuple):
    """A fault that was carried out, by the monotonic clock. `shard` None: any may feel it."""

    kind: str
    target: str
    begun_s: float
    ended_s: float
    shard: int | None


class Gap(NamedTuple):
    """What one fault did to the sale: the longest silence on its worst shard."""

    span: Span
    gap_ms: float
    shard: int


Sales = Sequence[Sequence[float]]
"""By shard, when sales were acknowledged, rising."""


def shards_of(span: Span, sales: Sales) -> list[int]:
    """The shards concerned."""
    return list(range(len(sales))) if span.shard is None else [span.shard]


def gaps_of(spans: Sequence[Span], sales: Sales, *, ended_s: float) -> list[Gap]:
    """One for each fault, in their order. `ended_s`: when the load stopped."""
    ordered = sorted(spans, key=lambda span: span.begun_s)
    found = []
    for index, span in enumerate(ordered):
        until = min(ended_s, span.ended_s + WATCHED_S)
        if index + 1 < len(ordered):
            until = min(until, max(span.ended_s, ordered[index + 1].begun_s))
        silences = [
            (longest_silence(sales[shard], span.begun_s, until), shard)
            for shard in shards_of(span, sales)
        ]
        gap_s, shard = max(silences)
        found.append(Gap(span, gap_s * 1000, shard))
    return found


def calm_gap_s(spans: Sequence[Span], sales: Sales, *, began_s: float, ended_s: float) -> float:
    """The longest silence of any shard in the times that belong to no fault: what this machine does
    to the sale by itself, and so how much of a gap is nobody's fault."""
    calm, since = 0.0, began_s
    for span in [*sorted(spans, key=lambda span: span.begun_s), None]:
        until = ended_s if span is None else span.begun_s
        if until > since:
            calm = max(calm, *(longest_silence(times, since, until) for times in sales))
        since = max(since, ended_s if span is None else span.ended_s + CALM_AFTER_S)
    return calm


def longest_silence(sales: Sequence[float], begin_s: float, until_s: float) -> float:
    """Between two sales, from `begin_s` on and up to `until_s`."""
    within = sales[bisect_left(sales, begin_s) : bisect_right(sales, until_s)]
    marks = [begin_s, *within, max(begin_s, until_s)]
    return max(after - before for before, after in pairwise(marks))


def gaps_by_kind(gaps: Sequence[Gap]) -> dict[str, dict[str, float]]:
    """Kind -> median and worst in milliseconds, and how many faults it is of."""
    kinds = dict.fromkeys(gap.span.kind for gap in gaps)
    found = {}
    for kind in kinds:
        values = [gap.gap_ms for gap in gaps if gap.span.kind == kind]
        found[kind] = {
            "median": round(statistics.median(values), 1),
            "worst": round(max(values), 1),
            "count": len(values),
        }
    return found


def check_progress(
    spans: Sequence[Span], sales: Sales, asked: Sales, *, ended_s: float, found: Invariant
) -> None:
    """A sale on every shard within `PROGRESS_S` of each fault's end that was `asked` for after it.
    A fault that begins within that time is another story: then only the last of them must let the
    sale go on."""
    ordered = sorted(spans, key=lambda span: span.begun_s)
    if not ordered:
        for shard, times in enumerate(sales):
            found.check(bool(times), f"shard {shard} never sold anything")
    for index, span in enumerate(ordered):
        limit = span.ended_s + PROGRESS_S
        last = index + 1 == len(ordered)
        following = ended_s if last else ordered[index + 1].begun_s
        for shard, times in enumerate(sales):
            sold = _sold_between(times, asked[shard], span.ended_s, limit)
            if sold or last or following >= limit:
                found.check(
                    sold,
                    f"shard {shard}: no sale within {PROGRESS_S:.0f} s of the end of "
                    f"{span.kind} ({span.target})",
                )


def _sold_between(
    times: Sequence[float], asked: Sequence[float], begin_s: float, until_s: float
) -> bool:
    first, last = bisect_right(times, begin_s), bisect_right(times, until_s)
    return any(asked[index] >= begin_s for index in range(first, last))


def explained_by(seen_s: float, shard: int, spans: Sequence[Span]) -> Span | None:
    """The newest fault that can have made a promotion of this shard; None: a false alarm."""
    for span in sorted(spans, key=lambda span: -span.begun_s):
        concerned = span.shard in (None, shard)
        if concerned and span.begun_s - LEAD_S <= seen_s <= span.ended_s + PROMOTED_S:
            return span
    return None

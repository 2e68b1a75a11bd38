"""How long a fault stopped the sale, and whether it went on: from the times of sales alone."""

import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from server.verify import Invariant

PROGRESS_S = 30.0
"""Within this time after a fault's end every shard sells again; else the run has failed."""
WATCHED_S = 10.0
"""A silence that begins up to so long after a fault's end is laid to it, however long it lasts; one
that begins later, and before the next fault, is nobody's."""
PROMOTED_S = 20.0
"""A promotion up to so long after a fault's end is laid to it."""
LEAD_S = 1.0
"""How much earlier than its span a fault may work: acts are noted after they were done."""


OF_ACCOUNTS = ("account", "relay")
"""Beginnings of the kinds of faults that keep accounts from learning of orders."""


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
    """The shards concerned. Account shards sell nothing: of their faults, as of those of no shard,
    all sales must be free."""
    everywhere = span.shard is None or span.shard >= len(sales)
    return list(range(len(sales))) if everywhere else [span.shard or 0]


def gaps_of(spans: Sequence[Span], sales: Sales, *, ended_s: float) -> list[Gap]:
    """One for each fault, in their order. `ended_s`: when the load stopped."""
    ordered = sorted(spans, key=lambda span: span.begun_s)
    found = []
    for span, following in zip(ordered, [*ordered[1:], None], strict=True):
        limit = ended_s if following is None else max(span.ended_s, following.begun_s)
        gaps = []
        for shard in shards_of(span, sales):
            over_s = over(span, sales[shard], limit)
            gaps.append((longest_silence(sales[shard], span.begun_s, over_s), shard))
        gap_s, shard = max(gaps)
        found.append(Gap(span, gap_s * 1000, shard))
    return found


def commission_gaps_of(
    spans: Sequence[Span], taken_s: Sequence[float], *, ended_s: float
) -> list[Gap]:
    """For how long accounts learnt nothing of orders after each fault that hits them or the relay.
    `taken_s`: when they did. No sale waits for it."""
    of_none = [span._replace(shard=None) for span in spans]
    gaps = gaps_of(of_none, [taken_s], ended_s=ended_s)
    return [gap for gap in gaps if gap.span.kind.startswith(OF_ACCOUNTS)]


def over(span: Span, times: Sequence[float], limit_s: float) -> float:
    """When a fault is over for a shard: the first sale after the time in which silences are laid to
    it, but not beyond the limit."""
    after = bisect_left(times, span.ended_s + WATCHED_S)
    return min(limit_s, times[after] if after < len(times) else limit_s)


def calm_gap_s(spans: Sequence[Span], sales: Sales, *, began_s: float, ended_s: float) -> float:
    """The longest silence of any shard that is laid to no fault: what this machine does to the sale
    by itself, and so how much of a gap is nobody's fault."""
    ordered = sorted(spans, key=lambda span: span.begun_s)
    calm = 0.0
    for times in sales:
        since = began_s
        for span in ordered:
            if span.begun_s > since:
                calm = max(calm, longest_silence(times, since, span.begun_s))
            since = max(since, over(span, times, ended_s))
        if ended_s > since:
            calm = max(calm, longest_silence(times, since, ended_s))
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
    for shard, times in enumerate(sales):
        stood_s = longest_stand_still(ordered, times, ended_s)
        found.check(
            stood_s <= PROGRESS_S,
            f"shard {shard}: no sale for {stood_s:.1f} s beside the time of faults",
        )
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


def longest_stand_still(spans: Sequence[Span], times: Sequence[float], ended_s: float) -> float:
    """The longest silence after the first sale and up to the load's end, less the part of it in
    which a fault was going on."""
    longest = 0.0
    for before, after in pairwise((*times, ended_s)):
        if after - before > longest:
            under = sum(
                max(0.0, min(after, span.ended_s) - max(before, span.begun_s)) for span in spans
            )
            longest = max(longest, after - before - under)
    return longest


def _sold_between(
    times: Sequence[float], asked: Sequence[float], begin_s: float, until_s: float
) -> bool:
    first, last = bisect_right(times, begin_s), bisect_right(times, until_s)
    return any(asked[index] >= begin_s for index in range(first, last))


def explained_by(
    seen_s: float, shard: int, spans: Sequence[Span], times: Sequence[float]
) -> Span | None:
    """The newest fault that can have made a promotion of this shard, whose sales were at `times`;
    None: a false alarm. A silence that is laid to a fault explains the promotion that ends it."""
    for span in sorted(spans, key=lambda span: -span.begun_s):
        concerned = span.shard in (None, shard)
        until_s = max(span.ended_s + PROMOTED_S, over(span, times, seen_s) + LEAD_S)
        if concerned and span.begun_s - LEAD_S <= seen_s <= until_s:
            return span
    return None

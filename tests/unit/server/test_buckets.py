"""Token buckets: never more than the rate and a burst, and never fewer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.commands import RESERVE, Reserve
from actors.core.outcomes import Outcome
from server import edge as edges
from server.buckets import Buckets, Rate
from server.edge import Edge, EdgeRates, share_of

TICK_S = 1 / 64
"""Times are multiples of it, and rates powers of two, so that no sum is rounded."""
RATES = st.builds(Rate, st.sampled_from((0.25, 0.5, 1.0, 2.0, 8.0)), st.integers(1, 12))
GAPS = st.lists(st.integers(0, 200), min_size=1, max_size=120)


class NaiveBucket:
    """A bucket as one says it: tokens drip in, a call takes one."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.tokens = float(rate.burst)
        self.at = 0.0

    def has_one(self, now: float) -> bool:
        self.tokens = min(self.rate.burst, self.tokens + (now - self.at) * self.rate.per_s)
        self.at = now
        return self.tokens >= 1

    def takes(self, now: float) -> bool:
        if not self.has_one(now):
            return False
        self.tokens -= 1
        return True


def takes(buckets: Buckets, key: str, now: float) -> bool:
    return buckets.take(key, now) == 0


@given(RATES, st.lists(st.tuples(st.integers(0, 200), st.sampled_from("abc")), max_size=200))
def test_each_key_is_served_as_by_a_bucket_of_its_own(
    rate: Rate, calls: list[tuple[int, str]]
) -> None:
    buckets, now = Buckets(rate, keys_max=1_000), 1.0
    naive = {key: NaiveBucket(rate) for key in "abc"}
    for gap, key in calls:
        now += gap * TICK_S
        assert takes(buckets, key, now) == naive[key].takes(now)


@given(RATES, st.sampled_from((1, 2, 4)), GAPS, st.randoms(use_true_random=False))
def test_gateways_together_let_through_the_rate_and_a_burst_of_each(
    rate: Rate, gateways: int, gaps: list[int], chance: object
) -> None:
    own = share_of(rate, gateways)
    buckets = [Buckets(own, keys_max=1_000) for _ in range(gateways)]
    taken: list[float] = []
    now = 1.0
    for gap in gaps:
        now += gap * TICK_S
        for _ in range(3):
            if takes(chance.choice(buckets), "u-1", now):  # type: ignore[attr-defined]
                taken.append(now)
    for first, begin in enumerate(taken):
        for last in range(first, len(taken)):
            count, length_s = last - first + 1, taken[last] - begin
            assert count <= rate.per_s * length_s + gateways * rate.burst


@given(RATES, GAPS)
def test_who_waits_as_long_as_told_is_served(rate: Rate, gaps: list[int]) -> None:
    buckets, now = Buckets(rate, keys_max=1_000), 1.0
    for gap in gaps:
        now += gap * TICK_S
        wait = buckets.take("u-1", now)
        if wait:
            assert buckets.take("u-1", now + wait / 2) > 0
            now += wait
            assert takes(buckets, "u-1", now)


def test_a_bucket_that_is_full_is_forgotten() -> None:
    buckets = Buckets(Rate(1.0, 4), keys_max=1_000)
    for number in range(100):
        buckets.take(f"u-{number}", 0.0)
    buckets.take("later", 4.0)
    assert len(buckets) == 101
    buckets.take("latest", 8.0)
    assert len(buckets) == 2


def test_keys_without_end_are_no_memory_without_end() -> None:
    buckets = Buckets(Rate(1.0, 1_000), keys_max=100)
    for number in range(10_000):
        buckets.take(f"u-{number}", 0.0)
        assert len(buckets) <= 100


WISHES = st.tuples(st.sampled_from("abc"), st.sampled_from(("", "i", "j")), st.sampled_from("x "))


def wish(buyer_id: str, ip: str, device_id: str) -> Reserve:
    return Reserve(RESERVE, 0, 0, "", "r", "", "tea", 1, buyer_id, ip=ip, device_id=device_id)


@given(
    st.tuples(RATES, RATES, RATES),
    st.lists(st.tuples(st.integers(0, 200), st.lists(WISHES, max_size=6)), max_size=40),
)
def test_the_edge_takes_of_every_bucket_of_a_line_or_of_none(
    rates: tuple[Rate, Rate, Rate], batches: list[tuple[int, list[tuple[str, str, str]]]]
) -> None:
    """Buyer, address and device ('' has no bucket), as three naive buckets would be asked."""
    now = 1.0
    edge = Edge(EdgeRates(*rates), now_s=lambda: now)
    naive: dict[tuple[int, str], NaiveBucket] = {}
    for gap, wishes in batches:
        now += gap * TICK_S
        at = edge.begin(len(wishes))
        for buyer_id, ip, device in wishes:
            keys = (buyer_id, ip, device.strip())
            asked = [
                naive.setdefault((kind, key), NaiveBucket(rates[kind]))
                for kind, key in enumerate(keys)
                if key
            ]
            passes = all(bucket.has_one(now) for bucket in asked)
            refusal = edge.refusal(wish(*keys), at)
            assert (refusal is None) == passes
            assert refusal is None or refusal[0] == Outcome.RATE_LIMITED
            for bucket in asked:
                bucket.tokens -= passes


def test_an_edge_remembers_no_more_keys_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edges, "KEYS_MAX", 100)
    edge = Edge(EdgeRates(*[Rate(1.0, 1_000)] * 3), now_s=lambda: 1.0)
    for batch in range(200):
        now = edge.begin(7)
        for number in range(7):
            key = f"{batch}-{number}"
            assert edge.refusal(wish(key, key, key), now) is None
        assert 1 <= edge.keys <= 300

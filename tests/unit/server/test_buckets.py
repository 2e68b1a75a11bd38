"""Token buckets: never more than the rate and a burst, and never fewer."""

from hypothesis import given
from hypothesis import strategies as st

from server.buckets import Buckets, Rate
from server.edge import share_of

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

    def takes(self, now: float) -> bool:
        self.tokens = min(self.rate.burst, self.tokens + (now - self.at) * self.rate.per_s)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


def takes(buckets: Buckets, key: str, now: float) -> bool:
    if buckets.wait(key, now):
        return False
    buckets.take(key, now)
    return True


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
        wait = buckets.wait("u-1", now)
        if wait:
            assert buckets.wait("u-1", now + wait / 2) > 0
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

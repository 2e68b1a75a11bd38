"""Commission beside the naive rules: random orders, returns, rates, bindings, payouts."""

import pytest

from tests.model.programme_walk import walk


@pytest.mark.parametrize("seed", range(25))
def test_histories_of_a_programme_agree_with_the_naive_rules(seed: int) -> None:
    walk(seed)

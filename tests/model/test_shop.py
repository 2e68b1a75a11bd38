"""The shop agrees with the naive model, whatever is asked of it, in any order.

The default profile is bounded to some 20 s; `--hypothesis-seed` repeats a run, and a failure prints
the blob that repeats it.
"""

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.model.driver import OPS, Driver, small_tables, walk


class ShopMachine(RuleBasedStateMachine):
    """One rule for each operation; the driver compares everything after each."""

    def __init__(self) -> None:
        super().__init__()
        self.driver = Driver()


def _rule(name: str) -> Any:
    def operation(self: ShopMachine, **arguments: int) -> None:
        self.driver.step(name, arguments)

    operation.__name__ = name
    bounds: dict[str, Any] = {key: st.integers(0, bound - 1) for key, bound in OPS[name].items()}
    make: Any = rule
    return make(**bounds)(operation)


for _name in OPS:
    setattr(ShopMachine, _name, _rule(_name))


@pytest.fixture(autouse=True)
def tables_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that tables split and snapshots have many chunks within a short run."""
    small_tables(monkeypatch)


def test_the_shop_agrees_with_the_naive_model() -> None:
    run_state_machine_as_test(
        ShopMachine,
        settings=settings(
            max_examples=100,
            stateful_step_count=60,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("seed", range(20))
def test_a_long_walk_agrees_with_the_naive_model(seed: int) -> None:
    """Longer than a shrinkable example may be, and always the same."""
    assert walk(seed, steps=400) > 0, "no snapshot was taken, or nothing recalled"

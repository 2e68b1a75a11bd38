"""Rules of commission broken on purpose: histories beside the naive rules must notice each.

The first are the bugs found in well-known shops, as the semantics list them; see
`tests/helpers/commission_breakages.py`; the last are those of memory. A mutant that survives fails
its test.
"""

import inspect
from collections.abc import Callable

import pytest

from actors.core import snapshot
from actors.core.evolve import Impossible
from tests.helpers import commission_breakages, commission_memory_breakages
from tests.model.programme_walk import walk

WALKS_MAX = 60
"""A mutant has to be caught within 60 seeded histories."""

Mutant = Callable[[pytest.MonkeyPatch], None]

MUTANTS: list[Mutant] = [
    act
    for room in (commission_breakages, commission_memory_breakages)
    for name, act in inspect.getmembers(room, inspect.isfunction)
    if act.__module__ == room.__name__ and not name.startswith("_")
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_the_rules_of_commission_notice_that(
    mutant: Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "ROWS_A_CHUNK", 2)
    mutant(monkeypatch)
    for seed in range(WALKS_MAX):
        try:
            walk(seed)
        except (AssertionError, Impossible) as noticed:
            print(f"noticed in history {seed}: {noticed}")
            return
    pytest.fail(f"the mutant survived {WALKS_MAX} histories")

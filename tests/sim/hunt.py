"""Hunts a mutant: seeds one after the other, until one fails. A rule of accounts is looked for in
the seeds that have any."""

import gc
from collections.abc import Sequence
from itertools import count, islice

import pytest

from tests.sim.batch import ONLY
from tests.sim.mutants import MUTANTS
from tests.sim.relay_mutants import RELAY_MUTANTS
from tests.sim.run import run_seed


def mutants() -> Sequence[str]:
    """Their names."""
    return [mutant.__name__ for mutant in MUTANTS]


def hunt(name: str, seeds_max: int = 0) -> tuple[int, str] | None:
    """The first seed that notices, and how; None if none does within what `MUTANTS` says.
    RuntimeError if it is the simulation that fails: that catches nothing."""
    mutant, within = next((m, n) for m, n in MUTANTS.items() if m.__name__ == name)
    with pytest.MonkeyPatch.context() as patch:
        mutant(patch)
        wanted = ONLY["accounts" if mutant in RELAY_MUTANTS else ""]
        for seed in islice(filter(wanted, count()), seeds_max or within):
            outcome = run_seed(seed)
            if outcome.is_broken:
                raise RuntimeError(f"seed {seed} breaks the simulation: {outcome.failure}")
            if outcome.failure:
                gc.collect()
                return seed, outcome.failure
    gc.collect()
    return None

"""Every mutant of `mutants.py` is caught within the number of seeds that stands beside it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.sim.hunt import mutants

ROOT = Path(__file__).parents[2]
PROCESSES = 2


@pytest.fixture(scope="module")
def hunted() -> Mapping[str, Any]:
    """What became of each, all hunted at once on two processes (a minute of CPU together)."""
    names = mutants()
    hunts = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.sim", "--mutant", *names[part::PROCESSES]],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for part in range(PROCESSES)
    ]
    said = "".join([hunt.communicate()[0] for hunt in hunts])
    return {found["mutant"]: found for found in map(json.loads, said.splitlines())}


@pytest.mark.parametrize("name", mutants())
def test_the_simulator_catches(name: str, hunted: Mapping[str, Any]) -> None:
    assert hunted[name]["seed"] is not None, "it survived all its seeds"

"""The simulator itself: seeds hold, are the same twice, tell their story, and must see things.

`make sim` runs as many seeds as one likes; the few here are for every change.
"""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.batch import SEEDS_THAT_SEE_ALL, SOMETIMES, Progress, Tally
from tests.sim.mutants import MUTANTS, a_snapshot_loses_payment_ids
from tests.sim.run import KINDS, run_seed

ROOT = Path(__file__).parents[2]
SEEDS = 300


def simulate(*arguments: str, hash_seed: str = "0") -> "subprocess.Popen[str]":
    """`python -m tests.sim`."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.sim", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_nothing_is_violated_in_some_seeds() -> None:
    batch = simulate("--seeds", str(SEEDS))
    said, _ = batch.communicate()
    assert batch.returncode == 0, said
    assert f"\n{SEEDS} seeds from 0, " in said


def test_a_seed_is_the_same_run_in_every_process() -> None:
    runs = [simulate("--seed", "95", "--story", hash_seed=seed) for seed in ("0", "1")]
    first, second = [run.communicate()[0] for run in runs]
    assert first == second
    assert first.endswith("seed 95: holds\n")
    assert first.count("\n") > 100


# Coroutines of simulated processes that were killed say so when they are thrown away.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_seed_that_fails_tells_its_story_to_the_broken_law() -> None:
    within = MUTANTS[a_snapshot_loses_payment_ids]
    with pytest.MonkeyPatch.context() as patch:
        a_snapshot_loses_payment_ids(patch)
        failed = next(seed for seed in range(within) if run_seed(seed).failure)
        outcome = run_seed(failed, story=True)
    gc.collect()
    assert outcome.story[-1] == f"FAILED: {outcome.failure}"
    story = "\n".join(outcome.story)
    assert "owns shard 0, epoch 1" in story
    assert "snapshot_published" in story
    assert "FAULT" in story


def test_a_batch_in_which_something_never_happened_says_what() -> None:
    tally = Tally(seeds=SEEDS_THAT_SEE_ALL)
    tally.sometimes.update(SOMETIMES[1:])
    tally.bitten.update([kind.name for kind in KINDS[1:]])
    assert tally.never() == [SOMETIMES[0], f"the fault '{KINDS[0].name}' bites"]
    tally.seeds -= 1
    assert not tally.never(), "so few seeds need not see everything"


def test_a_batch_tells_a_program_what_it_saw() -> None:
    batch = simulate("--seeds", "30", "--first", "1000", "-o", "json")
    report = json.loads(batch.communicate()[0])
    assert (report["first"], report["seeds"], report["failures"]) == (1_000, 30, [])
    assert sum(kind["struck"] for kind in report["faults"].values()) >= 30
    assert report["sometimes"]["a reservation expired"] > 0


def test_progress_says_how_fast_it_goes_and_how_long_it_takes() -> None:
    said = str(Progress(done=3_000, count=1_000_000, failed=2, passed_s=60.0))
    assert said == "3,000 of 1,000,000 seeds, 2 failed, 50 a second, 5:32:20 left"


def test_a_command_line_names_what_it_does_not_know() -> None:
    assert simulate("--sed", "1").wait() == 2

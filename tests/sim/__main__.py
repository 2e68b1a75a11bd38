"""`python -m tests.sim`: run a range of seeds, replay one with its story, or hunt the mutants."""

import argparse
import json
import os
import sys

from tests.sim.batch import Tally, prepare, run_batch
from tests.sim.hunt import hunt, mutants
from tests.sim.run import run_seed


def main() -> int:
    """1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, help="run this one alone")
    parser.add_argument("--story", action="store_true", help="and tell what happened")
    parser.add_argument("--mutant", nargs="*", help="break a rule; without a name, each in turn")
    asked = parser.parse_args()
    if asked.mutant is not None:
        return _hunt(asked.mutant, asked.seeds)
    if asked.seed is not None:
        return _replay(asked.seed, story=asked.story)
    tally = run_batch(asked.first, asked.seeds, asked.workers, _say)
    return _report(tally)


def _say(text: str) -> None:
    print(text, flush=True)


def _replay(seed: int, *, story: bool) -> int:
    prepare()
    outcome = run_seed(seed, story=story)
    for line in outcome.story:
        _say(line)
    _say(f"seed {seed}: {outcome.failure or 'holds'}")
    return bool(outcome.failure)


def _report(tally: Tally) -> int:
    for name, count in sorted(tally.sometimes.items(), key=lambda item: -item[1]):
        _say(f"{count:8} {name}")
    if tally.failures:
        _replay(tally.failures[0][0], story=True)
    for seed, failure in tally.failures:
        _say(f"seed {seed}: {failure}\n    python -m tests.sim --seed {seed} --story")
    for name in tally.never():
        _say(f"never in {tally.seeds} seeds: {name}")
    cpu_ms = 1_000 * tally.cpu_s / max(1, tally.seeds)
    _say(
        f"{tally.seeds} seeds, {tally.operations} operations, {tally.faults} faults, "
        f"{len(tally.failures)} failed, {cpu_ms:.1f} ms of CPU each"
    )
    return bool(tally.failures or tally.never())


def _hunt(names: list[str], seeds: int) -> int:
    prepare()
    survived = 0
    for name in names or mutants():
        found = hunt(name, seeds)
        survived += found is None
        _say(json.dumps({"mutant": name, "seed": found and found[0], "how": found and found[1]}))
    return bool(survived)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Sets of the real code are walked in the order of hashes: a seed is one run only if that
        # order is always the same.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.sim", *sys.argv[1:]])
    sys.exit(main())

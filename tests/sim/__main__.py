"""`python -m tests.sim`: run a range of seeds, replay one with its story, or hunt the mutants."""

import argparse
import json
import os
import sys
import time
from hashlib import sha256

from tests.sim.batch import FAILURES_MAX, ONLY, Progress, Tally, prepare, run_batch
from tests.sim.hunt import hunt, mutants
from tests.sim.run import run_seed


def main() -> int:
    """1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--only", choices=sorted(ONLY)[1:], default="", help="that have these")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, help="run this one alone")
    parser.add_argument("--story", action="store_true", help="and tell what happened")
    parser.add_argument("--mutant", nargs="*", help="break a rule; without a name, each in turn")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    asked = parser.parse_args()
    if asked.seeds < 1 or asked.workers < 1 or asked.first < 0:
        parser.error("--seeds and --workers: at least 1; --first: at least 0")
    if asked.mutant is not None:
        return _hunt(asked.mutant)
    if asked.seed is not None:
        return _replay(asked.seed, story=asked.story)
    began = time.monotonic()
    tally = run_batch(
        asked.first,
        asked.seeds,
        asked.workers,
        only=asked.only,
        on_failure=lambda seed, failure: _tell(f"seed {seed}: {failure}"),
        on_progress=_tell_progress,
    )
    report = _report_json if asked.output == "json" else _report
    report(asked.first, tally, time.monotonic() - began)
    return bool(tally.failures or tally.never())


def _say(text: str) -> None:
    print(text, flush=True)


def _tell(text: str) -> None:
    """To who watches: not a part of the result."""
    print(text, file=sys.stderr, flush=True)


def _tell_progress(progress: Progress) -> None:
    _tell(str(progress))


def _replay(seed: int, *, story: bool) -> int:
    prepare()
    outcome = run_seed(seed, story=story)
    for line in outcome.story:
        _say(line)
    if story:
        _say(f"trace {sha256(chr(10).join(outcome.story).encode()).hexdigest()[:16]}")
    _say(f"seed {seed}: {outcome.failure or 'holds'}")
    return bool(outcome.failure)


def _report(first: int, tally: Tally, passed_s: float) -> None:
    for name, count in tally.sometimes.most_common():
        _say(f"{count:8} {name}")
    for name, count in tally.struck.most_common():
        _say(f"{tally.bitten[name]:8} of {count:6} bit: {name}")
    if tally.failures:
        _replay(tally.failures[0][0], story=True)
    for seed, failure in tally.failures:
        _say(f"seed {seed}: {failure}\n    {_again(seed)}")
    if len(tally.failures) >= FAILURES_MAX:
        _say(f"stopped after {FAILURES_MAX} failures")
    for name in tally.never():
        _say(f"never in {tally.seeds} seeds: {name}")
    _say(
        f"{tally.seeds} seeds from {first}, {tally.operations} operations, "
        f"{tally.struck.total()} faults, {len(tally.failures)} failed, "
        f"{_cpu_ms(tally):.1f} ms of CPU each, {passed_s:.0f} s"
    )


def _again(seed: int) -> str:
    return f"python -m tests.sim --seed {seed} --story"


def _cpu_ms(tally: Tally) -> float:
    return 1_000 * tally.cpu_s / max(1, tally.seeds)


def _report_json(first: int, tally: Tally, passed_s: float) -> None:
    failures = [
        {"seed": seed, "failure": failure, "replay": _again(seed)}
        for seed, failure in tally.failures
    ]
    report = {
        "first": first,
        "seeds": tally.seeds,
        "operations": tally.operations,
        "failures": failures,
        "never": tally.never(),
        "sometimes": dict(tally.sometimes.most_common()),
        "faults": {
            name: {"struck": count, "bit": tally.bitten[name]}
            for name, count in tally.struck.most_common()
        },
        "cpu_ms_a_seed": round(_cpu_ms(tally), 2),
        "passed_s": round(passed_s, 1),
    }
    _say(json.dumps(report, indent=2))


def _hunt(names: list[str]) -> int:
    prepare()
    survived = 0
    for name in names or mutants():
        found = hunt(name)
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

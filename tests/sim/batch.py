"""Many seeds on all cores: what failed, what was seen, how long it took.

A batch also fails when something that must happen sometimes never did: then the simulator has
stopped looking where it should, and "nothing was violated" means nothing.
"""

import gc
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.sim.run import run_seed

CHUNK = 50
SEEDS_THAT_SEE_ALL = 2_000
"""In so many seeds everything of `SOMETIMES` happens, and the rarest of it many times."""
FAILURES_MAX = 10
"""A batch that has so many is not carried on."""

SOMETIMES = (
    "a zombie was fenced",
    "a resend was recognised",
    "a promotion met an append in flight",
    "a promotion was sent again",
    "a primary died with a round",
    "a round was lost and its lines sent again",
    "a round came twice",
    "a primary said that its journal is slow",
    "a standby was not ready",
    "a stopped owner held the lock",
    "a shard halted and said why",
    "a reservation expired",
    "an expiry raced a confirm",
    "a late payment found units",
    "a shortage revoked something",
    "a snapshot was taken",
    "a snapshot was loaded",
    "a snapshot failed",
    "the journal was trimmed",
    "a trim forced a reload",
    "a reservation was recalled",
    "a commit's outcome was unknown",
)


@dataclass(slots=True)
class Tally:
    """What a number of seeds came to."""

    seeds: int = 0
    failures: list[tuple[int, str]] = field(default_factory=list)
    sometimes: Counter[str] = field(default_factory=Counter)
    """Seeds in which it happened."""
    operations: int = 0
    faults: int = 0
    cpu_s: float = 0.0

    def add(self, other: "Tally") -> None:
        """Count another's seeds too."""
        self.seeds += other.seeds
        self.failures += other.failures
        self.sometimes += other.sometimes
        self.operations += other.operations
        self.faults += other.faults
        self.cpu_s += other.cpu_s

    def never(self) -> Sequence[str]:
        """What should have happened in so many seeds, and did not."""
        if self.seeds < SEEDS_THAT_SEE_ALL:
            return ()
        return [name for name in SOMETIMES if not self.sometimes[name]]


def prepare() -> None:
    """Once a process: what is imported is not walked by the collector any more."""
    gc.collect()
    gc.freeze()
    gc.disable()
    # Coroutines of processes that were killed say so when they are thrown away.
    sys.unraisablehook = lambda _: None


def run_some(seeds: Iterable[int], *, stop_at_failure: bool = False) -> Tally:
    """Run seeds in this process."""
    tally = Tally()
    began = time.process_time()
    for seed in seeds:
        outcome = run_seed(seed)
        tally.seeds += 1
        tally.operations += outcome.operations
        tally.faults += outcome.faults
        tally.sometimes.update(set(outcome.sometimes))
        if tally.seeds % CHUNK == 0:
            gc.collect()
        if outcome.failure:
            tally.failures.append((seed, outcome.failure))
            if stop_at_failure:
                break
    gc.collect()
    tally.cpu_s = time.process_time() - began
    return tally


def run_batch(first: int, count: int, workers: int, say: Callable[[str], None]) -> Tally:
    """Run seeds `first` to `first + count - 1` on so many processes."""
    tally, began, told = Tally(), time.monotonic(), 0.0
    chunks = [
        range(at, min(at + CHUNK, first + count)) for at in range(first, first + count, CHUNK)
    ]
    for part in _on_processes(chunks, workers):
        tally.add(part)
        for seed, failure in part.failures:
            say(f"seed {seed}: {failure}")
        passed = time.monotonic() - began
        if passed - told > 10:
            told = passed
            say(f"{tally.seeds} of {count} seeds, {len(tally.failures)} failed, {passed:.0f} s")
        if len(tally.failures) >= FAILURES_MAX:
            break
    tally.failures.sort()
    return tally


def _on_processes(chunks: Sequence[range], workers: int) -> Iterator[Tally]:
    if workers <= 1:
        prepare()
        yield from map(run_some, chunks)
        return
    if os.environ.get("PYTHONHASHSEED") != "0":
        raise RuntimeError("set PYTHONHASHSEED=0, or a seed is not the same twice")
    with multiprocessing.get_context("spawn").Pool(workers, prepare) as pool:
        yield from pool.imap_unordered(run_some, chunks)

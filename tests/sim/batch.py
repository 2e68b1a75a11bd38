"""Many seeds on all cores: what failed, what was seen, how long it took.

A batch also fails when something that must happen sometimes never did, or a kind of fault never
changed anything: then the simulator has stopped looking where it should, and "nothing was violated"
means nothing.

A run leaves cycles behind (tasks of processes that were killed), some 350 kB. To collect them costs
a tenth of a run's time; to throw the whole process away costs nothing. So seeds are run in chunks,
each in a process of its own, forked from one that has imported everything: memory stays bounded
however many seeds there are.
"""

import gc
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice

from tests.sim.groups import has_groups
from tests.sim.promoters import has_accounts
from tests.sim.run import KINDS, run_seed

CHUNK = 50
SEEDS_THAT_SEE_ALL = 2_000
"""In so many seeds everything of `SOMETIMES` happens, and the rarest of it many times."""
FAILURES_MAX = 10
"""A batch that has so many is not carried on."""
TOLD_EVERY_S = 10
ONLY: Mapping[str, Callable[[int], bool]] = {
    "": lambda _: True,
    "accounts": has_accounts,
    "groups": has_groups,
}
"""Which seeds to run: all, or those that have something."""

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
    "a damaged snapshot was not taken",
    "the journal was trimmed",
    "a journal was full",
    "a trim forced a reload",
    "a reservation was recalled",
    "a row could not be recalled",
    "a commit's outcome was unknown",
    "everything was started again",
    "a line was given up",
    "a replica at work was audited",
    "a last seat was refused while it was not paid",
    "a late payer was relocated",
    "a leader left and another followed",
    "a team formed when its last seat was paid",
    "a team formed at its deadline",
    "an operator completed a team",
    "a failed team owed a refund",
    "a ladder paid a difference back",
    "a team left memory",
    "a promotion came when a team was to end",
    "a fact came again and was known",
    "a fact came out of order",
    "a fact was taken late",
    "several facts were taken at once",
    "a line of facts was taken in part",
    "a round of the relay came twice",
    "a round of the relay came when that had died",
    "a stock primary died before a fact was taken",
    "an account primary died before a fact was taken",
    "an account primary died with a fact, before its entry stood",
    "an account primary died with a fact, when its entry stood",
    "the relay died before a fact was taken",
    "the relay died before it heard that a fact was taken",
    "the relay read facts from SQL",
    "a journal was trimmed before a late relay",
    "an order was told before an older binding of another shard was taken",
    "a reservation bound its buyer",
    "a buyer was bound to another",
    "a binding was renewed",
    "an order paid who was bound before",
    "two levels earned",
    "a seat of a team earned",
    "an order earned at the rates of before",
    "a held distributor earned",
    "a commission was reversed",
    "a reversal was at the rates of before",
    "a reversal took what was settled",
    "a reversal took what a hold kept",
    "a distributor came to owe",
    "a commission became available",
    "a commission waited for the end of a hold",
    "what a hold kept became available",
    "a statement was made",
    "a month was closed by itself",
    "a statement says that money left",
    "money was withdrawn",
    "a withdrawal was approved",
    "a withdrawal was rejected",
    "a withdrawal was paid",
    "a withdrawal was put back",
    "an order that earned left memory",
    "a withdrawal left memory",
    "an order was recalled",
    "a withdrawal was recalled",
    "failed payments froze a buyer",
    "a freeze ended by itself",
    "a distributor was held",
    "a hold ended by itself",
)


@dataclass(slots=True)
class Tally:
    """What a number of seeds came to."""

    seeds: int = 0
    failures: list[tuple[int, str]] = field(default_factory=list)
    sometimes: Counter[str] = field(default_factory=Counter)
    """Seeds in which it happened."""
    operations: int = 0
    struck: Counter[str] = field(default_factory=Counter)
    """Faults by kind."""
    bitten: Counter[str] = field(default_factory=Counter)
    """Those of them that changed something."""
    cpu_s: float = 0.0

    def add(self, other: "Tally") -> None:
        """Count another's seeds too."""
        self.seeds += other.seeds
        self.failures += other.failures
        self.sometimes += other.sometimes
        self.operations += other.operations
        self.struck += other.struck
        self.bitten += other.bitten
        self.cpu_s += other.cpu_s

    def never(self) -> list[str]:
        """What should have happened in so many seeds, and did not."""
        if self.seeds < SEEDS_THAT_SEE_ALL:
            return []
        toothless = [f"the fault '{k.name}' bites" for k in KINDS if not self.bitten[k.name]]
        return [name for name in SOMETIMES if not self.sometimes[name]] + toothless


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a batch has come, for who watches it."""

    done: int
    count: int
    failed: int
    passed_s: float

    def __str__(self) -> str:
        rate = self.done / self.passed_s if self.passed_s else 0.0
        left_s = (self.count - self.done) / rate if rate else 0.0
        return (
            f"{self.done:,} of {self.count:,} seeds, {self.failed} failed, {rate:.0f} a second, "
            f"{_clock(left_s)} left"
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def prepare() -> None:
    """Once a process: what is imported is not walked by the collector any more."""
    gc.collect()
    gc.freeze()
    gc.disable()
    # Coroutines of processes that were killed say so when they are thrown away.
    sys.unraisablehook = lambda _: None


def run_some(seeds: Iterable[int]) -> Tally:
    """Run seeds in this process, and collect nothing."""
    tally = Tally()
    began = time.process_time()
    for seed in seeds:
        outcome = run_seed(seed)
        tally.seeds += 1
        tally.operations += outcome.operations
        tally.struck += outcome.struck
        tally.bitten += outcome.bitten
        tally.sometimes.update([name for name, count in outcome.sometimes.items() if count])
        if outcome.failure:
            tally.failures.append((seed, outcome.failure))
    tally.cpu_s = time.process_time() - began
    return tally


def run_batch(
    first: int,
    many: int,
    workers: int,
    *,
    only: str = "",
    on_failure: Callable[[int, str], None],
    on_progress: Callable[[Progress], None],
) -> Tally:
    """Run seeds `first` to `first + many - 1`, or so many of `ONLY`, on so many processes; no more
    are begun after `FAILURES_MAX` have failed. RuntimeError if seeds would not be the same twice.
    """
    if os.environ.get("PYTHONHASHSEED") != "0":
        raise RuntimeError("set PYTHONHASHSEED=0, or a seed is not the same twice")
    tally, began, told_s = Tally(), time.monotonic(), 0.0
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.sim.batch"])
    with context.Pool(workers, prepare, maxtasksperchild=1) as pool:
        for part in pool.imap_unordered(run_some, _chunks(first, many, only)):
            tally.add(part)
            for seed, failure in part.failures[:FAILURES_MAX]:
                on_failure(seed, failure)
            passed_s = time.monotonic() - began
            if passed_s - told_s > TOLD_EVERY_S:
                told_s = passed_s
                on_progress(Progress(tally.seeds, many, len(tally.failures), passed_s))
            if len(tally.failures) >= FAILURES_MAX:
                break
    tally.failures = sorted(tally.failures)[:FAILURES_MAX]
    return tally


def _chunks(first: int, many: int, only: str) -> Iterator[Sequence[int]]:
    seeds = islice(filter(ONLY[only], count(first)), many)
    while chunk := list(islice(seeds, CHUNK)):
        yield chunk

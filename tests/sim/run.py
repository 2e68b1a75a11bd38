"""One seed: a small cluster, some fifty operations, faults, then peace, and all books compared.

A run is a function of its seed, given PYTHONHASHSEED=0 (sets of the real code are walked in the
order of hashes). `small_world` makes times and tables small, ten times or more, so that a few
seconds of virtual time see what takes minutes: all ratios that a rule rests on are kept.
"""

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

from actors import clock, lateness
from actors.core import bloom, snapshot, tables
from actors.core import state as s
from actors.core.evolve import Impossible
from actors.limits import ShardLimits
from server.gather import GatherLimits
from tests.sim.callers import Callers
from tests.sim.cluster import Cluster, Shape
from tests.sim.ending import Ending
from tests.sim.events import Events, listening
from tests.sim.faults import Faults
from tests.sim.ledger import Ledger, Violation
from tests.sim.loop import START_S, STOPPED, World

LENGTH_S, LONG_S = 2.4, 5.5
"""In which the operations are asked; the second is long enough to forget a refusal twice over."""
PATIENCE_S = 8.0
"""After the last fault was mended: by then every operation is over, every shard serves, its standby
and SQL have all there is."""


class Outcome(NamedTuple):
    """What became of a seed."""

    seed: int
    failure: str
    """'' if nothing was violated."""
    is_broken: bool
    """It was the simulation that failed: an error that no law speaks of."""
    sometimes: Counter[str]
    operations: int
    faults: int
    story: list[str]


@contextmanager
def small_world() -> Iterator[None]:
    """Tables split early, windows are short. A call lives 1.25 s, a refusal 1.875 s: as 10 to 15;
    a shard trusts its clock for 0.625 s, as it does for 5."""
    changes: tuple[tuple[Any, str, int], ...] = (
        (s, "REFUSAL_WINDOW_MS", 1_875),
        (clock, "TRUSTED_SKEW_MS", 625),
        (lateness, "LATE_MS", 250),
        (snapshot, "ROWS_A_CHUNK", 3),
        (tables, "SPLIT_AT", 12),
        (tables, "PART_COUNT", 256),
        (bloom, "FIRST_KEYS", 4),
    )
    patches = [mock.patch.object(module, name, value) for module, name, value in changes]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def shape_of(world: World) -> Shape:
    """A cluster's size and limits, by chance."""
    chance = world.chance
    forgets = chance.random() < 0.5
    limits = ShardLimits(
        append_patience_ms=chance.choice((20, 100)),
        resend_pause_ms=chance.choice((5, 20)),
        promote_patience_ms=100,
        promote_lag_entries=chance.choice((3, 1_000)),
        expiry_grace_ms=chance.choice((0, 200, 500)),
        recall_after_ms=400 if forgets else 86_400_000,
        follow_pause_ms=chance.choice((20, 50, 50)),
        follow_bytes=chance.choice((500, 100_000)),
        snapshot_entries=chance.choice((6, 15, 60)),
        snapshot_every_ms=chance.choice((400, 5_000)),
        snapshot_pause_ms=chance.choice((1, 20)),
        housekeeping_ms=chance.choice((200, 600)),
        trim_entries=3,
        refusals_max=chance.choice((3, 1_000, 1_000)),
        journal_bytes_max=1_000_000_000,
    )
    gather = GatherLimits(
        round_timeout_ms=250,
        busy_patience_ms=150,
        promotion_gap_ms=chance.choice((300, 800)),
        chores_ms=300,
        round_lines=chance.choice((2, 1_000)),
    )
    shards, gateways = chance.choice(((1, 1), (1, 1), (1, 2), (2, 1)))
    embedded = chance.random() < 0.3
    length_s = LONG_S if chance.random() < 0.1 else LENGTH_S
    return Shape(shards, gateways, limits, gather, forgets, embedded, length_s)


class Run:
    """Everything of one seed."""

    def __init__(self, seed: int) -> None:
        self.world = World(seed)
        self.events = Events(self.world)

    def go(self) -> None:
        """Raises Violation."""
        world = self.world
        shape = shape_of(world)
        self.ledger = ledger = Ledger(world, shape.shards)
        self.cluster = cluster = Cluster(world, shape, ledger)
        ledger.sink = cluster.sink
        ledger.in_flight = self._in_flight
        if shape.embedded:
            ledger.lock_holder = self._lock_holder
        cluster.on_transfer = ledger.serve
        self.callers = callers = Callers(cluster, ledger)
        self.faults = faults = Faults(cluster, ledger)
        opened: list[bool] = []
        callers.open_shop(lambda: opened.append(True))
        if not world.run(lambda: bool(opened), START_S + PATIENCE_S):
            raise Violation("liveness: the shop does not open")
        chance = world.chance
        operations = chance.randint(30, 60)
        for _ in range(operations):
            world.after(chance.random() * shape.length_s, callers.something)
        faults.schedule(chance.randint(1, 5), shape.length_s)
        world.run(lambda: bool(cluster.findings), world.now + shape.length_s)
        faults.mend_all()
        Ending(cluster, ledger, callers).compare(PATIENCE_S)

    def _lock_holder(self, shard: int) -> str:
        """A stopped process keeps SQLite's write lock, if it was stopped with an append on its
        way."""
        for instance in self.cluster.pairs[shard].instances.values():
            if instance.process.status is STOPPED and instance.journal.appending:
                return instance.token
        return ""

    def _in_flight(self, shard: int, owner: str) -> bool:
        """Whether somebody else's append is on its way, or was when he died."""
        pair = self.cluster.pairs[shard]
        return any(x.journal.appending and x.token != owner for x in pair.instances.values())


def run_seed(seed: int, *, story: bool = False) -> Outcome:
    """Run one seed. Never raises for what it finds."""
    run = Run(seed)
    if story:
        run.world.story = []
    failure, is_broken = "", False
    with small_world(), listening(run.events, story=story):
        try:
            run.go()
        except (AssertionError, Impossible) as error:
            failure = str(error) or repr(error)
        except Exception as error:  # noqa: BLE001 - what breaks the simulation is a finding too
            failure, is_broken = f"{type(error).__name__}: {error}", True
            if run.world.story is not None:
                run.world.story += traceback.format_exc().splitlines()
    sometimes = run.events.sometimes()
    if hasattr(run, "ledger"):
        sometimes += run.ledger.sometimes
    if hasattr(run, "cluster") and run.cluster.network.repeated:
        sometimes["a round came twice"] += 1
    told = [*(run.world.story or []), f"FAILED: {failure}"] if failure else run.world.story or []
    operations = len(run.callers.told) if hasattr(run, "callers") else 0
    faults = len(run.faults.done) if hasattr(run, "faults") else 0
    return Outcome(seed, failure, is_broken, sometimes, operations, faults, told)

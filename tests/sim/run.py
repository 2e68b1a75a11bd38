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

from actors import clock, lateness, snapshotting
from actors.core import bloom, snapshot, tables
from actors.core import state as s
from actors.core.evolve import Impossible
from actors.limits import ShardLimits
from server.gather import GatherLimits
from tests.sim import faults_of_network, faults_of_processes, faults_of_relay, faults_of_stores
from tests.sim.account_ledger import AccountLedger
from tests.sim.account_sightings import Sightings
from tests.sim.books import Violation
from tests.sim.callers import Callers
from tests.sim.cluster import Cluster, Shape, map_of
from tests.sim.ending import Ending
from tests.sim.events import Events, listening
from tests.sim.faults import Faults, Kind
from tests.sim.groups import Groups, has_groups
from tests.sim.loop import START_S, STOPPED, World
from tests.sim.promoters import Promoters, has_accounts
from tests.sim.team_ledger import TeamLedger

LENGTH_S, LONG_S = 2.4, 5.5
"""In which the operations are asked; the second is long enough to forget a refusal twice over."""
ALWAYS = (*faults_of_processes.KINDS, *faults_of_network.KINDS, *faults_of_stores.KINDS)
"""Kinds of faults that need no relay."""
KINDS = (*ALWAYS, *faults_of_relay.KINDS)
"""Every kind of fault there is."""
CHOSEN = tuple(kind for kind in ALWAYS for _ in range(kind.weight))
OF_RELAYS = tuple(kind for kind in faults_of_relay.KINDS for _ in range(kind.weight))
FOR_ALL = tuple(kind for kind in CHOSEN if not kind.spares_the_forgetful)
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
    struck: Counter[str]
    """Faults by kind."""
    bitten: Counter[str]
    """... and those that changed something."""
    story: list[str]


@contextmanager
def small_world() -> Iterator[None]:
    """Tables split early, windows are short. A call lives 1.25 s, a refusal 1.875 s: as 10 to 15;
    a shard trusts its clock for 0.625 s, as it does for 5; late is what
    comes 0.25 s after its time, as it is after 2 s."""
    changes: tuple[tuple[Any, str, int], ...] = (
        (s, "REFUSAL_WINDOW_MS", 1_875),
        (clock, "TRUSTED_SKEW_MS", 625),
        (lateness, "LATE_MS", 250),
        (lateness, "ONLY_LATE_S", 0.25),
        (snapshotting, "MEASURE_EVERY_S", 0.2),
        (snapshot, "ROWS_A_CHUNK", 5),
        (tables, "SPLIT_AT", 12),
        (tables, "PART_COUNT", 256),
        (bloom, "FIRST_KEYS", 4),
    )
    before = [getattr(module, name) for module, name, _ in changes]
    for module, name, value in changes:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(changes, before, strict=True):
            setattr(module, name, value)


def kinds_of(world: World, *, forgets: bool) -> list[Kind]:
    """What goes wrong, by chance."""
    kinds = [world.chance.choice(CHOSEN) for _ in range(world.chance.randint(1, 5))]
    fit = [kind for kind in kinds if not (forgets and kind.spares_the_forgetful)]
    return fit or [world.chance.choice(FOR_ALL)]


def shape_of(world: World, *, forgets: bool, length_s: float) -> Shape:
    """A cluster's size and limits, by chance."""
    chance = world.chance
    limits = ShardLimits(
        append_patience_ms=chance.choice((20, 100)),
        resend_pause_ms=chance.choice((5, 20)),
        promote_patience_ms=100,
        promote_lag_entries=chance.choice((3, 1_000)),
        expiry_grace_ms=chance.choice((0, 200, 500)),
        recall_after_ms=400 if forgets else 86_400_000,
        follow_pause_ms=chance.choice((20, 60, 100)),
        follow_bytes=chance.choice((500, 100_000)),
        snapshot_entries=chance.choice((6, 15, 60)),
        snapshot_every_ms=chance.choice((400, 3_000)),
        snapshot_pause_ms=chance.choice((1, 20)),
        housekeeping_ms=chance.choice((200, 600)),
        trim_entries=3,
        refusals_max=chance.choice((3, 1_000, 1_000)),
        journal_bytes_max=chance.choice((2_500, 4_000, *[1_000_000_000] * 8)),
    )
    gather = GatherLimits(
        round_timeout_ms=250,
        busy_patience_ms=150,
        promotion_gap_ms=chance.choice((300, 800)),
        chores_ms=300,
        round_lines=chance.choice((2, 1_000)),
    )
    shards, gateways = chance.choice(((1, 1), (1, 2), (2, 1)))
    embedded = chance.random() < 0.3
    return Shape(shards, gateways, limits, gather, forgets, embedded, length_s)


class Run:
    """Everything of one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.world = World(seed)
        self.events = Events(self.world)

    def go(self) -> None:
        """Raises Violation."""
        world = self.world
        forgets = world.chance.random() < 0.5
        kinds = kinds_of(world, forgets=forgets)
        length_s = LONG_S if any(kind.is_long for kind in kinds) else LENGTH_S
        shape = shape_of(world, forgets=forgets, length_s=length_s)
        if has_accounts(self.seed):
            shape = shape._replace(accounts=world.chance.choice((1, 1, 1, 2)))
            kinds += [world.chance.choice(OF_RELAYS) for _ in range(world.chance.randint(1, 2))]
        self.ledger = ledger = self._ledger(shape)
        self.cluster = cluster = Cluster(world, shape, ledger)
        ledger.sink = cluster.sink
        cluster.sink.on_commit = self._committed
        ledger.in_flight = self._in_flight
        if shape.embedded:
            ledger.lock_holder = self._lock_holder
        cluster.on_transfer = ledger.serve
        if isinstance(ledger, AccountLedger):
            Sightings(cluster, ledger)
        self.callers = callers = Callers(cluster, ledger)
        self.faults = faults = Faults(cluster, ledger)
        groups = Groups(callers, ledger) if has_groups(self.seed) else None
        if groups is not None:
            callers.terms = groups.terms
        opened: list[bool] = []
        promoters = Promoters(callers, ledger) if isinstance(ledger, AccountLedger) else None
        if promoters is None:
            callers.open_shop(lambda: opened.append(True))
        else:
            callers.share = promoters.share
            promoters.open(lambda: callers.open_shop(lambda: opened.append(True)))
        if not world.run(lambda: bool(opened), START_S + PATIENCE_S):
            raise Violation("liveness: the shop does not open")
        chance = world.chance
        # Promoters ask for as much again, and stock alone has the other seeds.
        operations = chance.randint(30, 60) if promoters is None else chance.randint(15, 35)
        for _ in range(operations):
            world.after(chance.random() * shape.length_s, callers.something)
        if groups is not None:
            groups.schedule(shape.length_s)
        if promoters is not None:
            promoters.schedule(shape.length_s)
        faults.schedule(kinds, shape.length_s)
        world.run(lambda: bool(cluster.findings), world.now + shape.length_s)
        faults.mend_all()
        Ending(cluster, ledger, callers).compare(PATIENCE_S)

    def _ledger(self, shape: Shape) -> TeamLedger:
        if not shape.accounts:
            return TeamLedger(self.world, shape.shards)
        slots_of, _ = map_of(shape.shards, shape.accounts)
        return AccountLedger(self.world, slots_of, shape.shards)

    def _committed(self, shard: int, from_seq: int, to_seq: int) -> None:
        try:
            self.ledger.committed(shard, from_seq, to_seq)
        except AssertionError as error:
            # It is no trouble of the projector's, which would only try again.
            self.cluster.broken(str(error))

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
    if run.world.harm["repeated"]:
        sometimes["a round came twice"] += 1
    told = [*(run.world.story or []), f"FAILED: {failure}"] if failure else run.world.story or []
    operations = len(run.callers.told) if hasattr(run, "callers") else 0
    struck, bitten = Counter[str](), Counter[str]()
    if hasattr(run, "faults"):
        # What can bite more than once is counted once a fault.
        struck, bitten = run.faults.struck, run.faults.bitten & run.faults.struck
    return Outcome(seed, failure, is_broken, sometimes, operations, struck, bitten, told)

"""What goes wrong: a schedule of faults from the seed, each with its end.

A kind of fault is a function that does its harm and answers what mends it again (or nothing, for
what mends itself, as a killed process does). All are mended when the callers have asked their last.

A fault that changes nothing proves nothing. So each kind says what shows that it bit: something
that `World.harm` counts while it lasts, or, if that is '', it says so itself by `Faults.bit`. A
batch fails when a kind never bit.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from actors.shard import Role
from tests.sim.cluster import Cluster, Gateway, Instance, Pair, Trap
from tests.sim.ledger import Ledger
from tests.sim.loop import World

EARLY = 0.4
Mend = Callable[[], None] | None


class Kind(NamedTuple):
    """A kind of fault."""

    strike: Callable[["Faults"], Mend]
    shows: str
    """What `World.harm` counts when it bites; '' if it says so itself."""
    weight: int = 1
    """How often it is chosen, beside the others."""
    is_long: bool = False
    """What it does shows long after: it strikes early, in a run of more time."""
    lasts_s: tuple[float, ...] = (0.1, 0.4, 1.0, 1.5)
    """About how long; one of these."""
    spares_the_forgetful: bool = False
    """Not where finished reservations leave memory soon: see `Shape.forgets`."""

    @property
    def name(self) -> str:
        """As the story has it."""
        return self.strike.__name__.replace("_", " ")


class Faults:
    """The harm done to one cluster."""

    def __init__(self, cluster: Cluster, ledger: Ledger) -> None:
        self.cluster, self.ledger = cluster, ledger
        self.world: World = cluster.world
        self.mends: list[Callable[[], None]] = []
        self.struck: Counter[str] = Counter()
        self.bitten: Counter[str] = Counter()
        self.peace = False

    def schedule(self, kinds: Sequence[Kind], length_s: float) -> None:
        """Choose their times."""
        for kind in kinds:
            within_s = length_s * EARLY if kind.is_long else length_s
            self.world.after(self.world.chance.random() * within_s, self._strike, kind)

    def _strike(self, kind: Kind) -> None:
        if self.peace:
            return
        world, name = self.world, kind.name
        before = world.harm[kind.shows]
        self.struck[name] += 1
        world.tell("FAULT", name)
        mend = kind.strike(self)

        def end() -> None:
            if end not in self.mends:
                return
            self.mends.remove(end)
            if kind.shows and world.harm[kind.shows] > before:
                self.bit(name)
            if mend is not None:
                world.tell("MENDED", name)
                mend()

        self.mends.append(end)
        if mend is None:
            # What it did at once is its own; a moment later it could be another's.
            end()
        else:
            lasts_s = world.chance.choice(kind.lasts_s) * (0.5 + world.chance.random())
            world.after(lasts_s, end)

    def bit(self, name: str) -> None:
        """A fault of this name changed something."""
        self.bitten[name] += 1

    def mend_all(self) -> None:
        """From here on nothing is wrong any more."""
        self.peace = True
        self.world.tell("MENDED", "everything")
        self.cluster.traps.clear()
        for mend in list(self.mends):
            mend()
        self.cluster.resume_all()

    # Whom it strikes

    def pair(self) -> Pair:
        """A shard's two replicas."""
        return self.world.chance.choice(self.cluster.pairs)

    def primary(self) -> Instance:
        """A primary, or who is there if there is none."""
        pair = self.pair()
        return pair.primary or self.world.chance.choice(list(pair.instances.values()))

    def standby(self) -> Instance:
        """A standby, or who is there if there is none."""
        pair = list(self.pair().instances.values())
        standbys = [one for one in pair if one.shard.role is Role.STANDBY]
        return self.world.chance.choice(standbys or pair)

    def gateway(self) -> Gateway:
        """One that lives or is being started again."""
        return self.world.chance.choice(list(self.cluster.gateways.values()))

    def late_s(self, *choices: float) -> float:
        """How late a message may be."""
        late_s = self.world.chance.choice(choices)
        return min(late_s, 0.05) if self.cluster.shape.forgets else late_s

    def when(
        self, matches: Callable[[Instance, str], bool], spring: Callable[[Instance], None]
    ) -> None:
        """Once an instance makes a call to a store that matches, and there is no peace yet."""
        self.cluster.traps.append(Trap(matches, spring))

    def soon(self, within_s: float, act: Callable[[], None]) -> None:
        """Do it a moment from now, unless there is peace by then."""

        def do() -> None:
            if not self.peace:
                act()

        self.world.after(self.world.chance.random() * within_s, do)

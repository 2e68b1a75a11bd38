"""What goes wrong: a schedule of faults from the seed, each with its end.

A fault is a function that does its harm and answers what mends it again (or nothing, for what
mends itself, as a killed process does). All are mended when the callers have asked their last.
"""

from collections.abc import Callable, Sequence

from actors.core.snapshot import chunks
from actors.shard import Role
from tests.sim.cluster import INCARNATION, Cluster, Gateway, Instance
from tests.sim.ledger import Ledger
from tests.sim.loop import RUNNING, World
from tests.sim.stores import Weather

Mend = Callable[[], None] | None
HOUR_MS = 3_600_000


class Faults:
    """The harm done to one cluster."""

    def __init__(self, cluster: Cluster, ledger: Ledger) -> None:
        self.cluster, self.ledger = cluster, ledger
        self.world: World = cluster.world
        self.mends: list[Callable[[], None]] = []
        self.done: list[str] = []
        self.peace = False

    def schedule(self, count: int, length_s: float) -> None:
        """Choose the faults and their times."""
        chance = self.world.chance
        for _ in range(count):
            fault = chance.choice(FAULTS)
            self.world.after(chance.random() * length_s, self._strike, fault)

    def _strike(self, fault: Callable[["Faults"], Mend]) -> None:
        if self.peace:
            return
        name = fault.__name__.strip("_")
        self.done.append(name)
        self.world.tell("FAULT", name.replace("_", " "))
        mend = fault(self)
        if mend is None:
            return

        def end() -> None:
            if mend in self.mends:
                self.mends.remove(mend)
                self.world.tell("MENDED", name.replace("_", " "))
                mend()

        self.mends.append(mend)
        chance = self.world.chance
        self.world.after(chance.choice((0.1, 0.4, 1.0, 1.5)) * (0.5 + chance.random()), end)

    def mend_all(self) -> None:
        """From here on nothing is wrong any more."""
        self.peace = True
        self.world.tell("MENDED", "everything")
        mends, self.mends = self.mends, []
        for mend in mends:
            mend()
        self.cluster.resume_all()

    # Whom it strikes

    def _pair(self) -> Sequence[Instance]:
        return list(self.world.chance.choice(self.cluster.pairs).instances.values())

    def _primary(self) -> Instance:
        pair = self.world.chance.choice(self.cluster.pairs)
        return pair.primary or self.world.chance.choice(list(pair.instances.values()))

    def _standby(self) -> Instance:
        pair = self._pair()
        standbys = [one for one in pair if one.shard.role is Role.STANDBY]
        return self.world.chance.choice(standbys or pair)

    def _gateway(self) -> Gateway:
        return self.world.chance.choice(list(self.cluster.gateways.values()))

    def _late_s(self, *choices: float) -> float:
        """How late a message may be."""
        late_s = self.world.chance.choice(choices)
        return min(late_s, 0.05) if self.cluster.shape.forgets else late_s

    # Processes

    def _kill_a_primary(self) -> Mend:
        self.cluster.kill(self._primary())
        return None

    def _kill_a_primary_in_the_act(self) -> Mend:
        """While its append is on its way."""
        instance = self._primary()

        def strike(tries: int = 400) -> None:
            if self.peace:
                return
            if instance.journal.appending or tries == 0:
                self.cluster.kill(instance)
            else:
                self.world.after(0.0005, strike, tries - 1)

        strike()
        return None

    def _kill_whoever_is_promoted_next(self) -> Mend:
        """The old primary, and a moment after its promotion the new one."""
        pair = self.world.chance.choice(self.cluster.pairs)
        old = pair.primary
        if old is not None:
            self.cluster.kill(old)

        def strike(tries: int = 400) -> None:
            if self.peace:
                return
            found = [x for x in pair.instances.values() if x.process.alive]
            taking = [x for x in found if x.shard.role is Role.PROMOTING]
            if taking:
                self.world.after(self.world.chance.random() * 0.02, self.cluster.kill, taking[0])
            elif tries:
                self.world.after(0.001, strike, tries - 1)

        strike()
        return None

    def _kill_a_standby(self) -> Mend:
        self.cluster.kill(self._standby())
        return None

    def _kill_both(self) -> Mend:
        for instance in self._pair():
            self.cluster.kill(instance)
        return None

    def _stop_a_primary(self) -> Mend:
        process = self._primary().process
        process.stop()
        return process.resume

    def _stop_a_primary_in_the_act(self) -> Mend:
        instance = self._primary()

        def strike(tries: int = 400) -> None:
            if self.peace:
                return
            if instance.journal.appending and instance.process.status is RUNNING:
                instance.process.stop()
            elif tries and instance.process.alive:
                self.world.after(0.0005, strike, tries - 1)

        strike()
        return instance.process.resume

    def _stop_a_standby(self) -> Mend:
        process = self._standby().process
        process.stop()
        return process.resume

    def _stop_a_gateway(self) -> Mend:
        process = self._gateway().process
        process.stop()
        return process.resume

    def _kill_a_gateway(self) -> Mend:
        gateway = self._gateway()
        if gateway.process.alive:
            self.cluster.kill_gateway(gateway)
        return None

    def _kill_the_projector(self) -> Mend:
        if self.cluster.projector.alive:
            self.cluster.kill_projector()
        return None

    def _stop_the_projector(self) -> Mend:
        process = self.cluster.projector
        process.stop()
        return process.resume

    def _hold_a_replica_down(self) -> Mend:
        """It does not come back for a while."""
        instance = self._standby()
        name = instance.process.name
        self.cluster.held_down.add(name)
        self.cluster.kill(instance)
        return lambda: self.cluster.held_down.discard(name)

    # The network

    def _cut_off_a_primary(self) -> Mend:
        """Gateways do not reach it; the journal it does: a false suspicion."""
        return self._cut_off(self._primary())

    def _cut_off(self, instance: Instance) -> Callable[[], None]:
        cut = {(gateway, instance.process.name) for gateway in self.cluster.gateways}
        self.cluster.network.cut |= cut
        return lambda: self.cluster.network.cut.difference_update(cut)

    def _suspect_a_writing_primary(self) -> Mend:
        """As before; and an append of its arrives in the very moment of the other's promotion."""
        instance = self._primary()
        mend_link = self._cut_off(instance)
        instance.journal.hold()

        def strike(tries: int = 2_000) -> None:
            others = [x for x in instance.pair.instances.values() if x is not instance]
            if any(x.process.alive and x.shard.role is Role.PROMOTING for x in others):
                self.world.after(self.world.chance.random() * 0.006, instance.journal.let_go)
            elif tries and not self.peace:
                self.world.after(0.0005, strike, tries - 1)

        def mend() -> None:
            mend_link()
            instance.journal.let_go()

        strike()
        return mend

    def _cut_one_link(self) -> Mend:
        link = self._gateway().name, self._primary().process.name
        self.cluster.network.cut.add(link)
        return lambda: self.cluster.network.cut.discard(link)

    def _close_the_links_of_a_primary(self) -> Mend:
        """Connections break, nobody dies."""
        instance = self._primary()
        for link in instance.links:
            link.closed(instance)
        return None

    def _lose_messages(self) -> Mend:
        network = self.cluster.network
        network.lose = self.world.chance.choice((0.03, 0.1, 0.3))

        def mend() -> None:
            network.lose = 0.0

        return mend

    def _repeat_messages(self) -> Mend:
        network = self.cluster.network
        network.repeat = self.world.chance.choice((0.1, 0.5))
        network.repeat_after_s = (0.0, self._late_s(0.02, 0.3, 1.0))

        def mend() -> None:
            network.repeat = 0.0

        return mend

    def _repeat_messages_much_later(self) -> Mend:
        """When refusals of that time are remembered no more."""
        network = self.cluster.network
        length_s = self.cluster.shape.length_s
        if self.cluster.shape.forgets:
            return None
        network.repeat, network.repeat_after_s = 0.7, (length_s / 2, length_s)

        def mend() -> None:
            network.repeat = 0.0

        return mend

    def _delay_messages(self) -> Mend:
        network = self.cluster.network
        network.slow = self.world.chance.choice((0.1, 0.5))
        network.slow_s = self._late_s(0.05, 0.4)

        def mend() -> None:
            network.slow = 0.0

        return mend

    # The stores

    def _lose_answers_of_the_journal(self) -> Mend:
        store = self.cluster.journal_store
        store.weather = Weather(trouble=self.world.chance.choice((0.05, 0.2, 0.5)))

        def mend() -> None:
            store.weather = Weather()

        return mend

    def _slow_the_journal(self) -> Mend:
        store = self.cluster.journal_store
        store.weather = Weather(slow=self.world.chance.choice((0.1, 0.6)), slow_s=0.4)

        def mend() -> None:
            store.weather = Weather()

        return mend

    def _restart_the_journal(self) -> Mend:
        store = self.cluster.journal_store
        store.down = True

        def mend() -> None:
            store.down = False

        return mend

    def _lose_the_journal(self) -> Mend:
        """The store comes back empty; an operator puts the journal back. Until then nothing may be
        acknowledged."""
        journal, ledger = self.cluster.journal, self.ledger
        if ledger.frozen:
            return None
        logs = dict(journal._logs)
        journal._logs.clear()
        ledger.frozen = True

        def mend() -> None:
            journal._logs.update(logs)
            ledger.frozen = False

        return mend

    def _cut_a_primary_from_the_journal(self) -> Mend:
        cut, name = self.cluster.journal_store.cut, self._primary().process.name
        cut.add(name)
        return lambda: cut.discard(name)

    def _trouble_the_snapshots(self) -> Mend:
        store = self.cluster.snapshot_store
        store.weather = Weather(trouble=0.4, slow=0.2)

        def mend() -> None:
            store.weather = Weather()

        return mend

    def _doubt_commits(self) -> Mend:
        """The database loses connections before and after commits."""
        chance, sink, store = self.world.chance, self.cluster.sink, self.cluster.sink_store

        def doubt() -> str:
            found = chance.choice(("", "before", "after"))
            if found:
                self.ledger.met(0, "a commit's outcome was unknown")
            return found

        sink.doubt = doubt
        store.weather = Weather(trouble=0.3)

        def mend() -> None:
            sink.doubt = lambda: ""
            store.weather = Weather()

        return mend

    def _stop_the_database(self) -> Mend:
        store = self.cluster.sink_store
        store.down = True

        def mend() -> None:
            store.down = False

        return mend

    def _leave_a_standby_behind(self) -> Mend:
        """It is stopped, and others' snapshots (of a third copy, or put back from elsewhere) let
        the journal be trimmed past it."""
        instance = self._standby()
        shard, snapshots = instance.pair.shard, self.cluster.snapshots
        instance.process.stop()

        def publish() -> None:
            if self.peace:
                return
            state = self.ledger.books[shard].state
            for _ in range(2):
                handle = snapshots.begin(shard, incarnation=INCARNATION, begin_seq=state.seq)
                for index, chunk in enumerate(chunks(state)):
                    snapshots.write(shard, handle, index, chunk)
                snapshots.publish(shard, handle, end_seq=state.seq)

        self.world.after(0.3, publish)
        return instance.process.resume

    # Clocks

    def _jump_a_clock(self) -> Mend:
        chance = self.world.chance
        if self.cluster.shape.forgets:
            return None
        process = chance.choice(self.cluster.processes())
        process.jump_ms += chance.choice((-300, 300, -3_000, 3_000, HOUR_MS, -HOUR_MS))
        return None

    def _take_a_snapshot(self) -> Mend:
        instance = self._standby()
        if instance.process.status is RUNNING and instance.shard.role is Role.STANDBY:
            instance.process.call_soon(
                lambda: instance.process.create_task(_ignoring(instance.shard.take_snapshot()))
            )
        return None


async def _ignoring(work: object) -> None:
    """A snapshot may fail: then the next one is taken when it is due."""
    try:
        await work  # type: ignore[misc]
    except Exception:  # noqa: BLE001 - as above
        return


FAULTS: Sequence[Callable[[Faults], Mend]] = (
    *[Faults._kill_a_primary] * 2,
    *[Faults._kill_a_primary_in_the_act] * 3,
    Faults._kill_whoever_is_promoted_next,
    Faults._kill_a_standby,
    Faults._kill_both,
    *[Faults._stop_a_primary] * 2,
    *[Faults._stop_a_primary_in_the_act] * 2,
    Faults._stop_a_standby,
    Faults._stop_a_gateway,
    Faults._kill_a_gateway,
    Faults._kill_the_projector,
    Faults._stop_the_projector,
    Faults._hold_a_replica_down,
    Faults._cut_off_a_primary,
    *[Faults._suspect_a_writing_primary] * 3,
    Faults._cut_one_link,
    Faults._close_the_links_of_a_primary,
    *[Faults._lose_messages] * 2,
    *[Faults._repeat_messages] * 2,
    *[Faults._repeat_messages_much_later] * 2,
    Faults._delay_messages,
    *[Faults._lose_answers_of_the_journal] * 3,
    Faults._slow_the_journal,
    Faults._restart_the_journal,
    Faults._lose_the_journal,
    Faults._cut_a_primary_from_the_journal,
    Faults._trouble_the_snapshots,
    *[Faults._doubt_commits] * 3,
    Faults._stop_the_database,
    *[Faults._leave_a_standby_behind] * 2,
    *[Faults._jump_a_clock] * 3,
    *[Faults._take_a_snapshot] * 2,
)

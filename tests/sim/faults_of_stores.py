"""Faults of the stores: unknown outcomes, slowness, restarts, loss, damage, trimming in the way."""

from collections.abc import Sequence

from actors.core.snapshot import chunks
from actors.shard import Role
from tests.sim.cluster import INCARNATION, Instance
from tests.sim.faults import Faults, Kind, Mend
from tests.sim.loop import RUNNING
from tests.sim.stores import Store, Weather


def lose_answers_of_the_journal(faults: Faults) -> Mend:
    """Outcomes that nobody knows: done, not done, done later."""
    return _weather(faults.cluster.journal_store, _chance_of_trouble(faults))


def _chance_of_trouble(faults: Faults) -> Weather:
    return Weather(trouble=faults.world.chance.choice((0.05, 0.2, 0.5)))


def _weather(store: Store, weather: Weather) -> Mend:
    store.weather = weather

    def mend() -> None:
        store.weather = Weather()

    return mend


def slow_the_journal(faults: Faults) -> Mend:
    """Some calls take longer than a primary's patience."""
    slow = Weather(slow=faults.world.chance.choice((0.1, 0.6)), slow_s=0.4)
    return _weather(faults.cluster.journal_store, slow)


def restart_the_journal(faults: Faults) -> Mend:
    """It is down, and comes back with all it had."""
    return _down(faults.cluster.journal_store)


def _down(store: Store) -> Mend:
    store.down = True

    def mend() -> None:
        store.down = False

    return mend


def stop_the_database(faults: Faults) -> Mend:
    """The sale goes on without it."""
    return _down(faults.cluster.sink_store)


def lose_the_journal(faults: Faults) -> Mend:
    """The store comes back empty; an operator puts the journal back. Until then nothing may be
    acknowledged."""
    journal, ledger = faults.cluster.journal, faults.ledger
    if ledger.frozen:
        return None
    logs = dict(journal._logs)
    journal._logs.clear()
    ledger.frozen = True

    def mend() -> None:
        journal._logs.update(logs)
        ledger.frozen = False

    return mend


def cut_a_primary_from_the_journal(faults: Faults) -> Mend:
    """It reaches its gateways."""
    cut, name = faults.cluster.journal_store.cut, faults.primary().process.name
    cut.add(name)
    return lambda: cut.discard(name)


def trouble_the_snapshots(faults: Faults) -> Mend:
    """Their store loses calls and is slow."""
    return _weather(faults.cluster.snapshot_store, Weather(trouble=0.4, slow=0.2))


def damage_a_snapshot(faults: Faults) -> Mend:
    """A byte of the newest is wrong, and a standby comes back: it takes the one before. Not while
    that one is damaged, for then nothing would be left."""
    cluster, standby = faults.cluster, faults.standby()
    shard = standby.pair.shard
    handles = [one.handle for one in cluster.snapshots._published(shard)]
    if len(handles) < 2 or not cluster.damaged.isdisjoint(handles):
        return None
    newest = max(handles)
    stored = cluster.snapshots._shards[shard][newest].chunks
    stored[0] = stored[0][:-1] + bytes([stored[0][-1] ^ 1])
    cluster.damaged.add(newest)
    cluster.kill(standby)
    return _nothing


def _nothing() -> None:
    """Nobody mends the snapshot; newer ones take its place."""


def doubt_commits(faults: Faults) -> Mend:
    """The database loses connections before and after commits."""
    chance, sink, store = faults.world.chance, faults.cluster.sink, faults.cluster.sink_store

    def doubt() -> str:
        found = chance.choice(("", "before", "after"))
        if found:
            store.harm("doubt")
            faults.ledger.met(0, "a commit's outcome was unknown")
        return found

    sink.doubt = doubt
    store.weather = Weather(trouble=0.3)

    def mend() -> None:
        sink.doubt = lambda: ""
        store.weather = Weather()

    return mend


def leave_a_standby_behind(faults: Faults) -> Mend:
    """It is stopped, and others' snapshots (of a third copy, or put back from elsewhere) let the
    journal be trimmed past it."""
    instance = faults.standby()
    instance.process.stop()

    def publish() -> None:
        publish_two(faults, instance.pair.shard)
        faults.bit("leave a standby behind")

    faults.world.after(0.3, lambda: None if faults.peace else publish())
    return instance.process.resume


def publish_two(faults: Faults, shard: int) -> int:
    """Where they begin."""
    state, snapshots = faults.ledger.books[shard].state, faults.cluster.snapshots
    for _ in range(2):
        handle = snapshots.begin(shard, incarnation=INCARNATION, begin_seq=state.seq)
        for index, chunk in enumerate(chunks(state)):
            snapshots.write(shard, handle, index, chunk)
        snapshots.publish(shard, handle, end_seq=state.seq)
    return state.seq


def trim_under_a_reader(faults: Faults) -> Mend:
    """A standby is killed; while it recovers, the snapshot that it found is superseded and the
    journal trimmed, between two calls of its."""
    standby, chance = faults.standby(), faults.world.chance
    pair = standby.pair
    faults.cluster.kill(standby)
    moment = chance.choice(("list snapshots", "read a snapshot", "read"))

    def strike(_: Instance) -> None:
        if faults.ledger.frozen:
            return
        shard = pair.shard
        begin_seq = publish_two(faults, shard)
        needed = min(begin_seq, faults.cluster.sink.position(shard)[1])
        if faults.cluster.journal.trim(shard, before_seq=needed + 1, max_entries=1_000_000):
            faults.bit("trim under a reader")

    faults.when(lambda who, kind: who.pair is pair and kind == moment, strike)
    return None


def take_a_snapshot(faults: Faults) -> Mend:
    """Whatever the standby is about just now."""
    instance = faults.standby()
    if instance.process.status is RUNNING and instance.shard.role is Role.STANDBY:
        faults.bit("take a snapshot")
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


KINDS: Sequence[Kind] = (
    Kind(lose_answers_of_the_journal, "journal trouble", 3),
    Kind(slow_the_journal, "journal slow"),
    Kind(restart_the_journal, "journal down"),
    Kind(lose_the_journal, "journal gone"),
    Kind(cut_a_primary_from_the_journal, "journal cut"),
    Kind(trouble_the_snapshots, "snapshots trouble"),
    Kind(damage_a_snapshot, "snapshots damaged", 2),
    Kind(doubt_commits, "database doubt", 3),
    Kind(stop_the_database, "database down"),
    Kind(leave_a_standby_behind, "", 2),
    Kind(trim_under_a_reader, "", 2),
    Kind(take_a_snapshot, "", 2),
)

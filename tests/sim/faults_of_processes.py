"""Faults of processes: killed, stopped, kept away, in the worst moment; and clocks that jump."""

from collections.abc import Sequence

from tests.sim.cluster import Instance
from tests.sim.faults import Faults, Kind, Mend
from tests.sim.loop import RUNNING

HOUR_MS = 3_600_000


def kill_a_primary(faults: Faults) -> Mend:
    """kill -9; a supervisor starts it again."""
    faults.cluster.kill(faults.primary())
    return None


def kill_a_primary_in_the_act(faults: Faults) -> Mend:
    """While its append is on its way."""
    victim = faults.primary()

    def strike(_: Instance) -> None:
        faults.soon(0.004, lambda: faults.cluster.kill(victim))
        faults.bit("kill a primary in the act")

    faults.when(lambda who, kind: who is victim and kind == "append", strike)
    return None


def kill_whoever_is_promoted_next(faults: Faults) -> Mend:
    """The old primary, and a moment after its promotion the new one."""
    pair = faults.pair()
    if pair.primary is not None:
        faults.cluster.kill(pair.primary)

    def strike(new: Instance) -> None:
        faults.soon(0.02, lambda: faults.cluster.kill(new))
        faults.bit("kill whoever is promoted next")

    faults.when(lambda who, kind: who.pair is pair and kind == "acquire", strike)
    return None


def kill_whoever_recovers_next(faults: Faults) -> Mend:
    """A standby, and its next life while it loads."""
    pair = faults.pair()
    faults.cluster.kill(faults.standby())

    def strike(new: Instance) -> None:
        faults.soon(0.01, lambda: faults.cluster.kill(new))
        faults.bit("kill whoever recovers next")

    faults.when(lambda who, kind: who.pair is pair and kind == "list snapshots", strike)
    return None


def kill_a_standby(faults: Faults) -> Mend:
    """kill -9."""
    faults.cluster.kill(faults.standby())
    return None


def kill_both(faults: Faults) -> Mend:
    """Of one shard."""
    for instance in list(faults.pair().instances.values()):
        faults.cluster.kill(instance)
    return None


def kill_everything(faults: Faults) -> Mend:
    """A cold start: no process lives on."""
    cluster = faults.cluster
    for pair in cluster.pairs:
        for instance in list(pair.instances.values()):
            cluster.kill(instance)
    for gateway in list(cluster.gateways.values()):
        if gateway.process.alive:
            cluster.kill_gateway(gateway)
    if cluster.projector.alive:
        cluster.kill_projector()
    for relay in list(cluster.relays):
        cluster.kill_relay(relay)
    faults.ledger.met(0, "everything was started again")
    return None


def restart_the_machine(faults: Faults) -> Mend:
    """Everything that runs, and all three stores, which come back before or after it."""
    stores = faults.cluster.journal_store, faults.cluster.snapshot_store, faults.cluster.sink_store
    for store in stores:
        store.down = True
    kill_everything(faults)

    def mend() -> None:
        for store in stores:
            store.down = False

    return mend


def stop_a_primary(faults: Faults) -> Mend:
    """SIGSTOP; SIGCONT later."""
    process = faults.primary().process
    process.stop()
    return process.resume


def stop_a_primary_in_the_act(faults: Faults) -> Mend:
    """While its append is on its way: a zombie with a batch in flight."""
    victim = faults.primary()

    def strike(_: Instance) -> None:
        def stop() -> None:
            if victim.process.status is RUNNING:
                victim.process.stop()
                faults.bit("stop a primary in the act")

        faults.soon(0.003, stop)

    faults.when(lambda who, kind: who is victim and kind == "append", strike)
    return victim.process.resume


def stop_a_standby(faults: Faults) -> Mend:
    """SIGSTOP."""
    process = faults.standby().process
    process.stop()
    return process.resume


def stop_a_gateway(faults: Faults) -> Mend:
    """SIGSTOP."""
    process = faults.gateway().process
    process.stop()
    return process.resume


def kill_a_gateway(faults: Faults) -> Mend:
    """kill -9: its callers see a closed connection."""
    gateway = faults.gateway()
    if gateway.process.alive:
        faults.cluster.kill_gateway(gateway)
    return None


def kill_the_projector(faults: Faults) -> Mend:
    """kill -9."""
    if faults.cluster.projector.alive:
        faults.cluster.kill_projector()
    return None


def stop_the_projector(faults: Faults) -> Mend:
    """SIGSTOP; what it sent to the database meanwhile is done there."""
    process = faults.cluster.projector
    process.stop()
    return process.resume


def hold_a_replica_down(faults: Faults) -> Mend:
    """It does not come back for a while."""
    instance = faults.standby()
    name = instance.process.name
    faults.cluster.held_down.add(name)
    faults.cluster.kill(instance)
    return lambda: faults.cluster.held_down.discard(name)


def jump_a_clock(faults: Faults) -> Mend:
    """The wall clock of one process, for the rest of its life."""
    chance = faults.world.chance
    processes = faults.cluster.processes()
    if not processes:
        return None
    process = chance.choice(processes)
    process.jump_ms += chance.choice((-300, 300, -3_000, 3_000, HOUR_MS, -HOUR_MS))
    return _nothing


def _nothing() -> None:
    """Nobody sets the clock right."""


def poison_a_line(faults: Faults) -> Mend:
    """A line that ends whichever process decides it, as a fault in a library would."""
    faults.cluster.on_poisoned = lambda: faults.bit("poison a line")
    faults.cluster.send_poison()
    return None


KINDS: Sequence[Kind] = (
    Kind(kill_a_primary, "killed", 2),
    Kind(kill_a_primary_in_the_act, "", 3),
    Kind(kill_whoever_is_promoted_next, ""),
    Kind(kill_whoever_recovers_next, ""),
    Kind(kill_a_standby, "killed"),
    Kind(kill_both, "killed"),
    Kind(kill_everything, "killed"),
    Kind(restart_the_machine, "killed"),
    Kind(stop_a_primary, "held", 2),
    Kind(stop_a_primary_in_the_act, "", 2),
    Kind(stop_a_standby, "held"),
    Kind(stop_a_gateway, "held"),
    Kind(kill_a_gateway, "killed"),
    Kind(kill_the_projector, "killed"),
    Kind(stop_the_projector, "held"),
    Kind(hold_a_replica_down, "killed"),
    Kind(jump_a_clock, "wrong time", 3, spares_the_forgetful=True),
    Kind(poison_a_line, ""),
)

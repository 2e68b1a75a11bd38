"""Faults between stock and account shards: whoever takes part dies, waits, comes late or twice."""

from collections.abc import Sequence

from tests.sim.cluster import Instance
from tests.sim.faults import Faults, Kind, Mend
from tests.sim.faults_of_stores import publish_two
from tests.sim.relays import RELAY, Relay


def _relay(faults: Faults) -> Relay | None:
    relays = faults.cluster.relays
    return faults.world.chance.choice(relays) if relays else None


def kill_the_relay(faults: Faults) -> Mend:
    """kill -9; a supervisor starts it again."""
    relay = _relay(faults)
    if relay is not None:
        faults.cluster.kill_relay(relay)
    return None


def kill_the_relay_in_the_act(faults: Faults) -> Mend:
    """While what it sent is being journalled: nobody hears the answer."""

    def strike(_: Instance) -> None:
        def kill() -> None:
            relay = _relay(faults)
            if relay is not None:
                faults.cluster.kill_relay(relay)
                faults.bit("kill the relay in the act")

        faults.soon(0.006, kill)

    faults.when(lambda who, kind: kind == "append" and _owns_accounts(faults, who), strike)
    return None


def _owns_accounts(faults: Faults, who: Instance) -> bool:
    return who.pair in faults.cluster.account_pairs


def kill_an_account_primary_in_the_act(faults: Faults) -> Mend:
    """Between a fact and its entry, or between that and its answer."""

    def strike(victim: Instance) -> None:
        faults.soon(0.006, lambda: faults.cluster.kill(victim))
        faults.bit("kill an account primary in the act")

    faults.when(lambda who, kind: kind == "append" and _owns_accounts(faults, who), strike)
    return None


def kill_both_account_replicas(faults: Faults) -> Mend:
    """One after the other, in the middle of a slice: the journal alone says what was taken."""
    pair = faults.world.chance.choice(faults.cluster.account_pairs)
    for instance in list(pair.instances.values()):
        faults.soon(0.05, lambda one=instance: faults.cluster.kill(one))
    faults.bit("kill both account replicas")
    return None


def stop_the_relay(faults: Faults) -> Mend:
    """SIGSTOP; what was on its way to it is there when it goes on."""
    relay = _relay(faults)
    if relay is None:
        return None
    relay.process.stop()
    return relay.process.resume


def run_two_relays(faults: Faults) -> Mend:
    """One that stood still and is taken for dead goes on beside its successor."""
    old = _relay(faults)
    if old is not None:
        old.process.stop()
    new = faults.cluster.start_relay()

    def go_on() -> None:
        if old is not None and old.process.alive:
            old.process.resume()
            faults.bit("run two relays")

    faults.world.after(0.1 + faults.world.chance.random() * 0.4, go_on)

    def mend() -> None:
        go_on()
        faults.cluster.kill_relay(new)

    return mend


def stall_the_relay(faults: Faults) -> Mend:
    """What it sent to an account primary arrives late, all at once."""
    network = faults.cluster.network
    pair = faults.world.chance.choice(faults.cluster.account_pairs)
    victim = pair.primary or next(iter(pair.instances.values()))
    link = RELAY, victim.process.name
    network.stalled.setdefault(link, [])
    return lambda: network.let_go(link)


def repeat_what_the_relay_sends(faults: Faults) -> Mend:
    """Rounds come again: soon, or long after others were taken."""
    network = faults.cluster.network
    network.repeat = 0.6
    network.repeat_after_s = (0.0, faults.late_s(0.02, 0.3, 1.0))

    def mend() -> None:
        network.repeat = 0.0

    return mend


def trim_under_the_relay(faults: Faults) -> Mend:
    """It stands still, and the journal is trimmed to what SQL has: the rest of what it needs is
    there alone."""
    relay = _relay(faults)
    if relay is None:
        return None
    relay.process.stop()

    def trim() -> None:
        cluster = faults.cluster
        if faults.peace or faults.ledger.frozen:
            return
        for pair in cluster.stock_pairs:
            begin_seq = publish_two(faults, pair.shard)
            needed = min(begin_seq, cluster.sink.position(pair.shard)[1])
            cluster.journal.trim(pair.shard, before_seq=needed + 1, max_entries=1_000_000)

    faults.world.after(0.3, trim)
    faults.cluster.on_read_kept = lambda: faults.bit("trim under the relay")
    return relay.process.resume


KINDS: Sequence[Kind] = (
    Kind(kill_the_relay, "killed", 2),
    Kind(kill_the_relay_in_the_act, "", 2),
    Kind(kill_an_account_primary_in_the_act, "", 3),
    Kind(kill_both_account_replicas, ""),
    Kind(stop_the_relay, "held"),
    Kind(run_two_relays, "", 2),
    Kind(stall_the_relay, "stalled", 2),
    Kind(repeat_what_the_relay_sends, "repeated", 2),
    Kind(trim_under_the_relay, "", 2, lasts_s=(0.6, 1.0)),
)

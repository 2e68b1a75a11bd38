"""Faults of the network: cut, closed, lost, late, repeated, between gateways and replicas."""

from collections.abc import Callable, Sequence

from tests.sim.cluster import Instance
from tests.sim.faults import Faults, Kind, Mend

CUT_AT_MOST_S = 1.0


def cut_off_a_primary(faults: Faults) -> Mend:
    """Gateways do not reach it; the journal it does: a false suspicion."""
    return _cut_off(faults, faults.primary())


def _cut_off(faults: Faults, instance: Instance) -> Callable[[], None]:
    cut = {(sender, instance.process.name) for sender in faults.cluster.senders()}
    faults.cluster.network.cut |= cut
    return lambda: faults.cluster.network.cut.difference_update(cut)


def suspect_a_writing_primary(faults: Faults) -> Mend:
    """It is cut off from its gateways with an append on its way, which arrives in the very moment
    of the other's promotion."""
    victim = faults.primary()
    mends: list[Callable[[], None]] = []
    victim.journal.hold()

    def cut_off(_: Instance) -> None:
        mends.append(_cut_off(faults, victim))
        # It may append only when this fault is over: nobody else would join them again.
        faults.world.after(CUT_AT_MOST_S, mends[-1])
        faults.when(
            lambda who, kind: kind == "acquire" and who.pair is victim.pair and who is not victim,
            arrive,
        )

    def arrive(_: Instance) -> None:
        faults.bit("suspect a writing primary")
        faults.world.after(faults.world.chance.random() * 0.006, victim.journal.let_go)

    def mend() -> None:
        for undo in mends:
            undo()
        victim.journal.let_go()

    faults.when(lambda who, kind: who is victim and kind == "append", cut_off)
    return mend


def cut_one_link(faults: Faults) -> Mend:
    """One gateway does not reach one primary; others do."""
    link = faults.gateway().name, faults.primary().process.name
    faults.cluster.network.cut.add(link)
    return lambda: faults.cluster.network.cut.discard(link)


def divide_the_gateways(faults: Faults) -> Mend:
    """One gateway does not reach a primary, has the other replica promoted and sells through it;
    another gateway reads at the old one, which knows of nothing."""
    gateways, victim = list(faults.cluster.gateways), faults.primary()
    if len(gateways) < 2:
        return None
    faults.world.chance.shuffle(gateways)
    link = gateways[0], victim.process.name
    faults.cluster.network.cut.add(link)

    def rush(_: Instance) -> None:
        faults.soon(0.03, lambda: faults.cluster.rush(gateways[0], gateways[1]))
        faults.bit("divide the gateways")

    faults.when(
        lambda who, kind: kind == "acquire" and who.pair is victim.pair and who is not victim, rush
    )
    return lambda: faults.cluster.network.cut.discard(link)


def stall_a_link(faults: Faults) -> Mend:
    """Between one gateway and one primary, for longer than a refusal is remembered; then all that
    was sent arrives."""
    network = faults.cluster.network
    link = faults.gateway().name, faults.primary().process.name
    network.stalled.setdefault(link, [])
    return lambda: network.let_go(link)


def close_the_links_of_a_primary(faults: Faults) -> Mend:
    """Connections break, nobody dies."""
    instance = faults.primary()
    for link in instance.links:
        link.closed(instance)
        faults.world.harm["links broken"] += 1
        faults.bit("close the links of a primary")
    return None


def lose_messages(faults: Faults) -> Mend:
    """Rounds and answers."""
    network = faults.cluster.network
    network.lose = faults.world.chance.choice((0.03, 0.1, 0.3))

    def mend() -> None:
        network.lose = 0.0

    return mend


def repeat_messages(faults: Faults) -> Mend:
    """A round comes twice."""
    network = faults.cluster.network
    network.repeat = faults.world.chance.choice((0.1, 0.5))
    network.repeat_after_s = (0.0, faults.late_s(0.02, 0.3, 1.0))

    def mend() -> None:
        network.repeat = 0.0

    return mend


def repeat_messages_much_later(faults: Faults) -> Mend:
    """When refusals of that time are remembered no more."""
    network = faults.cluster.network
    length_s = faults.cluster.shape.length_s
    network.repeat, network.repeat_after_s = 0.7, (length_s * 0.4, length_s * 0.6)
    network.on_much_later = lambda: faults.bit("repeat messages much later")

    def mend() -> None:
        network.repeat = 0.0

    return mend


def delay_messages(faults: Faults) -> Mend:
    """Some are late and are overtaken."""
    network = faults.cluster.network
    network.slow = faults.world.chance.choice((0.1, 0.5))
    network.slow_s = faults.late_s(0.05, 0.4)

    def mend() -> None:
        network.slow = 0.0

    return mend


KINDS: Sequence[Kind] = (
    Kind(cut_off_a_primary, "cut"),
    Kind(suspect_a_writing_primary, "", 3),
    Kind(cut_one_link, "cut"),
    Kind(divide_the_gateways, "", 3, lasts_s=(1.0, 1.5)),
    Kind(
        stall_a_link,
        "stalled",
        2,
        is_long=True,
        lasts_s=(0.5, 2.2, 2.6),
        spares_the_forgetful=True,
    ),
    Kind(close_the_links_of_a_primary, ""),
    Kind(lose_messages, "lost", 2),
    Kind(repeat_messages, "repeated", 2),
    Kind(repeat_messages_much_later, "", 2, is_long=True, spares_the_forgetful=True),
    Kind(delay_messages, "slowed"),
)

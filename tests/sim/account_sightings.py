"""Where the faults between stock and account shards struck: what was on its way at that moment.

That something was killed proves little; this says whether a fact was told and not taken, its entry
on its way to the journal, or there and its answer on its way back. A batch counts the seeds.
"""

from actors.core.codec import unpack_entry
from actors.core.relay_records import FACT_TAKEN
from tests.sim.account_ledger import AccountLedger
from tests.sim.cluster import Cluster, Instance
from tests.sim.relays import RELAY, Relay


class Sightings:
    """Looks at who dies, and at what the relay sends."""

    def __init__(self, cluster: Cluster, ledger: AccountLedger) -> None:
        self._cluster, self._ledger = cluster, ledger
        cluster.on_replica_dies = self._replica_dies
        cluster.on_relay_dies = self._relay_dies
        cluster.network.on_stray = self._stray

    def _met(self, what: str) -> None:
        self._ledger.sometimes[what] += 1

    def _replica_dies(self, instance: Instance) -> None:
        if instance is not instance.pair.primary:
            return
        shard = instance.pair.shard
        if shard < self._ledger.stock_shards:
            if self._ledger.facts.waiting(shard):
                self._met("a stock primary died before a fact was taken")
            return
        if self._ledger.facts.missing:
            self._met("an account primary died before a fact was taken")
        if not instance.journal.appending:
            return
        seq, data = instance.journal.sent
        if any(record[0] == FACT_TAKEN for record in unpack_entry(data).records):
            stands = seq <= len(self._ledger.books[shard].entries)
            when = "when its entry stood" if stands else "before its entry stood"
            self._met(f"an account primary died with a fact, {when}")

    def _relay_dies(self, relay: Relay) -> None:
        facts = self._ledger.facts
        if facts.missing:
            self._met("the relay died before a fact was taken")
        for source in relay.sources:
            for account, (_, *known) in source._marks.items():
                if facts.mark(account, source.shard) > tuple(known):
                    self._met("the relay died before it heard that a fact was taken")
                    return

    def _stray(self, sender: str, what: str) -> None:
        """A round that comes twice, or whose sender is gone."""
        if sender == RELAY:
            self._met(f"a round of the relay {what}")

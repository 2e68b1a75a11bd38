"""The relay's process in a simulated cluster: real sources and senders between simulated ends."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from actors.core.outcomes import Outcome
from persistence.sql.views import KeptFacts
from server.frontier import Board
from server.gather import Sender
from server.relay import RelayLimits, Source
from server.relay_process import SenderAccounts
from server.waiting import Answer
from tests.sim.loop import RUNNING, Process
from tests.sim.network import SimLink
from tests.sim.stores import InThread, SimJournal

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster

RELAY = "relay"
LIMITS = RelayLimits(
    read_bytes=1_000,
    window_facts=5,
    deadline_ms=600,
    gather_ms=50,
    move_marks_ms=150,
    trouble_pause_ms=60,
    patience_ms=60_000,
)
"""Longer than a seed: nobody is given up, so what is told late is never excused."""
LATE_READS = 4
"""So many take as long as operations are asked; always late, it would not come to rest in time."""
KEPT_ROWS = 3
"""Read from SQL at once."""


class LateJournal(SimJournal):
    """One of two journals may be read slowly at first, so that its source is behind the other."""

    def __init__(self, cluster: "Cluster", process: Process, shard: int) -> None:
        stores = cluster.journal_store, process, cluster.journal
        super().__init__(*stores, shard, cluster.watcher)
        # By chance of its own, so that the other seeds are what they were.
        chance = random.Random(f"late sources of {cluster.world.seed}")
        late, late_s = chance.randrange(2), chance.choice((0.0, 0.3, 0.8))
        is_late = late == shard and len(cluster.stock_pairs) > 1
        self._late_s = [late_s] * LATE_READS if is_late else []

    async def read(self, **fields: Any) -> Any:
        """See `AsyncJournal`."""
        if self._late_s:
            await asyncio.sleep(self._late_s.pop())
        return await super().read(**fields)


class Relay:
    """One life of the relay."""

    def __init__(self, cluster: "Cluster") -> None:
        self.cluster = cluster
        self.process = Process(cluster.world, RELAY)
        self.sources: list[Source] = []
        self._rounds = cluster.world.chance.choice((1, 1, 2))
        """At once to one account shard. A real relay has one, so that no line overtakes another;
        an account shard must bear it."""
        line_facts = cluster.world.chance.choice((1, 2, 4))
        self._limits = replace(LIMITS, line_facts=line_facts)
        self.process.call_soon(self._begin)

    @property
    def running(self) -> bool:
        """It is neither dead nor stopped."""
        return self.process.status is RUNNING

    def _begin(self) -> None:
        cluster = self.cluster
        senders = [self._sender(pair) for pair in cluster.account_pairs]
        accounts = Accounts(senders, cluster)
        slots_of = cluster.slots_of
        account_slots = {pair.shard: slots_of.index(pair.shard) for pair in cluster.account_pairs}
        board = Board(LIMITS.patience_ms)
        self.sources = [
            Source(
                shard=pair.shard,
                journal=LateJournal(cluster, self.process, pair.shard),
                kept=self._kept,
                find_order=self._find_order,
                accounts=accounts,
                slots_of=slots_of,
                account_slots=account_slots,
                clock=self.process,
                limits=self._limits,
                board=board,
            )
            for pair in cluster.stock_pairs
        ]
        self.process.create_task(self._live(senders))

    def _sender(self, pair: Any) -> Sender:
        cluster = self.cluster
        return Sender(
            shard=pair.shard,
            gateway=RELAY,
            links=[
                (name, SimLink(cluster.network, self.process, pair, name))
                for name in pair.instances
            ],
            clock=self.process,
            limits=replace(cluster.shape.gather, rounds_in_flight=self._rounds),
            map_version=1,
            on_chore=_leave_it,
        )

    async def _live(self, senders: Sequence[Sender]) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for sender in senders:
                    tasks.create_task(sender.run())
                for source in self.sources:
                    tasks.create_task(source.run())
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - nothing may end it
            self.cluster.broken(f"a process ended that must not: the relay: {error!r}")

    async def _kept(self, shard: int, after_seq: int) -> KeptFacts:
        """As `SqlViews.list_facts`."""
        sink = self.cluster.sink

        def look() -> KeptFacts:
            incarnation, seq = sink.position(shard)
            newer = [row for row in sink.facts.get(shard, ()) if row.seq > after_seq]
            rows = newer[:KEPT_ROWS]
            whole = len(rows) == len(newer)
            to_seq = max(seq, after_seq) if whole else rows[-1].seq
            return KeptFacts(rows, to_seq, 0, incarnation)

        found: KeptFacts = await InThread(self.cluster.sink_store, self.process)(look)
        if found.rows:
            self.cluster.watcher.met(shard, "the relay read facts from SQL")
            self.cluster.on_read_kept()
        return found

    async def _find_order(self, reservation_id: str) -> Mapping[str, Any] | None:
        """As `SqlViews.get_commission_order`."""
        table = self.cluster.sink.tables.get("commission_orders", {})
        read = InThread(self.cluster.sink_store, self.process)
        found: Mapping[str, Any] | None = await read(lambda: table.get((reservation_id,)))
        return found


class Accounts(SenderAccounts):
    """Counts what account shards answer."""

    def __init__(self, senders: Sequence[Sender], cluster: "Cluster") -> None:
        super().__init__(senders)
        self._watcher = cluster.watcher

    async def submit(self, shard: int, commands: Sequence[Any]) -> Sequence[Answer]:
        """See `SenderAccounts`."""
        answers = await super().submit(shard, commands)
        for answer in answers:
            outcome, *counted = answer
            if outcome in MEANS:
                self._watcher.met(shard, MEANS[outcome])
            if outcome == Outcome.RECALL and counted[0]:
                self._watcher.met(shard, "a line of facts was taken in part")
        return answers


MEANS = {
    Outcome.NOTED: "a fact came again and was known",
    Outcome.OUT_OF_ORDER: "a fact came out of order",
}


async def _leave_it(_: Sequence[Any]) -> None:
    """Chores are the gateways'."""

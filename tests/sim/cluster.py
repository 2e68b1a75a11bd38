"""A cluster of simulated processes around the real code: replicas, gateways, a projector; in some
seeds account shards and a relay (`relays.py`).

A supervisor starts again what has ended, a moment later, as Ray does. A replica that ends for any
other reason than that it was killed, fenced or replaced is a finding (`World` is told by `broken`).
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

from actors.core import commands as c
from actors.core.chores import TELL_HOLD
from actors.core.identity import SLOT_COUNT, parse_account_id
from actors.limits import Readers, ShardLimits
from actors.projector import Projector
from actors.shard import Role, Shard, Stores
from actors.specs import RELAY_READER, SINK_READER, owned_by, slots_between
from persistence.errors import Fenced, NoJournal, StorageError, Trimmed
from persistence.memory import MemoryJournal, MemorySnapshots
from server.gather import Gather, GatherLimits, Sender
from server.holds import Holds
from server.recall import RecallingLines
from server.transfers import Transfers
from tests.sim.loop import DEAD, RUNNING, STOPPED, Process, World
from tests.sim.network import Network, SimLink
from tests.sim.relays import RELAY, Relay
from tests.sim.sink import MemorySink
from tests.sim.stores import InThread, SimJournal, SimSnapshots, Store, Watcher

INCARNATION = "first"
NAMES = ("a", "b")


class Shape(NamedTuple):
    """How large a cluster is, and its limits."""

    shards: int
    gateways: int
    limits: ShardLimits
    gather: GatherLimits
    forgets: bool
    """Finished reservations leave memory soon. A line must not live as long as that (10 s and a
    minute at least, in the real world), so calls are short then, messages not late, and clocks
    do not jump."""
    embedded: bool
    """The journal is a file with one lock."""
    length_s: float
    """In which the operations are asked."""
    accounts: int = 0
    """Account shards, whose numbers follow those of the `shards` that own stock."""

    def limits_of(self, shard: int) -> ShardLimits:
        """An account shard has journalled a whole programme before the first order."""
        bytes_max = self.limits.journal_bytes_max
        return (
            self.limits
            if shard < self.shards
            else replace(self.limits, journal_bytes_max=3 * bytes_max)
        )


class Trap(NamedTuple):
    """Something that happens once, when an instance makes a certain call to a store."""

    matches: Callable[["Instance", str], bool]
    spring: Callable[["Instance"], None]


class Instance:
    """One life of a replica's process."""

    def __init__(self, cluster: "Cluster", pair: "Pair", name: str, number: int) -> None:
        world = cluster.world
        self.cluster, self.pair, self.name = cluster, pair, name
        place = f"{pair.shard}{name}"
        self.process = Process(world, place)
        self.token = f"{place}-{number}"
        self.journal = self._journal()
        self.snapshots = SimSnapshots(
            cluster.snapshot_store,
            self.process,
            cluster.snapshots,
            pair.shard,
            cluster.watcher,
        )
        self.snapshots.on_call = self._called
        self.links: dict[SimLink, None] = {}
        self.shard: Shard
        # Made in its own process: it takes hold of the loop's clock and locks.
        self.process.call_soon(self._begin)

    def _journal(self) -> SimJournal:
        cluster = self.cluster
        journal = SimJournal(
            cluster.journal_store,
            self.process,
            cluster.journal,
            self.pair.shard,
            cluster.watcher,
        )
        journal.on_call = self._called
        return journal

    def _called(self, kind: str) -> None:
        traps = self.cluster.traps
        for trap in [trap for trap in traps if trap.matches(self, kind)] if traps else ():
            traps.remove(trap)
            trap.spring(self)

    def make(self) -> None:
        """The shell itself; it needs no running loop until it runs."""
        cluster = self.cluster
        self.shard = Shard(
            shard=self.pair.shard,
            token=self.token,
            owner_info=self.token,
            stores=Stores(self.journal, self._journal(), self.snapshots),
            clock=self.process,
            limits=cluster.shape.limits_of(self.pair.shard),
            owned_slots=self.pair.slots,
            readers=Readers((SINK_READER,), cluster.late_readers_of(self.pair.shard)),
            kill_owner=self._kill_owner,
        )

    def _begin(self) -> None:
        self.process.create_task(self._live())

    async def _live(self) -> None:
        try:
            await self.shard.run()
        except GeneratorExit:
            raise
        except (Fenced, NoJournal, Trimmed) as error:
            self.cluster.ended(self, error)
        except BaseExceptionGroup as group:
            kept = group.split((Fenced, NoJournal, Trimmed))[1]
            self.cluster.ended(self, group, is_bug=kept is not None)
        except BaseException as error:  # noqa: BLE001 - the process ends, whatever it was
            self.cluster.ended(self, error, is_bug=True)

    def _kill_owner(self, owner: str) -> bool:
        return self.cluster.kill_token(owner)


class Pair:
    """Both replicas of one shard."""

    def __init__(self, shard: int, slots: frozenset[int]) -> None:
        self.shard = shard
        self.slots = slots
        self.instances: dict[str, Instance] = {}

    @property
    def primary(self) -> Instance | None:
        """Who takes rounds, and is not known to be replaced."""
        found = [x for x in self.instances.values() if x.process.status is not DEAD]
        primaries = [x for x in found if x.shard.role is Role.PRIMARY]
        return max(primaries, key=lambda x: x.shard.meta.epoch if x.shard.meta else 0, default=None)


class Gateway:
    """One life of a gateway's process."""

    def __init__(self, cluster: "Cluster", name: str) -> None:
        self.cluster, self.name = cluster, name
        self.process = Process(cluster.world, name)
        self.lines: RecallingLines
        self.transfers: Transfers
        self.holds: Holds
        self.gather: Gather
        self.calls: dict[Any, None] = {}
        """Attempts of callers that wait for an answer of this process, in order."""
        self._tokens = 0
        self.process.call_soon(self._begin)

    def _begin(self) -> None:
        cluster, process = self.cluster, self.process
        senders = [
            Sender(
                shard=pair.shard,
                gateway=self.name,
                links=[(name, SimLink(cluster.network, process, pair, name)) for name in NAMES],
                clock=process,
                limits=cluster.shape.gather,
                map_version=1,
                on_chore=self._do_chore,
            )
            for pair in cluster.pairs
        ]
        self.gather = Gather(senders, cluster.slots_of)
        self.lines = RecallingLines(self.gather, cluster.find_row, process)
        self.transfers = Transfers(ServiceLines(self.lines, cluster), now_ms=process.now_ms)
        self.holds = Holds(self.lines, now_ms=process.now_ms)
        process.create_task(self._live())

    async def _do_chore(self, chore: Sequence[Any]) -> None:
        self.cluster.world.tell(self.name, "does a chore: %s", chore[0])
        await (self.holds if chore[0] == TELL_HOLD else self.transfers).finish(chore)

    async def _live(self) -> None:
        try:
            await self.gather.run()
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - nothing may end a gateway
            self.cluster.broken(f"a process ended that must not: {self.name}: {error!r}")


class ServiceLines:
    """The lines of the service's own transfers: the ledger is told what they ask for."""

    def __init__(self, lines: RecallingLines, cluster: "Cluster") -> None:
        self._lines = lines
        self._cluster = cluster

    async def submit(self, commands: Sequence[Any]) -> Sequence[tuple[Any, ...]]:
        """See `server/lines.py`."""
        for command in commands:
            if command.kind == c.TRANSFER_OUT:
                self._cluster.on_transfer(command)
        return await self._lines.submit(commands)

    def put(self, command: Any, on_answer: Callable[[tuple[Any, ...]], object]) -> None:
        """See `server/lines.py`."""
        self._lines.put(command, on_answer)

    def shard_of(self, slot: int) -> int:
        """See `server/lines.py`."""
        return self._lines.shard_of(slot)


class Cluster:
    """Everything that runs, and the stores it runs on."""

    def __init__(self, world: World, shape: Shape, watcher: Watcher) -> None:
        self.world, self.shape, self.watcher = world, shape, watcher
        self.journal, self.snapshots, self.sink = MemoryJournal(), MemorySnapshots(), MemorySink()
        self.journal_store = Store(world, "journal")
        self.journal_store.full_bytes = shape.limits.journal_bytes_max
        self.snapshot_store = Store(world, "snapshots")
        self.sink_store = Store(world, "database")
        self.network = Network(world)
        self.findings: list[str] = []
        self.ends: list[str] = []
        self.lives = 0
        self.restart_s = (0.02, 0.2)
        self.traps: list[Trap] = []
        self.held_down: set[str] = set()
        """What the supervisor must not start yet."""
        self.slots_of, slots = map_of(shape.shards, shape.accounts)
        self.pairs = [Pair(shard, owned) for shard, owned in enumerate(slots)]
        self.stock_pairs = self.pairs[: shape.shards]
        self.account_pairs = self.pairs[shape.shards :]
        for pair in self.pairs:
            self.journal.create(pair.shard, incarnation=INCARNATION)
            for name in NAMES:
                self._start_replica(pair, name)
        self.gateways: dict[str, Gateway] = {}
        self.on_gateway_ended: Callable[[Gateway], None] = lambda _: None
        self.on_transfer: Callable[[Any], None] = lambda _: None
        self.send_poison: Callable[[], None] = lambda: None
        """Somebody sends a line that ends whoever takes it."""
        self.rush: Callable[[str, str], None] = lambda _sells, _reads: None
        """Sell through one gateway and, a moment later, read through another."""
        self.on_poisoned: Callable[[], None] = lambda: None
        self.poisoned = 0
        """Processes that such a line has ended."""
        self.network.on_poisoned = self._poisoned
        self.damaged: set[str] = set()
        """Snapshots with a wrong byte."""
        for number in range(shape.gateways):
            self._start_gateway(f"g{number}")
        self.projector: Process
        self.projectors: Mapping[int, Projector] = {}
        self._start_projector()
        self.on_read_kept: Callable[[], None] = lambda: None
        """A relay found in SQL what the journal has no more."""
        self.on_replica_dies: Callable[[Instance], None] = lambda _: None
        self.on_relay_dies: Callable[[Relay], None] = lambda _: None
        self.relays: list[Relay] = []
        """One, a moment none, or by a fault two."""
        if shape.accounts:
            self.start_relay()

    def broken(self, finding: str) -> None:
        """Something happened that must never happen."""
        self.findings.append(finding)
        self.world.tell("FOUND", finding)

    # Replicas

    def _start_replica(self, pair: Pair, name: str) -> None:
        self.lives += 1
        instance = Instance(self, pair, name, self.lives)
        instance.make()
        pair.instances[name] = instance
        self.world.tell(instance.process.name, "starts as %s", instance.token)

    def kill(self, instance: Instance) -> None:
        """kill -9."""
        if not instance.process.alive:
            return
        self.on_replica_dies(instance)
        instance.process.kill()
        for link in instance.links:
            link.closed(instance)
        low, high = self.restart_s
        delay_s = low + self.world.chance.random() * (high - low)
        self.world.after(delay_s, self._restart, instance)

    def _restart(self, instance: Instance) -> None:
        if instance.process.name in self.held_down:
            self.world.after(0.05, self._restart, instance)
        else:
            self._start_replica(instance.pair, instance.name)

    def ended(self, instance: Instance, error: BaseException, *, is_bug: bool = False) -> None:
        """A replica's process ends by itself, and says why."""
        text = describe(error)
        self.world.tell(instance.process.name, "ends: %s", text)
        self.ends.append(text)
        if is_bug:
            self.broken(f"a process ended that must not: {instance.token}: {text}")
        self.kill(instance)

    def _poisoned(self, instance: Instance) -> None:
        self.world.tell(instance.process.name, "dies of a line")
        self.poisoned += 1
        self.on_poisoned()
        self.kill(instance)

    def kill_token(self, token: str) -> bool:
        """Kill the process of this instance, if it is still that one."""
        for pair in self.pairs:
            for instance in pair.instances.values():
                if instance.token == token and instance.process.alive:
                    self.world.tell("kernel", "kills %s, which holds the lock", token)
                    self.kill(instance)
                    return True
        return False

    # Gateways

    def _start_gateway(self, name: str) -> None:
        self.gateways[name] = Gateway(self, name)
        self.world.tell(name, "starts")

    def kill_gateway(self, gateway: Gateway) -> None:
        """kill -9; its callers see a closed connection."""
        gateway.process.kill()
        self.on_gateway_ended(gateway)
        self.world.after(0.02 + self.world.chance.random() * 0.1, self._start_gateway, gateway.name)

    def find_row(self, reservation_id: str) -> Mapping[str, Any] | None:
        """SQL as a gateway's thread asks it, also for a withdrawal."""
        if self.sink_store.down or self.world.chance.random() < self.sink_store.weather.trouble:
            self.sink_store.harm("down")
            raise StorageError("simulated: the database does not answer")
        if parse_account_id(reservation_id) is not None:
            return self.sink.tables.get("withdrawals", {}).get((reservation_id,))
        return self.sink.reservation(reservation_id)

    # The projector

    def _start_projector(self) -> None:
        self.projector = process = Process(self.world, "projector")
        made = {}
        for pair in self.pairs:
            journal = SimJournal(
                self.journal_store, process, self.journal, pair.shard, self.watcher
            )
            made[pair.shard] = Projector(
                shard=pair.shard,
                reader=SINK_READER,
                needed_by="".join(self.late_readers_of(pair.shard)),
                journal=journal,
                sink=self.sink,
                in_thread=InThread(self.sink_store, process),
                limits=self.shape.limits,
                clock=process,
            )
            process.call_soon(self._begin, process, made[pair.shard].run)
        self.projectors = made

    def _begin(self, process: Process, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        process.create_task(self._project(run))

    async def _project(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await run()
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - nothing may end it
            self.broken(f"a process ended that must not: the projector: {error!r}")

    def kill_projector(self) -> None:
        """kill -9."""
        self.projector.kill()
        self.world.after(0.02 + self.world.chance.random() * 0.2, self._start_projector)

    # The relay

    def late_readers_of(self, shard: int) -> tuple[str, ...]:
        """Who holds back the trim of a journal within bounds."""
        relayed = self.shape.accounts and shard < self.shape.shards
        return (RELAY_READER,) if relayed else ()

    def start_relay(self) -> Relay:
        """Another one, whatever became of those before."""
        relay = Relay(self)
        self.relays.append(relay)
        self.world.tell(RELAY, "starts")
        return relay

    def kill_relay(self, relay: Relay) -> None:
        """kill -9; a supervisor sees to it that there is one."""
        if relay in self.relays:
            self.on_relay_dies(relay)
            self.relays.remove(relay)
            relay.process.kill()
            self.world.after(0.02 + self.world.chance.random() * 0.2, self._replace_relay)

    def _replace_relay(self) -> None:
        if not self.relays:
            self.start_relay()

    # All of them

    def senders(self) -> Sequence[str]:
        """Names of all that call replicas."""
        return [*self.gateways, RELAY] if self.shape.accounts else list(self.gateways)

    def processes(self) -> Sequence[Process]:
        """Everything that lives."""
        replicas = [x.process for pair in self.pairs for x in pair.instances.values()]
        others = [x.process for x in (*self.gateways.values(), *self.relays)]
        all_of_them = [*replicas, *others, self.projector]
        return [process for process in all_of_them if process.alive]

    def resume_all(self) -> None:
        """What was stopped goes on."""
        for process in self.processes():
            if process.status is STOPPED:
                self.world.tell(process.name, "is resumed")
            process.resume()

    def living_gateways(self) -> Sequence[Gateway]:
        """Those that a caller could reach, in order."""
        return [g for g in self.gateways.values() if g.process.status is RUNNING]


@lru_cache
def map_of(shards: int, accounts: int) -> tuple[Sequence[int], Sequence[frozenset[int]]]:
    """Shard by slot, and slots by shard. Without account shards nobody owns account slots."""
    if not accounts:
        slots_of = slots_between(shards, 1)[:SLOT_COUNT]
    else:
        slots_of = slots_between(shards, accounts)
    return slots_of, [owned_by(shard, slots_of) for shard in range(shards + accounts)]


def describe(error: BaseException) -> str:
    """An error and, of a group, what is in it."""
    if isinstance(error, BaseExceptionGroup):
        return ", ".join(describe(one) for one in error.exceptions)
    return f"{type(error).__name__}: {error}"

"""The network between gateways and replicas: delays, loss, duplicates, cut links, closed ones.

Rules
-----
* Rounds and answers are messages by themselves: each has its own delay, so they overtake each
  other; one may be lost, and one may come again, much later.
* A process that ends closes its connections, and who holds the other end learns of it (unless the
  link is cut). A stopped one closes nothing.
* What was sent before a link was cut may still arrive. A link that is stalled loses nothing: all
  that was sent arrives at once when it moves again, as after a partition that TCP survives.
"""

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from actors.links import LinkClosed
from actors.rounds import Answers, pack_answers
from actors.shard import Promotion, Role
from tests.sim.loop import Process, World, settle

if TYPE_CHECKING:
    from tests.sim.cluster import Instance, Pair

MUCH_LATER_S = 1.0
WAY_S = 0.003
"""The longest way, when nothing is wrong."""


class Network:
    """How messages travel now, and what became of them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.lose = 0.0
        self.repeat = 0.0
        self.repeat_after_s = (0.0, 0.5)
        """The earliest and the latest that a message comes again."""
        self.slow = 0.0
        self.slow_s = 0.2
        self.cut: set[tuple[str, str]] = set()
        """(gateway, replica name) pairs that do not reach each other."""
        self.stalled: dict[tuple[str, str], list[Callable[[], None]]] = {}
        """Connections on which nothing moves, from a gateway to a replica: what was sent."""
        self.harm = world.harm
        self.on_much_later: Callable[[], None] = lambda: None
        """A round came again long after it was decided."""
        self.on_stray: Callable[[str, str], None] = lambda _sender, _what: None
        """A round came twice, or when its sender had gone."""
        self.poison = b"\0 nothing is poison"
        """A round with this in it ends the primary that takes it."""
        self.on_poisoned: Callable[[Instance], None]

    def travel(self, link: tuple[str, str], arrive: Callable[[], None]) -> None:
        """A message from a gateway to a replica is on its way."""
        held = self.stalled.get(link)
        if held is None:
            self.world.after(self.way_s(), arrive)
        else:
            self.harm["stalled"] += 1
            held.append(arrive)

    def let_go(self, link: tuple[str, str]) -> None:
        """What was held on its way arrives, in order."""
        for arrive in self.stalled.pop(link, ()):
            self.world.after(0, arrive)

    def way_s(self) -> float:
        """How long the next message takes."""
        random = self.world.chance.random
        if self.slow and random() < self.slow:
            self.harm["slowed"] += 1
            return random() * self.slow_s
        return random() * WAY_S

    def loses(self, gateway: str, replica: str) -> bool:
        """Whether the next message between these two is lost."""
        if (gateway, replica) in self.cut:
            self.harm["cut"] += 1
            return True
        if self.lose and self.world.chance.random() < self.lose:
            self.harm["lost"] += 1
            return True
        return False


class SimLink:
    """A gateway's `Link` to one replica, whichever instance of it `hello` met."""

    round_bytes = 90_000

    def __init__(self, network: Network, gateway: Process, pair: "Pair", name: str) -> None:
        self.on_closed: Callable[[], None] | None = None
        self.token = ""
        self._network = network
        self._gateway = gateway
        self._pair = pair
        self._place = f"{pair.shard}{name}"
        self._name = name
        self._instance: Instance | None = None
        self._open: dict[Any, None] = {}
        """Futures of what is on its way, in order."""

    async def hello(self) -> str:
        future = self._gateway.create_future()

        def arrive() -> None:
            instance = self._pair.instances[self._name]
            if not instance.process.alive:
                self._back(self._closed, future)
            else:
                instance.process.call_soon(welcome, instance)

        def welcome(instance: "Instance") -> None:
            self._back(settle, future, instance)

        self._there(arrive)
        instance = await future
        self._instance, self.token = instance, instance.shard.token
        instance.links[self] = None
        return self.token

    def forget(self) -> None:
        self._instance, self.token = None, ""

    def round(self, payload: bytes) -> Any:
        future = self._send(lambda instance: self._ask(instance, payload, future))
        network = self._network
        if network.repeat and network.world.chance.random() < network.repeat:
            instance = self._instance
            late_s = network.world.chance.uniform(*network.repeat_after_s)
            network.world.after(late_s, self._again, instance, payload, late_s)
        return future

    def promote(self, seen_epoch: int, seen_seq: int) -> Any:
        def ask(instance: "Instance") -> None:
            self._answer_with(instance, future, instance.shard.promote(seen_epoch, seen_seq))

        future = self._send(ask)
        return future

    def control(self, method: str, *arguments: Any) -> Any:
        def ask(instance: "Instance") -> None:
            self._answer_with(instance, future, getattr(instance.shard, method)(*arguments))

        future = self._send(ask)
        return future

    def closed(self, instance: "Instance") -> None:
        """The other end is gone, and this one is told."""
        if instance is self._instance and (self._gateway.name, self._place) not in (
            self._network.cut
        ):
            self._back(self._learn, instance)

    def _learn(self, instance: "Instance") -> None:
        if instance is not self._instance:
            return
        self._network.harm["closed"] += 1
        waiting, self._open = list(self._open), {}
        for future in waiting:
            self._closed(future)
        if self.on_closed is not None:
            self.on_closed()

    @staticmethod
    def _closed(future: Any) -> None:
        settle(future, None, LinkClosed("simulated: the process has ended"))

    def _send(self, ask: Callable[["Instance"], None]) -> Any:
        """A future of what an instance answers; `ask` runs in its process."""
        future = self._gateway.create_future()
        instance = self._instance
        if instance is None:
            self._closed(future)
            return future
        self._open[future] = None
        future.add_done_callback(self._landed)

        def arrive() -> None:
            if instance.process.alive:
                instance.process.call_soon(ask, instance)
            else:
                self._back(self._closed, future)

        self._there(arrive)
        return future

    def _landed(self, future: Any) -> None:
        self._open.pop(future, None)

    def _ask(self, instance: "Instance", payload: bytes, future: Any) -> None:
        if not self._gateway.alive:
            self._network.on_stray(self._gateway.name, "came when that had died")

        def done(answers: Answers) -> None:
            self._back(settle, future, pack_answers(answers))

        self._take(instance, payload, done)

    def _take(self, instance: "Instance", payload: bytes, done: Callable[[Answers], None]) -> None:
        if self._network.poison not in payload:
            instance.shard.take_round(payload, done)
        elif instance.shard.role is Role.PRIMARY:
            self._network.on_poisoned(instance)

    def _again(self, instance: "Instance | None", payload: bytes, late_s: float) -> None:
        """A round that was sent once arrives twice; nobody waits for its answer. A cut link lets no
        copy pass: it would be the only thing that comes of that gateway, for longer than a clock
        that goes back is waited for (`actors/lateness.py`)."""
        if (self._gateway.name, self._place) in self._network.cut:
            return
        if instance is not None and instance.process.alive:
            self._network.harm["repeated"] += 1
            self._network.on_stray(self._gateway.name, "came twice")
            if late_s >= MUCH_LATER_S:
                self._network.on_much_later()
            instance.process.call_soon(self._take, instance, payload, _nobody)

    def _answer_with(
        self, instance: "Instance", future: Any, question: Coroutine[Any, Any, Promotion]
    ) -> None:
        task = instance.process.create_task(question)

        def done(_: Any) -> None:
            error = None if task.cancelled() else task.exception()
            if task.cancelled() or error is not None:
                self._back(self._closed, future)
            else:
                self._back(settle, future, task.result())

        task.add_done_callback(done)

    def _there(self, arrive: Callable[[], None]) -> None:
        network = self._network
        if not network.loses(self._gateway.name, self._place):
            network.travel((self._gateway.name, self._place), arrive)

    def _back(self, call: Callable[..., None], *arguments: Any) -> None:
        network = self._network
        if not network.loses(self._gateway.name, self._place):
            self._gateway.after(network.way_s(), call, *arguments)


def _nobody(_: Answers) -> None:
    """The sender of a repeated round waits for its first answer only."""

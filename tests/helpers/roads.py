"""Real roads, over real sockets, to the shells of a pair in this process; Ray is played by the
pair's own links."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from actors.road import Road
from actors.road_link import RoadLink
from actors.rounds import Answers
from actors.specs import RoadSpec, Rounds
from tests.helpers.shells import Instance, LoopLink, Pair, limits, running
from tests.helpers.virtual_time import until


class Control(LoopLink):
    """What Ray calls do: a link to a replica that also knows where its road is."""

    def __init__(self, pair: Pair, name: str, roads: dict[str, "OpenRoad"]) -> None:
        super().__init__(pair, name)
        self.on_closed: Callable[[], None] | None = None
        self.round_bytes = 1_000
        self._roads = roads

    @property
    def addresses(self) -> tuple[str, ...]:
        road = self._roads.get(self._name)
        return road.addresses if road is not None else ()


class OpenRoad:
    """A road that is listened on."""

    def __init__(self, road: Road, addresses: tuple[str, ...]) -> None:
        self.road = road
        self.addresses = addresses


class Crossing:
    """A pair, a road to each replica, and links to them."""

    def __init__(self, pair: Pair, spec: RoadSpec) -> None:
        self.pair = pair
        self.spec = spec
        self.roads: dict[str, OpenRoad] = {}
        self.links: list[RoadLink] = []

    async def open(self, name: str) -> OpenRoad:
        """Listen for a replica, as its process does when it starts."""
        instance = self.pair[name]
        road = Road(
            self.spec,
            name=f"shard-0000-{name}",
            token=instance.shard.token,
            take_round=taking(instance),
        )
        self.roads[name] = OpenRoad(road, await road.open("127.0.0.1"))
        return self.roads[name]

    def link(self, name: str, spec: RoadSpec | None = None) -> tuple[RoadLink, Control]:
        """A gateway's link to a replica, and the Ray link in it."""
        control = Control(self.pair, name, self.roads)
        made = RoadLink(control, spec or self.spec, name=name)
        self.links.append(made)
        return made, control

    async def greeted(self, name: str) -> tuple[RoadLink, Control]:
        """A link whose rounds go by the road."""
        made, control = self.link(name)
        await made.hello()
        await on_road(made)
        return made, control

    async def die(self, name: str) -> None:
        """The process of a replica ends: its sockets close, its shell answers nothing more."""
        self.pair[name].kill()
        await self.roads.pop(name).road.close()


def taking(instance: Instance) -> Callable[[bytes, Callable[[Answers], None]], None]:
    """What the road hands rounds to; a dead process takes none."""

    def take_round(payload: bytes, done: Callable[[Answers], None]) -> None:
        if instance.alive:
            instance.shard.take_round(payload, done)

    return take_round


async def on_road(link: RoadLink) -> None:
    """Returns when rounds go by the road."""
    await until(lambda: link.on_road)


def unix_spec(directory: Path) -> RoadSpec:
    """A road over Unix sockets in a directory of its own."""
    return RoadSpec(rounds=Rounds.ROAD, directory=str(directory / "road"))


@asynccontextmanager
async def crossing(spec: RoadSpec, pair: Pair | None = None) -> AsyncIterator[Crossing]:
    """Both replicas run, `a` is primary with tea in stock, both roads are open."""
    # On a real clock: a journal that a test holds is not to be called slow on a slow machine.
    async with running(pair or Pair(limits(append_patience_ms=60_000))) as started:
        made = Crossing(started, spec)
        try:
            await started.promote("a")
            await started.stock_up("a", 100)
            for name in ("a", "b"):
                await made.open(name)
            yield made
        finally:
            for link in made.links:
                link.forget()
            for opened in made.roads.values():
                await opened.road.close()

"""All services of the gateway as one handler table: what a front is given to serve."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from server.admission import Admission, AdmissionLimits
from server.channelz import Channelz
from server.edge import Edge, GuardedLines
from server.handlers import HandlerTable, Method, wall_ms
from server.health import Health
from server.holds import Holds
from server.lines import Lines
from server.reflection import reflection_methods
from server.services.cluster_info import ClusterInfo
from server.services.commission import Commission
from server.services.commission_listings import CommissionListings
from server.services.events import Events, Journals
from server.services.funnel import Funnel
from server.services.listings import Listings
from server.services.ops import Ops
from server.services.polling import Polling, WatchLimits
from server.services.reservations import Reservations
from server.services.risk import Risk
from server.services.seckill import Campaigns
from server.services.stock import StockKeeping
from server.services.team_listings import TeamListings
from server.services.team_watch import TeamWatch
from server.services.teams import Teams
from server.services.views import ViewReader, Views
from server.services.watch import StockWatch
from server.transfers import Transfers


class Services:
    """The parts of a gateway that calls reach, made once.

    `health.open()` begins to take calls, `health.drain()` ends it. Streams move while `running()`
    is entered. Without `views` lists answer VIEW_UNAVAILABLE, without `cluster` there is no
    OpsService, without `journals` of the `shards` no EventService, without `reflection` neither
    reflection nor channelz, without an `edge` nobody is refused before a shard is asked."""

    def __init__(
        self,
        lines: Lines,
        *,
        views: Views | None = None,
        cluster: ClusterInfo | None = None,
        journals: Journals | None = None,
        edge: Edge | None = None,
        shards: int = 1,
        limits: AdmissionLimits | None = None,
        watch_limits: WatchLimits | None = None,
        now_ms: Callable[[], int] = wall_ms,
        reflection: bool = True,
    ) -> None:
        self.admission = Admission(limits)
        self.edge = edge
        self._unguarded = lines
        if edge is not None:
            lines = GuardedLines(lines, edge)
        self.transfers = Transfers(lines, now_ms=now_ms)
        self.holds = Holds(lines, now_ms=now_ms)
        self.reader = ViewReader(views)
        self._watch = StockWatch(lines, limits=watch_limits, now_ms=now_ms)
        team_listings = TeamListings(self.reader)
        self._team_watch = TeamWatch(lines, team_listings, limits=watch_limits, now_ms=now_ms)
        methods: list[Method] = [
            *Reservations(lines).methods(),
            *StockKeeping(lines, self.transfers).methods(),
            *Campaigns(lines, self.transfers).methods(),
            *Listings(self.reader).methods(),
            *self._watch.methods(),
            *Teams(lines, team_listings).methods(),
            *self._team_watch.methods(),
            *Commission(lines, CommissionListings(lines, self.reader), self.holds).methods(),
            *Risk(lines).methods(),
        ]
        self._events: Events | None = None
        if journals is not None:
            self._events = Events(
                lines, self.reader, journals, shards, limits=watch_limits, now_ms=now_ms
            )
            methods.extend(self._events.methods())
        if cluster is not None:
            methods.extend(Ops(cluster).methods())
            methods.extend(Funnel(self.reader).methods())
        names = {method.path.split("/")[1] for method in methods}
        self.health = Health(names, self.admission, on_drain=self._drain)
        self.table = HandlerTable([*methods, *self.health.methods()], self.admission, now_ms=now_ms)
        if reflection:
            self.table.add(Channelz(self.table).methods())
            self.table.add(reflection_methods(self.table.service_names()))

    def _polled(self) -> list[Polling[Any, Any]]:
        return [self._watch.polling, self._team_watch.polling]

    def _drain(self) -> None:
        for polling in self._polled():
            polling.drain()
        if self._events is not None:
            self._events.drain()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """What the services do beside calls runs while this block does."""
        async with asyncio.TaskGroup() as tasks:
            watching = [tasks.create_task(polling.run()) for polling in self._polled()]
            if self._events is not None:
                watching.append(tasks.create_task(self._events.run()))
            if self.edge is not None:
                watching.append(tasks.create_task(self.edge.run(self._unguarded)))
            try:
                yield
            finally:
                for task in watching:
                    task.cancel()
                self.reader.close()

"""A gateway's process: the services, the gather behind them and a front before them, hosted.

A plain class; the cluster makes it an actor. Gateways of one machine share the port (SO_REUSEPORT):
the kernel spreads connections over them, not calls, so clients open several.
"""

import asyncio
import platform
import resource
from dataclasses import dataclass
from typing import Any

import structlog

from actors import cluster
from actors.clock import WallClock
from actors.core.chores import TELL_HOLD
from actors.hosting import Host, process_identity
from actors.links import Link
from actors.logs import configure_logs
from actors.specs import ClusterSpec, gateway_name
from actors.threads import JournalThread
from persistence.open import open_journal
from persistence.sql.views import SqlViews
from server.cluster_view import ClusterView
from server.edge import PROFILES, Edge
from server.fronts import FrontOptions, make_front
from server.gather import Gather, GatherLimits, Sender
from server.links import links_of
from server.recall import RecallingLines, forgotten_in
from server.services.table import Services

log = structlog.get_logger()

DRAIN_GRACE_S = 10.0
EDGE_PATIENCE_S = 15.0
"""After it found all stock, a gateway waits so long to learn who is frozen. Account shards that are
away for longer keep nobody from buying."""
WATCHERS_NOTICE_S = 0.2
"""Between NOT_SERVING and the end of new calls: time for health watchers to move their traffic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySpec:
    """One gateway."""

    index: int
    listen: str
    front: FrontOptions
    reflection: bool
    count: int
    """Gateways of the cluster."""
    risk_profile: str
    """Of `edge.PROFILES`, or 'off'."""


class Gateway:
    """The program of a gateway: services before the gather, a front before them."""

    def __init__(self, spec: ClusterSpec, own: GatewaySpec) -> None:
        self.serving = False
        self.draining = asyncio.Event()
        self.gather: Gather | None = None
        self.edge: Edge | None = None
        self._spec = spec
        self._own = own
        self._drained = asyncio.Event()
        self._services: Services | None = None

    async def run(self) -> None:
        """Serve until drained; then stay, so that who asked for the drain can be answered."""
        gather = self.gather = self._make_gather()
        view = ClusterView(self._spec, gather, gateways=self._own.count, drain=self.draining.set)
        views = SqlViews(self._spec.places.database_url)
        lines = RecallingLines(gather, forgotten_in(views), WallClock())
        edge = self.edge = Edge(PROFILES.get(self._own.risk_profile), gateways=self._own.count)
        services = self._services = Services(
            lines,
            views=views,
            cluster=view,
            journals=self._open_journal,
            shards=self._spec.shards,
            edge=edge,
            reflection=self._own.reflection,
        )
        front = make_front(self._own.front, services.table)
        front.listen(self._own.listen)
        async with services.running(), asyncio.TaskGroup() as tasks:
            tasks.create_task(gather.run())
            await front.start()
            for sender in gather.senders[: self._spec.stock_shards]:
                await sender.ready.wait()
            if not await edge.learns_within(EDGE_PATIENCE_S):
                log.warning("serves_without_knowing_who_is_frozen")
            services.health.open()
            self.serving = True
            log.info("gateway_serves", listen=self._own.listen)
            await self.draining.wait()
            services.health.drain()
            await asyncio.sleep(WATCHERS_NOTICE_S)
            await front.stop(grace_s=DRAIN_GRACE_S)
            lines.close()
            self.serving = False
            self._drained.set()
            log.info("gateway_drained")

    async def drain(self) -> None:
        """See `GatewayProcess.drain`."""
        self.draining.set()
        await self._drained.wait()

    def _make_gather(self) -> Gather:
        spec = self._spec
        senders = [
            Sender(
                shard=shard,
                gateway=gateway_name(self._own.index),
                links=links,
                clock=WallClock(),
                limits=GatherLimits(),
                map_version=spec.map_version,
                on_chore=self._do_chore,
            )
            for shard, links in enumerate(self._links())
        ]
        return Gather(senders, spec.slots_of)

    def _links(self) -> list[list[tuple[str, Link]]]:
        """By shard. No sale waits for account shards, whose replicas may be started later."""
        spec = self._spec
        stock, count = cluster.find_stock_shards(spec), spec.stock_shards
        return [
            *(links_of(spec, shard, pair) for shard, pair in enumerate(stock)),
            *(links_of(spec, shard) for shard in range(count, spec.shards)),
        ]

    def _open_journal(self, shard: int) -> JournalThread:
        """To read facts from: whoever watches."""
        return JournalThread(open_journal(self._spec.places.journal_url), shard)

    async def _do_chore(self, chore: tuple[Any, ...]) -> None:
        services = self._services
        if services is not None:
            told = chore[0] == TELL_HOLD
            await (services.holds if told else services.transfers).finish(chore)


def raise_open_files() -> None:
    """As many open files as this user may have: every caller's connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class GatewayProcess:
    """One gateway, hosted. No method is a coroutine (see `actors/shard_process.py`)."""

    def __init__(self, spec: ClusterSpec, own: GatewaySpec) -> None:
        self._spec = spec
        self._own = own
        self._name = gateway_name(own.index)
        configure_logs(spec.log_directory, self._name)
        raise_open_files()
        self._gateway = Gateway(spec, own)
        self._host = Host(self._name)
        self._host.start(self._gateway.run)

    def hello(self) -> str:
        """The process identity."""
        return process_identity()

    def ready(self) -> bool:
        """Whether it takes calls: the primary of every stock shard was found once, and who is
        frozen is known, or was not told in time."""
        return self._gateway.serving

    def drain(self) -> None:
        """Answer NOT_SERVING, finish what is in flight, take no more. Returns when that is done."""
        self._host.call(self._gateway.drain())

    def status(self) -> dict[str, Any]:
        """What operators see of this gateway."""
        senders = self._gateway.gather.senders if self._gateway.gather else []
        return {
            "gateway": self._name,
            "listen": self._own.listen,
            "front": self._own.front.kind,
            "process": process_identity(),
            "node": platform.node(),
            "serving": self._gateway.serving,
            "draining": self._gateway.draining.is_set(),
            "map_version": self._spec.map_version,
            "edge": {} if self._gateway.edge is None else self._gateway.edge.status(),
            "shards": [
                {
                    "shard": sender.shard,
                    "primary": sender.primary_name,
                    "epoch": sender.epoch,
                    "queued_lines": sender.queued,
                    "failovers": sender.failovers,
                    "false_alarms": sender.false_alarms,
                }
                for sender in senders
            ],
        }

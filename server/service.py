"""A whole service: from settings to running processes, and back down in good order.

Start: stores, Ray, shards, gateways, then wait until every gateway has found every primary and
knows who is frozen; last the accounts' standbys, the relay and write-behind. Stop: gateways answer
NOT_SERVING and finish what is in flight, the journal is read to its end by write-behind and
standbys, then the processes end.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from actors import cluster
from actors.certificates import NoCertificate, make_certificate
from actors.limits import ShardLimits
from actors.road import road_directory
from actors.specs import RELAY_NAME, REPLICAS, ClusterSpec, Places, RoadSpec, Rounds, gateway_name
from actors.spreading import Spreader
from server.bootstrap import (
    CannotStart,
    DirectoryLock,
    ShardMap,
    prepare,
    release_quietly,
    require_free_port,
)
from server.fronts import FrontOptions, check_tls
from server.gateway import GatewayProcess, GatewaySpec
from server.relay_process import RelayProcess
from server.settings import Settings
from wire.tls import TlsError

log = structlog.get_logger()

START_TIMEOUT_S = 120.0
DRAIN_TIMEOUT_S = 30.0
ANSWER_TIMEOUT_S = 30.0

Progress = Callable[[str], None]


class _Stopwatch:
    """Notes how long each part of something took, in seconds."""

    def __init__(self, found: dict[str, float]) -> None:
        self._found = found
        self._began = time.monotonic()

    def lap(self, name: str) -> None:
        """The part of this name ends here."""
        now = time.monotonic()
        self._found[name] = round(now - self._began, 3)
        self._began = now


class Service:
    """One running service. `start` once, `stop` once."""

    def __init__(self, settings: Settings, progress: Progress) -> None:
        self.settings = settings
        self.listen = ""
        self.seconds: dict[str, float] = {}
        """What the start spent on its checks, on Ray, and until the gateways served."""
        self._progress = progress
        self._lock: DirectoryLock | None = None
        self._connected = False
        self._node_socket = ""
        self._spec: ClusterSpec | None = None
        self._shards: list[list[Any]] = []
        """Those of stock, then those of accounts."""
        self._projectors: list[Any] = []
        self._gateways: list[Any] = []
        self._relays: list[Any] = []
        self._spreader: Spreader | None = None

    def start(self) -> None:
        """Returns when the service answers. CannotStart, with nothing left running."""
        try:
            self._start()
        except cluster.ClusterError as error:
            self.abandon()
            raise CannotStart(str(error)) from error
        except BaseException:
            self.abandon()
            raise

    def lost(self) -> bool:
        """Whether this machine's Ray node has ended: nothing would ever start its gateways again,
        and there is nobody left to drain."""
        return bool(self._node_socket) and not cluster.listens(self._node_socket)

    def forsake(self) -> None:
        """What is left to do after `lost`, before the process ends at once: leaving Ray in good
        order would wait for a node that is gone."""
        cluster.remove_directories()

    def stop(self) -> bool:
        """Drain and end. False if something had not caught up in time (nothing acked is lost by
        that: the journal has it)."""
        self._stop_spreading()
        self._progress("draining: finishing calls in flight")
        for gateway in self._gateways:
            try:
                cluster.call(gateway.drain.remote(), DRAIN_TIMEOUT_S)
            except cluster.ClusterError as error:
                log.warning("drain_failed", error=str(error))
        self._progress("draining: journal and database catch up")
        caught_up = self._catch_up()
        self.abandon()
        return caught_up

    def abandon(self) -> None:
        """End the processes now. Idempotent."""
        self._stop_spreading()
        replicas = [replica for pair in self._shards for replica in pair]
        for handle in (*self._gateways, *self._relays, *self._projectors, *replicas):
            cluster.kill(handle)
        self._relays = []
        self._gateways, self._projectors, self._shards = [], [], []
        if self._connected:
            cluster.disconnect()
            self._connected = False
        if self._spec is not None:
            shutil.rmtree(self._spec.road.directory, ignore_errors=True)
            self._spec = None
        release_quietly(self._lock)
        self._lock = None

    def _start(self) -> None:
        settings, watch = self.settings, _Stopwatch(self.seconds)
        self._lock = DirectoryLock(settings)
        self.listen = require_free_port(settings.listen)
        try:
            check_tls(front_options(settings))
        except TlsError as error:
            raise CannotStart(str(error)) from error
        self._progress("checking journal and database")
        shard_map = prepare(settings, lambda text: self._progress(f"warning: {text}"))
        watch.lap("checks")
        self._progress("starting Ray")
        cluster.connect(settings.ray_address, namespace=settings.namespace)
        self._connected = True
        watch.lap("ray")
        self._node_socket = cluster.node_socket()
        spec = self._spec = cluster_spec(settings, shard_map, self._certificate())
        left = cluster.clear(spec)
        if left:
            self._progress(f"ended {left} processes that an earlier server had left")
        accounts = spec.shards - spec.stock_shards
        self._progress(
            f"starting {spec.stock_shards} stock shards and {accounts} of accounts, each a primary "
            "and a standby"
        )
        # A gateway serves when it knows who is frozen: for that, one of a pair will do.
        account_shards = range(spec.stock_shards, spec.shards)
        self._shards = [
            *cluster.start_shards(spec, range(spec.stock_shards)),
            *cluster.start_shards(spec, account_shards, REPLICAS[:1]),
        ]
        self._gateways = [
            cluster.start_process(
                GatewayProcess,
                gateway_name(index),
                spec,
                GatewaySpec(
                    index=index,
                    listen=self.listen,
                    reflection=settings.reflection,
                    front=front_options(settings),
                    count=settings.gateways,
                    risk_profile=settings.risk_profile,
                ),
            )
            for index in range(settings.gateways)
        ]
        cluster.wait_until(
            self._ready,
            timeout_s=START_TIMEOUT_S,
            what=f"every shard to have a primary (logs: {settings.log_directory})",
        )
        watch.lap("processes")
        self._start_the_rest(spec)

    def _start_the_rest(self, spec: ClusterSpec) -> None:
        """No sale waits for these; whoever recovers and whoever serves has the cores first."""
        stock = spec.stock_shards
        standbys = cluster.start_shards(spec, range(stock, spec.shards), REPLICAS[1:])
        for pair, standby in zip(self._shards[stock:], standbys, strict=True):
            pair.extend(standby)
        self._projectors = cluster.start_projectors(spec)
        self._relays = [cluster.start_anywhere(RelayProcess, RELAY_NAME, spec)]
        if self.settings.ray_address != "local":
            self._spreader = Spreader(spec, self._shards)
            self._spreader.start()

    def _stop_spreading(self) -> None:
        if self._spreader is not None:
            self._spreader.stop()
            self._spreader = None

    def _certificate(self) -> str:
        """The cluster's certificate; '' where rounds need none, or it cannot be made."""
        settings = self.settings
        near_only = settings.rounds is Rounds.ROAD and settings.ray_address == "local"
        if near_only or settings.rounds is Rounds.RAY:
            return ""
        try:
            return make_certificate()
        except NoCertificate as error:
            if settings.rounds is Rounds.TCP:
                raise CannotStart(f"rounds: {error}") from error
            self._progress(f"warning: rounds to other machines go as Ray calls: {error}")
            return ""

    def _ready(self) -> bool:
        for gateway in self._gateways:
            if not cluster.call(gateway.ready.remote(), ANSWER_TIMEOUT_S):
                self._raise_if_halted()
                return False
        return True

    def _raise_if_halted(self) -> None:
        """A halted stock shard never becomes ready: say why instead of waiting. One of accounts
        keeps nobody from buying."""
        stock_shards = 0 if self._spec is None else self._spec.stock_shards
        for replicas in self._shards[:stock_shards]:
            statuses = [cluster.call(r.status.remote(), ANSWER_TIMEOUT_S) for r in replicas]
            reasons = [s["halt_reason"] for s in statuses if s["role"] == "halted"]
            if len(reasons) == len(replicas):
                raise CannotStart(f"shard {statuses[0]['shard']} is halted: {reasons[0]}")

    def _catch_up(self) -> bool:
        """Until every standby and every projector has folded the last entry."""
        deadline = time.monotonic() + DRAIN_TIMEOUT_S
        behind = "shards"
        for process in (*self._relays, *self._projectors):
            try:
                cluster.call(process.drain.remote(), 5)
            except cluster.ClusterError as error:
                log.warning("drain_failed", error=str(error))
        while behind and time.monotonic() < deadline:
            try:
                behind = self._behind()
            except cluster.ClusterError as error:
                behind = str(error)
            if behind:
                time.sleep(0.05)
        if behind:
            log.warning("stopped_behind", what=behind)
        return not behind

    def _behind(self) -> str:
        """What has not caught up; '' when all has. The relay first: its marks are entries, too."""
        relayed = {
            source["shard"]: source["marked"]
            for relay in self._relays
            for source in cluster.call(relay.status.remote(), 5)
        }
        positions = {
            status["shard"]: status["position"]
            for projector in self._projectors
            for status in cluster.call(projector.status.remote(), 5)
        }
        for replicas in self._shards:
            statuses = [cluster.call(replica.status.remote(), 5) for replica in replicas]
            if all(status["role"] == "halted" for status in statuses):
                continue  # There is nothing left to catch up with.
            last_seq = max(status["seq"] for status in statuses)
            shard = statuses[0]["shard"]
            if relayed.get(shard, last_seq) < last_seq:
                return f"relay of shard {shard}"
            for name, status in zip(REPLICAS, statuses, strict=True):
                if status["seq"] < last_seq and status["role"] != "halted":
                    return f"standby {name} of shard {status['shard']}"
            if positions.get(statuses[0]["shard"], 0) < last_seq:
                return f"database of shard {statuses[0]['shard']}"
        return ""


def front_options(settings: Settings) -> FrontOptions:
    """How the gateways face callers."""

    def path_of(file: Path | None) -> str:
        return "" if file is None else str(file)

    return FrontOptions(
        kind=settings.front,
        tls_certificate=path_of(settings.tls_certificate),
        tls_key=path_of(settings.tls_key),
        tls_client_ca=path_of(settings.tls_client_ca),
        connections_max=settings.connections_max,
        connection_idle_ms=settings.connection_idle_ms,
        connection_age_ms=settings.connection_age_ms,
    )


def cluster_spec(settings: Settings, shard_map: ShardMap, certificate: str = "") -> ClusterSpec:
    """What the processes are told."""
    return ClusterSpec(
        namespace=settings.namespace,
        shards=shard_map.shards,
        slots_of=shard_map.slots_of,
        map_version=shard_map.version,
        incarnation=shard_map.incarnation,
        places=Places(
            journal_url=settings.journal_url,
            snapshots_url=settings.snapshots_url,
            database_url=settings.database_url,
        ),
        log_directory=str(settings.log_directory),
        road=RoadSpec(
            rounds=settings.rounds,
            directory=road_directory(shard_map.incarnation),
            certificate=certificate,
        ),
        limits=ShardLimits(
            expiry_grace_ms=settings.expiry_grace_ms,
            snapshot_every_ms=settings.snapshot_every_ms,
            snapshot_entries=settings.snapshot_entries,
            journal_bytes_max=settings.journal_bytes_max,
            recall_after_ms=settings.recall_after_ms,
            facts_keep_ms=settings.facts_keep_ms,
        ),
    )

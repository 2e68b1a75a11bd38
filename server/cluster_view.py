"""The cluster as a gateway sees it: OpsService's questions, asked over the gateway's own links.

Every question has a time of its own: what does not answer is told as unreachable, never waited for.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

from actors import cluster
from actors.links import LinkClosed
from actors.shard import PromoteStatus
from actors.specs import (
    RELAY_NAME,
    REPLICAS,
    ClusterSpec,
    gateway_name,
    projector_name,
    replica_name,
)
from server.gather import Gather
from server.relay_status import RelayStatus
from server.services.cluster_info import (
    ActOutcome,
    ClusterStatus,
    DataPlace,
    GatewayStatus,
    InvariantCount,
    ReplicaReport,
    ReplicaStatus,
    ShardReport,
    ShardStatus,
    SnapshotOutcome,
)
from server.warnings import STANDBY_MISSING, warnings_of, without_primary

ANSWER_S = 2.0
VERSION = version("stockray-server")
"""Read once: each look-up lists the packages of the environment."""


class ClusterView:
    """Implements `server.services.cluster_info.ClusterInfo`."""

    def __init__(
        self,
        spec: ClusterSpec,
        gather: Gather,
        *,
        gateways: int,
        drain: Callable[[], None],
    ) -> None:
        self._spec = spec
        self._gather = gather
        self._gateways = gateways
        self._drain = drain
        self._relay_status = RelayStatus(spec.stock_shards)

    async def status(self, *, timeout_s: float) -> ClusterStatus:
        """See ClusterInfo."""
        within = min(ANSWER_S, timeout_s)
        sinks, relayed, gateways, *shards = await asyncio.gather(
            self._sinks(within),
            self._relayed(within),
            self._gateway_statuses(within),
            *(self._replica_statuses(shard, within) for shard in range(self._spec.shards)),
        )
        told = [
            self._shard(number, found, sinks, relayed.get(number, {}))
            for number, found in enumerate(shards)
        ]
        stock = self._spec.stock_shards
        warnings = warnings_of(told, sinks, relayed, gateways, stock_shards=stock)
        # Sales go on without a shard of accounts.
        no_sales = any(without_primary(shard) for shard in told[:stock])
        return ClusterStatus(
            version=VERSION,
            health="failed" if no_sales else "degraded" if warnings else "ok",
            shard_map_version=self._spec.map_version,
            shards=told,
            gateways=gateways,
            data_places=self._places(told, sinks),
            warnings=warnings,
        )

    async def verify(
        self, shards: Sequence[int], *, with_pools: bool, timeout_s: float
    ) -> Sequence[ShardReport]:
        """See ClusterInfo. Standbys compute their digests; a primary that sells does not."""
        asked = [shard for shard in shards or range(self._spec.shards) if self._known(shard)]
        return await asyncio.gather(
            *(self._report(shard, with_pools, timeout_s) for shard in asked)
        )

    async def take_snapshots(
        self, shards: Sequence[int], *, reason: str, timeout_s: float
    ) -> Sequence[SnapshotOutcome]:
        """See ClusterInfo. The standbys write them."""
        asked = shards or range(self._spec.shards)
        return await asyncio.gather(*(self._snapshot(shard, timeout_s) for shard in asked))

    async def promote(
        self, shard: int, *, seen_epoch: int, reason: str, timeout_s: float
    ) -> ActOutcome:
        """See ClusterInfo."""
        if not self._known(shard):
            return ActOutcome(outcome="not_found", message=f"no shard {shard}")
        sender = self._gather.senders[shard]
        epoch = seen_epoch or sender.epoch
        for name in REPLICAS:
            if name == sender.primary_name:
                continue
            answer = await self._ask(shard, name, timeout_s, "promote", epoch, sender.last_seq)
            if answer is None:
                continue
            status, epoch, owner = answer
            done = status == PromoteStatus.OK
            return ActOutcome(
                outcome="applied" if done else "retry",
                message="" if done else f"the standby says {status}",
                epoch=epoch,
                owner=owner,
            )
        return ActOutcome(outcome="retry", message=STANDBY_MISSING)

    async def drain_gateway(self, gateway_id: str, *, reason: str) -> ActOutcome:
        """See ClusterInfo."""
        names = [gateway_name(index) for index in range(self._gateways)]
        if not gateway_id:
            self._drain()
            return ActOutcome(outcome="applied")
        if gateway_id not in names:
            return ActOutcome(outcome="not_found", message=f"no gateway {gateway_id}")
        handle = await self._find(gateway_id)
        handle.drain.remote()
        return ActOutcome(outcome="applied", gateway_id=gateway_id)

    def _known(self, shard: int) -> bool:
        return 0 <= shard < self._spec.shards

    async def _ask(
        self, shard: int, replica: str, timeout_s: float, method: str, *arguments: Any
    ) -> Any:
        """A control call; None if it does not answer in time."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._gather.senders[shard].control(replica, method, *arguments)
        except (LinkClosed, TimeoutError):
            return None

    async def _replica_statuses(self, shard: int, within: float) -> list[dict[str, Any] | None]:
        return list(
            await asyncio.gather(*(self._ask(shard, name, within, "status") for name in REPLICAS))
        )

    async def _sinks(self, within: float) -> dict[int, tuple[int, str]]:
        """Shard -> (position, trouble) of write-behind."""
        found: dict[int, tuple[int, str]] = {}
        for index in range((self._spec.shards + 7) // 8):
            statuses = await self._ask_actor(projector_name(index), "status", within)
            for status in statuses or ():
                found[status["shard"]] = (status["position"], status["trouble"])
        return found

    async def _relayed(self, within: float) -> Mapping[int, dict[str, Any]]:
        """Stock shard -> how far the relay has its facts."""
        statuses = await self._ask_actor(RELAY_NAME, "status", within)
        # One that has just begun has no sources yet.
        return self._relay_status.take(statuses or None, time.monotonic())

    async def _ask_actor(self, name: str, method: str, within: float) -> Any:
        try:
            async with asyncio.timeout(within):
                handle = await self._find(name)
                return await cluster.awaited(getattr(handle, method).remote())
        except (cluster.ClusterError, TimeoutError):
            return None

    async def _find(self, name: str) -> Any:
        """On a thread, since it asks Ray's head: a head that is gone must not stop the gateway."""
        return await asyncio.to_thread(cluster.find, name, self._spec.namespace)

    async def _gateway_statuses(self, within: float) -> list[GatewayStatus]:
        names = [gateway_name(index) for index in range(self._gateways)]
        found = await asyncio.gather(*(self._ask_actor(name, "status", within) for name in names))
        return [
            GatewayStatus(gateway_id=name)
            if status is None
            else GatewayStatus(
                gateway_id=name,
                address=status["listen"],
                node=status["node"],
                pid=_pid(status["process"]),
                shard_map_version=status["map_version"],
                ready=status["serving"],
                draining=status["draining"],
                front=status["front"],
                answering=True,
                promotion_count=sum(shard["failovers"] for shard in status["shards"]),
                false_alarm_count=sum(shard["false_alarms"] for shard in status["shards"]),
                risk_age_ms=status["edge"].get("age_ms"),
                risk_stale=status["edge"].get("stale", False),
            )
            for name, status in zip(names, found, strict=True)
        ]

    def _shard(
        self,
        number: int,
        found: list[dict[str, Any] | None],
        sinks: dict[int, tuple[int, str]],
        relayed: Mapping[str, Any],
    ) -> ShardStatus:
        last_seq = max((status["seq"] for status in found if status), default=0)
        replicas = [
            _replica(replica_name(number, name), status, last_seq)
            for name, status in zip(REPLICAS, found, strict=True)
        ]
        answered = [status for status in found if status]
        behind = relayed.get("position", 0) < last_seq
        newest = max(answered, key=lambda status: int(status["epoch"]), default=None)
        return ShardStatus(
            shard=number,
            epoch=newest["epoch"] if newest else 0,
            owner=newest["owner"] if newest else "",
            seq=last_seq,
            first_seq=max((status["first_seq"] for status in answered), default=0),
            journal_bytes=max((status["journal_bytes"] for status in answered), default=0),
            snapshot_seq=max((status["snapshot_seq"] for status in answered), default=0),
            sink_seq=sinks.get(number, (0, ""))[0],
            slot_count=self._spec.slots_of.count(number),
            incarnation=self._spec.incarnation,
            accounts=number >= self._spec.stock_shards,
            relay_seq=relayed.get("position", 0),
            relay_lag_ms=relayed.get("lag_ms", 0) if behind else 0,
            set_aside_count=relayed.get("set_aside", 0),
            replicas=replicas,
        )

    async def _report(self, shard: int, with_pools: bool, timeout_s: float) -> ShardReport:
        found = await asyncio.gather(
            *(self._ask(shard, name, timeout_s, "fingerprint", with_pools) for name in REPLICAS)
        )
        pools: Sequence[Sequence[Any]] = ()
        reports = []
        for name, print_ in zip(REPLICAS, found, strict=True):
            reports.append(_report_of(replica_name(shard, name), print_))
            if print_ and print_["role"] == "primary":
                pools = print_["pools"]
        return ShardReport(shard=shard, replicas=reports, pools=pools)

    async def _snapshot(self, shard: int, timeout_s: float) -> SnapshotOutcome:
        if not self._known(shard):
            return SnapshotOutcome(shard=shard, outcome="not_found", message=f"no shard {shard}")
        for status, name in zip(
            await self._replica_statuses(shard, ANSWER_S), REPLICAS, strict=True
        ):
            if status and status["role"] == "standby":
                info = await self._ask(shard, name, timeout_s, "take_snapshot")
                if info is not None:
                    return SnapshotOutcome(
                        shard=shard,
                        begin_seq=info["begin_seq"],
                        end_seq=info["end_seq"],
                        byte_count=info["byte_count"],
                    )
        return SnapshotOutcome(shard=shard, outcome="retry", message=STANDBY_MISSING)

    def _places(
        self, shards: Sequence[ShardStatus], sinks: dict[int, tuple[int, str]]
    ) -> list[DataPlace]:
        """As those who use them say: primaries of the journal, write-behind of the database."""
        places = self._spec.places
        replicas = [replica for shard in shards for replica in shard.replicas]
        working = all(replica.state not in ("stalled", "halted") for replica in replicas)
        troubles = sorted({trouble for _, trouble in sinks.values() if trouble})
        return [
            DataPlace(
                kind=kind,
                location=_without_password(url),
                technology=urlsplit(url).scheme.partition("+")[0],
                reachable=reachable,
                message=message,
            )
            for kind, url, reachable, message in (
                ("journal", places.journal_url, working, ""),
                ("snapshots", places.snapshots_url, working, ""),
                ("database", places.database_url, not troubles, "; ".join(troubles)),
            )
        ]


def _replica(name: str, status: dict[str, Any] | None, last_seq: int) -> ReplicaStatus:
    if status is None:
        return ReplicaStatus(replica_id=name, state="unreachable", message="does not answer")
    role = status["role"]
    state = "ready"
    if role in ("recovering", "halted"):
        state = role
    elif role == "promoting":
        state = "recovering"
    elif status["stalled"]:
        state = "stalled"
    return ReplicaStatus(
        replica_id=name,
        role=role if role in ("primary", "standby") else "",
        state=state,
        epoch=status["epoch"],
        seq=status["seq"],
        lag_count=max(0, last_seq - status["seq"]),
        queued_line_count=status["queue_rounds"],
        node=status["node"],
        pid=_pid(status["process"]),
        memory_bytes=status["memory_bytes"],
        started_ms=status["started_ms"],
        message=status["halt_reason"],
    )


def _report_of(name: str, found: dict[str, Any] | None) -> ReplicaReport:
    if found is None or "digest" not in found:
        return ReplicaReport(replica_id=name, answered=False)
    report = ReplicaReport(
        replica_id=name,
        role=found["role"],
        epoch=found["epoch"],
        seq=found["seq"],
        state_digest=found["digest"],
    )
    sums = found["totals"]
    if sums is None:
        return report
    broken = sums["broken"]
    return ReplicaReport(
        replica_id=name,
        role=report.role,
        epoch=report.epoch,
        seq=report.seq,
        state_digest=report.state_digest,
        invariants=[
            InvariantCount(
                invariant="I1",
                checked_count=sums["pools"],
                violation_count=len(broken),
                example=broken[0] if broken else "",
            )
        ],
        pool_count=sums["pools"],
        reservation_count=sums["reservations"],
        pool_sums=sums["pool_sums"],
        paid_minor=sums["paid_minor"],
        kept_minor=sums["kept_minor"],
        refund_due_minor=sums["refund_due_minor"],
        refunded_minor=sums["refunded_minor"],
    )


def _pid(identity: str) -> int:
    return int(identity.split(":")[1]) if identity.count(":") == 2 else 0


def _without_password(url: str) -> str:
    password = urlsplit(url).password
    return url if password is None else url.replace(f":{password}@", ":***@")

"""What OpsService needs to know of the cluster, as plain frozen values that are easy to fill.

Roles and states are the lower-case names of the proto's enums without prefix ("primary",
"recovering"); an unknown name is answered as not known. Everything has a default but what names
the thing, so whoever fills these says only what is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    """One of the two actors of a shard."""

    replica_id: str
    role: str = ""
    """"primary", "standby" or ''."""
    state: str = ""
    """"recovering", "ready", "lagging", "stalled", "fenced", "halted", "unreachable" or ''."""
    epoch: int = 0
    seq: int = 0
    lag_count: int = 0
    queued_line_count: int = 0
    node: str = ""
    pid: int = 0
    memory_bytes: int = 0
    started_ms: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardStatus:
    """One shard."""

    shard: int
    epoch: int = 0
    owner: str = ""
    seq: int = 0
    first_seq: int = 0
    journal_bytes: int = 0
    snapshot_seq: int = 0
    sink_seq: int = 0
    slot_count: int = 0
    dead_letter_count: int = 0
    incarnation: str = ""
    promoted_ms: int = 0
    accounts: bool = False
    relay_seq: int = 0
    relay_lag_ms: int = 0
    set_aside_count: int = 0
    replicas: Sequence[ReplicaStatus] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayStatus:
    """One gateway."""

    gateway_id: str
    address: str = ""
    node: str = ""
    pid: int = 0
    shard_map_version: int = 0
    ready: bool = False
    draining: bool = False
    front: str = ""
    answering: bool = False
    promotion_count: int = 0
    false_alarm_count: int = 0
    risk_age_ms: int | None = None
    """Of what it knows of who is frozen; None until it knew once."""
    risk_stale: bool = False
    """Whether that is too old to rely on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPlace:
    """One place that holds the cluster's data."""

    kind: str
    """"journal", "snapshots" or "database"."""
    location: str
    """A path, or a URL without secrets."""
    technology: str = ""
    reachable: bool = False
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterStatus:
    """How the cluster stands, as one gateway sees it."""

    version: str
    health: str
    """"ok", "degraded" or "failed"."""
    shard_map_version: int = 0
    shards: Sequence[ShardStatus] = ()
    gateways: Sequence[GatewayStatus] = ()
    data_places: Sequence[DataPlace] = ()
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InvariantCount:
    """One check of one invariant."""

    invariant: str
    checked_count: int = 0
    violation_count: int = 0
    example: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaReport:
    """What one replica says of its own state. With `answered` false the rest means nothing."""

    replica_id: str
    answered: bool = True
    role: str = ""
    epoch: int = 0
    seq: int = 0
    state_digest: str = ""
    invariants: Sequence[InvariantCount] = ()
    pool_count: int = 0
    reservation_count: int = 0
    pool_sums: Sequence[int] = (0, 0, 0, 0, 0, 0, 0, 0)
    """total, available, reserved, sold, buffer, scheduled, in transit, owed; over all pools."""
    paid_minor: int = 0
    kept_minor: int = 0
    refund_due_minor: int = 0
    refunded_minor: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardReport:
    """What the replicas of one shard say."""

    shard: int
    replicas: Sequence[ReplicaReport] = ()
    pools: Sequence[Sequence[Any]] = ()
    """Views of all pools (`core.stock.pool_view`), of the primary; filled only when asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotOutcome:
    """What became of one shard's snapshot."""

    shard: int
    outcome: str = "applied"
    """"applied", "not_found" or "retry"."""
    begin_seq: int = 0
    end_seq: int = 0
    byte_count: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActOutcome:
    """What became of an operator's act."""

    outcome: str
    """"applied", "found", "not_found" or "retry"."""
    message: str = ""
    epoch: int = 0
    owner: str = ""
    gateway_id: str = ""
    in_flight_count: int = field(default=0)


class ClusterInfo(Protocol):
    """The cluster as its gateways reach it. Calls come back in time by themselves: what did not
    answer is told as such. An exception is a fault of the service."""

    async def status(self, *, timeout_s: float) -> ClusterStatus:
        """All shards, gateways and data places."""

    async def verify(
        self, shards: Sequence[int], *, with_pools: bool, timeout_s: float
    ) -> Sequence[ShardReport]:
        """Reports of these shards; of all for none named. Unknown shards are left out."""

    async def take_snapshots(
        self, shards: Sequence[int], *, reason: str, timeout_s: float
    ) -> Sequence[SnapshotOutcome]:
        """One outcome for each asked shard, in order; all shards for none named."""

    async def promote(
        self, shard: int, *, seen_epoch: int, reason: str, timeout_s: float
    ) -> ActOutcome:
        """Make the standby primary; `seen_epoch` 0 is whatever it is now."""

    async def drain_gateway(self, gateway_id: str, *, reason: str) -> ActOutcome:
        """Begin to drain; '' is the gateway that is asked. Returns before the drain has ended."""

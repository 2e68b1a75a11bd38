"""How the cluster stands and what its replicas say of themselves, as frozen values.

Fields have the names and meanings of the messages in `ops_service.proto`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from stockray.enums import ClusterHealth, ReplicaRole, ReplicaState, Status
from stockray.records import DataAge, ShardPosition, Stock
from stockray.results import Answer

__all__ = [
    "CallLimits",
    "ClusterStatus",
    "DataPlace",
    "DrainResult",
    "FunnelReport",
    "FunnelRow",
    "GatewayStatus",
    "InvariantCount",
    "PromoteResult",
    "ReplicaReport",
    "ReplicaStatus",
    "ShardReport",
    "ShardStatus",
    "SnapshotReport",
    "SnapshotResult",
    "VerifyReport",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    """One of the actors of a shard."""

    replica_id: str = ""
    role: ReplicaRole = ReplicaRole.UNSPECIFIED
    state: ReplicaState = ReplicaState.UNSPECIFIED
    epoch: int = 0
    seq: int = 0
    lag_count: int = 0
    queued_line_count: int = 0
    node: str = ""
    pid: int = 0
    memory_bytes: int = 0
    start_time: datetime | None = None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardStatus:
    """One shard."""

    shard: int = 0
    epoch: int = 0
    owner: str = ""
    seq: int = 0
    first_seq: int = 0
    journal_bytes: int = 0
    snapshot_seq: int = 0
    sink_seq: int = 0
    slot_count: int = 0
    replicas: tuple[ReplicaStatus, ...] = ()
    dead_letter_count: int = 0
    incarnation: str = ""
    promote_time: datetime | None = None
    accounts: bool = False
    """Of accounts, and not of stock."""
    relay_seq: int = 0
    """Of a shard of stock: the last entry whose facts all account shards have."""
    relay_lag: timedelta | None = None
    """None while they have all there is."""
    set_aside_count: int = 0
    """Facts of its orders that nothing came of: a bug of the service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayStatus:
    """One gateway."""

    gateway_id: str = ""
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
    """Promotions in the place of a primary that was silent, and not known to be dead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """What a call may be."""

    lines_max: int = 0
    message_bytes_max: int = 0
    deadline_max: timedelta | None = None
    page_size_max: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPlace:
    """One place that holds the cluster's data."""

    kind: str = ""
    location: str = ""
    technology: str = ""
    reachable: bool = False
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterStatus:
    """How the cluster stands, as the asked gateway sees it."""

    version: str = ""
    health: ClusterHealth = ClusterHealth.UNSPECIFIED
    limits: CallLimits | None = None
    shard_map_version: int = 0
    shards: tuple[ShardStatus, ...] = ()
    gateways: tuple[GatewayStatus, ...] = ()
    data_places: tuple[DataPlace, ...] = ()
    server_time: datetime | None = None
    warnings: tuple[str, ...] = ()

    @property
    def stock_shards(self) -> tuple[ShardStatus, ...]:
        """The shards of stock, which come first."""
        return tuple(shard for shard in self.shards if not shard.accounts)


@dataclass(frozen=True, slots=True, kw_only=True)
class InvariantCount:
    """One check of one invariant, I1-I6."""

    invariant: str = ""
    checked_count: int = 0
    violation_count: int = 0
    example: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaReport:
    """What one replica says of its own state."""

    replica_id: str = ""
    role: ReplicaRole = ReplicaRole.UNSPECIFIED
    status: Status = Status.UNSPECIFIED
    position: ShardPosition | None = None
    state_digest: str = ""
    invariants: tuple[InvariantCount, ...] = ()
    pool_count: int = 0
    reservation_count: int = 0
    pool_sums: Stock | None = None
    paid_minor: int = 0
    kept_minor: int = 0
    refund_due_minor: int = 0
    refunded_minor: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardReport:
    """What the replicas of one shard say, and whether they agree."""

    shard: int = 0
    replicas: tuple[ReplicaReport, ...] = ()
    digests_compared: bool = False
    digests_agree: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What all replicas say; all pages of pools together."""

    reports: tuple[ShardReport, ...] = ()
    pools: tuple[Stock, ...] = ()
    unreachable_shards: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotResult:
    """What became of one shard's snapshot."""

    status: Status = Status.UNSPECIFIED
    shard: int = 0
    begin_seq: int = 0
    end_seq: int = 0
    byte_count: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotReport:
    """One result for each asked shard, in order."""

    results: tuple[SnapshotResult, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FunnelRow:
    """What became of the reservations of one campaign, share code and channel."""

    campaign_id: str = ""
    share_code: str = ""
    channel: str = ""
    distributor_id: str = ""
    seckill_reservation_count: int = 0
    seckill_confirmed_count: int = 0
    group_reservation_count: int = 0
    group_confirmed_count: int = 0
    amount_minor: int = 0
    currency_code: str = ""
    commission_minor: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FunnelReport:
    """The answer to `get_funnel`; `truncated` when there are more rows than one answer has."""

    rows: tuple[FunnelRow, ...] = ()
    truncated: bool = False
    age: DataAge | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PromoteResult(Answer):
    """The answer to `promote`."""

    epoch: int = 0
    owner: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainResult(Answer):
    """The answer to `drain_gateway`."""

    gateway_id: str = ""
    in_flight_count: int = 0

"""How a cluster stands, read from its status: who is primary, whether all is there and level."""

from __future__ import annotations

from stockray.cluster import ClusterStatus
from stockray.enums import ReplicaRole, ReplicaState

__all__ = ["is_level", "is_whole", "pid_of"]

LAG_MAX_COUNT = 100
"""Entries that a standby may be behind and still keep up."""


def is_whole(status: ClusterStatus) -> bool:
    """Every shard has a primary and a standby that keeps up, and every gateway serves."""
    return all(gateway.ready for gateway in status.gateways) and all(
        sorted(r.role for r in shard.replicas) == [ReplicaRole.PRIMARY, ReplicaRole.STANDBY]
        and all(
            r.state is ReplicaState.READY and r.lag_count < LAG_MAX_COUNT for r in shard.replicas
        )
        for shard in status.shards
    )


def is_level(status: ClusterStatus) -> bool:
    """Standbys and SQL stand where the primaries stand, and accounts have all facts of orders."""
    return all(
        shard.sink_seq == shard.seq
        and all(r.seq == shard.seq for r in shard.replicas)
        and (shard.accounts or shard.relay_seq >= shard.seq)
        for shard in status.shards
    )


def pid_of(status: ClusterStatus, shard: int, role: ReplicaRole) -> int:
    """Process id of a shard's primary or standby; 0 while there is none."""
    return next((r.pid for r in status.shards[shard].replicas if r.role is role), 0)

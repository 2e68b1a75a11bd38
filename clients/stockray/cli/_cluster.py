"""`status`, `shards`, `snapshot`, `gateway`: how the cluster stands, and operators' acts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from stockray.cli._command import DEGRADED, FAILED, OK, Reason, Yes, agreed, over_grpc, say, shown
from stockray.cli._output import Show
from stockray.cluster import ClusterStatus
from stockray.enums import ClusterHealth, ReplicaRole, Status
from stockray.sync import Client

Shards = Annotated[list[int] | None, typer.Argument(help="Shards; none named means all.")]

GATEWAY_COLUMNS = (
    *("gateway_id", "address", "ready", "draining", "front", "pid"),
    *("promotion_count", "false_alarm_count"),
)

shards_app = typer.Typer(help="Shards and their replicas.", no_args_is_help=True)
snapshot_app = typer.Typer(help="Snapshots.", no_args_is_help=True)
gateway_app = typer.Typer(help="Gateways.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Adds these commands to the root."""
    over_grpc(app, "status")(status)
    app.add_typer(shards_app, name="shards")
    app.add_typer(snapshot_app, name="snapshot")
    app.add_typer(gateway_app, name="gateway")


def status(client: Client, show: Show) -> int:
    """How the cluster stands; exit 3 when it is degraded, 1 when a shard does not serve."""
    found = client.cluster_status()
    show.many(found, _status_tables(found))
    for warning in found.warnings:
        say(warning)
    if found.health is ClusterHealth.OK:
        return OK
    return DEGRADED if found.health is ClusterHealth.DEGRADED else FAILED


def _status_tables(found: ClusterStatus) -> list[tuple[Sequence[str], Sequence[Any]]]:
    """The cluster, its replicas, gateways and stores."""
    cluster = {
        "health": found.health,
        "version": found.version,
        "map": found.shard_map_version,
        "shards": len(found.shards),
        "account_shards": sum(shard.accounts for shard in found.shards),
        "time": found.server_time,
    }
    replicas = [
        {
            "shard": shard.shard,
            "replica": replica.replica_id,
            "role": replica.role,
            "state": replica.state,
            "epoch": replica.epoch,
            "seq": replica.seq,
            "lag": replica.lag_count,
            "sql_lag": shard.seq - shard.sink_seq,
            "relay_lag": 0 if shard.accounts else shard.seq - shard.relay_seq,
            "snapshot": shard.snapshot_seq,
            "memory_mb": replica.memory_bytes // 1_000_000,
            "pid": replica.pid,
            "node": replica.node,
        }
        for shard in found.shards
        for replica in shard.replicas
    ]
    return [
        (tuple(cluster), [cluster]),
        (tuple(replicas[0]) if replicas else (), replicas),
        (GATEWAY_COLUMNS, found.gateways),
        (("kind", "technology", "location", "reachable", "message"), found.data_places),
    ]


@over_grpc(shards_app, "list")
def list_shards(client: Client, show: Show) -> None:
    """All shards with their replicas."""
    rows = []
    for shard in client.cluster_status().shards:
        primary = [r for r in shard.replicas if r.role is ReplicaRole.PRIMARY]
        standby = [r for r in shard.replicas if r.role is ReplicaRole.STANDBY]
        rows.append(
            {
                "shard": shard.shard,
                "epoch": shard.epoch,
                "seq": shard.seq,
                "kind": "accounts" if shard.accounts else "stock",
                "sink_lag": shard.seq - shard.sink_seq,
                "relay_lag": 0 if shard.accounts else shard.seq - shard.relay_seq,
                "slots": shard.slot_count,
                "primary": primary[0].state.name if primary else "NONE",
                "standbys": [replica.state.name for replica in standby],
                "detail": shard,
            }
        )
    columns = (
        *("shard", "kind", "epoch", "seq", "sink_lag", "relay_lag", "slots", "primary"),
        "standbys",
    )
    show.rows(rows, columns)


@over_grpc(shards_app, "promote")
def promote(
    client: Client,
    show: Show,
    *,
    shard: Annotated[int, typer.Argument(min=0, help="The shard, from 0.")],
    seen_epoch: Annotated[int, typer.Option(min=0, help="Epoch seen; 0: the present one.")] = 0,
    reason: Reason = "",
    yes: Yes = False,
) -> int:
    """Make a shard's standby its primary."""
    agreed(f"Promote the standby of shard {shard}?", yes)
    if not seen_epoch:
        # A resend after a lost answer would promote again; named, the epoch stops that.
        epochs = {found.shard: found.epoch for found in client.cluster_status().shards}
        seen_epoch = epochs.get(shard, 0)
    return shown(show, client.promote(shard, seen_epoch=seen_epoch, reason=reason))


@over_grpc(snapshot_app, "take")
def take_snapshot(client: Client, show: Show, *, shards: Shards = None, reason: Reason = "") -> int:
    """Make shards take a snapshot now."""
    results = client.take_snapshot(shards or (), reason=reason).results
    show.rows(results, ("shard", "status", "begin_seq", "end_seq", "byte_count", "message"))
    return OK if all(result.status is Status.APPLIED for result in results) else FAILED


@over_grpc(gateway_app, "drain")
def drain(
    client: Client,
    show: Show,
    *,
    gateway_id: Annotated[str, typer.Argument(help="The gateway; empty: the one asked.")] = "",
    reason: Reason = "",
    yes: Yes = False,
) -> int:
    """Take a gateway out of service."""
    agreed(f"Drain gateway {gateway_id or '(the one asked)'}?", yes)
    return shown(show, client.drain_gateway(gateway_id, reason=reason))

"""Cluster values (`services/cluster_info.py`) to messages."""

from stockray_proto.v1 import common_pb2, ops_service_pb2, stock_pb2

from server.services.cluster_info import ReplicaReport, ReplicaStatus, ShardStatus
from server.translate.scalars import duration, stamp_or_none
from server.validate import MESSAGE_LENGTH_MAX

ROLES = {
    "primary": ops_service_pb2.REPLICA_ROLE_PRIMARY,
    "standby": ops_service_pb2.REPLICA_ROLE_STANDBY,
}
STATES = {
    "recovering": ops_service_pb2.REPLICA_STATE_RECOVERING,
    "ready": ops_service_pb2.REPLICA_STATE_READY,
    "lagging": ops_service_pb2.REPLICA_STATE_LAGGING,
    "stalled": ops_service_pb2.REPLICA_STATE_STALLED,
    "fenced": ops_service_pb2.REPLICA_STATE_FENCED,
    "halted": ops_service_pb2.REPLICA_STATE_HALTED,
    "unreachable": ops_service_pb2.REPLICA_STATE_UNREACHABLE,
}


def line_status(outcome: str) -> common_pb2.LineStatus.ValueType:
    """The status of an act by its lower-case name. ValueError for one that there is not."""
    return common_pb2.LineStatus.Value(f"LINE_STATUS_{outcome.upper()}")


def replica_status_message(replica: ReplicaStatus) -> ops_service_pb2.ReplicaStatus:
    """One of the two actors of a shard."""
    return ops_service_pb2.ReplicaStatus(
        replica_id=replica.replica_id,
        role=ROLES.get(replica.role, ops_service_pb2.REPLICA_ROLE_UNSPECIFIED),
        state=STATES.get(replica.state, ops_service_pb2.REPLICA_STATE_UNSPECIFIED),
        epoch=replica.epoch,
        seq=replica.seq,
        lag_count=replica.lag_count,
        queued_line_count=replica.queued_line_count,
        node=replica.node,
        pid=replica.pid,
        memory_bytes=replica.memory_bytes,
        start_time=stamp_or_none(replica.started_ms),
        message=replica.message[:MESSAGE_LENGTH_MAX],
    )


def shard_status_message(shard: ShardStatus) -> ops_service_pb2.ShardStatus:
    """One shard with its replicas."""
    return ops_service_pb2.ShardStatus(
        shard=shard.shard,
        epoch=shard.epoch,
        owner=shard.owner,
        seq=shard.seq,
        first_seq=shard.first_seq,
        journal_bytes=shard.journal_bytes,
        snapshot_seq=shard.snapshot_seq,
        sink_seq=shard.sink_seq,
        slot_count=shard.slot_count,
        replicas=[replica_status_message(replica) for replica in shard.replicas],
        dead_letter_count=shard.dead_letter_count,
        incarnation=shard.incarnation,
        promote_time=stamp_or_none(shard.promoted_ms),
        accounts=shard.accounts,
        relay_seq=shard.relay_seq,
        relay_lag=duration(shard.relay_lag_ms) if shard.relay_lag_ms else None,
        set_aside_count=shard.set_aside_count,
    )


def replica_report_message(shard: int, replica: ReplicaReport) -> ops_service_pb2.ReplicaReport:
    """What one replica says of its own state; of one that did not answer, only who it is."""
    if not replica.answered:
        return ops_service_pb2.ReplicaReport(
            replica_id=replica.replica_id, status=common_pb2.LINE_STATUS_RETRY
        )
    total, available, reserved, sold, buffer, scheduled, in_transit, owed = replica.pool_sums
    message = ops_service_pb2.ReplicaReport(
        replica_id=replica.replica_id,
        role=ROLES.get(replica.role, ops_service_pb2.REPLICA_ROLE_UNSPECIFIED),
        status=common_pb2.LINE_STATUS_FOUND,
        position=common_pb2.ShardPosition(shard=shard, seq=replica.seq, epoch=replica.epoch),
        state_digest=replica.state_digest,
        pool_count=replica.pool_count,
        reservation_count=replica.reservation_count,
        pool_sums=stock_pb2.Stock(
            total_count=total,
            available_count=available,
            reserved_count=reserved,
            sold_count=sold,
            buffer_count=buffer,
            scheduled_count=scheduled,
            in_transit_count=in_transit,
            owed_count=owed,
        ),
        paid_minor=replica.paid_minor,
        kept_minor=replica.kept_minor,
        refund_due_minor=replica.refund_due_minor,
        refunded_minor=replica.refunded_minor,
    )
    for count in replica.invariants:
        message.invariants.add(
            invariant=count.invariant,
            checked_count=count.checked_count,
            violation_count=count.violation_count,
            example=count.example[:MESSAGE_LENGTH_MAX],
        )
    return message

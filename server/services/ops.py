"""OpsService: what operators ask of the cluster, translated to and from `ClusterInfo`."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

from stockray_proto.v1 import common_pb2, ops_service_pb2

from server.admission import LINES_A_CALL_MAX, MESSAGE_BYTES_MAX
from server.errors import deadline_exceeded
from server.handlers import DEADLINE_MAX_MS, CallContext, Calls, Method
from server.services.cluster_info import ClusterInfo, ShardReport
from server.translate.cluster import (
    line_status,
    replica_report_message,
    shard_status_message,
)
from server.translate.pages import PAGE_SIZE_MAX, make_token, page_size, read_token
from server.translate.scalars import RETRY_AFTER, duration, stamp
from server.translate.stock import stock_message
from server.validate import TITLE_LENGTH_MAX, Violations

OPS = "/stockray.v1.OpsService/"
SHARDS_MAX = 1_024
ANSWER_MARGIN_S = 0.2
"""The cluster is asked to answer this much before the caller's deadline."""

PAGE_BYTES_MAX = 3_000_000
"""Of pools in one page; with the reports beside them below the 4 MiB of a message."""

T = TypeVar("T")
PoolPlace = tuple[int, str, str]
"""(shard, campaign, SKU): the order of pools."""


class Ops:
    """Status, verification, snapshots, promotion and drain."""

    def __init__(self, cluster: ClusterInfo) -> None:
        self._cluster = cluster

    def methods(self) -> list[Method]:
        """The calls of this service."""
        ops = ops_service_pb2
        calls: Calls = {
            "GetClusterStatus": (ops.GetClusterStatusRequest, self.get_cluster_status),
            "Verify": (ops.VerifyRequest, self.verify),
            "TakeSnapshot": (ops.TakeSnapshotRequest, self.take_snapshot),
            "Promote": (ops.PromoteRequest, self.promote),
            "DrainGateway": (ops.DrainGatewayRequest, self.drain_gateway),
        }
        return [Method(path=OPS + name, request=r, unary=h) for name, (r, h) in calls.items()]

    async def get_cluster_status(
        self, request: ops_service_pb2.GetClusterStatusRequest, context: CallContext
    ) -> ops_service_pb2.GetClusterStatusResponse:
        """How the cluster stands."""
        status = await _in_time(self._cluster.status(timeout_s=_patience(context)), context)
        response = ops_service_pb2.GetClusterStatusResponse(
            version=status.version,
            health=_health(status.health),
            limits=ops_service_pb2.CallLimits(
                lines_max=LINES_A_CALL_MAX,
                message_bytes_max=MESSAGE_BYTES_MAX,
                deadline_max=duration(DEADLINE_MAX_MS),
                page_size_max=PAGE_SIZE_MAX,
            ),
            shard_map_version=status.shard_map_version,
            shards=[shard_status_message(shard) for shard in status.shards],
            server_time=stamp(context.now_ms()),
            warnings=status.warnings,
        )
        for gateway in status.gateways:
            response.gateways.add(
                gateway_id=gateway.gateway_id,
                address=gateway.address,
                node=gateway.node,
                pid=gateway.pid,
                shard_map_version=gateway.shard_map_version,
                ready=gateway.ready,
                draining=gateway.draining,
                front=gateway.front,
                answering=gateway.answering,
                promotion_count=gateway.promotion_count,
                false_alarm_count=gateway.false_alarm_count,
            )
        for place in status.data_places:
            response.data_places.add(
                kind=place.kind,
                location=place.location,
                technology=place.technology,
                reachable=place.reachable,
                message=place.message[:TITLE_LENGTH_MAX],
            )
        return response

    async def verify(
        self, request: ops_service_pb2.VerifyRequest, context: CallContext
    ) -> ops_service_pb2.VerifyResponse:
        """What every replica says of its own state; pools by page."""
        wrong = _shard_violations(request.shards)
        wrong.page(page_size=request.page_size, page_token=request.page_token)
        wrong.refuse()
        shards = sorted(set(request.shards))
        filters = (shards, request.include_pools)
        after = read_token(request.page_token, (int, str, str), *filters)
        reports = await _in_time(
            self._cluster.verify(
                shards, with_pools=request.include_pools, timeout_s=_patience(context)
            ),
            context,
        )
        response = ops_service_pb2.VerifyResponse(
            unreachable_shards=[
                report.shard
                for report in reports
                if not any(replica.answered for replica in report.replicas)
            ]
        )
        if after is None:
            for report in reports:
                response.reports.append(_shard_report(report))
        last = _add_pools(response, reports, after, page_size(request.page_size), context.now_ms())
        response.next_page_token = make_token(last, *filters)
        return response

    async def take_snapshot(
        self, request: ops_service_pb2.TakeSnapshotRequest, context: CallContext
    ) -> ops_service_pb2.TakeSnapshotResponse:
        """Snapshots now."""
        wrong = _shard_violations(request.shards)
        wrong.reason(request.reason)
        wrong.refuse()
        taking = self._cluster.take_snapshots(
            list(request.shards), reason=request.reason, timeout_s=_patience(context)
        )
        response = ops_service_pb2.TakeSnapshotResponse()
        for taken in await _in_time(taking, context):
            response.results.add(
                status=line_status(taken.outcome),
                shard=taken.shard,
                begin_seq=taken.begin_seq,
                end_seq=taken.end_seq,
                byte_count=taken.byte_count,
                message=taken.message[:TITLE_LENGTH_MAX],
            )
        return response

    async def promote(
        self, request: ops_service_pb2.PromoteRequest, context: CallContext
    ) -> ops_service_pb2.PromoteResponse:
        """Make a shard's standby its primary."""
        wrong = _shard_violations([request.shard], "shard")
        if request.seen_epoch < 0:
            wrong.add("seen_epoch", "0 or more")
        wrong.reason(request.reason)
        wrong.refuse()
        promoting = self._cluster.promote(
            request.shard,
            seen_epoch=request.seen_epoch,
            reason=request.reason,
            timeout_s=_patience(context),
        )
        act = await _in_time(promoting, context)
        return ops_service_pb2.PromoteResponse(
            **_head(act.outcome, act.message), epoch=act.epoch, owner=act.owner
        )

    async def drain_gateway(
        self, request: ops_service_pb2.DrainGatewayRequest, context: CallContext
    ) -> ops_service_pb2.DrainGatewayResponse:
        """Take a gateway out of service."""
        wrong = Violations()
        wrong.optional_id("gateway_id", request.gateway_id)
        wrong.reason(request.reason)
        wrong.refuse()
        draining = self._cluster.drain_gateway(request.gateway_id, reason=request.reason)
        act = await _in_time(draining, context)
        return ops_service_pb2.DrainGatewayResponse(
            **_head(act.outcome, act.message),
            gateway_id=act.gateway_id or request.gateway_id,
            in_flight_count=act.in_flight_count,
        )


def _patience(context: CallContext) -> float:
    return max(ANSWER_MARGIN_S, context.time_remaining_s() - ANSWER_MARGIN_S)


async def _in_time(asked: Awaitable[T], context: CallContext) -> T:
    try:
        async with asyncio.timeout(context.time_remaining_s()):
            return await asked
    except TimeoutError as error:
        raise deadline_exceeded() from error


def _shard_violations(shards: Sequence[int], field: str = "shards") -> Violations:
    wrong = Violations()
    if len(shards) > SHARDS_MAX:
        wrong.add(field, f"at most {SHARDS_MAX} of them")
    if any(shard < 0 for shard in shards):
        wrong.add(field, "0 or more")
    return wrong


def _head(outcome: str, message: str) -> dict[str, Any]:
    status = line_status(outcome)
    waits = status in (common_pb2.LINE_STATUS_RETRY, common_pb2.LINE_STATUS_UNKNOWN)
    return {
        "status": status,
        "message": message[:TITLE_LENGTH_MAX],
        "retry_after": RETRY_AFTER if waits else None,
    }


def _health(name: str) -> ops_service_pb2.ClusterHealth.ValueType:
    return ops_service_pb2.ClusterHealth.Value(f"CLUSTER_HEALTH_{name.upper()}")


def _add_pools(
    response: ops_service_pb2.VerifyResponse,
    reports: Sequence[ShardReport],
    after: PoolPlace | None,
    size: int,
    now_ms: int,
) -> PoolPlace | None:
    """The pools of one page, each with its place in history. Answers the last one if more follow.

    Pools of one shard are of one instant if they are in one page, so a page ends between two
    shards, once it is full, unless its shard alone would make it too large a message."""
    places = {report.shard: _place(report) for report in reports}
    pools = sorted(
        ((report.shard, view[2], view[3]), view) for report in reports for view in report.pools
    )
    rest = [(at, view) for at, view in pools if after is None or at > after]
    size_bytes = 0
    last: PoolPlace | None = None
    for count, (at, view) in enumerate(rest):
        full = count >= size and last is not None and at[0] != last[0]
        if full or size_bytes > PAGE_BYTES_MAX:
            return last
        stock = stock_message(view, as_of_ms=now_ms, now_ms=now_ms, position=places[at[0]])
        if stock is not None:
            response.pools.append(stock)
            size_bytes += stock.ByteSize()
        last = at
    return None


def _place(report: ShardReport) -> common_pb2.ShardPosition | None:
    """Where in history the primary, whose pools these are, stood when it reported. While an old
    primary is not fenced yet there are two, and the pools are those of the last one named."""
    for replica in reversed(report.replicas):
        if replica.answered and replica.role == "primary":
            return common_pb2.ShardPosition(
                shard=report.shard, seq=replica.seq, epoch=replica.epoch
            )
    return None


def _shard_report(report: ShardReport) -> ops_service_pb2.ShardReport:
    digests: dict[int, list[str]] = {}
    for replica in report.replicas:
        if replica.answered and replica.state_digest:
            digests.setdefault(replica.seq, []).append(replica.state_digest)
    compared = [found for found in digests.values() if len(found) > 1]
    return ops_service_pb2.ShardReport(
        shard=report.shard,
        replicas=[replica_report_message(report.shard, replica) for replica in report.replicas],
        digests_compared=bool(compared),
        digests_agree=bool(compared) and all(len(set(found)) == 1 for found in compared),
    )

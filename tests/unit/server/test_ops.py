"""OpsService over a cluster that is told what to answer: translation, paging, time."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest
from stockray_proto.v1 import common_pb2 as com
from stockray_proto.v1 import ops_service_pb2 as ops
from stockray_proto.v1 import ops_service_pb2_grpc

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
from tests.helpers.core_lines import CoreLines
from tests.unit.server.conftest import fields_of, reason_of, serving

pytestmark = pytest.mark.usefixtures("front_kind")


def view(sku_id: str) -> tuple[Any, ...]:
    """A base pool as `core.stock.pool_view` tells it."""
    return (0, 1, "", sku_id, 10, 4, 3, 2, 1, 0, 0, 0, 5, 5, 0, "CNY")


class ToldCluster:
    """A `ClusterInfo` of two shards, one of them half dead."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.digests = ["d1", "d1"]
        self.pools: dict[int, list[Any]] = {0: [view(f"sku-{index}") for index in range(5)]}

    async def status(self, *, timeout_s: float) -> ClusterStatus:
        self.asked.append(("status", timeout_s))
        replicas = (
            ReplicaStatus(replica_id="shard-0000-a", role="primary", state="ready", seq=7, pid=42),
            ReplicaStatus(replica_id="shard-0000-b", state="unreachable", message="m" * 300),
        )
        return ClusterStatus(
            version="0.1.0",
            health="degraded",
            shards=(ShardStatus(shard=0, epoch=3, seq=7, replicas=replicas), ShardStatus(shard=1)),
            gateways=(GatewayStatus(gateway_id="gateway-00", ready=True, answering=True),),
            data_places=(DataPlace(kind="journal", location="/data", technology="sqlite"),),
            warnings=("shard 0: no caught-up standby",),
        )

    async def verify(
        self, shards: Sequence[int], *, with_pools: bool, timeout_s: float
    ) -> Sequence[ShardReport]:
        self.asked.append(("verify", list(shards), with_pools))
        counts = (InvariantCount(invariant="I1", checked_count=5),)
        replicas = [
            ReplicaReport(
                replica_id=name,
                role=role,
                epoch=3,
                seq=7,
                state_digest=digest,
                invariants=counts,
                pool_sums=(10, 4, 3, 2, 1, 0, 0, 0),
            )
            for name, role, digest in zip(
                ("a", "b"), ("primary", "standby"), self.digests, strict=True
            )
        ]
        dead = ReplicaReport(replica_id="c", answered=False)
        if len(self.pools) == 1:
            told = [ShardReport(shard=0, replicas=replicas, pools=self.pools[0])]
            told.append(ShardReport(shard=1, replicas=[dead]))
        else:
            told = [
                ShardReport(shard=shard, replicas=replicas, pools=pools)
                for shard, pools in self.pools.items()
            ]
        return told if with_pools else [replace(report, pools=()) for report in told]

    async def take_snapshots(
        self, shards: Sequence[int], *, reason: str, timeout_s: float
    ) -> Sequence[SnapshotOutcome]:
        self.asked.append(("snapshot", list(shards), reason))
        return [
            SnapshotOutcome(shard=0, begin_seq=3, end_seq=5, byte_count=100),
            SnapshotOutcome(shard=9, outcome="not_found", message="no such shard"),
        ]

    async def promote(
        self, shard: int, *, seen_epoch: int, reason: str, timeout_s: float
    ) -> ActOutcome:
        self.asked.append(("promote", shard, seen_epoch, reason))
        outcome = "retry" if shard else "applied"
        return ActOutcome(outcome=outcome, epoch=4, owner="token")

    async def drain_gateway(self, gateway_id: str, *, reason: str) -> ActOutcome:
        self.asked.append(("drain", gateway_id, reason))
        return ActOutcome(outcome="applied", gateway_id="gateway-00", in_flight_count=3)


@pytest.fixture
def cluster() -> ToldCluster:
    return ToldCluster()


@pytest.fixture
async def operator(lines: CoreLines, cluster: ToldCluster) -> AsyncIterator[Any]:
    async with serving(lines, cluster=cluster) as gateway:
        yield ops_service_pb2_grpc.OpsServiceStub(gateway.channel)


async def test_the_status_says_limits_and_who_is_missing(operator: Any) -> None:
    status = await operator.GetClusterStatus(ops.GetClusterStatusRequest())
    assert status.health == ops.CLUSTER_HEALTH_DEGRADED
    assert (status.limits.lines_max, status.limits.message_bytes_max) == (4_096, 4 * 1024 * 1024)
    assert status.limits.deadline_max.seconds == 10
    alive, dead = status.shards[0].replicas
    assert (alive.role, alive.state) == (ops.REPLICA_ROLE_PRIMARY, ops.REPLICA_STATE_READY)
    assert (dead.role, dead.state) == (
        ops.REPLICA_ROLE_UNSPECIFIED,
        ops.REPLICA_STATE_UNREACHABLE,
    )
    assert len(dead.message) == 256
    assert not dead.HasField("start_time")
    assert status.gateways[0].answering
    assert status.data_places[0].technology == "sqlite"
    assert len(status.warnings) == 1


async def test_verify_compares_digests_at_one_seq_and_pages_pools(
    operator: Any, cluster: ToldCluster
) -> None:
    request = ops.VerifyRequest(include_pools=True, page_size=2, shards=[1, 0, 0])
    found: list[str] = []
    first = await operator.Verify(request)
    answer = first
    while True:
        found.extend(pool.sku_id for pool in answer.pools)
        request.page_token = answer.next_page_token
        if not request.page_token:
            break
        answer = await operator.Verify(request)
        assert not answer.reports
    assert found == [f"sku-{index}" for index in range(5)]
    assert cluster.asked[0] == ("verify", [0, 1], True)
    good, silent = first.reports
    assert (good.digests_compared, good.digests_agree) == (True, True)
    assert good.replicas[0].pool_sums.reserved_count == 3
    assert good.replicas[0].invariants[0].checked_count == 5
    assert silent.replicas[0].status == com.LINE_STATUS_RETRY
    assert list(first.unreachable_shards) == [1]
    cluster.digests = ["d1", "d2"]
    (report, _) = (await operator.Verify(ops.VerifyRequest())).reports
    assert (report.digests_compared, report.digests_agree) == (True, False)


async def test_a_page_of_verify_has_whole_shards_and_says_of_when(
    operator: Any, cluster: ToldCluster
) -> None:
    """Pools of a shard that is selling are of one instant only if one report had them."""
    cluster.pools = {shard: [view(f"{shard}-{n}") for n in range(3)] for shard in range(4)}
    request = ops.VerifyRequest(include_pools=True, page_size=4)
    found = []
    while True:
        answer = await operator.Verify(request)
        found.append([pool.sku_id for pool in answer.pools])
        for pool in answer.pools:
            place = pool.position
            assert (f"{place.shard}", place.seq, place.epoch) == (pool.sku_id[0], 7, 3)
            assert pool.currency_code == "CNY"
        request.page_token = answer.next_page_token
        if not request.page_token:
            break
    whole = [[f"{shard}-{n}" for n in range(3)] for shard in range(4)]
    assert found == [whole[0] + whole[1], whole[2] + whole[3]]


async def test_a_shard_too_large_for_a_message_is_told_in_parts(
    operator: Any, cluster: ToldCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.services.ops.PAGE_BYTES_MAX", 200)
    cluster.pools = {shard: [view(f"{shard}-{n}") for n in range(9)] for shard in range(2)}
    request = ops.VerifyRequest(include_pools=True)
    found: list[str] = []
    pages = 0
    while pages == 0 or request.page_token:
        answer = await operator.Verify(request)
        assert 0 < len(answer.pools) < 9
        assert all(pool.position.seq == 7 for pool in answer.pools)
        found.extend(pool.sku_id for pool in answer.pools)
        request.page_token = answer.next_page_token
        pages += 1
    assert found == [f"{shard}-{n}" for shard in range(2) for n in range(9)]


async def test_acts_are_passed_on_with_their_reason(operator: Any, cluster: ToldCluster) -> None:
    taken = await operator.TakeSnapshot(ops.TakeSnapshotRequest(shards=[0, 9], reason="upgrade"))
    assert [result.status for result in taken.results] == [
        com.LINE_STATUS_APPLIED,
        com.LINE_STATUS_NOT_FOUND,
    ]
    promoted = await operator.Promote(ops.PromoteRequest(shard=0, seen_epoch=3, reason="drill"))
    assert (promoted.status, promoted.epoch, promoted.owner) == (
        com.LINE_STATUS_APPLIED,
        4,
        "token",
    )
    too_early = await operator.Promote(ops.PromoteRequest(shard=1))
    assert (too_early.status, too_early.HasField("retry_after")) == (com.LINE_STATUS_RETRY, True)
    drained = await operator.DrainGateway(ops.DrainGatewayRequest(reason="update"))
    assert (drained.gateway_id, drained.in_flight_count) == ("gateway-00", 3)
    assert [asked for asked in cluster.asked if asked[0] != "status"] == [
        ("snapshot", [0, 9], "upgrade"),
        ("promote", 0, 3, "drill"),
        ("promote", 1, 0, ""),
        ("drain", "", "update"),
    ]


async def test_bad_acts_reach_no_cluster(operator: Any, cluster: ToldCluster) -> None:
    calls = (
        (operator.Promote, ops.PromoteRequest(shard=-1, seen_epoch=-1), ["shard", "seen_epoch"]),
        (operator.TakeSnapshot, ops.TakeSnapshotRequest(reason="r" * 513), ["reason"]),
        (operator.DrainGateway, ops.DrainGatewayRequest(gateway_id="a b"), ["gateway_id"]),
        (operator.Verify, ops.VerifyRequest(page_size=-1, shards=[-1]), ["shards", "page_size"]),
    )
    for call, request, fields in calls:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(request)
        assert fields_of(caught.value) == fields
    assert not cluster.asked


async def test_the_cluster_is_given_less_time_than_the_caller(
    operator: Any, cluster: ToldCluster
) -> None:
    await operator.GetClusterStatus(ops.GetClusterStatusRequest(), timeout=9)
    ((_, timeout_s),) = cluster.asked
    assert 2 < timeout_s < 9


async def test_without_a_cluster_there_is_no_ops_service(lines: CoreLines) -> None:
    async with serving(lines) as gateway:
        stub: Any = ops_service_pb2_grpc.OpsServiceStub(gateway.channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetClusterStatus(ops.GetClusterStatusRequest())
        assert reason_of(caught.value) == "UNIMPLEMENTED"

"""The verbs of operators: status, verification, snapshots, promotion, draining."""

from __future__ import annotations

from collections.abc import Sequence

from stockray_proto.v1 import ops_service_pb2 as wire

from stockray._channel import Method
from stockray._codec import read
from stockray._session import Session
from stockray.cluster import (
    ClusterStatus,
    DrainResult,
    FunnelReport,
    PromoteResult,
    ShardReport,
    SnapshotReport,
    VerifyReport,
)
from stockray.records import Stock

OPS = "/stockray.v1.OpsService/"
CLUSTER_STATUS = Method(OPS + "GetClusterStatus", wire.GetClusterStatusResponse.FromString)
VERIFY = Method(OPS + "Verify", wire.VerifyResponse.FromString)
TAKE_SNAPSHOT = Method(OPS + "TakeSnapshot", wire.TakeSnapshotResponse.FromString)
PROMOTE = Method(OPS + "Promote", wire.PromoteResponse.FromString)
DRAIN_GATEWAY = Method(OPS + "DrainGateway", wire.DrainGatewayResponse.FromString)
GET_FUNNEL = Method(OPS + "GetFunnel", wire.GetFunnelResponse.FromString)


class OperationCalls(Session):
    """What operators ask of the cluster itself."""

    async def cluster_status(self, *, timeout_ms: int | None = None) -> ClusterStatus:
        """How the cluster stands, as the asked gateway sees it."""
        request = wire.GetClusterStatusRequest()
        found = await self._fetch(CLUSTER_STATUS, request, timeout_ms=timeout_ms)
        return read(ClusterStatus, found)

    async def verify(
        self,
        shards: Sequence[int] = (),
        *,
        include_pools: bool = False,
        timeout_ms: int | None = None,
    ) -> VerifyReport:
        """Makes every replica of the shards (none named: of all) check its state and report.

        With `include_pools` all pages of pools are fetched; `timeout_ms` is for each page.
        """
        request = wire.VerifyRequest(shards=shards, include_pools=include_pools)
        reports: list[ShardReport] = []
        pools: list[Stock] = []
        unreachable: set[int] = set()
        while True:
            found = await self._fetch(VERIFY, request, timeout_ms=timeout_ms)
            reports.extend(read(ShardReport, report) for report in found.reports)
            pools.extend(read(Stock, pool) for pool in found.pools)
            unreachable.update(found.unreachable_shards)
            request.page_token = found.next_page_token
            if not (include_pools and found.next_page_token):
                break
        return VerifyReport(
            reports=tuple(reports),
            pools=tuple(pools),
            unreachable_shards=tuple(sorted(unreachable)),
        )

    async def take_snapshot(
        self, shards: Sequence[int] = (), *, reason: str = "", timeout_ms: int | None = None
    ) -> SnapshotReport:
        """Makes shards (none named: all) take a snapshot now; one result for each, in order."""
        request = wire.TakeSnapshotRequest(shards=shards, reason=reason)
        found = await self._fetch(TAKE_SNAPSHOT, request, timeout_ms=timeout_ms)
        return read(SnapshotReport, found)

    async def promote(
        self, shard: int, *, seen_epoch: int = 0, reason: str = "", timeout_ms: int | None = None
    ) -> PromoteResult:
        """Makes a shard's standby its primary.

        Name the epoch you saw: sent again after a lost answer, a promotion with `seen_epoch` finds
        the new epoch and answers FOUND, where one without would promote once more.
        """
        request = wire.PromoteRequest(shard=shard, seen_epoch=seen_epoch, reason=reason)
        return await self._ask(PromoteResult, PROMOTE, request, timeout_ms=timeout_ms)

    async def drain_gateway(
        self, gateway_id: str = "", *, reason: str = "", timeout_ms: int | None = None
    ) -> DrainResult:
        """Takes a gateway out of service; an empty id means whichever one is asked."""
        request = wire.DrainGatewayRequest(gateway_id=gateway_id, reason=reason)
        return await self._ask(DrainResult, DRAIN_GATEWAY, request, timeout_ms=timeout_ms)

    async def get_funnel(
        self,
        campaign_ids: Sequence[str],
        *,
        channel: str = "",
        distributor_id: str = "",
        timeout_ms: int | None = None,
    ) -> FunnelReport:
        """What share codes brought to 1-20 campaigns, by campaign, share code and channel.

        Reserved and confirmed by feature, paid, and the commission; from the SQL view.
        """
        request = wire.GetFunnelRequest(
            campaign_ids=campaign_ids, channel=channel, distributor_id=distributor_id
        )
        found = await self._fetch(GET_FUNNEL, request, timeout_ms=timeout_ms)
        return read(FunnelReport, found)

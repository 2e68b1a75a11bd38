"""OpsService, the part about share codes: what they brought, from the SQL view."""

from stockray_proto.v1 import common_pb2, ops_service_pb2

from persistence.sql.paging import Row
from server.handlers import CallContext, Method
from server.services.ops import OPS
from server.services.views import ViewReader, Views, view_age
from server.validate import Violations

CAMPAIGNS_MAX = 20
ROWS_MAX = 5_000
"""Of one answer; about 100 bytes each, so far below the 4 MiB of a message."""

Found = tuple[list[tuple[str, Row]], common_pb2.DataAge]


class Funnel:
    """GetFunnel."""

    def __init__(self, reader: ViewReader) -> None:
        self._reader = reader

    def methods(self) -> list[Method]:
        """The call."""
        return [
            Method(
                path=OPS + "GetFunnel",
                request=ops_service_pb2.GetFunnelRequest,
                unary=self.get_funnel,
            )
        ]

    async def get_funnel(
        self, request: ops_service_pb2.GetFunnelRequest, context: CallContext
    ) -> ops_service_pb2.GetFunnelResponse:
        """By campaign, share code and channel."""
        wrong = Violations()
        if not request.campaign_ids:
            wrong.add("campaign_ids", f"required: 1 to {CAMPAIGNS_MAX} of them")
        wrong.ids("campaign_ids", request.campaign_ids, count_max=CAMPAIGNS_MAX)
        wrong.optional_id("channel", request.channel)
        wrong.optional_id("distributor_id", request.distributor_id)
        wrong.refuse()
        campaign_ids = list(dict.fromkeys(request.campaign_ids))

        def query(views: Views) -> Found:
            age = view_age(views.positions(), context.now_ms())
            found: list[tuple[str, Row]] = []
            for campaign_id in campaign_ids:
                rows = views.funnel(
                    campaign_id,
                    channel=request.channel,
                    distributor_id=request.distributor_id,
                    rows_max=ROWS_MAX + 1 - len(found),
                )
                found.extend((campaign_id, row) for row in rows)
                if len(found) > ROWS_MAX:
                    break
            return found, age

        found, age = await self._reader.read(query, timeout_s=context.time_remaining_s())
        return ops_service_pb2.GetFunnelResponse(
            rows=[_row(campaign_id, row) for campaign_id, row in found[:ROWS_MAX]],
            truncated=len(found) > ROWS_MAX,
            age=age,
        )


def _row(campaign_id: str, row: Row) -> ops_service_pb2.FunnelRow:
    # MySQL answers a sum as a decimal.
    return ops_service_pb2.FunnelRow(
        campaign_id=campaign_id,
        share_code=row["share_code"],
        channel=row["channel"],
        distributor_id=row["distributor_id"],
        seckill_reservation_count=int(row["seckill_reservations"]),
        seckill_confirmed_count=int(row["seckill_confirmed"]),
        group_reservation_count=int(row["group_reservations"]),
        group_confirmed_count=int(row["group_confirmed"]),
        amount_minor=int(row["amount_minor"]),
        currency_code=row["currency_code"],
        commission_minor=int(row["commission_minor"]),
    )

"""ReportPayment of base stock, of a grab and of a seat: a success confirms, a failure counts."""

import pytest
from stockray_proto.v1 import common_pb2 as com
from stockray_proto.v1 import inventory_service_pb2 as inv
from stockray_proto.v1 import reservation_pb2 as res
from stockray_proto.v1 import seckill_service_pb2 as sec

from tests.unit.server.conftest import Gateway, buyer, campaign
from tests.unit.server.group_buying import TeamShop

pytestmark = pytest.mark.usefixtures("front_kind")

Held = tuple[str, int]
"""A reservation, and what it costs."""


async def one_of_each(gateway: Gateway) -> list[Held]:
    shop = TeamShop(gateway)
    await shop.sell()
    await gateway.seckill.PutCampaign(campaign())
    line = sec.GrabLine(
        request_id="g", campaign_id="double-11", sku_id="tea", quantity=1, buyer=buyer("u-1")
    )
    held = (
        await gateway.reserve("r-1"),
        (await gateway.seckill.Grab(sec.GrabRequest(line=line))).result,
        await shop.open("u-1"),
    )
    assert {one.status for one in held} == {com.LINE_STATUS_RESERVED}
    return [(one.reservation_id, one.payable_minor) for one in held]


async def report(
    gateway: Gateway, reservation_id: str, payment_id: str, paid_minor: int, *, failed: bool = False
) -> inv.ReportPaymentResponse:
    ended = res.PAYMENT_OUTCOME_FAILED if failed else res.PAYMENT_OUTCOME_SUCCEEDED
    answer: inv.ReportPaymentResponse = await gateway.inventory.ReportPayment(
        inv.ReportPaymentRequest(
            reservation_id=reservation_id,
            payment_id=payment_id,
            payment_channel="wechat",
            outcome=ended,
            paid_minor=paid_minor,
        )
    )
    return answer


async def test_several_attempts_end_in_one_payment_that_is_kept(gateway: Gateway) -> None:
    for number, (held, price) in enumerate(await one_of_each(gateway)):
        first, second = f"p-{number}", f"q-{number}"
        noted = await report(gateway, held, first, price, failed=True)
        assert (noted.status, noted.state) == (
            com.LINE_STATUS_NOTED,
            res.RESERVATION_STATE_RESERVED,
        )
        wrong = await report(gateway, held, f"w-{number}", price + 1)
        assert (wrong.status, wrong.refund.amount_minor) == (
            com.LINE_STATUS_REFUND_DUE,
            price + 1,
        )
        for _ in range(2):
            kept = await report(gateway, held, first, price)
            assert (kept.status, kept.state) == (
                com.LINE_STATUS_CONFIRMED,
                res.RESERVATION_STATE_CONFIRMED,
            )
            assert not kept.HasField("refund")
        more = await report(gateway, held, second, price)
        assert (more.status, more.refund.amount_minor) == (com.LINE_STATUS_REFUND_DUE, price)
        late = await report(gateway, held, first, price, failed=True)
        assert late.status == com.LINE_STATUS_PAYMENT_ID_REUSED

"""Reserving, paying and giving back through the gateway, as a stock client sees it."""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from stockray_proto.v1 import common_pb2 as com
from stockray_proto.v1 import inventory_service_pb2 as inv
from stockray_proto.v1 import reservation_pb2 as res

from actors.core import commands as c
from actors.core.identity import parse_public_id, slot_of
from actors.core.outcomes import Outcome
from server.translate.scalars import stamp
from tests.unit.server.conftest import Gateway, buyer, fields_of, line, reason_of


async def test_a_reservation_is_made_paid_and_returned(gateway: Gateway) -> None:
    await gateway.stock_up()
    held = await gateway.reserve("r-1", quantity=2)
    assert held.status == com.LINE_STATUS_RESERVED
    assert (held.unit_price_minor, held.payable_minor, held.currency_code) == (500, 1_000, "CNY")
    assert held.remaining_count == 8
    assert held.deadline_time == stamp(gateway.clock.now_ms() + 15 * 60_000)
    begun = await gateway.inventory.BeginPayment(
        inv.BeginPaymentRequest(reservation_id=held.reservation_id, payment_id="p-1")
    )
    assert begun.status == com.LINE_STATUS_PAYMENT_BEGUN
    paid = await gateway.confirm(held.reservation_id, paid_minor=1_000)
    assert (paid.status, paid.state) == (
        com.LINE_STATUS_CONFIRMED,
        res.RESERVATION_STATE_CONFIRMED,
    )
    shipped = await gateway.inventory.ReportFulfilment(
        inv.ReportFulfilmentRequest(
            reservation_id=held.reservation_id, stage=res.FULFILMENT_STAGE_SHIPPED
        )
    )
    assert shipped.status == com.LINE_STATUS_NOTED
    returned = await gateway.inventory.ReturnUnits(
        inv.ReturnUnitsRequest(request_id="b-1", reservation_id=held.reservation_id, quantity=1)
    )
    assert (returned.status, returned.returned_quantity) == (com.LINE_STATUS_RETURNED, 1)
    assert returned.refund.amount_minor == 500
    closed = await gateway.inventory.ReportRefund(
        inv.ReportRefundRequest(
            request_id="a-1",
            refund_id=returned.refund.refund_id,
            outcome=inv.REFUND_OUTCOME_SUCCEEDED,
        )
    )
    assert closed.refund.state == res.REFUND_STATE_REFUNDED
    assert (closed.refund.attempt_count, closed.refund.failed_attempt_count) == (1, 0)
    read = await gateway.inventory.GetReservation(
        inv.GetReservationRequest(reservation_id=held.reservation_id)
    )
    assert read.status == com.LINE_STATUS_FOUND
    assert (read.reservation.paid_minor, read.reservation.refunded_minor) == (1_000, 500)
    assert read.reservation.fulfilment_stage == res.FULFILMENT_STAGE_SHIPPED
    assert read.payments[0].payment_id == "p-1"
    assert read.age.source == com.DATA_SOURCE_SHARD


async def test_the_same_request_id_answers_the_same_and_takes_once(gateway: Gateway) -> None:
    await gateway.stock_up()
    first, second = await gateway.reserve("r-1"), await gateway.reserve("r-1")
    assert first.reservation_id == second.reservation_id
    assert gateway.lines.pools()["", "tea"].reserved == 1


async def test_a_reused_request_id_is_told_apart(gateway: Gateway) -> None:
    await gateway.stock_up()
    await gateway.reserve("r-1")
    again = await gateway.reserve("r-1", quantity=2)
    assert again.status == com.LINE_STATUS_ID_REUSED
    assert not again.HasField("remaining_count")


async def test_request_ids_of_two_callers_are_two(gateway: Gateway) -> None:
    await gateway.stock_up()
    mine = await gateway.reserve("r-1")
    theirs = await gateway.inventory.Reserve(
        inv.ReserveRequest(line=line("r-1")), metadata=(("stockray-caller", "app-2"),)
    )
    assert theirs.result.status == com.LINE_STATUS_RESERVED
    assert theirs.result.reservation_id != mine.reservation_id


async def test_the_services_own_name_is_no_caller(gateway: Gateway) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.inventory.Reserve(
            inv.ReserveRequest(line=line("r-1")), metadata=(("stockray-caller", "stockray"),)
        )
    assert fields_of(caught.value) == ["(metadata) stockray-caller"]


async def test_an_unknown_sku_is_not_found(gateway: Gateway) -> None:
    answer = await gateway.reserve("r-1", sku_id="coffee")
    assert answer.status == com.LINE_STATUS_NOT_FOUND


async def test_more_than_there_is_is_sold_out(gateway: Gateway) -> None:
    await gateway.stock_up(units=3)
    answer = await gateway.reserve("r-1", quantity=4)
    assert (answer.status, answer.remaining_count) == (com.LINE_STATUS_SOLD_OUT, 3)


async def test_a_payable_above_the_price_is_invalid_with_a_reason(gateway: Gateway) -> None:
    await gateway.stock_up()
    answer = await gateway.reserve("r-1", payable_minor=501)
    assert answer.status == com.LINE_STATUS_INVALID
    assert "payable_minor" in answer.message


async def test_a_payable_of_zero_is_not_an_unset_one(gateway: Gateway) -> None:
    await gateway.stock_up()
    assert (await gateway.reserve("r-1", payable_minor=0)).payable_minor == 0
    assert (await gateway.reserve("r-2")).payable_minor == 500


async def test_a_bad_line_names_all_its_violations_at_once(gateway: Gateway) -> None:
    bad = line(
        "",
        sku_id="x" * 129,
        quantity=0,
        buyer=buyer("a b", ip="10.0.0.300", claims=["new", ""]),
        order_id="o\n1",
        payable_minor=-1,
        attribution=com.Attribution(channel="c d"),
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.inventory.Reserve(inv.ReserveRequest(line=bad))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(caught.value) == "INVALID_FIELD"
    assert fields_of(caught.value) == [
        "line.request_id",
        "line.sku_id",
        "line.quantity",
        "line.buyer.buyer_id",
        "line.buyer.ip",
        "line.buyer.claims[1]",
        "line.attribution.channel",
        "line.order_id",
        "line.payable_minor",
    ]


async def test_a_call_without_its_line_says_so(gateway: Gateway) -> None:
    for call, request in (
        (gateway.inventory.Reserve, inv.ReserveRequest()),
        (gateway.inventory.Confirm, inv.ConfirmRequest()),
        (gateway.inventory.Release, inv.ReleaseRequest()),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(request)
        assert fields_of(caught.value) == ["line"]


async def test_quantities_have_a_highest_value(gateway: Gateway) -> None:
    await gateway.stock_up(units=1_000_000_000)
    assert (await gateway.reserve("r-1", quantity=1_000_000)).status == com.LINE_STATUS_RESERVED
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.reserve("r-2", quantity=1_000_001)
    assert fields_of(caught.value) == ["line.quantity"]


async def test_ids_may_be_long_together_but_not_alone(gateway: Gateway) -> None:
    await gateway.stock_up("s" * 124)
    held = await gateway.reserve("r" * 128, sku_id="s" * 124, buyer=buyer("é" * 128))
    assert held.status == com.LINE_STATUS_RESERVED


async def test_of_many_lines_the_bad_ones_are_refused_alone(gateway: Gateway) -> None:
    await gateway.stock_up(units=3)
    request = inv.ReserveManyRequest(
        lines=[
            line("r-0"),
            line("r-1", quantity=0),
            line("r-2", sku_id="no"),
            line("r 3"),
            line("r-4"),
        ]
    )
    results = (await gateway.inventory.ReserveMany(request)).results
    assert [result.status for result in results] == [
        com.LINE_STATUS_RESERVED,
        com.LINE_STATUS_INVALID,
        com.LINE_STATUS_NOT_FOUND,
        com.LINE_STATUS_INVALID,
        com.LINE_STATUS_RESERVED,
    ]
    assert [result.request_id for result in results] == ["r-0", "r-1", "r-2", "r 3", "r-4"]
    assert results[1].message == "quantity: 1 to 1000000"
    assert results[3].message.startswith("request_id: ")


async def test_many_lines_none_of_which_is_fine_reach_no_shard(gateway: Gateway) -> None:
    request = inv.ReserveManyRequest(lines=[line(""), line("")])
    results = (await gateway.inventory.ReserveMany(request)).results
    assert {result.status for result in results} == {com.LINE_STATUS_INVALID}
    assert not gateway.lines.decided


async def test_payments_and_releases_come_in_many_too(gateway: Gateway) -> None:
    await gateway.stock_up()
    held = [await gateway.reserve(f"r-{index}") for index in range(3)]
    paid = await gateway.inventory.ConfirmMany(
        inv.ConfirmManyRequest(
            lines=[
                res.ConfirmLine(
                    reservation_id=held[0].reservation_id, payment_id="p-0", paid_minor=500
                ),
                res.ConfirmLine(reservation_id="r", payment_id="", paid_minor=-1),
                res.ConfirmLine(
                    reservation_id=held[1].reservation_id, payment_id="p-1", paid_minor=499
                ),
            ]
        )
    )
    assert [result.status for result in paid.results] == [
        com.LINE_STATUS_CONFIRMED,
        com.LINE_STATUS_INVALID,
        com.LINE_STATUS_REFUND_DUE,
    ]
    assert paid.results[2].refund.reason == res.REFUND_REASON_WRONG_AMOUNT
    released = await gateway.inventory.ReleaseMany(
        inv.ReleaseManyRequest(
            lines=[
                res.ReleaseLine(reservation_id=held[2].reservation_id, reason="changed their mind"),
                res.ReleaseLine(reservation_id="not one of ours"),
                res.ReleaseLine(reservation_id="not-one-of-ours"),
                res.ReleaseLine(reservation_id=held[0].reservation_id),
            ]
        )
    )
    assert [result.status for result in released.results] == [
        com.LINE_STATUS_RELEASED,
        com.LINE_STATUS_INVALID,
        com.LINE_STATUS_NOT_FOUND,
        com.LINE_STATUS_ALREADY_CONFIRMED,
    ]


async def test_money_for_an_unknown_reservation_is_a_refund_due(gateway: Gateway) -> None:
    """Whatever the id looks like: money is never refused."""
    paid = await gateway.confirm("never-heard-of", paid_minor=700)
    assert paid.status == com.LINE_STATUS_REFUND_DUE
    assert (paid.refund.amount_minor, paid.refund.reason) == (700, res.REFUND_REASON_NOT_HELD)
    parsed = parse_public_id(paid.refund.refund_id)
    assert parsed is not None
    assert parsed[0] == slot_of("never-heard-of")
    report = inv.ReportPaymentRequest(
        reservation_id="never-heard-of",
        payment_id="p-1",
        paid_minor=700,
        outcome=res.PAYMENT_OUTCOME_SUCCEEDED,
    )
    again = await gateway.inventory.ReportPayment(report)
    assert again.refund.refund_id == paid.refund.refund_id


async def test_other_calls_do_not_find_an_unknown_reservation(gateway: Gateway) -> None:
    for reservation_id in ("never-heard-of", "000" + "ab" * 16):
        known = {"reservation_id": reservation_id}
        answers = [
            await gateway.inventory.BeginPayment(inv.BeginPaymentRequest(payment_id="p", **known)),
            await gateway.inventory.ReportPayment(
                inv.ReportPaymentRequest(
                    payment_id="p", outcome=res.PAYMENT_OUTCOME_FAILED, **known
                )
            ),
            await gateway.inventory.ReturnUnits(
                inv.ReturnUnitsRequest(request_id="b", quantity=1, **known)
            ),
            await gateway.inventory.GetReservation(inv.GetReservationRequest(**known)),
            await gateway.inventory.ReportFulfilment(
                inv.ReportFulfilmentRequest(stage=res.FULFILMENT_STAGE_SHIPPED, **known)
            ),
            await gateway.inventory.ReportRefund(
                inv.ReportRefundRequest(
                    request_id="a", refund_id=reservation_id, outcome=inv.REFUND_OUTCOME_FAILED
                )
            ),
        ]
        assert {answer.status for answer in answers} == {com.LINE_STATUS_NOT_FOUND}


async def test_a_failed_attempt_to_pay_keeps_the_units(gateway: Gateway) -> None:
    await gateway.stock_up()
    held = await gateway.reserve("r-1")
    noted = await gateway.inventory.ReportPayment(
        inv.ReportPaymentRequest(
            reservation_id=held.reservation_id,
            payment_id="p-1",
            outcome=res.PAYMENT_OUTCOME_FAILED,
            paid_minor=500,
        )
    )
    assert (noted.status, noted.state) == (com.LINE_STATUS_NOTED, res.RESERVATION_STATE_RESERVED)
    assert (await gateway.confirm(held.reservation_id)).status == com.LINE_STATUS_CONFIRMED


async def test_reports_without_an_outcome_are_refused(gateway: Gateway) -> None:
    calls = (
        (
            gateway.inventory.ReportPayment,
            inv.ReportPaymentRequest(reservation_id="x", payment_id="p"),
            "outcome",
        ),
        (
            gateway.inventory.ReportRefund,
            inv.ReportRefundRequest(request_id="x", refund_id="y"),
            "outcome",
        ),
        (
            gateway.inventory.ReportFulfilment,
            inv.ReportFulfilmentRequest(reservation_id="x"),
            "stage",
        ),
    )
    for call, request, field in calls:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(request)
        assert fields_of(caught.value) == [field]


async def test_a_report_of_the_future_is_refused(gateway: Gateway) -> None:
    request = inv.ReportFulfilmentRequest(
        reservation_id="x",
        stage=res.FULFILMENT_STAGE_DELIVERED,
        fulfilment_time=stamp(gateway.clock.now_ms() + 60_000),
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.inventory.ReportFulfilment(request)
    assert fields_of(caught.value) == ["fulfilment_time"]


@pytest.mark.parametrize("outcome", [Outcome.RETRY, Outcome.UNKNOWN, Outcome.INTERNAL])
async def test_a_line_that_was_not_decided_says_no_more_than_that(
    gateway: Gateway, outcome: Outcome
) -> None:
    await gateway.stock_up()
    held = await gateway.reserve("r-0")
    waits = outcome != Outcome.INTERNAL
    for kind in (c.RESERVE, c.CONFIRM, c.RELEASE, c.GET_STOCK, c.RETURN_UNITS):
        gateway.lines.failures[kind] = [outcome]
    reserved = await gateway.reserve("r-1")
    assert (reserved.status, reserved.request_id) == (outcome, "r-1")
    assert reserved.HasField("retry_after") is waits
    paid = await gateway.confirm(held.reservation_id)
    assert (paid.status, paid.HasField("retry_after")) == (outcome, waits)
    released = await gateway.inventory.Release(
        inv.ReleaseRequest(line=res.ReleaseLine(reservation_id=held.reservation_id))
    )
    assert (released.result.status, released.result.HasField("retry_after")) == (outcome, waits)
    stock = await gateway.inventory.GetStock(inv.GetStockRequest(sku_id="tea"))
    assert (stock.status, stock.HasField("stock")) == (outcome, False)
    returned = await gateway.inventory.ReturnUnits(
        inv.ReturnUnitsRequest(request_id="b", reservation_id=held.reservation_id, quantity=1)
    )
    assert (returned.status, returned.HasField("refund")) == (outcome, False)


async def test_a_caller_that_goes_away_tears_no_commit(gateway: Gateway) -> None:
    """The client's deadline passes while the round is at the journal; it commits all the same."""
    await gateway.stock_up()
    release = gateway.lines.hold(c.RESERVE)
    while not gateway.lines.waiting.is_set():  # Once, unless it passes before the call arrives.
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway.inventory.Reserve(inv.ReserveRequest(line=line("r-1")), timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert gateway.lines.pools()["", "tea"].reserved == 0
    release.set()
    again = await gateway.reserve("r-1")
    assert again.status == com.LINE_STATUS_RESERVED
    assert gateway.lines.pools()["", "tea"].reserved == 1
    assert gateway.lines.decided[c.RESERVE] >= 2
    async with asyncio.timeout(10):
        while gateway.services.admission.calls:  # noqa: ASYNC110 (a handler that ends tells nobody)
            await asyncio.sleep(0)
    assert gateway.services.admission.lines == 0


async def test_every_line_carries_the_callers_deadline_at_most_ten_seconds(
    gateway: Gateway,
) -> None:
    seen: list[int] = []
    put = gateway.lines.put

    def watching(command: c.Reserve, on_answer: Any) -> None:
        seen.append(command.deadline_ms - gateway.clock.now_ms())
        put(command, on_answer)

    gateway.lines.put = watching  # type: ignore[method-assign]
    for timeout in (None, 9.0, 60.0):
        await gateway.inventory.Reserve(inv.ReserveRequest(line=line("r-1")), timeout=timeout)
    assert seen[0] == seen[2] == 10_000
    assert 2_000 < seen[1] < 9_100

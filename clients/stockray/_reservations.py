"""The verbs of one reservation after it was made, and the lists of reservations and refunds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from stockray_proto.v1 import inventory_service_pb2 as wire

from stockray._channel import Method
from stockray._codec import read, set_field
from stockray._paging import Page, Pager
from stockray._session import Session
from stockray._verbs import INVENTORY
from stockray.enums import (
    FulfilmentStage,
    PaymentOutcome,
    RefundOutcome,
    RefundState,
    ReservationState,
    RestockTo,
)
from stockray.records import DataAge, Refund, Reservation
from stockray.results import (
    BeginPaymentResult,
    GetReservationResult,
    ReportFulfilmentResult,
    ReportPaymentResult,
    ReportRefundResult,
    ReturnUnitsResult,
)

BEGIN_PAYMENT = Method(INVENTORY + "BeginPayment", wire.BeginPaymentResponse.FromString)
REPORT_PAYMENT = Method(INVENTORY + "ReportPayment", wire.ReportPaymentResponse.FromString)
RETURN_UNITS = Method(INVENTORY + "ReturnUnits", wire.ReturnUnitsResponse.FromString)
GET_RESERVATION = Method(INVENTORY + "GetReservation", wire.GetReservationResponse.FromString)
LIST_RESERVATIONS = Method(INVENTORY + "ListReservations", wire.ListReservationsResponse.FromString)
REPORT_FULFILMENT = Method(INVENTORY + "ReportFulfilment", wire.ReportFulfilmentResponse.FromString)
LIST_REFUNDS = Method(INVENTORY + "ListRefunds", wire.ListRefundsResponse.FromString)
REPORT_REFUND = Method(INVENTORY + "ReportRefund", wire.ReportRefundResponse.FromString)


class ReservationCalls(Session):
    """Each is one RPC, sent again with the same ids until it is decided or time is up.

    All raise DeadlineExceeded, with the last failure as its cause, besides what the batched verbs
    raise.
    """

    async def begin_payment(
        self,
        reservation_id: str,
        *,
        payment_id: str,
        payment_channel: str = "",
        timeout_ms: int | None = None,
    ) -> BeginPaymentResult:
        """Says that the buyer is paying, which moves the deadline to the payment window, once."""
        request = wire.BeginPaymentRequest(
            reservation_id=reservation_id, payment_id=payment_id, payment_channel=payment_channel
        )
        return await self._ask(
            BeginPaymentResult, BEGIN_PAYMENT, request, ids=(payment_id,), timeout_ms=timeout_ms
        )

    async def report_payment(
        self,
        reservation_id: str,
        *,
        payment_id: str,
        outcome: PaymentOutcome,
        paid_minor: int,
        payment_channel: str = "",
        timeout_ms: int | None = None,
    ) -> ReportPaymentResult:
        """Reports how a payment attempt ended; a success is the same as `confirm`.

        `paid_minor` is what came in, or with FAILED what was tried, in minor units.
        """
        request = wire.ReportPaymentRequest(
            reservation_id=reservation_id,
            payment_id=payment_id,
            payment_channel=payment_channel,
            paid_minor=paid_minor,
        )
        set_field(request, "outcome", outcome)
        return await self._ask(
            ReportPaymentResult, REPORT_PAYMENT, request, ids=(payment_id,), timeout_ms=timeout_ms
        )

    async def return_units(
        self,
        reservation_id: str,
        *,
        quantity: int,
        request_id: str = "",
        restock_to: RestockTo = RestockTo.AVAILABLE,
        reason: str = "",
        timeout_ms: int | None = None,
    ) -> ReturnUnitsResult:
        """Takes back confirmed units, all or part; what was paid for them becomes refund due."""
        request = wire.ReturnUnitsRequest(
            request_id=request_id or self._make_id(),
            reservation_id=reservation_id,
            quantity=quantity,
            reason=reason,
        )
        set_field(request, "restock_to", restock_to)
        return await self._ask(
            ReturnUnitsResult,
            RETURN_UNITS,
            request,
            ids=(request.request_id,),
            timeout_ms=timeout_ms,
        )

    async def get_reservation(
        self, reservation_id: str, *, timeout_ms: int | None = None
    ) -> GetReservationResult:
        """Reads one reservation with its payments from its shard, or from the SQL view later."""
        request = wire.GetReservationRequest(reservation_id=reservation_id)
        return await self._ask(
            GetReservationResult, GET_RESERVATION, request, timeout_ms=timeout_ms
        )

    async def report_fulfilment(
        self,
        reservation_id: str,
        *,
        stage: FulfilmentStage,
        fulfilment_time: datetime | None = None,
        timeout_ms: int | None = None,
    ) -> ReportFulfilmentResult:
        """Reports that goods were shipped, delivered or completed; no time means now."""
        request = wire.ReportFulfilmentRequest(reservation_id=reservation_id)
        set_field(request, "stage", stage)
        set_field(request, "fulfilment_time", fulfilment_time)
        return await self._ask(
            ReportFulfilmentResult,
            REPORT_FULFILMENT,
            request,
            ids=(reservation_id,),
            timeout_ms=timeout_ms,
        )

    async def report_refund(
        self,
        refund_id: str,
        *,
        outcome: RefundOutcome,
        request_id: str = "",
        reference: str = "",
        timeout_ms: int | None = None,
    ) -> ReportRefundResult:
        """Reports an attempt to pay a refund back: a success closes it, once."""
        request = wire.ReportRefundRequest(
            request_id=request_id or self._make_id(), refund_id=refund_id, reference=reference
        )
        set_field(request, "outcome", outcome)
        return await self._ask(
            ReportRefundResult,
            REPORT_REFUND,
            request,
            ids=(request.request_id,),
            timeout_ms=timeout_ms,
        )

    def list_reservations(
        self,
        *,
        buyer_id: str = "",
        campaign_id: str = "",
        sku_id: str = "",
        order_id: str = "",
        team_id: str = "",
        states: Sequence[ReservationState] = (),
        reserved_from_time: datetime | None = None,
        reserved_before_time: datetime | None = None,
        page_size: int = 0,
        page_token: str = "",
        timeout_ms: int | None = None,
    ) -> Pager[Reservation]:
        """Reservations from the SQL view, newest first; all filters must hold.

        `timeout_ms` is for each page. A page says how old the view is.
        """
        request = wire.ListReservationsRequest(
            page_size=page_size,
            buyer_id=buyer_id,
            campaign_id=campaign_id,
            sku_id=sku_id,
            order_id=order_id,
            team_id=team_id,
        )
        set_field(request, "states", tuple(states))
        set_field(request, "reserved_from_time", reserved_from_time)
        set_field(request, "reserved_before_time", reserved_before_time)

        async def fetch(token: str) -> Page[Reservation]:
            request.page_token = token
            found = await self._fetch(LIST_RESERVATIONS, request, timeout_ms=timeout_ms)
            items = tuple(read(Reservation, item) for item in found.reservations)
            token, age = found.next_page_token, read(DataAge, found.age)
            return Page(items=items, next_page_token=token, age=age)

        return Pager(fetch, page_token)

    def list_refunds(
        self,
        *,
        state: RefundState = RefundState.UNSPECIFIED,
        campaign_id: str = "",
        reservation_id: str = "",
        payment_id: str = "",
        buyer_id: str = "",
        due_before_time: datetime | None = None,
        page_size: int = 0,
        page_token: str = "",
        timeout_ms: int | None = None,
    ) -> Pager[Refund]:
        """Refunds from the SQL view, those due longest first; all filters must hold."""
        request = wire.ListRefundsRequest(
            page_size=page_size,
            campaign_id=campaign_id,
            reservation_id=reservation_id,
            payment_id=payment_id,
            buyer_id=buyer_id,
        )
        set_field(request, "state", state)
        set_field(request, "due_before_time", due_before_time)

        async def fetch(token: str) -> Page[Refund]:
            request.page_token = token
            found = await self._fetch(LIST_REFUNDS, request, timeout_ms=timeout_ms)
            items = tuple(read(Refund, item) for item in found.refunds)
            token, age = found.next_page_token, read(DataAge, found.age)
            return Page(items=items, next_page_token=token, age=age)

        return Pager(fetch, page_token)

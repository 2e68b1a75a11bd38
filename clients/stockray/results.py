"""What the verbs answer, as frozen values with `.ok` and `.raise_for_status()`.

The answers of reserve, grab, confirm and release are tuples with names: there is one for each line
of a batch, and a tuple costs a fifth of a frozen dataclass to make. All others are dataclasses with
the fields of their response message.

`ok` says that what was asked for happened. REFUND_DUE is not ok: the money came in and goes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from stockray.enums import FulfilmentStage, ReservationState, Status
from stockray.errors import DeadlineExceeded, Refused, StockrayError
from stockray.records import Campaign, DataAge, Payment, PoolKey, Refund, Reservation, Sku, Stock

__all__ = [
    "AdjustStockResult",
    "Answer",
    "BeginPaymentResult",
    "CampaignResult",
    "ConfirmResult",
    "DeclareShortageResult",
    "GetCampaignResult",
    "GetReservationResult",
    "GetStockResult",
    "PutSkuResult",
    "ReceiveStockResult",
    "ReleaseResult",
    "ReportFulfilmentResult",
    "ReportPaymentResult",
    "ReportRefundResult",
    "ReserveResult",
    "ReturnUnitsResult",
    "SetBufferResult",
    "StockChange",
    "TransferStockResult",
]

DONE = frozenset(
    {
        Status.APPLIED,
        Status.RESERVED,
        Status.CONFIRMED,
        Status.RELEASED,
        Status.RETURNED,
        Status.PAYMENT_BEGUN,
        Status.NOTED,
        Status.FOUND,
        Status.LEFT,
    }
)


def refusal(
    status: Status, message: str, retry_after: timedelta | None, ids: Sequence[str]
) -> StockrayError:
    """The error that `raise_for_status()` raises for a status that is not ok."""
    text = f"{status.name}: {message}" if message else status.name
    if status in (Status.RETRY, Status.UNKNOWN):
        doubt = status is Status.UNKNOWN
        return DeadlineExceeded(
            text, reason=status.name, retry_after=retry_after, maybe_applied=doubt, ids=ids
        )
    return Refused(text, reason=status.name, retry_after=retry_after, ids=ids)


class ReserveResult(NamedTuple):
    """The answer to a line of `reserve` or `grab`; prices and deadline are set when RESERVED."""

    status: Status
    request_id: str
    reservation_id: str = ""
    unit_price_minor: int = 0
    list_price_minor: int = 0
    payable_minor: int = 0
    currency_code: str = ""
    deadline_time: datetime | None = None
    remaining_count: int | None = None
    retry_after: timedelta | None = None
    message: str = ""
    alternative_sku_ids: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True when the units are held."""
        return self.status is Status.RESERVED

    def raise_for_status(self) -> None:
        """Raises Refused, or DeadlineExceeded for RETRY and UNKNOWN, unless `ok`."""
        if self.status is not Status.RESERVED:
            raise refusal(self.status, self.message, self.retry_after, (self.request_id,))


class ConfirmResult(NamedTuple):
    """The answer to a line of `confirm`; `refund` is set with REFUND_DUE and only then."""

    status: Status
    reservation_id: str
    payment_id: str
    state: ReservationState = ReservationState.UNSPECIFIED
    refund: Refund | None = None
    message: str = ""
    retry_after: timedelta | None = None

    @property
    def ok(self) -> bool:
        """True when the reservation is paid by this payment; REFUND_DUE is not."""
        return self.status is Status.CONFIRMED

    def raise_for_status(self) -> None:
        """Raises Refused, or DeadlineExceeded for RETRY and UNKNOWN, unless `ok`."""
        if self.status is not Status.CONFIRMED:
            raise refusal(self.status, self.message, self.retry_after, (self.payment_id,))


class ReleaseResult(NamedTuple):
    """The answer to a line of `release`."""

    status: Status
    reservation_id: str
    state: ReservationState = ReservationState.UNSPECIFIED
    message: str = ""
    retry_after: timedelta | None = None

    @property
    def ok(self) -> bool:
        """True when the reservation is given up, also when it was before."""
        return self.status is Status.RELEASED

    def raise_for_status(self) -> None:
        """Raises Refused, or DeadlineExceeded for RETRY and UNKNOWN, unless `ok`."""
        if self.status is not Status.RELEASED:
            raise refusal(self.status, self.message, self.retry_after, (self.reservation_id,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What every answer to one thing says."""

    status: Status
    message: str = ""
    retry_after: timedelta | None = None

    @property
    def ok(self) -> bool:
        """True when what was asked for happened, or was found."""
        return self.status in DONE

    def raise_for_status(self) -> None:
        """Raises Refused, or DeadlineExceeded for RETRY and UNKNOWN, unless `ok`."""
        if not self.ok:
            raise refusal(self.status, self.message, self.retry_after, ())


@dataclass(frozen=True, slots=True, kw_only=True)
class PutSkuResult(Answer):
    """The answer to `put_sku`."""

    sku: Sku | None = None
    stock: Stock | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GetStockResult(Answer):
    """The answer to `get_stock`."""

    stock: Stock | None = None
    sku: Sku | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiveStockResult(Answer):
    """The answer to `receive_stock`."""

    stock: Stock | None = None
    buffer_added_count: int = 0
    owed_paid_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdjustStockResult(Answer):
    """The answer to `adjust_stock`."""

    stock: Stock | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetBufferResult(Answer):
    """The answer to `set_buffer`."""

    stock: Stock | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferStockResult(Answer):
    """The answer to `transfer_stock`."""

    arrived: bool = False
    turned_away: bool = False
    from_stock: Stock | None = None
    to_stock: Stock | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclareShortageResult(Answer):
    """The answer to `declare_shortage`: what is taken from where."""

    stock: Stock | None = None
    from_available_count: int = 0
    from_scheduled_count: int = 0
    from_buffer_count: int = 0
    from_reserved_count: int = 0
    from_sold_count: int = 0
    owed_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginPaymentResult(Answer):
    """The answer to `begin_payment`."""

    reservation_id: str = ""
    payment_id: str = ""
    state: ReservationState = ReservationState.UNSPECIFIED
    deadline_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportPaymentResult(Answer):
    """The answer to `report_payment`."""

    reservation_id: str = ""
    payment_id: str = ""
    state: ReservationState = ReservationState.UNSPECIFIED
    refund: Refund | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnUnitsResult(Answer):
    """The answer to `return_units`."""

    reservation_id: str = ""
    state: ReservationState = ReservationState.UNSPECIFIED
    returned_quantity: int = 0
    refund: Refund | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GetReservationResult(Answer):
    """The answer to `get_reservation`."""

    reservation: Reservation | None = None
    payments: tuple[Payment, ...] = ()
    refunds: tuple[Refund, ...] = ()
    age: DataAge | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFulfilmentResult(Answer):
    """The answer to `report_fulfilment`."""

    stage: FulfilmentStage = FulfilmentStage.UNSPECIFIED


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRefundResult(Answer):
    """The answer to `report_refund`."""

    refund: Refund | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignResult(Answer):
    """The answer to `put_campaign`, `pause_campaign` and `end_campaign`."""

    campaign: Campaign | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GetCampaignResult(Answer):
    """The answer to `get_campaign`."""

    campaign: Campaign | None = None
    age: DataAge | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StockChange:
    """Pools that changed since the one before; in the first of a stream, all."""

    stocks: tuple[Stock, ...] = ()
    server_time: datetime | None = None
    missing_pools: tuple[PoolKey, ...] = ()
    unreachable_shards: tuple[int, ...] = ()

"""What the service keeps, as frozen values: SKUs, pools, campaigns, reservations, money.

Fields have the names and meanings of the messages in `stockray_proto/v1`, whose comments are their
reference: `*_minor` is money in minor units, `*_bps` basis points, instants are aware datetimes in
UTC, an unset message is None. A record can be put back: `dataclasses.replace(campaign, title="x")`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from stockray.enums import (
    CampaignPhase,
    DataSource,
    FreedUnitPolicy,
    FulfilmentStage,
    PaymentOutcome,
    RefundReason,
    RefundState,
    ReservationState,
    Status,
)

__all__ = [
    "Attribution",
    "BuyerContext",
    "Campaign",
    "CampaignLine",
    "DataAge",
    "Payment",
    "PoolKey",
    "Refund",
    "Reservation",
    "Session",
    "ShardPosition",
    "Sku",
    "Stock",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPosition:
    """A place in a shard's history."""

    shard: int = 0
    seq: int = 0
    epoch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DataAge:
    """How old a read is, and where it came from."""

    as_of_time: datetime | None = None
    age: timedelta | None = None
    source: DataSource = DataSource.UNSPECIFIED


@dataclass(frozen=True, slots=True, kw_only=True)
class BuyerContext:
    """The buyer on whose behalf the caller asks, as the caller attests."""

    buyer_id: str = ""
    device_id: str = ""
    ip: str = ""
    claims: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """By which way the buyer came; it decides no stock."""

    share_code: str = ""
    channel: str = ""
    experiment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolKey:
    """Names one pool; with an empty SKU, all pools of a campaign."""

    sku_id: str = ""
    campaign_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sku:
    """The thing counted, with the rules of its base pool."""

    sku_id: str
    name: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    buffer_bps: int | None = None
    list_price_minor: int = 0
    currency_code: str = ""
    payment_window: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """One pool: total = available + reserved + sold + buffer + scheduled + in transit."""

    sku_id: str = ""
    campaign_id: str = ""
    total_count: int = 0
    available_count: int = 0
    reserved_count: int = 0
    sold_count: int = 0
    buffer_count: int = 0
    scheduled_count: int = 0
    in_transit_count: int = 0
    owed_count: int = 0
    unit_price_minor: int = 0
    list_price_minor: int = 0
    currency_code: str = ""
    age: DataAge | None = None
    position: ShardPosition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A window in which a campaign sells."""

    session_id: str = ""
    start_time: datetime | None = None
    end_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignLine:
    """One SKU of a campaign; fields from `allocated_count` on are answers."""

    sku_id: str
    allocation_count: int = 0
    list_price_minor: int = 0
    unit_price_minor: int = 0
    limit_per_buyer: int = 0
    allocated_count: int = 0
    allocation_status: Status = Status.UNSPECIFIED
    allocation_message: str = ""
    stock: Stock | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """A flash sale; fields from `phase` on are answers and ignored in a put."""

    campaign_id: str
    title: str = ""
    currency_code: str = ""
    lines: tuple[CampaignLine, ...] = ()
    sessions: tuple[Session, ...] = ()
    start_time: datetime | None = None
    end_time: datetime | None = None
    payment_window: timedelta | None = None
    limit_per_buyer: int = 0
    required_claims: tuple[str, ...] = ()
    freed_unit_policy: FreedUnitPolicy = FreedUnitPolicy.UNSPECIFIED
    min_score: int = 0
    phase: CampaignPhase = CampaignPhase.UNSPECIFIED
    next_phase_time: datetime | None = None
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Units held for a buyer at a price fixed when they were reserved."""

    reservation_id: str = ""
    request_id: str = ""
    campaign_id: str = ""
    sku_id: str = ""
    buyer_id: str = ""
    order_id: str = ""
    quantity: int = 0
    returned_quantity: int = 0
    state: ReservationState = ReservationState.UNSPECIFIED
    list_price_minor: int = 0
    unit_price_minor: int = 0
    payable_minor: int = 0
    paid_minor: int = 0
    refunded_minor: int = 0
    currency_code: str = ""
    reserve_time: datetime | None = None
    deadline_time: datetime | None = None
    payment_begun: bool = False
    confirm_time: datetime | None = None
    end_time: datetime | None = None
    fulfilment_stage: FulfilmentStage = FulfilmentStage.UNSPECIFIED
    fulfilment_time: datetime | None = None
    buyer: BuyerContext | None = None
    attribution: Attribution | None = None
    team_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """One attempt to pay."""

    payment_id: str = ""
    payment_channel: str = ""
    reservation_id: str = ""
    outcome: PaymentOutcome = PaymentOutcome.UNSPECIFIED
    paid_minor: int = 0
    begin_time: datetime | None = None
    report_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """Money owed back to a buyer, or paid back."""

    refund_id: str = ""
    reservation_id: str = ""
    payment_id: str = ""
    payment_channel: str = ""
    amount_minor: int = 0
    currency_code: str = ""
    reason: RefundReason = RefundReason.UNSPECIFIED
    compensation: bool = False
    state: RefundState = RefundState.UNSPECIFIED
    attempt_count: int = 0
    failed_attempt_count: int = 0
    due_time: datetime | None = None
    report_time: datetime | None = None
    refund_time: datetime | None = None
    campaign_id: str = ""
    buyer_id: str = ""

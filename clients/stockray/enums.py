"""The enums of the wire, with the same names (without their prefix) and numbers.

A number that this release does not know, from a newer service, becomes a member named after the
number, so that a result can always be read; it is never `ok`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Self

__all__ = [
    "BindingPolicy",
    "CampaignPhase",
    "ClusterHealth",
    "CommissionEvent",
    "DataSource",
    "DistributorAct",
    "DistributorState",
    "FactKind",
    "FreedUnitPolicy",
    "FreezeCause",
    "FulfilmentStage",
    "LeaderboardKind",
    "PaymentOutcome",
    "RefundOutcome",
    "RefundReason",
    "RefundState",
    "ReplicaRole",
    "ReplicaState",
    "ReservationState",
    "RestockTo",
    "Status",
    "TeamState",
    "WithdrawalAct",
    "WithdrawalState",
]


class WireEnum(IntEnum):
    """An enum whose numbers come from the wire; as text it is its name."""

    def __str__(self) -> str:
        return self.name

    def __format__(self, spec: str) -> str:
        return format(self.name, spec)

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, int):
            return None
        member = int.__new__(cls, value)
        member._name_ = f"UNRECOGNIZED_{value}"
        member._value_ = value
        return member


class Status(WireEnum):
    """The outcome of one line or of one thing. Below 20 something was done or read."""

    UNSPECIFIED = 0
    APPLIED = 1
    RESERVED = 2
    CONFIRMED = 3
    RELEASED = 4
    RETURNED = 5
    PAYMENT_BEGUN = 6
    NOTED = 7
    REFUND_DUE = 8
    FOUND = 9
    LEFT = 10
    SOLD_OUT = 20
    LIMIT_EXCEEDED = 21
    DEVICE_LIMIT_EXCEEDED = 22
    NOT_STARTED = 23
    ENDED = 24
    PAUSED = 25
    NOT_FOUND = 26
    NOT_ELIGIBLE = 27
    BUYER_FROZEN = 28
    RATE_LIMITED = 29
    ID_REUSED = 30
    INVALID = 31
    INTERNAL = 32
    RETRY = 33
    UNKNOWN = 34
    EXPIRED = 40
    ALREADY_CONFIRMED = 41
    ALREADY_RELEASED = 42
    NOT_CONFIRMED = 43
    EXCEEDS_QUANTITY = 44
    EXCEEDS_AVAILABLE = 45
    PAYMENT_ID_REUSED = 46
    REFUND_CLOSED = 47
    CAMPAIGN_CONFLICT = 48
    REVOKED = 49
    EXCEEDS_TOTAL = 50
    TEAM_FULL = 60
    TEAM_CLOSED = 61
    TEAM_NOT_OPEN = 62
    ALREADY_IN_TEAM = 63
    NEW_BUYERS_ONLY = 64
    TOO_MANY_TEAMS = 65
    TEAM_ONLY = 66
    TEAM_FORMING = 67
    NOT_DISTRIBUTOR = 80
    NOT_ACTIVE = 81
    SELF_REFERRAL = 82
    CYCLE = 83
    BOUND_ALREADY = 84
    NOT_NEW_BUYER = 85
    WITHDRAWAL_CONFLICT = 86
    MONTH_NOT_OVER = 87
    DISTRIBUTOR_CONFLICT = 88


class DataSource(WireEnum):
    """Where a read came from."""

    UNSPECIFIED = 0
    SHARD = 1
    GATEWAY = 2
    SQL = 3


class ReservationState(WireEnum):
    """Where a reservation stands."""

    UNSPECIFIED = 0
    RESERVED = 1
    CONFIRMED = 2
    EXPIRED = 3
    RELEASED = 4
    RETURNED = 5
    REVOKED = 6


class FulfilmentStage(WireEnum):
    """How far a confirmed reservation's goods have come."""

    UNSPECIFIED = 0
    SHIPPED = 1
    DELIVERED = 2
    COMPLETED = 3


class PaymentOutcome(WireEnum):
    """What became of a payment attempt."""

    UNSPECIFIED = 0
    SUCCEEDED = 1
    FAILED = 2


class RefundReason(WireEnum):
    """Why money is owed back."""

    UNSPECIFIED = 0
    WRONG_AMOUNT = 1
    SECOND_PAYMENT = 2
    LATE_PAYMENT = 3
    NOT_HELD = 4
    RETURN = 5
    SHORTAGE = 6
    LEFT_TEAM = 7
    TEAM_FAILED = 8
    TEAM_PRICE = 9


class RefundState(WireEnum):
    """Whether a refund is still owed."""

    UNSPECIFIED = 0
    DUE = 1
    REFUNDED = 2


class RefundOutcome(WireEnum):
    """What became of an attempt to pay a refund back."""

    UNSPECIFIED = 0
    SUCCEEDED = 1
    FAILED = 2


class RestockTo(WireEnum):
    """Where returned units go."""

    UNSPECIFIED = 0
    AVAILABLE = 1
    SCHEDULED = 2
    WRITE_OFF = 3


class CampaignPhase(WireEnum):
    """Where a campaign stands."""

    UNSPECIFIED = 0
    ANNOUNCED = 1
    OPEN = 2
    PAUSED = 3
    ENDED = 4


class FreedUnitPolicy(WireEnum):
    """Where a unit goes that a reservation gives back."""

    UNSPECIFIED = 0
    AVAILABLE = 1
    NEXT_WAVE = 2


class TeamState(WireEnum):
    """Where a team stands."""

    UNSPECIFIED = 0
    FORMING = 1
    FORMED = 2
    FAILED = 3
    CANCELLED = 4


class DistributorState(WireEnum):
    """Where a distributor stands."""

    UNSPECIFIED = 0
    APPLIED = 1
    ACTIVE = 2
    REJECTED = 3
    SUSPENDED = 4


class DistributorAct(WireEnum):
    """What an operator does about a distributor."""

    UNSPECIFIED = 0
    APPROVE = 1
    REJECT = 2
    SUSPEND = 3
    RESUME = 4


class BindingPolicy(WireEnum):
    """Who keeps a buyer that meets a second share code."""

    UNSPECIFIED = 0
    FIRST_TOUCH = 1
    LAST_TOUCH = 2


class CommissionEvent(WireEnum):
    """Why money of a distributor moved."""

    UNSPECIFIED = 0
    ACCRUED = 1
    REVERSED = 2
    BECAME_AVAILABLE = 3
    SETTLED = 4
    WITHDRAWN = 5
    WITHDRAWAL_RESTORED = 6
    PAID_OUT = 7


class WithdrawalState(WireEnum):
    """Where a withdrawal stands."""

    UNSPECIFIED = 0
    REQUESTED = 1
    APPROVED = 2
    REJECTED = 3
    PAID = 4
    FAILED = 5


class WithdrawalAct(WireEnum):
    """What an operator does about a withdrawal."""

    UNSPECIFIED = 0
    APPROVE = 1
    REJECT = 2
    REPORT_PAID = 3
    REPORT_FAILED = 4


class LeaderboardKind(WireEnum):
    """What a leaderboard counts."""

    UNSPECIFIED = 0
    INVITES = 1
    SALES = 2


class FreezeCause(WireEnum):
    """Who froze a buyer."""

    UNSPECIFIED = 0
    PAYMENT_FAILURES = 1
    OPERATOR = 2


class FactKind(WireEnum):
    """What was decided."""

    UNSPECIFIED = 0
    UNREADABLE = 1
    SKU_PUT = 10
    STOCK_RECEIVED = 11
    STOCK_ADJUSTED = 12
    BUFFER_SET = 13
    SHORTAGE_DECLARED = 14
    TRANSFER_SENT = 15
    TRANSFER_ARRIVED = 16
    TRANSFER_ENDED = 17
    CAMPAIGN_PUT = 18
    CAMPAIGN_PAUSED = 19
    CAMPAIGN_RESUMED = 20
    CAMPAIGN_ENDED = 21
    RESERVED = 30
    CONFIRMED = 31
    RELEASED = 32
    EXPIRED = 33
    RETURNED = 34
    REVOKED = 35
    FULFILMENT_REPORTED = 36
    PAYMENT_BEGUN = 40
    PAYMENT_FAILED = 41
    REFUND_DUE = 42
    REFUND_CLOSED = 43
    REFUND_FAILED = 44
    TEAM_OPENED = 50
    SEAT_TAKEN = 51
    TEAM_LED = 52
    SEAT_MOVED = 53
    SEAT_CLOSED = 54
    TEAM_NEARLY_FULL = 55
    TEAM_FORMED = 56
    SEAT_SETTLED = 57
    TEAM_FAILED = 58
    TEAM_CANCELLED = 59
    DISTRIBUTOR_SET = 60
    BUYER_BOUND = 61
    RATES_PUT = 62
    COMMISSION_ACCRUED = 63
    COMMISSION_REVERSED = 64
    COMMISSION_AVAILABLE = 65
    COMMISSION_DUE_SET = 66
    DISTRIBUTOR_HELD = 67
    COMMISSION_SETTLED = 68
    WITHDRAWAL_REQUESTED = 69
    WITHDRAWAL_REVIEWED = 70
    BUYER_FROZEN = 80
    BUYER_UNFROZEN = 81


class ClusterHealth(WireEnum):
    """How the cluster is, in one word."""

    UNSPECIFIED = 0
    OK = 1
    DEGRADED = 2
    FAILED = 3


class ReplicaRole(WireEnum):
    """What a replica is for its shard."""

    UNSPECIFIED = 0
    PRIMARY = 1
    STANDBY = 2


class ReplicaState(WireEnum):
    """How a replica is."""

    UNSPECIFIED = 0
    RECOVERING = 1
    READY = 2
    LAGGING = 3
    STALLED = 4
    FENCED = 5
    HALTED = 6
    UNREACHABLE = 7

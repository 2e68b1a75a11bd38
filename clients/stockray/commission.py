"""Distributors, rates, accounts, statements and withdrawals, and what the verbs about them answer,
as frozen values.

As in `records` and `results`: names and meanings are those of the messages in
`stockray_proto/v1/commission_service.proto`. Months are numbers like 202611, in the programme's
time zone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from stockray.enums import (
    BindingPolicy,
    CommissionEvent,
    DistributorState,
    WithdrawalState,
)
from stockray.records import DataAge
from stockray.results import Answer

__all__ = [
    "ApplyDistributorResult",
    "ApproveDistributorResult",
    "BindReferrerResult",
    "Binding",
    "CampaignRate",
    "CommissionAccount",
    "CommissionEntry",
    "CommissionStatement",
    "Distributor",
    "GetAccountResult",
    "GetDistributorResult",
    "GetLeaderboardResult",
    "GetRatesResult",
    "GetReferrerResult",
    "GetStatementResult",
    "LeaderboardPlace",
    "LedgerAmounts",
    "PutRatesResult",
    "Rates",
    "RequestWithdrawalResult",
    "ReviewWithdrawalResult",
    "SettleResult",
    "SkuRate",
    "Withdrawal",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Distributor:
    """A buyer who brings others; the two ids are the same."""

    distributor_id: str = ""
    state: DistributorState = DistributorState.UNSPECIFIED
    share_code: str = ""
    apply_time: datetime | None = None
    change_time: datetime | None = None
    held_until_time: datetime | None = None
    referrer_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """Whom a buyer's orders pay; without `end_time` for ever."""

    buyer_id: str = ""
    distributor_id: str = ""
    start_time: datetime | None = None
    end_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignRate:
    """What an order of a campaign earns, level 1 first, where its SKU has no rate."""

    campaign_id: str
    level_bps: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SkuRate:
    """What an order of a SKU earns; `margin_minor` of one unit bounds all levels together."""

    sku_id: str
    level_bps: tuple[int, ...] = ()
    margin_minor: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """The programme's rates and rules; what is not given has the service's default.

    `version` and `start_time` are answers and ignored in a put.
    """

    currency_code: str = ""
    time_zone: str = ""
    level_bps: tuple[int, ...] = ()
    campaigns: tuple[CampaignRate, ...] = ()
    skus: tuple[SkuRate, ...] = ()
    freeze: timedelta | None = None
    freeze_max: timedelta | None = None
    binding_policy: BindingPolicy = BindingPolicy.UNSPECIFIED
    validity: timedelta | None = None
    protection: timedelta | None = None
    new_buyers_only: bool = False
    approve_at_once: bool = False
    version: int = 0
    start_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerAmounts:
    """Where money is, signed; the six sum to 0."""

    expense_minor: int = 0
    frozen_minor: int = 0
    available_minor: int = 0
    settled_minor: int = 0
    withdrawing_minor: int = 0
    paid_out_minor: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CommissionAccount:
    """A distributor's balances and counts; what is below 0 is a debt."""

    distributor_id: str = ""
    state: DistributorState = DistributorState.UNSPECIFIED
    currency_code: str = ""
    balances: LedgerAmounts | None = None
    withdrawable_minor: int = 0
    order_count: int = 0
    sales_minor: int = 0
    invited_count: int = 0
    statement_month: int = 0
    statement_closing_minor: int = 0
    open_withdrawal_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CommissionEntry:
    """One line of the ledger; it never changes."""

    entry_number: int = 0
    event: CommissionEvent = CommissionEvent.UNSPECIFIED
    distributor_id: str = ""
    reservation_id: str = ""
    withdrawal_id: str = ""
    level: int = 0
    rates_version: int = 0
    month: int = 0
    entry_time: datetime | None = None
    amounts: LedgerAmounts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommissionStatement:
    """A closed month: opening + available - reversed - withdrawn + restored = closing."""

    distributor_id: str = ""
    month: int = 0
    start_time: datetime | None = None
    end_time: datetime | None = None
    currency_code: str = ""
    opening_minor: int = 0
    available_minor: int = 0
    reversed_minor: int = 0
    withdrawn_minor: int = 0
    restored_minor: int = 0
    closing_minor: int = 0
    moved_minor: int = 0
    entry_count: int = 0
    make_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """Money that a distributor wants paid out."""

    withdrawal_id: str = ""
    distributor_id: str = ""
    amount_minor: int = 0
    currency_code: str = ""
    state: WithdrawalState = WithdrawalState.UNSPECIFIED
    reference: str = ""
    request_time: datetime | None = None
    change_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderboardPlace:
    """One place of a leaderboard; which of the two counts is set depends on its kind."""

    place: int = 0
    distributor_id: str = ""
    invited_count: int = 0
    sales_minor: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyDistributorResult(Answer):
    """The answer to `apply_distributor`."""

    distributor: Distributor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApproveDistributorResult(Answer):
    """The answer to `approve_distributor`."""

    distributor: Distributor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GetDistributorResult(Answer):
    """The answer to `get_distributor`."""

    distributor: Distributor | None = None
    age: DataAge | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BindReferrerResult(Answer):
    """The answer to `bind_referrer`; `binding` is what binds the buyer now, also when refused."""

    binding: Binding | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GetReferrerResult(Answer):
    """The answer to `get_referrer`."""

    binding: Binding | None = None
    level2_distributor_id: str = ""
    age: DataAge | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PutRatesResult(Answer):
    """The answer to `put_rates`: the version that stands now."""

    version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GetRatesResult(Answer):
    """The answer to `get_rates`, with the sums of the whole ledger."""

    rates: Rates | None = None
    sums: LedgerAmounts | None = None
    entry_count: int = 0
    distributor_count: int = 0
    bound_buyer_count: int = 0
    age: DataAge | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GetAccountResult(Answer):
    """The answer to `get_account`."""

    account: CommissionAccount | None = None
    age: DataAge | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GetStatementResult(Answer):
    """The answer to `get_statement`."""

    statement: CommissionStatement | None = None
    age: DataAge | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleResult(Answer):
    """The answer to `settle`; while there are `more`, ask again."""

    made_count: int = 0
    more: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestWithdrawalResult(Answer):
    """The answer to `request_withdrawal`; `withdrawable_minor` is what is left."""

    withdrawal: Withdrawal | None = None
    withdrawable_minor: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewWithdrawalResult(Answer):
    """The answer to `review_withdrawal`."""

    withdrawal: Withdrawal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GetLeaderboardResult(Answer):
    """The answer to `get_leaderboard`: highest first."""

    month: int = 0
    places: tuple[LeaderboardPlace, ...] = ()
    age: DataAge | None = None

"""Commission calls: requests to commands. All of them go to the programme's account slot.

Every function `…_command` validates the whole request first and raises CallError with all its
violations at once.
"""

from typing import Any

from stockray_proto.v1 import commission_service_pb2 as wire

from actors.core import commission_commands as d
from actors.core.identity import PROGRAMME_SLOT, parse_account_id
from actors.core.months import is_month
from actors.core.order_facts import NEW_BUYER_CLAIM
from server.handlers import CallContext
from server.validate import CLAIMS_MAX, MONEY_MAX_MINOR, Violations

BOARD_PLACES_MAX = 10
MONTH_RULE = "a month, for example 202611"

_NEED_A_REASON = (wire.DISTRIBUTOR_ACT_REJECT, wire.DISTRIBUTOR_ACT_SUSPEND)
_REVIEWS_NEED_A_REASON = (wire.WITHDRAWAL_ACT_REJECT, wire.WITHDRAWAL_ACT_REPORT_FAILED)


def _head(kind: int, context: CallContext) -> tuple[int, int, int, str]:
    return kind, PROGRAMME_SLOT, context.deadline_ms, context.caller


def apply_distributor_command(
    request: wire.ApplyDistributorRequest, context: CallContext
) -> d.ApplyDistributor:
    """ApplyDistributor."""
    wrong = Violations()
    wrong.id("distributor_id", request.distributor_id)
    wrong.reason(request.reason)
    wrong.refuse()
    head = _head(d.APPLY_DISTRIBUTOR, context)
    return d.ApplyDistributor(*head, request.distributor_id, request.reason)


def approve_distributor_command(
    request: wire.ApproveDistributorRequest, context: CallContext
) -> d.ApproveDistributor:
    """ApproveDistributor."""
    wrong = Violations()
    wrong.id("distributor_id", request.distributor_id)
    _check_act("act", request.act, wire.DistributorAct, wrong)
    wrong.reason(request.reason, required=request.act in _NEED_A_REASON)
    wrong.refuse()
    head = _head(d.APPROVE_DISTRIBUTOR, context)
    return d.ApproveDistributor(*head, request.distributor_id, request.act, request.reason)


def get_account_command(
    request: wire.GetAccountRequest | wire.GetDistributorRequest, context: CallContext
) -> d.GetAccount:
    """GetAccount, of both calls that read one."""
    wrong = Violations()
    wrong.id("distributor_id", request.distributor_id)
    wrong.refuse()
    return d.GetAccount(*_head(d.GET_ACCOUNT, context), request.distributor_id)


def bind_referrer_command(
    request: wire.BindReferrerRequest, context: CallContext
) -> d.BindReferrer:
    """BindReferrer."""
    buyer, wrong = request.buyer, Violations()
    wrong.id("buyer.buyer_id", buyer.buyer_id)
    wrong.optional_id("buyer.device_id", buyer.device_id)
    wrong.ip("buyer.ip", buyer.ip)
    wrong.ids("buyer.claims", buyer.claims, count_max=CLAIMS_MAX)
    wrong.id("share_code", request.share_code)
    wrong.refuse()
    head = _head(d.BIND_REFERRER, context)
    new_buyer = request.new_buyer or NEW_BUYER_CLAIM in buyer.claims
    return d.BindReferrer(*head, buyer.buyer_id, request.share_code, new_buyer)


def get_referrer_command(request: wire.GetReferrerRequest, context: CallContext) -> d.GetReferrer:
    """GetReferrer."""
    wrong = Violations()
    wrong.id("buyer_id", request.buyer_id)
    at_ms = wrong.instant("time", request.time) if request.HasField("time") else 0
    wrong.refuse()
    return d.GetReferrer(*_head(d.GET_REFERRER, context), request.buyer_id, at_ms)


def get_rates_command(request: wire.GetRatesRequest, context: CallContext) -> d.GetProgramme:
    """GetProgramme."""
    wrong = Violations()
    if request.version < 0:
        wrong.add("version", "0 or more")
    wrong.refuse()
    return d.GetProgramme(*_head(d.GET_PROGRAMME, context), request.version)


def get_statement_command(
    request: wire.GetStatementRequest, context: CallContext
) -> d.GetStatement:
    """GetStatement."""
    wrong = Violations()
    wrong.id("distributor_id", request.distributor_id)
    check_month(request.month, wrong)
    wrong.refuse()
    head = _head(d.GET_STATEMENT, context)
    return d.GetStatement(*head, request.distributor_id, request.month)


def settle_command(request: wire.SettleRequest, context: CallContext) -> d.Settle:
    """Settle."""
    wrong = Violations()
    check_month(request.month, wrong)
    wrong.optional_id("distributor_id", request.distributor_id)
    wrong.reason(request.reason)
    wrong.refuse()
    head = _head(d.SETTLE, context)
    return d.Settle(*head, request.month, request.distributor_id, request.reason)


def request_withdrawal_command(
    request: wire.RequestWithdrawalRequest, context: CallContext
) -> d.RequestWithdrawal:
    """RequestWithdrawal."""
    wrong = Violations()
    wrong.id("request_id", request.request_id)
    wrong.id("distributor_id", request.distributor_id)
    wrong.number("amount_minor", request.amount_minor, 1, MONEY_MAX_MINOR)
    wrong.reason(request.reason)
    wrong.refuse()
    head = _head(d.REQUEST_WITHDRAWAL, context)
    return d.RequestWithdrawal(
        *head, request.request_id, request.distributor_id, request.amount_minor, request.reason
    )


def review_withdrawal_command(
    request: wire.ReviewWithdrawalRequest, context: CallContext
) -> d.ReviewWithdrawal | None:
    """ReviewWithdrawal; None for an id that no shard can know."""
    wrong = Violations()
    wrong.id("withdrawal_id", request.withdrawal_id)
    _check_act("act", request.act, wire.WithdrawalAct, wrong)
    wrong.optional_id("reference", request.reference)
    wrong.reason(request.reason, required=request.act in _REVIEWS_NEED_A_REASON)
    wrong.refuse()
    parsed = parse_account_id(request.withdrawal_id)
    if parsed is None or parsed[0] != PROGRAMME_SLOT:
        return None
    head = _head(d.REVIEW_WITHDRAWAL, context)
    return d.ReviewWithdrawal(*head, parsed[1], request.act, request.reference, request.reason)


def get_leaderboard_command(
    request: wire.GetLeaderboardRequest, context: CallContext
) -> d.GetLeaderboard:
    """GetLeaderboard."""
    wrong = Violations()
    _check_act("kind", request.kind, wire.LeaderboardKind, wrong)
    check_month(request.month, wrong, optional=True)
    wrong.number("limit", request.limit, 0, BOARD_PLACES_MAX)
    wrong.refuse()
    head = _head(d.GET_LEADERBOARD, context)
    return d.GetLeaderboard(*head, request.kind, request.month, request.limit or BOARD_PLACES_MAX)


def list_entries_command(
    distributor_id: str, context: CallContext, *, before: int, limit: int
) -> d.ListEntries:
    """ListEntries, of what `CommissionListings` has validated."""
    return d.ListEntries(*_head(d.LIST_ENTRIES, context), distributor_id, before, limit)


def check_month(month: int, wrong: Violations, *, optional: bool = False) -> None:
    """A month by its number; 0 only where it is optional."""
    if not is_month(month) and not (optional and month == 0):
        wrong.add("month", f"0, or {MONTH_RULE}" if optional else f"required: {MONTH_RULE}")


def _check_act(field: str, value: int, kind: Any, wrong: Violations) -> None:
    """A member of a wire enum other than its first."""
    if value == 0 or value not in kind.values():
        names = (name.split("_", 2)[2] for name in kind.keys()[1:])
        wrong.add(field, f"required: {', '.join(names)}")

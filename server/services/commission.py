"""CommissionService: distributors, bindings, rates, accounts, statements, withdrawals.

Everything is decided by the one shard that owns the programme's slot, so a call is one line and
goes the quick way; only who applies is looked at by risk as well. Lists, and statements that left
memory, are in `commission_listings.py`.
"""

from typing import Any

from stockray_proto.v1 import commission_service_pb2 as wire
from stockray_proto.v1 import common_pb2

from actors.core.commission_commands import BOARD_INVITES
from actors.core.outcomes import Outcome
from actors.core.programme_config import programme_config
from server.handlers import CallContext, Calls, Method, QuickCalls
from server.holds import Holds
from server.lines import Lines
from server.reply import Reply
from server.services.commission_listings import CommissionListings
from server.translate.commission import (
    apply_distributor_command,
    approve_distributor_command,
    bind_referrer_command,
    get_account_command,
    get_leaderboard_command,
    get_rates_command,
    get_referrer_command,
    get_statement_command,
    request_withdrawal_command,
    review_withdrawal_command,
    settle_command,
)
from server.translate.commission_views import (
    account_message,
    amounts_message,
    binding_message,
    distributor_message,
    statement_message,
    withdrawal_message,
)
from server.translate.payment import NOT_FOUND
from server.translate.rates import put_rates_command, rates_message
from server.translate.scalars import age_of
from server.translate.stock import head, item

COMMISSION = "/stockray.v1.CommissionService/"

Asked = tuple[CallContext, int]
"""The call, and when its read was asked."""


class Commission:
    """All calls of the service."""

    def __init__(self, lines: Lines, listings: CommissionListings, holds: Holds) -> None:
        self._lines = lines
        self._listings = listings
        self._holds = holds

    def methods(self) -> list[Method]:
        """The calls of this service."""
        one: QuickCalls = {
            "ApproveDistributor": (wire.ApproveDistributorRequest, self.approve_distributor),
            "GetDistributor": (wire.GetDistributorRequest, self.get_distributor),
            "BindReferrer": (wire.BindReferrerRequest, self.bind_referrer),
            "GetReferrer": (wire.GetReferrerRequest, self.get_referrer),
            "PutRates": (wire.PutRatesRequest, self.put_rates),
            "GetRates": (wire.GetRatesRequest, self.get_rates),
            "GetAccount": (wire.GetAccountRequest, self.get_account),
            "Settle": (wire.SettleRequest, self.settle),
            "RequestWithdrawal": (wire.RequestWithdrawalRequest, self.request_withdrawal),
            "ReviewWithdrawal": (wire.ReviewWithdrawalRequest, self.review_withdrawal),
            "GetLeaderboard": (wire.GetLeaderboardRequest, self.get_leaderboard),
        }
        listings = self._listings
        calls: Calls = {
            "ApplyDistributor": (wire.ApplyDistributorRequest, self.apply_distributor),
            "GetStatement": (wire.GetStatementRequest, self.get_statement),
            "ListDistributors": (wire.ListDistributorsRequest, listings.list_distributors),
            "ListEntries": (wire.ListEntriesRequest, listings.list_entries),
            "ListStatements": (wire.ListStatementsRequest, listings.list_statements),
            "ListWithdrawals": (wire.ListWithdrawalsRequest, listings.list_withdrawals),
        }
        return [
            *(Method(path=COMMISSION + n, request=r, quick=h) for n, (r, h) in one.items()),
            *(Method(path=COMMISSION + n, request=r, unary=h) for n, (r, h) in calls.items()),
        ]

    async def apply_distributor(
        self, request: wire.ApplyDistributorRequest, context: CallContext
    ) -> bytes:
        """A buyer wants to be a distributor. What a frozen one earns is held from the start."""
        command = apply_distributor_command(request, context)
        (answer,) = await self._lines.submit([command])
        if answer[0] in (Outcome.APPLIED, Outcome.FOUND):
            answer = await self._holds.hold_new(answer, request.distributor_id, context.deadline_ms)
        return _distributor_told(wire.ApplyDistributorResponse, answer)

    def approve_distributor(
        self, request: wire.ApproveDistributorRequest, context: CallContext, reply: Reply
    ) -> None:
        """An operator's act on a distributor."""
        command = approve_distributor_command(request, context)
        self._lines.put(command, reply.after(_distributor_told, wire.ApproveDistributorResponse))

    def get_distributor(
        self, request: wire.GetDistributorRequest, context: CallContext, reply: Reply
    ) -> None:
        """Read one distributor."""
        command = get_account_command(request, context)
        self._lines.put(command, reply.after(_distributor_read, (context, context.now_ms())))

    def get_account(
        self, request: wire.GetAccountRequest, context: CallContext, reply: Reply
    ) -> None:
        """Read one distributor's money."""
        command = get_account_command(request, context)
        self._lines.put(command, reply.after(_account_read, (context, context.now_ms())))

    def bind_referrer(
        self, request: wire.BindReferrerRequest, context: CallContext, reply: Reply
    ) -> None:
        """A buyer met a share code."""
        command = bind_referrer_command(request, context)
        self._lines.put(command, reply.after(_bound, request.buyer.buyer_id))

    def get_referrer(
        self, request: wire.GetReferrerRequest, context: CallContext, reply: Reply
    ) -> None:
        """Read who would earn from a buyer's order."""
        command = get_referrer_command(request, context)
        subject = (request.buyer_id, (context, context.now_ms()))
        self._lines.put(command, reply.after(_referrer_read, subject))

    def put_rates(self, request: wire.PutRatesRequest, context: CallContext, reply: Reply) -> None:
        """A new version of rates and rules."""
        self._lines.put(put_rates_command(request, context), reply.after(_rates_put, None))

    def get_rates(self, request: wire.GetRatesRequest, context: CallContext, reply: Reply) -> None:
        """Read a version, and the sums of the ledger."""
        command = get_rates_command(request, context)
        self._lines.put(command, reply.after(_rates_read, (context, context.now_ms())))

    async def get_statement(
        self, request: wire.GetStatementRequest, context: CallContext
    ) -> wire.GetStatementResponse:
        """Read one from the account shard, or from SQL when it left memory."""
        command = get_statement_command(request, context)
        asked_ms = context.now_ms()
        (answer,) = await self._lines.submit([command])
        if answer[0] == Outcome.NOT_FOUND:
            return await self._listings.find_statement(request, context)
        view, currency_code = item(answer, 1), item(answer, 2, "")
        return wire.GetStatementResponse(
            **head(answer),
            statement=statement_message(request.distributor_id, view, currency_code),
            age=_age((context, asked_ms), answer),
        )

    def settle(self, request: wire.SettleRequest, context: CallContext, reply: Reply) -> None:
        """Close a month."""
        self._lines.put(settle_command(request, context), reply.after(_settled, None))

    def request_withdrawal(
        self, request: wire.RequestWithdrawalRequest, context: CallContext, reply: Reply
    ) -> None:
        """A distributor wants money paid out."""
        command = request_withdrawal_command(request, context)
        self._lines.put(command, reply.after(_withdrawal_requested, None))

    def review_withdrawal(
        self, request: wire.ReviewWithdrawalRequest, context: CallContext, reply: Reply
    ) -> None:
        """An operator's act on a withdrawal."""
        command = review_withdrawal_command(request, context)
        answered = reply.after(_withdrawal_reviewed, None)
        if command is None:
            answered(NOT_FOUND)
        else:
            self._lines.put(command, answered)

    def get_leaderboard(
        self, request: wire.GetLeaderboardRequest, context: CallContext, reply: Reply
    ) -> None:
        """Read the first of a month."""
        command = get_leaderboard_command(request, context)
        subject = (request.kind, (context, context.now_ms()))
        self._lines.put(command, reply.after(_leaders_read, subject))


def _age(asked: Asked, answer: tuple[Any, ...]) -> common_pb2.DataAge | None:
    """Of a read that the shard answered; None (an unset field) if it did not."""
    if answer[0] in (Outcome.RETRY, Outcome.UNKNOWN, Outcome.INTERNAL):
        return None
    context, asked_ms = asked
    return age_of(asked_ms, context.now_ms(), common_pb2.DATA_SOURCE_SHARD)


def _distributor_told(response: Any, answer: tuple[Any, ...]) -> bytes:
    told = response(**head(answer), distributor=distributor_message(item(answer, 1)))
    data: bytes = told.SerializeToString()
    return data


def _distributor_read(asked: Asked, answer: tuple[Any, ...]) -> bytes:
    return wire.GetDistributorResponse(
        **head(answer),
        distributor=distributor_message(item(answer, 1), item(answer, 2, "")),
        age=_age(asked, answer),
    ).SerializeToString()


def _account_read(asked: Asked, answer: tuple[Any, ...]) -> bytes:
    return wire.GetAccountResponse(
        **head(answer), account=account_message(item(answer, 1)), age=_age(asked, answer)
    ).SerializeToString()


def _bound(buyer_id: str, answer: tuple[Any, ...]) -> bytes:
    binding = binding_message(buyer_id, item(answer, 1, ""), item(answer, 2, 0), item(answer, 3, 0))
    return wire.BindReferrerResponse(**head(answer), binding=binding).SerializeToString()


def _referrer_read(subject: tuple[str, Asked], answer: tuple[Any, ...]) -> bytes:
    buyer_id, asked = subject
    view = item(answer, 1)
    return wire.GetReferrerResponse(
        **head(answer),
        binding=None if view is None else binding_message(buyer_id, *view),
        level2_distributor_id=item(answer, 2, ""),
        age=_age(asked, answer),
    ).SerializeToString()


def _rates_put(_: None, answer: tuple[Any, ...]) -> bytes:
    return wire.PutRatesResponse(
        **head(answer, item(answer, 2, "")), version=item(answer, 1, 0)
    ).SerializeToString()


def _rates_read(asked: Asked, answer: tuple[Any, ...]) -> bytes:
    response = wire.GetRatesResponse(**head(answer), age=_age(asked, answer))
    if answer[0] == Outcome.FOUND:
        _, version, from_ms, config, sums, entries, distributors, bound = answer
        response.rates.CopyFrom(rates_message(version, from_ms, programme_config(config)))
        response.sums.CopyFrom(amounts_message(sums))
        response.entry_count = entries
        response.distributor_count = distributors
        response.bound_buyer_count = bound
    return response.SerializeToString()


def _settled(_: None, answer: tuple[Any, ...]) -> bytes:
    return wire.SettleResponse(
        **head(answer), made_count=item(answer, 1, 0), more=item(answer, 2, False)
    ).SerializeToString()


def _withdrawal_requested(_: None, answer: tuple[Any, ...]) -> bytes:
    return wire.RequestWithdrawalResponse(
        **head(answer),
        withdrawable_minor=item(answer, 2, 0),
        withdrawal=withdrawal_message(item(answer, 3), item(answer, 4, "")),
    ).SerializeToString()


def _withdrawal_reviewed(_: None, answer: tuple[Any, ...]) -> bytes:
    return wire.ReviewWithdrawalResponse(
        **head(answer), withdrawal=withdrawal_message(item(answer, 1), item(answer, 2, ""))
    ).SerializeToString()


def _leaders_read(subject: tuple[int, Asked], answer: tuple[Any, ...]) -> bytes:
    kind, asked = subject
    response = wire.GetLeaderboardResponse(
        **head(answer), month=item(answer, 1, 0), age=_age(asked, answer)
    )
    counts = "invited_count" if kind == BOARD_INVITES else "sales_minor"
    for place, (distributor_id, score) in enumerate(item(answer, 2, ()), 1):
        response.places.add(place=place, distributor_id=distributor_id, **{counts: score})
    return response.SerializeToString()

"""The verbs of commission: distributors, bindings, rates, accounts, statements, withdrawals."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from stockray_proto.v1 import commission_service_pb2 as wire

from stockray._channel import Method
from stockray._codec import read, set_field, write
from stockray._paging import Page, Pager
from stockray._session import Session
from stockray.commission import (
    ApplyDistributorResult,
    ApproveDistributorResult,
    BindReferrerResult,
    CommissionEntry,
    CommissionStatement,
    Distributor,
    GetAccountResult,
    GetDistributorResult,
    GetLeaderboardResult,
    GetRatesResult,
    GetReferrerResult,
    GetStatementResult,
    PutRatesResult,
    Rates,
    RequestWithdrawalResult,
    ReviewWithdrawalResult,
    SettleResult,
    Withdrawal,
)
from stockray.enums import (
    DistributorAct,
    DistributorState,
    LeaderboardKind,
    WithdrawalAct,
    WithdrawalState,
)
from stockray.records import DataAge

COMMISSION = "/stockray.v1.CommissionService/"
APPLY_DISTRIBUTOR = Method(
    COMMISSION + "ApplyDistributor", wire.ApplyDistributorResponse.FromString
)
APPROVE_DISTRIBUTOR = Method(
    COMMISSION + "ApproveDistributor", wire.ApproveDistributorResponse.FromString
)
GET_DISTRIBUTOR = Method(COMMISSION + "GetDistributor", wire.GetDistributorResponse.FromString)
LIST_DISTRIBUTORS = Method(
    COMMISSION + "ListDistributors", wire.ListDistributorsResponse.FromString
)
BIND_REFERRER = Method(COMMISSION + "BindReferrer", wire.BindReferrerResponse.FromString)
GET_REFERRER = Method(COMMISSION + "GetReferrer", wire.GetReferrerResponse.FromString)
PUT_RATES = Method(COMMISSION + "PutRates", wire.PutRatesResponse.FromString)
GET_RATES = Method(COMMISSION + "GetRates", wire.GetRatesResponse.FromString)
GET_ACCOUNT = Method(COMMISSION + "GetAccount", wire.GetAccountResponse.FromString)
LIST_ENTRIES = Method(COMMISSION + "ListEntries", wire.ListEntriesResponse.FromString)
GET_STATEMENT = Method(COMMISSION + "GetStatement", wire.GetStatementResponse.FromString)
LIST_STATEMENTS = Method(COMMISSION + "ListStatements", wire.ListStatementsResponse.FromString)
SETTLE = Method(COMMISSION + "Settle", wire.SettleResponse.FromString)
REQUEST_WITHDRAWAL = Method(
    COMMISSION + "RequestWithdrawal", wire.RequestWithdrawalResponse.FromString
)
REVIEW_WITHDRAWAL = Method(
    COMMISSION + "ReviewWithdrawal", wire.ReviewWithdrawalResponse.FromString
)
LIST_WITHDRAWALS = Method(COMMISSION + "ListWithdrawals", wire.ListWithdrawalsResponse.FromString)
GET_LEADERBOARD = Method(COMMISSION + "GetLeaderboard", wire.GetLeaderboardResponse.FromString)


class CommissionCalls(Session):
    """Each is one RPC, sent again until it is decided or time is up; all are idempotent."""

    async def apply_distributor(
        self, distributor_id: str, *, reason: str = "", timeout_ms: int | None = None
    ) -> ApplyDistributorResult:
        """Makes a buyer a distributor, who waits for approval unless the rates say otherwise."""
        request = wire.ApplyDistributorRequest(distributor_id=distributor_id, reason=reason)
        return await self._ask(
            ApplyDistributorResult,
            APPLY_DISTRIBUTOR,
            request,
            ids=(distributor_id,),
            timeout_ms=timeout_ms,
        )

    async def approve_distributor(
        self,
        distributor_id: str,
        *,
        act: DistributorAct = DistributorAct.APPROVE,
        reason: str = "",
        timeout_ms: int | None = None,
    ) -> ApproveDistributorResult:
        """Approves, rejects, suspends or resumes: an operator's act."""
        request = wire.ApproveDistributorRequest(distributor_id=distributor_id, reason=reason)
        set_field(request, "act", act)
        return await self._ask(
            ApproveDistributorResult,
            APPROVE_DISTRIBUTOR,
            request,
            ids=(distributor_id,),
            timeout_ms=timeout_ms,
        )

    async def get_distributor(
        self, distributor_id: str, *, timeout_ms: int | None = None
    ) -> GetDistributorResult:
        """Reads a distributor with its share code, fenced."""
        request = wire.GetDistributorRequest(distributor_id=distributor_id)
        return await self._ask(
            GetDistributorResult, GET_DISTRIBUTOR, request, timeout_ms=timeout_ms
        )

    def list_distributors(
        self,
        *,
        states: Sequence[DistributorState] = (),
        page_size: int = 0,
        page_token: str = "",
        timeout_ms: int | None = None,
    ) -> Pager[Distributor]:
        """Distributors from the SQL view, by id."""
        request = wire.ListDistributorsRequest(page_size=page_size)
        set_field(request, "states", tuple(states))

        async def fetch(token: str) -> Page[Distributor]:
            request.page_token = token
            found = await self._fetch(LIST_DISTRIBUTORS, request, timeout_ms=timeout_ms)
            return Page(
                items=tuple(read(Distributor, item) for item in found.distributors),
                next_page_token=found.next_page_token,
                age=read(DataAge, found.age),
            )

        return Pager(fetch, page_token)

    async def bind_referrer(
        self,
        buyer_id: str,
        share_code: str,
        *,
        new_buyer: bool = False,
        device_id: str = "",
        ip: str = "",
        claims: Sequence[str] = (),
        timeout_ms: int | None = None,
    ) -> BindReferrerResult:
        """Binds a buyer to the owner of a share code, by the programme's policy.

        A reservation whose `Attribution` carries the code does the same.
        """
        request = wire.BindReferrerRequest(share_code=share_code, new_buyer=new_buyer)
        request.buyer.buyer_id = buyer_id
        request.buyer.device_id = device_id
        request.buyer.ip = ip
        request.buyer.claims.extend(claims)
        return await self._ask(
            BindReferrerResult, BIND_REFERRER, request, ids=(buyer_id,), timeout_ms=timeout_ms
        )

    async def get_referrer(
        self, buyer_id: str, *, at: datetime | None = None, timeout_ms: int | None = None
    ) -> GetReferrerResult:
        """Who earns from an order that the buyer would have reserved at an instant (None: now)."""
        request = wire.GetReferrerRequest(buyer_id=buyer_id)
        set_field(request, "time", at)
        return await self._ask(GetReferrerResult, GET_REFERRER, request, timeout_ms=timeout_ms)

    async def put_rates(
        self, rates: Rates, *, reason: str = "", timeout_ms: int | None = None
    ) -> PutRatesResult:
        """Puts a new version of the rates and rules; the same content again makes none."""
        request = wire.PutRatesRequest(reason=reason)
        write(request.rates, rates)
        request.rates.SetInParent()
        return await self._ask(PutRatesResult, PUT_RATES, request, timeout_ms=timeout_ms)

    async def get_rates(self, version: int = 0, *, timeout_ms: int | None = None) -> GetRatesResult:
        """Reads a version of the rates (0: the one that stands) and the sums of the ledger."""
        request = wire.GetRatesRequest(version=version)
        return await self._ask(GetRatesResult, GET_RATES, request, timeout_ms=timeout_ms)

    async def get_account(
        self, distributor_id: str, *, timeout_ms: int | None = None
    ) -> GetAccountResult:
        """Reads a distributor's balances and counts, fenced."""
        request = wire.GetAccountRequest(distributor_id=distributor_id)
        return await self._ask(GetAccountResult, GET_ACCOUNT, request, timeout_ms=timeout_ms)

    def list_entries(
        self,
        distributor_id: str,
        *,
        month: int = 0,
        page_size: int = 0,
        page_token: str = "",
        timeout_ms: int | None = None,
    ) -> Pager[CommissionEntry]:
        """A distributor's entries, newest first; with `month` those of its statement."""
        request = wire.ListEntriesRequest(
            page_size=page_size, distributor_id=distributor_id, month=month
        )

        async def fetch(token: str) -> Page[CommissionEntry]:
            request.page_token = token
            found = await self._fetch(LIST_ENTRIES, request, timeout_ms=timeout_ms)
            return Page(
                items=tuple(read(CommissionEntry, item) for item in found.entries),
                next_page_token=found.next_page_token,
                age=read(DataAge, found.age),
            )

        return Pager(fetch, page_token)

    async def get_statement(
        self, distributor_id: str, month: int, *, timeout_ms: int | None = None
    ) -> GetStatementResult:
        """Reads a distributor's statement of a month, such as 202611."""
        request = wire.GetStatementRequest(distributor_id=distributor_id, month=month)
        return await self._ask(GetStatementResult, GET_STATEMENT, request, timeout_ms=timeout_ms)

    def list_statements(
        self,
        distributor_id: str,
        *,
        page_size: int = 0,
        page_token: str = "",
        timeout_ms: int | None = None,
    ) -> Pager[CommissionStatement]:
        """A distributor's statements from the SQL view, newest first."""
        request = wire.ListStatementsRequest(page_size=page_size, distributor_id=distributor_id)

        async def fetch(token: str) -> Page[CommissionStatement]:
            request.page_token = token
            found = await self._fetch(LIST_STATEMENTS, request, timeout_ms=timeout_ms)
            return Page(
                items=tuple(read(CommissionStatement, item) for item in found.statements),
                next_page_token=found.next_page_token,
                age=read(DataAge, found.age),
            )

        return Pager(fetch, page_token)

    async def settle(
        self,
        month: int,
        *,
        distributor_id: str = "",
        reason: str = "",
        timeout_ms: int | None = None,
    ) -> SettleResult:
        """Makes statements of a month that is over; ask again while the answer has `more`."""
        request = wire.SettleRequest(month=month, distributor_id=distributor_id, reason=reason)
        return await self._ask(SettleResult, SETTLE, request, timeout_ms=timeout_ms)

    async def request_withdrawal(
        self,
        distributor_id: str,
        amount_minor: int,
        *,
        request_id: str = "",
        reason: str = "",
        timeout_ms: int | None = None,
    ) -> RequestWithdrawalResult:
        """Asks for money to be paid out; the same `request_id` takes it once."""
        request = wire.RequestWithdrawalRequest(
            request_id=request_id or self._make_id(),
            distributor_id=distributor_id,
            amount_minor=amount_minor,
            reason=reason,
        )
        return await self._ask(
            RequestWithdrawalResult,
            REQUEST_WITHDRAWAL,
            request,
            ids=(request.request_id,),
            timeout_ms=timeout_ms,
        )

    async def review_withdrawal(
        self,
        withdrawal_id: str,
        act: WithdrawalAct,
        *,
        reference: str = "",
        reason: str = "",
        timeout_ms: int | None = None,
    ) -> ReviewWithdrawalResult:
        """Approves or rejects a withdrawal, or reports that it was paid or failed."""
        request = wire.ReviewWithdrawalRequest(
            withdrawal_id=withdrawal_id, reference=reference, reason=reason
        )
        set_field(request, "act", act)
        return await self._ask(
            ReviewWithdrawalResult,
            REVIEW_WITHDRAWAL,
            request,
            ids=(withdrawal_id,),
            timeout_ms=timeout_ms,
        )

    def list_withdrawals(
        self,
        *,
        distributor_id: str = "",
        states: Sequence[WithdrawalState] = (),
        page_size: int = 0,
        page_token: str = "",
        timeout_ms: int | None = None,
    ) -> Pager[Withdrawal]:
        """Withdrawals from the SQL view, newest first."""
        request = wire.ListWithdrawalsRequest(page_size=page_size, distributor_id=distributor_id)
        set_field(request, "states", tuple(states))

        async def fetch(token: str) -> Page[Withdrawal]:
            request.page_token = token
            found = await self._fetch(LIST_WITHDRAWALS, request, timeout_ms=timeout_ms)
            return Page(
                items=tuple(read(Withdrawal, item) for item in found.withdrawals),
                next_page_token=found.next_page_token,
                age=read(DataAge, found.age),
            )

        return Pager(fetch, page_token)

    async def get_leaderboard(
        self,
        kind: LeaderboardKind,
        *,
        month: int = 0,
        limit: int = 0,
        timeout_ms: int | None = None,
    ) -> GetLeaderboardResult:
        """The first of this (0) or the last month: at most `limit`, 1-10 (0: 10)."""
        request = wire.GetLeaderboardRequest(month=month, limit=limit)
        set_field(request, "kind", kind)
        return await self._ask(
            GetLeaderboardResult, GET_LEADERBOARD, request, timeout_ms=timeout_ms
        )

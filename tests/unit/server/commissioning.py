"""A commission programme for tests, over the wire: 10 % and 5 %, months of Shanghai."""

from typing import Any

from stockray_proto.v1 import commission_service_pb2 as wire
from stockray_proto.v1 import common_pb2 as com

from actors.core import facts as f
from actors.core.identity import public_id, request_key
from tests.unit.server.conftest import HOUR_MS, Gateway, buyer

DAY_MS = 24 * HOUR_MS
FREEZE_MS = 7 * DAY_MS
NOVEMBER, DECEMBER = 202311, 202312
"""The clock starts on 15 November 2023 there."""


def rates(**fields: Any) -> wire.Rates:
    """Distributors are approved at once."""
    body: dict[str, Any] = {
        "currency_code": "CNY",
        "time_zone": "Asia/Shanghai",
        "level_bps": (1_000, 500),
        "approve_at_once": True,
        **fields,
    }
    return wire.Rates(**body)


def order_id(name: str) -> str:
    """The reservation id that stands for a name."""
    return public_id(7, request_key("web", name))


class Desk:
    """What an operator and distributors do at a gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.stub = gateway.commission

    async def open(self, *distributors: str, **fields: Any) -> dict[str, str]:
        """Rates, and these distributors with their share codes."""
        put = await self.stub.PutRates(wire.PutRatesRequest(rates=rates(**fields), reason="spring"))
        assert put.status == com.LINE_STATUS_APPLIED, put
        return {name: (await self.apply(name)).share_code for name in distributors}

    async def apply(self, name: str) -> wire.Distributor:
        """Somebody wants to be a distributor."""
        request = wire.ApplyDistributorRequest(distributor_id=name)
        found: wire.Distributor = (await self.stub.ApplyDistributor(request)).distributor
        return found

    async def act(self, name: str, act: Any) -> wire.ApproveDistributorResponse:
        """An operator's act on a distributor."""
        request = wire.ApproveDistributorRequest(distributor_id=name, act=act, reason="because")
        answer: wire.ApproveDistributorResponse = await self.stub.ApproveDistributor(request)
        return answer

    async def bind(self, name: str, code: str, **fields: Any) -> wire.BindReferrerResponse:
        """A buyer met a share code."""
        request = wire.BindReferrerRequest(buyer=buyer(name), share_code=code, **fields)
        answer: wire.BindReferrerResponse = await self.stub.BindReferrer(request)
        return answer

    async def account(self, name: str) -> wire.CommissionAccount:
        """A distributor's money."""
        answer = await self.stub.GetAccount(wire.GetAccountRequest(distributor_id=name))
        assert answer.status == com.LINE_STATUS_FOUND, answer
        account: wire.CommissionAccount = answer.account
        return account

    async def entries(self, name: str, **fields: Any) -> list[wire.CommissionEntry]:
        """All entries of a distributor, page by page."""
        request = wire.ListEntriesRequest(distributor_id=name, **fields)
        found: list[wire.CommissionEntry] = []
        while True:
            answer = await self.stub.ListEntries(request)
            found.extend(answer.entries)
            request.page_token = answer.next_page_token
            if not request.page_token:
                return found

    async def statement(self, name: str, month: int) -> wire.GetStatementResponse:
        """A distributor's statement."""
        request = wire.GetStatementRequest(distributor_id=name, month=month)
        answer: wire.GetStatementResponse = await self.stub.GetStatement(request)
        return answer

    async def withdraw(
        self, name: str, amount: int, request_id: str = "w-1"
    ) -> wire.RequestWithdrawalResponse:
        """A distributor wants money."""
        request = wire.RequestWithdrawalRequest(
            request_id=request_id, distributor_id=name, amount_minor=amount
        )
        answer: wire.RequestWithdrawalResponse = await self.stub.RequestWithdrawal(request)
        return answer

    async def review(
        self, withdrawal_id: str, act: Any, reference: str = ""
    ) -> wire.ReviewWithdrawalResponse:
        """An operator's act on a withdrawal."""
        request = wire.ReviewWithdrawalRequest(
            withdrawal_id=withdrawal_id, act=act, reference=reference, reason="because"
        )
        answer: wire.ReviewWithdrawalResponse = await self.stub.ReviewWithdrawal(request)
        return answer

    def earned(self, name: str, by: str, paid_minor: int = 10_000) -> None:
        """An order of a buyer is paid for good, now."""
        now_ms = self.gateway.clock.now_ms()
        self.gateway.lines.learn(
            f.OrderEarned(
                f.ORDER_EARNED,
                now_ms,
                order_id(name),
                by,
                "double-11",
                "tea",
                1,
                paid_minor,
                "CNY",
                now_ms,
                paid_minor,
            )
        )

    def returned(self, name: str) -> None:
        """The whole order came back."""
        now_ms = self.gateway.clock.now_ms()
        self.gateway.lines.learn(f.OrderReduced(f.ORDER_REDUCED, now_ms, order_id(name), 1, 1))

    def wait(self, length_ms: int) -> None:
        """Time passes, and what is due is decided at the end of each day."""
        while length_ms > 0:
            step_ms = min(length_ms, DAY_MS)
            self.gateway.clock.pass_ms(step_ms)
            self.gateway.lines.look_at_programme()
            length_ms -= step_ms

    async def with_money(self) -> None:
        """Bob brought ann, who ordered for 100.00; his 10.00 are available in November."""
        codes = await self.open("bob")
        bound = await self.bind("ann", codes["bob"])
        assert bound.status == com.LINE_STATUS_APPLIED
        self.earned("first", "ann")
        self.wait(FREEZE_MS + 2_000)

"""Commission over the wire: distributors, bindings, rates, accounts, statements, withdrawals."""

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from stockray_proto.v1 import commission_service_pb2 as wire
from stockray_proto.v1 import common_pb2 as com

from actors.core import commission_commands as d
from actors.core import commission_records as r
from actors.core import commission_state as s
from actors.core import programme_config as p
from actors.core.identity import PROGRAMME_SLOT
from actors.core.outcomes import Outcome
from server.translate.commission_views import AMOUNTS
from server.translate.scalars import stamp
from tests.helpers.core_lines import START_MS
from tests.unit.server.commissioning import DAY_MS, DECEMBER, NOVEMBER, Desk, order_id, rates
from tests.unit.server.conftest import HOUR_MS, Gateway, buyer


@pytest.fixture
def desk(gateway: Gateway) -> Desk:
    return Desk(gateway)


async def test_a_distributor_applies_is_approved_suspended_and_resumed(desk: Desk) -> None:
    await desk.open(approve_at_once=False)
    applied = await desk.apply("bob")
    assert (applied.state, applied.share_code) == (wire.DISTRIBUTOR_STATE_APPLIED, "")
    assert applied.apply_time == stamp(START_MS)
    approved = await desk.act("bob", wire.DISTRIBUTOR_ACT_APPROVE)
    assert approved.distributor.state == wire.DISTRIBUTOR_STATE_ACTIVE
    code = approved.distributor.share_code
    assert code
    conflict = await desk.act("bob", wire.DISTRIBUTOR_ACT_REJECT)
    assert conflict.status == com.LINE_STATUS_DISTRIBUTOR_CONFLICT
    assert conflict.distributor.state == wire.DISTRIBUTOR_STATE_ACTIVE
    await desk.act("bob", wire.DISTRIBUTOR_ACT_SUSPEND)
    again = await desk.act("bob", wire.DISTRIBUTOR_ACT_RESUME)
    assert (again.status, again.distributor.share_code) == (com.LINE_STATUS_APPLIED, code)
    request = wire.ApplyDistributorRequest(distributor_id="bob")
    assert (await desk.stub.ApplyDistributor(request)).status == com.LINE_STATUS_FOUND


async def test_who_is_no_distributor_is_told_so_everywhere(desk: Desk) -> None:
    await desk.open()
    who = {"distributor_id": "eve"}
    answers: list[Any] = [
        await desk.act("eve", wire.DISTRIBUTOR_ACT_APPROVE),
        await desk.stub.GetDistributor(wire.GetDistributorRequest(**who)),
        await desk.stub.GetAccount(wire.GetAccountRequest(**who)),
        await desk.statement("eve", NOVEMBER),
        await desk.withdraw("eve", 1),
    ]
    assert {answer.status for answer in answers} == {com.LINE_STATUS_NOT_DISTRIBUTOR}
    assert not answers[1].HasField("distributor")
    assert not answers[2].HasField("account")
    assert not answers[3].HasField("statement")


async def test_a_buyer_is_bound_by_a_share_code_and_level_2_is_its_referrers(desk: Desk) -> None:
    codes = await desk.open("bob", "cat")
    assert (await desk.bind("bob", codes["cat"])).status == com.LINE_STATUS_APPLIED
    bound = await desk.bind("ann", codes["bob"])
    assert bound.status == com.LINE_STATUS_APPLIED
    binding = bound.binding
    assert (binding.buyer_id, binding.distributor_id) == ("ann", "bob")
    assert binding.start_time == stamp(START_MS)
    assert not binding.HasField("end_time")
    read = await desk.stub.GetReferrer(wire.GetReferrerRequest(buyer_id="ann"))
    assert (read.status, read.binding) == (com.LINE_STATUS_FOUND, binding)
    assert read.level2_distributor_id == "cat"
    assert read.age.source == com.DATA_SOURCE_SHARD
    request = wire.GetDistributorRequest(distributor_id="bob")
    assert (await desk.stub.GetDistributor(request)).distributor.referrer_id == "cat"


async def test_an_order_pays_whoever_was_bound_when_it_was_reserved(desk: Desk) -> None:
    codes = await desk.open("bob", "cat", binding_policy=wire.BINDING_POLICY_LAST_TOUCH)
    await desk.bind("ann", codes["bob"])
    desk.gateway.clock.pass_ms(HOUR_MS)
    await desk.bind("ann", codes["cat"])
    told = []
    for at_ms in (START_MS - 1, START_MS, START_MS + HOUR_MS - 1, START_MS + HOUR_MS):
        request = wire.GetReferrerRequest(buyer_id="ann", time=stamp(at_ms))
        answer = await desk.stub.GetReferrer(request)
        told.append((answer.status, answer.binding.distributor_id))
    found, none = com.LINE_STATUS_FOUND, com.LINE_STATUS_NOT_FOUND
    assert told == [(none, ""), (found, "bob"), (found, "bob"), (found, "cat")]


async def test_refused_bindings_say_why_and_what_binds_instead(desk: Desk) -> None:
    codes = await desk.open("bob", "cat", approve_at_once=True, new_buyers_only=True)
    assert (await desk.bind("ann", "no-code")).status == com.LINE_STATUS_NOT_FOUND
    assert (await desk.bind("bob", codes["bob"])).status == com.LINE_STATUS_SELF_REFERRAL
    old = await desk.bind("ann", codes["bob"])
    assert old.status == com.LINE_STATUS_NOT_NEW_BUYER
    assert not old.HasField("binding")
    assert (await desk.bind("ann", codes["bob"], new_buyer=True)).status == com.LINE_STATUS_APPLIED
    assert (await desk.bind("ann", codes["bob"])).status == com.LINE_STATUS_FOUND
    taken = await desk.bind("ann", codes["cat"], new_buyer=True)
    assert taken.status == com.LINE_STATUS_BOUND_ALREADY
    assert taken.binding.distributor_id == "bob"
    assert (await desk.bind("cat", codes["bob"], new_buyer=True)).status == com.LINE_STATUS_APPLIED
    circle = await desk.bind("bob", codes["cat"], new_buyer=True)
    assert circle.status == com.LINE_STATUS_CYCLE
    await desk.act("bob", wire.DISTRIBUTOR_ACT_SUSPEND)
    gone = await desk.bind("dan", codes["bob"], new_buyer=True)
    assert gone.status == com.LINE_STATUS_NOT_ACTIVE


async def test_the_claim_that_a_buyer_is_new_says_so_to_a_binding_too(desk: Desk) -> None:
    codes = await desk.open("bob", new_buyers_only=True)
    member = wire.BindReferrerRequest(
        buyer=buyer("ann", claims=["member"]), share_code=codes["bob"]
    )
    assert (await desk.stub.BindReferrer(member)).status == com.LINE_STATUS_NOT_NEW_BUYER
    new = wire.BindReferrerRequest(
        buyer=buyer("ann", claims=["member", "new_user"]), share_code=codes["bob"]
    )
    assert (await desk.stub.BindReferrer(new)).status == com.LINE_STATUS_APPLIED


async def test_a_binding_ends_when_its_validity_does(desk: Desk) -> None:
    codes = await desk.open("bob", validity=Duration(seconds=3_600))
    bound = await desk.bind("ann", codes["bob"])
    assert bound.binding.end_time == stamp(START_MS + HOUR_MS)


async def test_rates_are_versions_and_unset_rules_have_their_defaults(desk: Desk) -> None:
    empty = await desk.stub.GetRates(wire.GetRatesRequest())
    assert empty.status == com.LINE_STATUS_NOT_FOUND
    assert not empty.HasField("rates")
    first = wire.PutRatesRequest(
        rates=wire.Rates(currency_code="CNY", time_zone="Asia/Shanghai", level_bps=[800])
    )
    for _ in range(2):
        assert (await desk.stub.PutRates(first)).version == 1
    skus = [
        wire.SkuRate(sku_id="tea", level_bps=[300, 200], margin_minor=0),
        wire.SkuRate(sku_id="cup", level_bps=[100]),
    ]
    campaigns = [wire.CampaignRate(campaign_id="double-11", level_bps=[2_000, 1_000])]
    desk.gateway.clock.pass_ms(HOUR_MS)
    second = wire.PutRatesRequest(rates=rates(skus=skus, campaigns=campaigns))
    assert (await desk.stub.PutRates(second)).version == 2
    read = await desk.stub.GetRates(wire.GetRatesRequest())
    assert (read.status, read.rates.version) == (com.LINE_STATUS_FOUND, 2)
    assert read.rates.start_time == stamp(START_MS + HOUR_MS)
    told = {
        sku.sku_id: (list(sku.level_bps), sku.HasField("margin_minor")) for sku in read.rates.skus
    }
    assert told == {"tea": ([300, 200], True), "cup": ([100, 0], False)}
    assert list(read.rates.campaigns[0].level_bps) == [2_000, 1_000]
    older = (await desk.stub.GetRates(wire.GetRatesRequest(version=1))).rates
    assert older == wire.Rates(
        currency_code="CNY",
        time_zone="Asia/Shanghai",
        level_bps=[800, 0],
        freeze=Duration(seconds=7 * 86_400),
        freeze_max=Duration(seconds=30 * 86_400),
        binding_policy=wire.BINDING_POLICY_FIRST_TOUCH,
        protection=Duration(),
        version=1,
        start_time=stamp(START_MS),
    )


async def test_the_order_of_rates_makes_no_new_version(desk: Desk) -> None:
    skus = [wire.SkuRate(sku_id=name, level_bps=[100, 50]) for name in ("tea", "cup")]
    first = await desk.stub.PutRates(wire.PutRatesRequest(rates=rates(skus=skus)))
    second = await desk.stub.PutRates(wire.PutRatesRequest(rates=rates(skus=skus[::-1])))
    assert (first.version, second.version) == (1, 1)


async def test_the_currency_of_the_ledger_never_changes(desk: Desk) -> None:
    await desk.open()
    answer = await desk.stub.PutRates(wire.PutRatesRequest(rates=rates(currency_code="EUR")))
    assert (answer.status, answer.version) == (com.LINE_STATUS_INVALID, 1)
    assert "currency_code" in answer.message


async def test_money_is_frozen_then_available_then_settled_then_paid(desk: Desk) -> None:
    codes = await desk.open("bob", "cat")
    await desk.bind("bob", codes["cat"])
    await desk.bind("ann", codes["bob"])
    desk.earned("first", "ann", 10_000)
    frozen = await desk.account("bob")
    assert (frozen.balances.frozen_minor, frozen.balances.expense_minor) == (1_000, -1_000)
    assert (frozen.withdrawable_minor, frozen.order_count, frozen.sales_minor) == (0, 1, 10_000)
    assert (frozen.invited_count, frozen.currency_code) == (1, "CNY")
    assert (await desk.account("cat")).balances.frozen_minor == 500
    desk.wait(7 * DAY_MS + 2_000)
    assert (await desk.account("bob")).balances.available_minor == 1_000
    desk.wait(30 * DAY_MS)
    settled = await desk.account("bob")
    assert (settled.balances.settled_minor, settled.statement_month) == (1_000, NOVEMBER)
    asked = await desk.withdraw("bob", 600)
    assert (asked.status, asked.withdrawable_minor) == (com.LINE_STATUS_APPLIED, 400)
    await desk.review(asked.withdrawal.withdrawal_id, wire.WITHDRAWAL_ACT_APPROVE)
    await desk.review(asked.withdrawal.withdrawal_id, wire.WITHDRAWAL_ACT_REPORT_PAID, "bank-1")
    paid = (await desk.account("bob")).balances
    assert (paid.paid_out_minor, paid.settled_minor, paid.withdrawing_minor) == (600, 400, 0)
    read = await desk.stub.GetRates(wire.GetRatesRequest())
    assert sum(getattr(read.sums, name) for name in AMOUNTS) == 0
    assert (read.sums.expense_minor, read.distributor_count, read.bound_buyer_count) == (
        -1_500,
        2,
        2,
    )


async def test_a_return_after_payment_is_a_debt_that_the_account_shows(desk: Desk) -> None:
    await desk.with_money()
    asked = await desk.withdraw("bob", 1_000)
    await desk.review(asked.withdrawal.withdrawal_id, wire.WITHDRAWAL_ACT_APPROVE)
    await desk.review(asked.withdrawal.withdrawal_id, wire.WITHDRAWAL_ACT_REPORT_PAID, "bank-1")
    desk.returned("first")
    account = await desk.account("bob")
    assert (account.withdrawable_minor, account.sales_minor) == (-1_000, 0)
    refused = await desk.withdraw("bob", 1, "w-2")
    assert (refused.status, refused.withdrawable_minor) == (
        com.LINE_STATUS_EXCEEDS_AVAILABLE,
        -1_000,
    )
    assert not refused.HasField("withdrawal")


async def test_entries_are_listed_newest_first_and_each_sums_to_0(desk: Desk) -> None:
    await desk.with_money()
    asked = await desk.withdraw("bob", 300)
    found = await desk.entries("bob", page_size=2)
    assert [entry.event for entry in found] == [
        wire.COMMISSION_EVENT_WITHDRAWN,
        wire.COMMISSION_EVENT_BECAME_AVAILABLE,
        wire.COMMISSION_EVENT_ACCRUED,
    ]
    assert [entry.entry_number for entry in found] == [3, 2, 1]
    for entry in found:
        assert sum(getattr(entry.amounts, name) for name in AMOUNTS) == 0
    withdrawn, _, accrued = found
    assert (withdrawn.withdrawal_id, withdrawn.reservation_id) == (
        asked.withdrawal.withdrawal_id,
        "",
    )
    assert (accrued.reservation_id, accrued.withdrawal_id) == (order_id("first"), "")
    assert (accrued.level, accrued.rates_version, accrued.month) == (1, 1, NOVEMBER)
    assert accrued.entry_time == stamp(START_MS)
    assert accrued.amounts == wire.LedgerAmounts(expense_minor=-1_000, frozen_minor=1_000)
    assert not await desk.entries("bob", month=DECEMBER)
    assert await desk.entries("bob", month=NOVEMBER, page_size=1) == found
    assert not await desk.entries("eve")


async def test_a_month_is_settled_when_it_is_over_and_its_statement_reconciles(desk: Desk) -> None:
    await desk.with_money()
    await desk.withdraw("bob", 300)
    request = wire.SettleRequest(month=NOVEMBER, reason="close the books")
    early = await desk.stub.Settle(request)
    assert early.status == com.LINE_STATUS_MONTH_NOT_OVER
    desk.gateway.clock.pass_ms(16 * DAY_MS)
    done = await desk.stub.Settle(request)
    assert (done.status, done.made_count, done.more) == (com.LINE_STATUS_APPLIED, 1, False)
    assert (await desk.stub.Settle(request)).status == com.LINE_STATUS_FOUND
    answer = await desk.statement("bob", NOVEMBER)
    made = answer.statement
    assert (answer.status, answer.age.source) == (com.LINE_STATUS_FOUND, com.DATA_SOURCE_SHARD)
    assert (made.opening_minor, made.available_minor, made.withdrawn_minor) == (0, 1_000, 300)
    assert (made.closing_minor, made.moved_minor, made.currency_code) == (700, 700, "CNY")
    assert made.start_time == Timestamp(seconds=1_698_768_000)
    assert made.end_time == Timestamp(seconds=1_701_360_000)
    listed = [
        entry.amounts.available_minor + entry.amounts.settled_minor
        for entry in await desk.entries("bob", month=NOVEMBER)
    ]
    changes = [change for change in listed if change]
    assert made.closing_minor - made.opening_minor == sum(changes)
    assert made.entry_count == len(changes)


async def test_one_distributors_month_is_settled_alone(desk: Desk) -> None:
    await desk.with_money()
    desk.gateway.clock.pass_ms(16 * DAY_MS)
    request = wire.SettleRequest(month=NOVEMBER, distributor_id="eve")
    assert (await desk.stub.Settle(request)).status == com.LINE_STATUS_NOT_DISTRIBUTOR
    request.distributor_id = "bob"
    assert (await desk.stub.Settle(request)).made_count == 1


async def test_the_same_withdrawal_takes_money_once(desk: Desk) -> None:
    await desk.with_money()
    first = await desk.withdraw("bob", 600)
    second = await desk.withdraw("bob", 600)
    assert (second.status, second.withdrawal) == (com.LINE_STATUS_FOUND, first.withdrawal)
    assert first.withdrawal.state == wire.WITHDRAWAL_STATE_REQUESTED
    assert (first.withdrawal.amount_minor, first.withdrawal.currency_code) == (600, "CNY")
    assert (await desk.withdraw("bob", 601)).status == com.LINE_STATUS_ID_REUSED
    assert (await desk.account("bob")).open_withdrawal_count == 1


async def test_a_rejected_withdrawal_gives_its_amount_back(desk: Desk) -> None:
    await desk.with_money()
    asked = (await desk.withdraw("bob", 600)).withdrawal.withdrawal_id
    early = await desk.review(asked, wire.WITHDRAWAL_ACT_REPORT_PAID)
    assert early.status == com.LINE_STATUS_WITHDRAWAL_CONFLICT
    assert early.withdrawal.state == wire.WITHDRAWAL_STATE_REQUESTED
    for _ in range(2):
        back = await desk.review(asked, wire.WITHDRAWAL_ACT_REJECT)
        assert (back.status, back.withdrawal.state) == (
            com.LINE_STATUS_APPLIED,
            wire.WITHDRAWAL_STATE_REJECTED,
        )
    assert (await desk.account("bob")).withdrawable_minor == 1_000


@pytest.mark.parametrize("slot", [PROGRAMME_SLOT, PROGRAMME_SLOT + 1, 7, None])
async def test_an_unknown_withdrawal_is_not_found(desk: Desk, slot: int | None) -> None:
    await desk.open()
    unknown = "no-withdrawal" if slot is None else f"{slot:03x}" + "0" * 32
    answer = await desk.review(unknown, wire.WITHDRAWAL_ACT_APPROVE)
    assert answer.status == com.LINE_STATUS_NOT_FOUND


async def test_leaderboards_are_of_this_and_the_last_month(desk: Desk) -> None:
    codes = await desk.open("bob", "cat")
    for name in ("ann", "dan"):
        await desk.bind(name, codes["bob"])
    await desk.bind("eve", codes["cat"])
    desk.earned("first", "ann", 10_000)
    desk.earned("second", "eve", 20_000)

    async def board(kind: Any, month: int = 0, limit: int = 0) -> wire.GetLeaderboardResponse:
        request = wire.GetLeaderboardRequest(kind=kind, month=month, limit=limit)
        answer: wire.GetLeaderboardResponse = await desk.stub.GetLeaderboard(request)
        return answer

    invites = await board(wire.LEADERBOARD_KIND_INVITES)
    assert (invites.status, invites.month) == (com.LINE_STATUS_FOUND, NOVEMBER)
    assert [
        (place.place, place.distributor_id, place.invited_count) for place in invites.places
    ] == [
        (1, "bob", 2),
        (2, "cat", 1),
    ]
    sales = await board(wire.LEADERBOARD_KIND_SALES, limit=1)
    assert [(place.distributor_id, place.sales_minor) for place in sales.places] == [
        ("cat", 20_000)
    ]
    desk.wait(20 * DAY_MS)
    assert not (await board(wire.LEADERBOARD_KIND_SALES)).places
    assert (await board(wire.LEADERBOARD_KIND_SALES, NOVEMBER)).places[0].sales_minor == 20_000
    gone = await board(wire.LEADERBOARD_KIND_SALES, 202310)
    assert gone.status == com.LINE_STATUS_NOT_FOUND


async def test_a_call_without_a_shard_to_decide_it_says_retry(desk: Desk) -> None:
    await desk.open("bob")
    desk.gateway.lines.failures[d.GET_ACCOUNT] = [Outcome.RETRY]
    desk.gateway.lines.failures[d.BIND_REFERRER] = [Outcome.UNKNOWN]
    desk.gateway.lines.failures[d.REQUEST_WITHDRAWAL] = [Outcome.UNKNOWN]
    desk.gateway.lines.failures[d.GET_PROGRAMME] = [Outcome.RETRY]
    request = wire.GetAccountRequest(distributor_id="bob")
    answers: list[Any] = [
        await desk.stub.GetAccount(request),
        await desk.bind("ann", "code"),
        await desk.withdraw("bob", 1),
        await desk.stub.GetRates(wire.GetRatesRequest()),
    ]
    assert [answer.status for answer in answers] == [
        com.LINE_STATUS_RETRY,
        com.LINE_STATUS_UNKNOWN,
        com.LINE_STATUS_UNKNOWN,
        com.LINE_STATUS_RETRY,
    ]
    assert all(answer.HasField("retry_after") for answer in answers)
    assert not answers[0].HasField("age")


def test_numbers_of_the_core_are_those_of_the_wire() -> None:
    def numbers(kind: Any, prefix: str) -> dict[str, int]:
        return {name.removeprefix(prefix): number for name, number in kind.items() if number}

    states = {name: getattr(s, name) for name in ("APPLIED", "ACTIVE", "REJECTED", "SUSPENDED")}
    assert states == numbers(wire.DistributorState, "DISTRIBUTOR_STATE_")
    acts = {name: getattr(d, name) for name in ("APPROVE", "REJECT", "SUSPEND", "RESUME")}
    assert acts == numbers(wire.DistributorAct, "DISTRIBUTOR_ACT_")
    events = {
        "ACCRUED": r.ACCRUED,
        "REVERSED": r.REVERSED,
        "BECAME_AVAILABLE": r.BECAME_AVAILABLE,
        "SETTLED": r.SETTLED,
        "WITHDRAWN": r.WITHDRAWN,
        "WITHDRAWAL_RESTORED": r.WITHDRAWAL_RESTORED,
        "PAID_OUT": r.PAID_OUT,
    }
    assert events == numbers(wire.CommissionEvent, "COMMISSION_EVENT_")
    withdrawals = {
        "REQUESTED": s.REQUESTED,
        "APPROVED": s.APPROVED,
        "REJECTED": s.DECLINED,
        "PAID": s.PAID,
        "FAILED": s.FAILED,
    }
    assert withdrawals == numbers(wire.WithdrawalState, "WITHDRAWAL_STATE_")
    reviews = {
        "APPROVE": d.WITHDRAWAL_APPROVE,
        "REJECT": d.WITHDRAWAL_REJECT,
        "REPORT_PAID": d.WITHDRAWAL_PAID,
        "REPORT_FAILED": d.WITHDRAWAL_FAILED,
    }
    assert reviews == numbers(wire.WithdrawalAct, "WITHDRAWAL_ACT_")
    policies = {"FIRST_TOUCH": p.FIRST_TOUCH, "LAST_TOUCH": p.LAST_TOUCH}
    assert policies == numbers(wire.BindingPolicy, "BINDING_POLICY_")
    boards = {"INVITES": d.BOARD_INVITES, "SALES": d.BOARD_SALES}
    assert boards == numbers(wire.LeaderboardKind, "LEADERBOARD_KIND_")

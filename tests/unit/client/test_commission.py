"""Commission by the client: values, retries with the same id, lists, the command line."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import stockray
from stockray import (
    AsyncClient,
    BindingPolicy,
    CampaignRate,
    CommissionEvent,
    DistributorAct,
    DistributorState,
    LeaderboardKind,
    LedgerAmounts,
    Rates,
    SkuRate,
    Status,
    WithdrawalAct,
    WithdrawalState,
)
from stockray._codec import read, write
from stockray.cli import _app
from stockray_proto.v1 import commission_service_pb2 as wire
from stockray_proto.v1 import common_pb2, ops_service_pb2
from typer.testing import CliRunner, Result

from tests.unit.client.scripted import ScriptedServer, refuse

APPLIED = common_pb2.LINE_STATUS_APPLIED
FOUND = common_pb2.LINE_STATUS_FOUND
BOB = wire.Distributor(distributor_id="bob", state=wire.DISTRIBUTOR_STATE_ACTIVE, share_code="c0de")


def answering(server: ScriptedServer, name: str, *answers: Any) -> None:
    """Scripts one RPC: these answers, the last one from then on."""

    async def answer(request: Any, context: Any) -> Any:
        return answers[min(len(server.calls[name]), len(answers)) - 1]

    server.on(name, answer)


async def test_a_distributor_is_approved_and_read(server: ScriptedServer) -> None:
    answering(
        server,
        "ApproveDistributor",
        wire.ApproveDistributorResponse(status=APPLIED, distributor=BOB),
    )
    answering(server, "GetDistributor", wire.GetDistributorResponse(status=FOUND, distributor=BOB))
    async with AsyncClient(server.address) as client:
        approved = await client.approve_distributor("bob")
        await client.approve_distributor("bob", act=DistributorAct.SUSPEND, reason="fraud")
        found = await client.get_distributor("bob")
    assert approved.ok
    assert approved.distributor == found.distributor
    assert found.distributor is not None
    assert found.distributor.state is DistributorState.ACTIVE
    acts = [request.act for request in server.calls["ApproveDistributor"]]
    assert acts == [wire.DISTRIBUTOR_ACT_APPROVE, wire.DISTRIBUTOR_ACT_SUSPEND]


async def test_a_refused_binding_says_what_binds_instead(server: ScriptedServer) -> None:
    refused = wire.BindReferrerResponse(
        status=common_pb2.LINE_STATUS_BOUND_ALREADY,
        binding=wire.Binding(buyer_id="ann", distributor_id="cat"),
    )
    answering(server, "BindReferrer", refused)
    async with AsyncClient(server.address) as client:
        bound = await client.bind_referrer(
            "ann", "c0de", new_buyer=True, device_id="d-1", ip="10.0.0.1", claims=("member",)
        )
    assert (bound.status, bound.ok) == (Status.BOUND_ALREADY, False)
    assert bound.binding is not None
    assert (bound.binding.distributor_id, bound.binding.end_time) == ("cat", None)
    with pytest.raises(stockray.Refused, match="BOUND_ALREADY"):
        bound.raise_for_status()
    sent = server.calls["BindReferrer"][0]
    assert (sent.buyer.buyer_id, sent.buyer.device_id, sent.buyer.ip) == ("ann", "d-1", "10.0.0.1")
    assert (sent.share_code, sent.new_buyer, list(sent.buyer.claims)) == ("c0de", True, ["member"])


async def test_a_referrer_is_read_for_an_instant(server: ScriptedServer) -> None:
    at = datetime(2026, 11, 11, tzinfo=UTC)
    async with AsyncClient(server.address) as client:
        await client.get_referrer("ann")
        await client.get_referrer("ann", at=at)
    now, then = server.calls["GetReferrer"]
    assert not now.HasField("time")
    assert then.time.ToDatetime(UTC) == at


def test_rates_survive_the_wire() -> None:
    rates = Rates(
        currency_code="CNY",
        time_zone="Asia/Shanghai",
        level_bps=(1_000, 500),
        campaigns=(CampaignRate(campaign_id="double-11", level_bps=(2_000,)),),
        skus=(
            SkuRate(sku_id="tea", level_bps=(300, 200), margin_minor=0),
            SkuRate(sku_id="cup", level_bps=(100,)),
        ),
        freeze=timedelta(days=7),
        binding_policy=BindingPolicy.LAST_TOUCH,
        approve_at_once=True,
    )
    assert read(Rates, write(wire.Rates(), rates)) == rates


async def test_a_lost_withdrawal_is_asked_again_with_the_same_id(server: ScriptedServer) -> None:
    async def lose(request: Any, context: Any) -> Any:
        if len(server.calls["RequestWithdrawal"]) == 1:
            await refuse(context, grpc.StatusCode.UNAVAILABLE)
        return wire.RequestWithdrawalResponse(
            status=FOUND,
            withdrawal=wire.Withdrawal(withdrawal_id="w-1", state=wire.WITHDRAWAL_STATE_REQUESTED),
            withdrawable_minor=-5,
        )

    server.on("RequestWithdrawal", lose)
    async with AsyncClient(server.address, backoff_min_ms=1) as client:
        asked = await client.request_withdrawal("bob", 600)
        await client.request_withdrawal("bob", 600)
    first, again, other = server.calls["RequestWithdrawal"]
    assert first.request_id == again.request_id != other.request_id
    assert asked.ok
    assert asked.withdrawable_minor == -5
    assert asked.withdrawal is not None
    assert asked.withdrawal.state is WithdrawalState.REQUESTED


async def test_an_account_shard_that_starts_is_waited_for(server: ScriptedServer) -> None:
    starting = wire.GetAccountResponse(status=common_pb2.LINE_STATUS_RETRY)
    ready = wire.GetAccountResponse(
        status=FOUND,
        account=wire.CommissionAccount(
            balances=wire.LedgerAmounts(expense_minor=-7, frozen_minor=7), withdrawable_minor=-3
        ),
    )
    answering(server, "GetAccount", starting, starting, ready)
    async with AsyncClient(server.address, backoff_min_ms=1) as client:
        found = await client.get_account("bob")
    assert found.account is not None
    assert found.account.balances == LedgerAmounts(expense_minor=-7, frozen_minor=7)
    assert found.account.withdrawable_minor == -3


async def test_every_list_is_paged_with_its_filters(server: ScriptedServer) -> None:
    async def two_pages(request: Any, context: Any) -> Any:
        kinds: dict[type[Any], Any] = {
            wire.ListDistributorsRequest: wire.ListDistributorsResponse(distributors=[BOB]),
            wire.ListEntriesRequest: wire.ListEntriesResponse(
                entries=[wire.CommissionEntry(event=wire.COMMISSION_EVENT_PAID_OUT)]
            ),
            wire.ListStatementsRequest: wire.ListStatementsResponse(
                statements=[wire.CommissionStatement(closing_minor=-1)]
            ),
            wire.ListWithdrawalsRequest: wire.ListWithdrawalsResponse(
                withdrawals=[wire.Withdrawal(withdrawal_id="w")]
            ),
        }
        answer = kinds[type(request)]
        answer.next_page_token = "" if request.page_token else "more"
        return answer

    names = ("ListDistributors", "ListEntries", "ListStatements", "ListWithdrawals")
    for name in names:
        server.on(name, two_pages)
    active, paid = DistributorState.ACTIVE, WithdrawalState.PAID
    async with AsyncClient(server.address) as client:
        distributors = [one async for one in client.list_distributors(states=[active])]
        entries = [one async for one in client.list_entries("bob", month=202611, page_size=7)]
        statements = [one async for one in client.list_statements("bob")]
        listing = client.list_withdrawals(distributor_id="bob", states=[paid])
        withdrawals = [one async for one in listing]
    assert [one.share_code for one in distributors] == ["c0de"] * 2
    assert [one.event for one in entries] == [CommissionEvent.PAID_OUT] * 2
    assert [one.closing_minor for one in statements] == [-1, -1]
    assert [one.withdrawal_id for one in withdrawals] == ["w", "w"]
    for name in names:
        assert [request.page_token for request in server.calls[name]] == ["", "more"]
    assert list(server.calls["ListDistributors"][0].states) == [active]
    sent = server.calls["ListEntries"][1]
    assert (sent.distributor_id, sent.month, sent.page_size) == ("bob", 202611, 7)
    assert list(server.calls["ListWithdrawals"][1].states) == [paid]


def test_a_thread_has_the_same_verbs(threaded: ScriptedServer) -> None:
    places = [wire.LeaderboardPlace(place=1, distributor_id="bob", sales_minor=9)]
    answering(
        threaded,
        "GetLeaderboard",
        wire.GetLeaderboardResponse(status=FOUND, month=202611, places=places),
    )
    with stockray.Client(threaded.address) as client:
        found = client.get_leaderboard(LeaderboardKind.SALES, limit=3)
    assert [(place.place, place.sales_minor) for place in found.places] == [(1, 9)]
    sent = threaded.calls["GetLeaderboard"][0]
    assert (sent.kind, sent.limit) == (wire.LEADERBOARD_KIND_SALES, 3)


def run(server: ScriptedServer, *words: str) -> Result:
    return CliRunner().invoke(
        _app.build(), ["distributor", *words, "--address", server.address, "-o", "json"]
    )


def test_a_distributor_applies_and_is_shown_with_its_money(threaded: ScriptedServer) -> None:
    answering(
        threaded, "ApplyDistributor", wire.ApplyDistributorResponse(status=APPLIED, distributor=BOB)
    )
    answering(
        threaded, "GetDistributor", wire.GetDistributorResponse(status=FOUND, distributor=BOB)
    )
    account = wire.CommissionAccount(distributor_id="bob", withdrawable_minor=-5)
    answering(threaded, "GetAccount", wire.GetAccountResponse(status=FOUND, account=account))
    assert run(threaded, "apply", "bob").exit_code == 0
    shown = json.loads(run(threaded, "show", "bob").stdout)
    assert shown["distributor"]["share_code"] == "c0de"
    assert shown["account"]["withdrawable_minor"] == -5


def test_who_is_no_distributor_ends_with_1(threaded: ScriptedServer) -> None:
    gone = common_pb2.LINE_STATUS_NOT_DISTRIBUTOR
    answering(threaded, "GetDistributor", wire.GetDistributorResponse(status=gone))
    result = run(threaded, "show", "eve")
    assert (result.exit_code, threaded.calls["GetAccount"]) == (1, [])
    assert "NOT_DISTRIBUTOR" in result.stderr


@pytest.mark.parametrize(
    ("words", "act"),
    [
        (("approve", "bob"), wire.DISTRIBUTOR_ACT_APPROVE),
        (("reject", "bob", "--reason", "why"), wire.DISTRIBUTOR_ACT_REJECT),
        (("suspend", "bob", "--reason", "why", "--yes"), wire.DISTRIBUTOR_ACT_SUSPEND),
        (("resume", "bob"), wire.DISTRIBUTOR_ACT_RESUME),
    ],
)
def test_each_act_on_a_distributor_has_its_command(
    threaded: ScriptedServer, words: tuple[str, ...], act: Any
) -> None:
    answering(threaded, "ApproveDistributor", wire.ApproveDistributorResponse(status=APPLIED))
    assert run(threaded, *words).exit_code == 0
    assert threaded.calls["ApproveDistributor"][0].act == act


def test_suspending_needs_a_reason_and_a_yes(threaded: ScriptedServer) -> None:
    assert run(threaded, "suspend", "bob", "--yes").exit_code == 2
    assert run(threaded, "suspend", "bob", "--reason", "why").exit_code == 2
    assert not threaded.calls["ApproveDistributor"]


def test_entries_and_statements_are_shown(threaded: ScriptedServer) -> None:
    entry = wire.CommissionEntry(
        entry_number=3,
        event=wire.COMMISSION_EVENT_ACCRUED,
        amounts=wire.LedgerAmounts(expense_minor=-7, frozen_minor=7),
    )
    answering(threaded, "ListEntries", wire.ListEntriesResponse(entries=[entry]))
    made = wire.CommissionStatement(month=202611, closing_minor=-1)
    answering(threaded, "GetStatement", wire.GetStatementResponse(status=FOUND, statement=made))
    answering(threaded, "ListStatements", wire.ListStatementsResponse(statements=[made]))
    (row,) = json.loads(run(threaded, "entries", "bob", "--month", "202611").stdout)
    assert (row["event"], row["amounts"]["expense_minor"]) == ("ACCRUED", -7)
    assert threaded.calls["ListEntries"][0].month == 202611
    shown = json.loads(run(threaded, "statement", "bob", "202611").stdout)
    assert shown["statement"]["closing_minor"] == -1
    (listed,) = json.loads(run(threaded, "statements", "bob").stdout)
    assert listed["month"] == 202611


def test_settling_goes_on_until_there_is_no_more(threaded: ScriptedServer) -> None:
    answering(
        threaded,
        "Settle",
        wire.SettleResponse(status=APPLIED, made_count=256, more=True),
        wire.SettleResponse(status=APPLIED, made_count=4),
    )
    result = run(threaded, "settle", "202611", "--reason", "close")
    assert (result.exit_code, json.loads(result.stdout)["made_count"]) == (0, 260)
    answering(threaded, "Settle", wire.SettleResponse(status=common_pb2.LINE_STATUS_MONTH_NOT_OVER))
    assert run(threaded, "settle", "202612").exit_code == 1


def test_money_is_withdrawn_and_reviewed(threaded: ScriptedServer) -> None:
    held = wire.Withdrawal(withdrawal_id="w-1", state=wire.WITHDRAWAL_STATE_REQUESTED)
    answering(
        threaded,
        "RequestWithdrawal",
        wire.RequestWithdrawalResponse(status=APPLIED, withdrawal=held),
    )
    answering(threaded, "ReviewWithdrawal", wire.ReviewWithdrawalResponse(status=APPLIED))
    answering(threaded, "ListWithdrawals", wire.ListWithdrawalsResponse(withdrawals=[held]))
    asked = json.loads(run(threaded, "withdraw", "bob", "600", "--request-id", "w").stdout)
    assert asked["withdrawal"]["withdrawal_id"] == "w-1"
    sent = threaded.calls["RequestWithdrawal"][0]
    assert (sent.request_id, sent.distributor_id, sent.amount_minor) == ("w", "bob", 600)
    assert run(threaded, "review", "w-1", "approve").exit_code == 0
    assert run(threaded, "review", "w-1", "report_paid", "--reference", "bank-1").exit_code == 2
    words = ("review", "w-1", "report_paid", "--reference", "bank-1", "--yes")
    assert run(threaded, *words).exit_code == 0
    acts = [request.act for request in threaded.calls["ReviewWithdrawal"]]
    assert acts == [WithdrawalAct.APPROVE, WithdrawalAct.REPORT_PAID]
    assert run(threaded, "withdrawals", "--state", "happy").exit_code == 2
    (listed,) = json.loads(run(threaded, "withdrawals", "--state", "requested").stdout)
    assert listed["state"] == "REQUESTED"


def test_the_board_is_shown(threaded: ScriptedServer) -> None:
    places = [wire.LeaderboardPlace(place=1, distributor_id="bob", invited_count=2)]
    answering(threaded, "GetLeaderboard", wire.GetLeaderboardResponse(status=FOUND, places=places))
    (row,) = json.loads(run(threaded, "board", "invites").stdout)
    assert (row["distributor_id"], row["invited_count"]) == ("bob", 2)
    assert threaded.calls["GetLeaderboard"][0].kind == wire.LEADERBOARD_KIND_INVITES


def test_rates_are_put_from_a_file_and_shown(threaded: ScriptedServer, tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    path.write_text('{"currencyCode": "CNY", "levelBps": [1000, 500], "freeze": "86400s"}')
    answering(threaded, "PutRates", wire.PutRatesResponse(status=APPLIED, version=2))
    answering(threaded, "GetRates", wire.GetRatesResponse(status=FOUND, entry_count=9))
    put = run(threaded, "rates", "--put", str(path), "--reason", "spring")
    assert json.loads(put.stdout)["version"] == 2
    sent = threaded.calls["PutRates"][0]
    assert (list(sent.rates.level_bps), sent.rates.freeze.seconds) == ([1_000, 500], 86_400)
    assert json.loads(run(threaded, "rates").stdout)["entry_count"] == 9


@pytest.mark.parametrize(
    "words", [("distributor", "rates", "--put"), ("campaign", "put", "double-11", "--file")]
)
@pytest.mark.parametrize("text", ['{"currencyCode"', '{"levels": [1]}', None])
def test_a_file_that_says_nothing_is_named_and_ends_with_2(
    threaded: ScriptedServer, tmp_path: Path, text: str | None, words: tuple[str, ...]
) -> None:
    path = tmp_path / "put.json"
    if text is not None:
        path.write_text(text)
    result = CliRunner().invoke(_app.build(), [*words, str(path), "--address", threaded.address])
    assert result.exit_code == 2
    assert "put.json" in result.stderr
    assert not threaded.calls


def test_a_buyer_is_bound_and_its_referrer_shown(threaded: ScriptedServer) -> None:
    binding = wire.Binding(buyer_id="ann", distributor_id="bob")
    answering(threaded, "BindReferrer", wire.BindReferrerResponse(status=APPLIED, binding=binding))
    answering(threaded, "GetReferrer", wire.GetReferrerResponse(status=FOUND, binding=binding))
    answering(threaded, "ListDistributors", wire.ListDistributorsResponse(distributors=[BOB]))
    assert run(threaded, "bind", "ann", "c0de", "--new-buyer").exit_code == 0
    assert threaded.calls["BindReferrer"][0].new_buyer
    assert json.loads(run(threaded, "of", "ann").stdout)["binding"]["distributor_id"] == "bob"
    (listed,) = json.loads(run(threaded, "list", "--state", "active").stdout)
    assert listed["distributor_id"] == "bob"


def test_the_funnel_is_shown_and_says_when_it_is_cut(threaded: ScriptedServer) -> None:
    row = ops_service_pb2.FunnelRow(campaign_id="double-11", share_code="c0de", amount_minor=300)
    answering(threaded, "GetFunnel", ops_service_pb2.GetFunnelResponse(rows=[row], truncated=True))
    result = run(threaded, "funnel", "double-11", "together", "--channel", "app", "--only", "bob")
    (shown,) = json.loads(result.stdout)
    assert (shown["share_code"], shown["amount_minor"]) == ("c0de", 300)
    assert "there are more" in result.stderr
    sent = threaded.calls["GetFunnel"][0]
    assert list(sent.campaign_ids) == ["double-11", "together"]
    assert (sent.channel, sent.distributor_id) == ("app", "bob")

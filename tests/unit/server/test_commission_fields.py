"""What requests about commission must be, and how it is said when they are not."""

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from stockray_proto.v1 import commission_service_pb2 as wire
from stockray_proto.v1 import common_pb2 as com

from tests.unit.server.commissioning import rates
from tests.unit.server.conftest import Gateway, buyer, fields_of

LONG = "x" * 513
BAD: list[tuple[str, Message, list[str]]] = [
    (
        "ApplyDistributor",
        wire.ApplyDistributorRequest(reason=LONG),
        ["distributor_id", "reason"],
    ),
    (
        "ApproveDistributor",
        wire.ApproveDistributorRequest(distributor_id="b b", act=9),  # type: ignore[arg-type]
        ["distributor_id", "act"],
    ),
    (
        "ApproveDistributor",
        wire.ApproveDistributorRequest(
            distributor_id="bob", act=wire.DISTRIBUTOR_ACT_SUSPEND, reason=""
        ),
        ["reason"],
    ),
    ("GetDistributor", wire.GetDistributorRequest(), ["distributor_id"]),
    ("GetAccount", wire.GetAccountRequest(), ["distributor_id"]),
    (
        "BindReferrer",
        wire.BindReferrerRequest(buyer=buyer("", device_id="d d", ip="nowhere", claims=["", "ok"])),
        ["buyer.buyer_id", "buyer.device_id", "buyer.ip", "buyer.claims[0]", "share_code"],
    ),
    (
        "GetReferrer",
        wire.GetReferrerRequest(time=Timestamp(seconds=-1)),
        ["buyer_id", "time"],
    ),
    ("GetRates", wire.GetRatesRequest(version=-1), ["version"]),
    ("PutRates", wire.PutRatesRequest(), ["rates"]),
    (
        "GetStatement",
        wire.GetStatementRequest(month=202313),
        ["distributor_id", "month"],
    ),
    (
        "Settle",
        wire.SettleRequest(distributor_id="b b", reason=LONG),
        ["month", "distributor_id", "reason"],
    ),
    (
        "RequestWithdrawal",
        wire.RequestWithdrawalRequest(amount_minor=0, reason=LONG),
        ["request_id", "distributor_id", "amount_minor", "reason"],
    ),
    (
        "RequestWithdrawal",
        wire.RequestWithdrawalRequest(
            request_id="w", distributor_id="bob", amount_minor=10**15 + 1
        ),
        ["amount_minor"],
    ),
    (
        "ReviewWithdrawal",
        wire.ReviewWithdrawalRequest(reference="b b"),
        ["withdrawal_id", "act", "reference"],
    ),
    (
        "ReviewWithdrawal",
        wire.ReviewWithdrawalRequest(withdrawal_id="w", act=wire.WITHDRAWAL_ACT_REPORT_FAILED),
        ["reason"],
    ),
    (
        "GetLeaderboard",
        wire.GetLeaderboardRequest(month=1, limit=11),
        ["kind", "month", "limit"],
    ),
    (
        "ListEntries",
        wire.ListEntriesRequest(page_size=-1, page_token="x" * 2_049, month=202300),
        ["page_size", "page_token", "distributor_id", "month"],
    ),
    ("ListStatements", wire.ListStatementsRequest(page_size=-1), ["page_size", "distributor_id"]),
    (
        "ListDistributors",
        wire.ListDistributorsRequest(states=[0, 2, 5]),  # type: ignore[list-item]
        ["states[0]", "states[2]"],
    ),
    (
        "ListWithdrawals",
        wire.ListWithdrawalsRequest(distributor_id="b b", states=[6]),  # type: ignore[list-item]
        ["distributor_id", "states[0]"],
    ),
]


@pytest.mark.parametrize(("call", "request_", "fields"), BAD)
async def test_a_bad_request_names_every_field_that_is_wrong_and_reaches_no_shard(
    gateway: Gateway, call: str, request_: Message, fields: list[str]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(gateway.commission, call)(request_)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert fields_of(caught.value) == fields
    assert not gateway.lines.decided


async def test_bad_rates_name_every_field_that_is_wrong(gateway: Gateway) -> None:
    bad = wire.Rates(
        currency_code="cny",
        time_zone="Mars/Olympus",
        level_bps=[500, 300, 200],
        campaigns=[
            wire.CampaignRate(campaign_id="", level_bps=[10_001]),
            wire.CampaignRate(campaign_id="c", level_bps=[6_000, 6_000]),
        ],
        skus=[
            wire.SkuRate(sku_id="tea", level_bps=[]),
            wire.SkuRate(sku_id="tea", level_bps=[1], margin_minor=-1),
        ],
        freeze=Duration(seconds=366 * 86_400),
        freeze_max=Duration(seconds=-1),
        binding_policy=3,  # type: ignore[arg-type]
        validity=Duration(nanos=1),
        protection=Duration(seconds=-1),
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.commission.PutRates(wire.PutRatesRequest(rates=bad, reason=LONG))
    assert fields_of(caught.value) == [
        "rates.currency_code",
        "rates.time_zone",
        "rates.level_bps",
        "rates.freeze",
        "rates.freeze_max",
        "rates.validity",
        "rates.protection",
        "rates.binding_policy",
        "rates.campaigns[0].campaign_id",
        "rates.campaigns[0].level_bps[0]",
        "rates.campaigns[1].level_bps",
        "rates.skus[1].sku_id",
        "rates.skus[0].level_bps",
        "rates.skus[1].margin_minor",
        "reason",
    ]
    assert not gateway.lines.decided


async def test_a_third_level_is_refused(gateway: Gateway) -> None:
    request = wire.PutRatesRequest(rates=rates(level_bps=[3, 2, 1]))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.commission.PutRates(request)
    assert fields_of(caught.value) == ["rates.level_bps"]
    assert "no third" in str(caught.value.details())


@pytest.mark.parametrize("name", ["", "Asia", "../etc/passwd", "asia/shanghai\n", "x" * 65])
async def test_a_time_zone_is_one_that_is_known(gateway: Gateway, name: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.commission.PutRates(wire.PutRatesRequest(rates=rates(time_zone=name)))
    assert fields_of(caught.value) == ["rates.time_zone"]


async def test_no_maximum_of_the_freeze_is_below_the_freeze(gateway: Gateway) -> None:
    terms = rates(freeze=Duration(seconds=86_400 * 40), freeze_max=Duration(seconds=86_400 * 39))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.commission.PutRates(wire.PutRatesRequest(rates=terms))
    assert fields_of(caught.value) == ["rates.freeze_max"]
    terms.ClearField("freeze_max")
    put = await gateway.commission.PutRates(wire.PutRatesRequest(rates=terms))
    assert put.status == com.LINE_STATUS_APPLIED


async def test_a_put_of_too_many_rates_is_refused(gateway: Gateway) -> None:
    """Those of SKUs and of campaigns together."""
    skus = [wire.SkuRate(sku_id=f"s-{n}", level_bps=[1]) for n in range(600)]
    campaigns = [wire.CampaignRate(campaign_id=f"c-{n}", level_bps=[1]) for n in range(1_001)]
    for many, field in ((401, "rates.skus"), (1_001, "rates.campaigns")):
        terms = rates(skus=skus, campaigns=campaigns[:many])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway.commission.PutRates(wire.PutRatesRequest(rates=terms))
        assert fields_of(caught.value) == [field]
    put = await gateway.commission.PutRates(
        wire.PutRatesRequest(rates=rates(skus=skus, campaigns=campaigns[:400]))
    )
    assert put.status == com.LINE_STATUS_APPLIED

"""The edge before a gateway: who is refused, for how long, and what passes all the same."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from stockray_proto.v1 import commission_service_pb2 as commission
from stockray_proto.v1 import commission_service_pb2_grpc, risk_service_pb2_grpc
from stockray_proto.v1 import common_pb2 as com
from stockray_proto.v1 import group_buy_service_pb2 as buy
from stockray_proto.v1 import inventory_service_pb2 as inv
from stockray_proto.v1 import reservation_pb2 as res
from stockray_proto.v1 import risk_service_pb2 as risk
from stockray_proto.v1 import seckill_service_pb2 as sec

from actors.core import commands as c
from actors.core import facts as f
from actors.core import relay_commands as y
from actors.core import risk_commands as k
from actors.core.identity import account_slot
from actors.core.outcomes import Outcome
from server import edge as edges
from server.buckets import Rate
from server.edge import Edge, EdgeRates
from server.risk_set import RiskSet
from server.translate.scalars import stamp
from tests.helpers.core_lines import CoreLines
from tests.helpers.virtual_time import until
from tests.unit.server.conftest import Gateway, buyer, campaign, fields_of, line, serving
from tests.unit.server.group_buying import TeamShop, join_line

HOUR_MS = 3_600_000
RATES = EdgeRates(buyer=Rate(2, 3), ip=Rate(1, 5), device=Rate(1, 4))


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edges, "PULL_EVERY_S", 0.005)
    monkeypatch.setattr(edges, "REPORT_EVERY_S", 0.005)


class Guarded:
    """A gateway with an edge."""

    def __init__(self, gateway: Gateway, edge: Edge) -> None:
        self.gateway = gateway
        self.edge = edge
        self.lines = gateway.lines
        self.clock = gateway.clock
        self.risk: Any = risk_service_pb2_grpc.RiskServiceStub(gateway.channel)

    async def until(self, holds: Callable[[], bool]) -> None:
        """After so many pulls and reports as it takes."""
        await until(holds)

    async def pulled(self) -> None:
        """Returns when all that stood when this was called is known."""
        before = self.lines.decided[k.PULL_RISK]
        await self.until(lambda: self.lines.decided[k.PULL_RISK] >= before + 2)

    async def freeze(self, buyer_id: str, **fields: Any) -> risk.RiskProfile:
        answer = await self.risk.Freeze(
            risk.FreezeRequest(buyer_id=buyer_id, reason="stolen cards", **fields)
        )
        assert answer.status == com.LINE_STATUS_APPLIED
        await self.pulled()
        profile: risk.RiskProfile = answer.profile
        return profile

    async def ask(self, request_id: str, **fields: Any) -> Any:
        """The status of one unit of tea for u-1, or what the fields say."""
        return (await self.gateway.reserve(request_id, **fields)).status


@pytest.fixture
async def empty(lines: CoreLines, front_kind: str) -> AsyncIterator[Guarded]:
    clock = lines.clock
    edge = Edge(RATES, now_ms=clock.now_ms, now_s=lambda: clock.now_ms() / 1_000)
    async with serving(lines, edge=edge) as gateway:
        yield Guarded(gateway, edge)


@pytest.fixture
async def guarded(empty: Guarded) -> Guarded:
    await empty.gateway.stock_up(units=100)
    return empty


async def test_a_buyer_who_asks_too_often_is_told_when_to_come_again(guarded: Guarded) -> None:
    for number in range(3):
        assert await guarded.ask(f"r-{number}") == com.LINE_STATUS_RESERVED
    reserves = guarded.lines.decided[c.RESERVE]
    refused = await guarded.gateway.reserve("r-3")
    assert refused.status == com.LINE_STATUS_RATE_LIMITED
    assert (refused.request_id, refused.HasField("remaining_count")) == ("r-3", False)
    assert refused.retry_after == Duration(nanos=501_000_000)
    assert guarded.lines.decided[c.RESERVE] == reserves
    assert await guarded.ask("other", buyer=buyer("u-2")) == com.LINE_STATUS_RESERVED
    guarded.clock.pass_ms(501)
    assert await guarded.ask("r-3") == com.LINE_STATUS_RESERVED


async def test_an_address_and_a_device_have_rates_of_their_own(guarded: Guarded) -> None:
    statuses = [
        await guarded.ask(f"ip-{number}", buyer=buyer(f"u-{number}", ip="203.0.113.9"))
        for number in range(6)
    ]
    assert statuses == [com.LINE_STATUS_RESERVED] * 5 + [com.LINE_STATUS_RATE_LIMITED]
    statuses = [
        await guarded.ask(f"device-{number}", buyer=buyer(f"v-{number}", device_id="d-1"))
        for number in range(5)
    ]
    assert statuses == [com.LINE_STATUS_RESERVED] * 4 + [com.LINE_STATUS_RATE_LIMITED]
    assert guarded.edge.refused == {"frozen": 0, "buyer": 0, "ip": 1, "device": 1}


async def test_a_refusal_takes_no_token_of_any_bucket(guarded: Guarded) -> None:
    """Who is refused for the address keeps the tokens of buyer and device."""
    for number in range(5):
        await guarded.ask(f"r-{number}", buyer=buyer(f"u-{number}", ip="203.0.113.9"))
    full = buyer("ann", ip="203.0.113.9", device_id="d-1")
    for number in range(9):
        assert await guarded.ask(f"ann-{number}", buyer=full) == com.LINE_STATUS_RATE_LIMITED
    for number in range(3):
        own = buyer("ann", device_id="d-1")
        assert await guarded.ask(f"own-{number}", buyer=own) == com.LINE_STATUS_RESERVED


async def test_lines_of_one_call_are_refused_each_by_itself(guarded: Guarded) -> None:
    await guarded.freeze("bad")
    asked = [line(f"r-{number}") for number in range(5)]
    asked.insert(1, line("frozen", buyer=buyer("bad")))
    asked.insert(3, line("wrong", quantity=0))
    answer = await guarded.gateway.inventory.ReserveMany(inv.ReserveManyRequest(lines=asked))
    assert [one.request_id for one in answer.results] == [one.request_id for one in asked]
    assert [one.status for one in answer.results] == [
        com.LINE_STATUS_RESERVED,
        com.LINE_STATUS_BUYER_FROZEN,
        com.LINE_STATUS_RESERVED,
        com.LINE_STATUS_INVALID,
        com.LINE_STATUS_RESERVED,
        com.LINE_STATUS_RATE_LIMITED,
        com.LINE_STATUS_RATE_LIMITED,
    ]
    only = inv.ReserveManyRequest(lines=asked[-2:])
    refused = (await guarded.gateway.inventory.ReserveMany(only)).results
    assert {one.status for one in refused} == {com.LINE_STATUS_RATE_LIMITED}
    assert all(one.retry_after.nanos for one in refused)


async def test_a_frozen_buyer_makes_nothing_new_and_keeps_what_is_held(empty: Guarded) -> None:
    guarded, gateway = empty, empty.gateway
    shop = TeamShop(gateway)
    await shop.sell()
    await gateway.seckill.PutCampaign(campaign())
    held = [await gateway.reserve(f"held-{number}") for number in range(3)]
    paid = await gateway.confirm(held[0].reservation_id)
    team_id = await shop.start("ann")
    await guarded.freeze("u-1")
    assert await guarded.ask("more") == com.LINE_STATUS_BUYER_FROZEN
    grab = sec.GrabLine(
        request_id="g", campaign_id="double-11", sku_id="tea", quantity=1, buyer=buyer("u-1")
    )
    grabbed = await gateway.seckill.Grab(sec.GrabRequest(line=grab))
    assert grabbed.result.status == com.LINE_STATUS_BUYER_FROZEN
    assert (await shop.open("u-1")).status == com.LINE_STATUS_BUYER_FROZEN
    joined = await shop.join(team_id, "u-1")
    assert (joined.status, joined.HasField("retry_after")) == (
        com.LINE_STATUS_BUYER_FROZEN,
        False,
    )
    many = buy.JoinTeamManyRequest(lines=[join_line(team_id, "u-1", request_id="again")])
    (one,) = (await gateway.teams.JoinTeamMany(many)).results
    assert one.status == com.LINE_STATUS_BUYER_FROZEN
    assert paid.status == com.LINE_STATUS_CONFIRMED
    assert (await gateway.confirm(held[1].reservation_id, "p-2")).status == (
        com.LINE_STATUS_CONFIRMED
    )
    begun = await gateway.inventory.BeginPayment(
        inv.BeginPaymentRequest(reservation_id=held[2].reservation_id, payment_id="p-3")
    )
    assert begun.status == com.LINE_STATUS_PAYMENT_BEGUN
    released = await gateway.inventory.Release(
        inv.ReleaseRequest(line=res.ReleaseLine(reservation_id=held[2].reservation_id))
    )
    assert released.result.status == com.LINE_STATUS_RELEASED
    back = await gateway.inventory.ReturnUnits(
        inv.ReturnUnitsRequest(
            request_id="back",
            reservation_id=held[0].reservation_id,
            quantity=1,
            restock_to=inv.RESTOCK_TO_AVAILABLE,
        )
    )
    assert back.status == com.LINE_STATUS_RETURNED
    refunded = await gateway.inventory.ReportRefund(
        inv.ReportRefundRequest(
            refund_id=back.refund.refund_id,
            outcome=inv.REFUND_OUTCOME_SUCCEEDED,
            request_id="refunded",
        )
    )
    assert refunded.status in (com.LINE_STATUS_APPLIED, com.LINE_STATUS_NOTED)


async def test_binding_is_refused_to_who_is_frozen_or_asks_too_often(guarded: Guarded) -> None:
    stub: Any = commission_service_pb2_grpc.CommissionServiceStub(guarded.gateway.channel)
    request = commission.BindReferrerRequest(buyer=buyer("u-1"), share_code="nobodys")
    for _ in range(3):
        asked = await stub.BindReferrer(request)
        assert asked.status not in (com.LINE_STATUS_RATE_LIMITED, com.LINE_STATUS_BUYER_FROZEN)
    refused = await stub.BindReferrer(request)
    assert refused.status == com.LINE_STATUS_RATE_LIMITED
    assert refused.retry_after == Duration(nanos=501_000_000)
    await guarded.freeze("u-1")
    refused = await stub.BindReferrer(request)
    assert (refused.status, refused.HasField("binding")) == (com.LINE_STATUS_BUYER_FROZEN, False)


async def test_a_freeze_ends_by_an_operator_or_by_itself(guarded: Guarded) -> None:
    await guarded.freeze("u-1")
    assert await guarded.ask("one") == com.LINE_STATUS_BUYER_FROZEN
    answer = await guarded.risk.Unfreeze(risk.UnfreezeRequest(buyer_id="u-1", reason="no fraud"))
    assert (answer.status, answer.profile.frozen) == (com.LINE_STATUS_APPLIED, False)
    await guarded.pulled()
    assert await guarded.ask("one") == com.LINE_STATUS_RESERVED
    await guarded.freeze("u-1", length=Duration(seconds=3_600))
    assert guarded.edge.frozen_count() == 1
    assert await guarded.ask("two") == com.LINE_STATUS_BUYER_FROZEN
    guarded.clock.pass_ms(HOUR_MS)
    assert guarded.edge.frozen_count() == 0
    assert await guarded.ask("two") == com.LINE_STATUS_RESERVED


async def test_hits_of_own_limits_lower_the_score_and_those_of_an_address_do_not(
    guarded: Guarded,
) -> None:
    for number in range(5):
        await guarded.ask(f"r-{number}")
    await guarded.until(lambda: guarded.lines.decided[k.REPORT_SIGNALS] > 0)
    for number in range(9):
        await guarded.ask(f"s-{number}", buyer=buyer(f"u-{number + 10}", ip="203.0.113.9"))
    assert guarded.edge.refused["ip"] == 4
    await guarded.pulled()
    await guarded.until(lambda: _hits(guarded.lines, "u-1") == 2)
    assert [_hits(guarded.lines, f"u-{number + 10}") for number in range(9)] == [0] * 9
    profile = (await guarded.risk.GetProfile(risk.GetProfileRequest(buyer_id="u-1"))).profile
    assert (profile.score, profile.rate_hit_count, profile.frozen) == (96, 2, False)


def _hits(lines: CoreLines, buyer_id: str) -> int:
    profile = lines.state.slot(account_slot(buyer_id)).profiles.get(buyer_id)
    return 0 if profile is None else profile.counts[0]


async def test_three_failed_payments_are_enough(guarded: Guarded) -> None:
    """Told as the relay would tell them."""
    after = (0, 0)
    for source, sku_id in enumerate(("tea", "cup", "pot")):
        fact = f.PaymentFailed(f.PAYMENT_FAILED, guarded.clock.now_ms(), "r", "u-1", sku_id)
        slot = account_slot("u-1")
        head = (y.TAKE_FACTS, slot, 0, "relay", source, "i")
        (answer,) = await guarded.lines.submit(
            [y.TakeFacts(*head, *after, [(1, y.ENTRY_END, slot, fact)])]
        )
        assert answer == (Outcome.APPLIED, 1)
    await guarded.pulled()
    assert await guarded.ask("more") == com.LINE_STATUS_BUYER_FROZEN
    profile = (await guarded.risk.GetProfile(risk.GetProfileRequest(buyer_id="u-1"))).profile
    assert (profile.freeze_cause, profile.failed_payment_count) == (
        risk.FREEZE_CAUSE_PAYMENT_FAILURES,
        3,
    )


async def test_the_age_of_what_is_known_is_known(guarded: Guarded) -> None:
    await asyncio.wait_for(guarded.edge.ready.wait(), 20)
    assert not guarded.edge.stale
    release = guarded.lines.hold(k.PULL_RISK)
    await guarded.lines.waiting.wait()
    guarded.clock.pass_ms(5_001)
    assert guarded.edge.stale
    guarded.lines.let_through(k.PULL_RISK)
    release.set()
    await guarded.until(lambda: not guarded.edge.stale)
    assert Edge(None).stale
    assert not Edge(None).ready.is_set()


async def test_an_edge_that_is_told_nothing_is_waited_for_and_says_so(lines: CoreLines) -> None:
    lines.failures[k.PULL_RISK] = [Outcome.RETRY]
    release = lines.hold(k.PULL_RISK)
    edge = Edge(RATES, now_ms=lines.clock.now_ms, now_s=lambda: lines.clock.now_ms() / 1_000)
    async with serving(lines, edge=edge) as gateway:
        await gateway.seckill.PutCampaign(campaign(min_score=1))
        assert not await edge.learns_within(0.01)
        assert (edge.status()["age_ms"], edge.stale) == (None, True)
        # Its gateway serves what no set is needed for.
        await gateway.stock_up(units=100)
        assert (await gateway.reserve("r-1")).status == com.LINE_STATUS_RESERVED
        asked = await gateway.reserve("r-2", campaign_id="double-11")
        assert asked.status == com.LINE_STATUS_RETRY
        lines.let_through(k.PULL_RISK)
        release.set()
        assert await edge.learns_within(20)
        assert (edge.status()["age_ms"], edge.stale) == (0, False)
        asked = await gateway.reserve("r-2", campaign_id="double-11")
        assert asked.status != com.LINE_STATUS_RETRY


async def test_shards_that_do_not_answer_leave_what_was_known(guarded: Guarded) -> None:
    await guarded.freeze("u-1")
    guarded.lines.failures[k.PULL_RISK] = [Outcome.RETRY, Outcome.UNKNOWN, Outcome.INTERNAL]
    await guarded.until(lambda: not guarded.lines.failures[k.PULL_RISK])
    assert await guarded.ask("more") == com.LINE_STATUS_BUYER_FROZEN


async def test_without_rates_freezes_hold_all_the_same(lines: CoreLines) -> None:
    async with serving(lines, edge=Edge(None, now_ms=lines.clock.now_ms)) as gateway:
        await gateway.stock_up(units=100)
        for number in range(50):
            held = await gateway.reserve(f"r-{number}")
            assert held.status == com.LINE_STATUS_RESERVED
        await Guarded(gateway, Edge(None)).freeze("u-1")
        refused = await gateway.reserve("more")
        assert refused.status == com.LINE_STATUS_BUYER_FROZEN


async def test_a_low_score_is_known_until_it_has_healed(lines: CoreLines) -> None:
    clock = lines.clock
    edge = Edge(None, now_ms=clock.now_ms)
    async with serving(lines, edge=edge) as gateway:
        own = Guarded(gateway, edge)
        for _ in range(7):
            command = k.ReportSignals(k.REPORT_SIGNALS, account_slot("u-1"), 0, "g", "u-1", 5)
            await lines.submit([command])
        await own.pulled()
        assert (edge.score("u-1"), edge.score("u-2")) == (30, 100)
        clock.pass_ms(9 * HOUR_MS)
        assert edge.score("u-1") == 39
        clock.pass_ms(HOUR_MS)
        assert edge.score("u-1") == 100


async def test_a_campaign_may_ask_for_a_score_that_the_edge_says(lines: CoreLines) -> None:
    clock = lines.clock
    edge = Edge(None, now_ms=clock.now_ms, now_s=lambda: clock.now_ms() / 1_000)
    async with serving(lines, edge=edge) as gateway:
        own, shop = Guarded(gateway, edge), TeamShop(gateway)
        await shop.sell(min_score=40)
        asking = campaign(min_score=31, end_time=stamp(clock.now_ms() + 48 * HOUR_MS))
        put = await gateway.seckill.PutCampaign(asking)
        assert (put.status, put.campaign.min_score) == (com.LINE_STATUS_APPLIED, 31)
        for _ in range(7):
            command = k.ReportSignals(k.REPORT_SIGNALS, account_slot("low"), 0, "g", "low", 5)
            await lines.submit([command])
        await own.pulled()
        sale = {"campaign_id": "double-11"}
        low = buyer("low")
        assert await own.ask("r-1", buyer=low, **sale) == com.LINE_STATUS_NOT_ELIGIBLE
        assert await own.ask("r-2", buyer=low) == com.LINE_STATUS_RESERVED, "of base stock"
        assert await own.ask("r-3", **sale) == com.LINE_STATUS_RESERVED
        many = inv.ReserveManyRequest(
            lines=[line("m-1", buyer=low, **sale), line("m-2", **sale), line("m-3", buyer=low)]
        )
        assert [one.status for one in (await gateway.inventory.ReserveMany(many)).results] == [
            com.LINE_STATUS_NOT_ELIGIBLE,
            com.LINE_STATUS_RESERVED,
            com.LINE_STATUS_RESERVED,
        ]
        assert (await shop.open("low")).status == com.LINE_STATUS_NOT_ELIGIBLE
        team_id = await shop.start("ann")
        assert (await shop.join(team_id, "low")).status == com.LINE_STATUS_NOT_ELIGIBLE
        clock.pass_ms(HOUR_MS)
        await own.pulled()
        assert edge.score("low") == 31
        assert await own.ask("r-4", buyer=low, **sale) == com.LINE_STATUS_RESERVED, "it healed"


async def test_a_score_that_nobody_knows_is_asked_for_again(guarded: Guarded) -> None:
    await guarded.gateway.seckill.PutCampaign(campaign(min_score=1))
    await asyncio.wait_for(guarded.edge.ready.wait(), 20)
    release = guarded.lines.hold(k.PULL_RISK)
    await guarded.lines.waiting.wait()
    guarded.clock.pass_ms(5_001)
    sale = {"campaign_id": "double-11"}
    refused = await guarded.gateway.reserve("r-1", **sale)
    assert (refused.status, refused.HasField("retry_after")) == (com.LINE_STATUS_RETRY, True)
    assert await guarded.ask("r-2") == com.LINE_STATUS_RESERVED, "nothing asks for it"
    guarded.lines.let_through(k.PULL_RISK)
    release.set()
    await guarded.until(lambda: not guarded.edge.stale)
    assert await guarded.ask("r-1", **sale) == com.LINE_STATUS_RESERVED


async def test_bad_requests_are_told_all_that_is_wrong(guarded: Guarded) -> None:
    bad = risk.FreezeRequest(buyer_id="a b", length=Duration(nanos=5))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await guarded.risk.Freeze(bad)
    assert fields_of(refused.value) == ["buyer_id", "length", "reason"]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await guarded.risk.Unfreeze(risk.UnfreezeRequest(reason="x" * 513))
    assert fields_of(refused.value) == ["buyer_id", "reason"]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await guarded.risk.GetProfile(risk.GetProfileRequest())
    assert fields_of(refused.value) == ["buyer_id"]


async def test_a_shard_that_is_away_is_said_to_be(guarded: Guarded) -> None:
    guarded.lines.failures[k.FREEZE] = [Outcome.RETRY]
    answer = await guarded.risk.Freeze(risk.FreezeRequest(buyer_id="u-1", reason="why"))
    assert (answer.status, answer.HasField("profile")) == (com.LINE_STATUS_RETRY, False)
    assert answer.HasField("retry_after")
    guarded.lines.failures[k.GET_PROFILE] = [Outcome.UNKNOWN]
    read = await guarded.risk.GetProfile(risk.GetProfileRequest(buyer_id="u-1"))
    assert (read.status, read.HasField("age")) == (com.LINE_STATUS_UNKNOWN, False)


async def test_a_profile_is_shown_as_it_stands(guarded: Guarded) -> None:
    whole = await guarded.risk.GetProfile(risk.GetProfileRequest(buyer_id="u-1"))
    assert whole.status == com.LINE_STATUS_FOUND
    assert whole.profile == risk.RiskProfile(buyer_id="u-1", score=100)
    assert whole.age.source == com.DATA_SOURCE_SHARD
    frozen = await guarded.freeze("u-1")
    assert (frozen.frozen, frozen.freeze_cause) == (True, risk.FREEZE_CAUSE_OPERATOR)
    assert (frozen.freeze_caller, frozen.freeze_reason) == ("default", "stolen cards")
    assert frozen.freeze_end_time.seconds == guarded.clock.now_ms() // 1_000 + 86_400
    read = await guarded.risk.GetProfile(risk.GetProfileRequest(buyer_id="u-1"))
    assert read.profile == frozen


def test_a_set_of_one_shard_says_nothing_of_another() -> None:
    one, other = RiskSet(), RiskSet()
    one.take((Outcome.FOUND, True, 5, 5, False, (("ann", 9, 0),)), 1.0)
    other.take((Outcome.FOUND, True, 5, 5, False, ()), 1.0)
    assert (list(one.rows), list(other.rows)) == (["ann"], [])

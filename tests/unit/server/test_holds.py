"""Telling the commission programme of freezes: in their order, and for who joins it later."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from stockray_proto.v1 import commission_service_pb2 as commission
from stockray_proto.v1 import commission_service_pb2_grpc, risk_service_pb2_grpc
from stockray_proto.v1 import common_pb2 as com
from stockray_proto.v1 import risk_service_pb2 as risk

from actors.core import risk_commands as k
from actors.core.commission_commands import HOLD_DISTRIBUTOR
from actors.core.commission_state import Distributor
from actors.core.identity import PROGRAMME_SLOT
from actors.core.outcomes import Outcome
from tests.helpers.core_lines import CoreLines
from tests.unit.server.conftest import Gateway, serving

HOUR_MS = 3_600_000


class Office:
    """A gateway whose operators freeze buyers, and the programme behind it."""

    def __init__(self, gateway: Gateway) -> None:
        self.lines = gateway.lines
        self.holds = gateway.services.holds
        self.risk: Any = risk_service_pb2_grpc.RiskServiceStub(gateway.channel)
        self.programme: Any = commission_service_pb2_grpc.CommissionServiceStub(gateway.channel)

    async def freeze(self, buyer_id: str) -> None:
        request = risk.FreezeRequest(buyer_id=buyer_id, reason="stolen cards")
        assert (await self.risk.Freeze(request)).status == com.LINE_STATUS_APPLIED

    async def unfreeze(self, buyer_id: str) -> None:
        request = risk.UnfreezeRequest(buyer_id=buyer_id, reason="no fraud")
        assert (await self.risk.Unfreeze(request)).status == com.LINE_STATUS_APPLIED

    def distributor(self, distributor_id: str) -> Distributor:
        programme = self.lines.state.slot(PROGRAMME_SLOT).programme
        assert programme is not None
        held = programme.distributors.get(distributor_id)
        assert held is not None
        return held


@pytest.fixture
async def office(lines: CoreLines, front_kind: str) -> AsyncIterator[Office]:
    async with serving(lines) as gateway:
        yield Office(gateway)


async def test_the_programme_holds_what_a_frozen_distributor_earns(office: Office) -> None:
    lines, holds, stub = office.lines, office.holds, office.programme
    applied = await stub.ApplyDistributor(commission.ApplyDistributorRequest(distributor_id="ann"))
    assert applied.status == com.LINE_STATUS_APPLIED
    for buyer_id in ("ann", "nobody"):
        await office.freeze(buyer_id)
    assert {chore[2] for chore in lines.chores()} == {"ann", "nobody"}
    for chore in lines.chores():
        assert await holds.finish(chore)
    assert lines.chores() == ()
    held = office.distributor("ann")
    assert held.held_until_ms == office.lines.clock.now_ms() + 24 * HOUR_MS
    await office.unfreeze("ann")
    (chore,) = lines.chores()
    lines.failures[HOLD_DISTRIBUTOR] = [Outcome.UNKNOWN]
    assert not await holds.finish(chore)
    assert lines.chores() == (chore,)
    assert await holds.finish(chore)
    assert (held.held_until_ms, lines.chores()) == (0, ())


async def test_a_hold_that_comes_late_undoes_no_later_one(office: Office) -> None:
    lines, holds, stub = office.lines, office.holds, office.programme
    request = commission.ApplyDistributorRequest(distributor_id="ann")
    await stub.ApplyDistributor(request)
    told = []
    for _ in range(2):
        await office.freeze("ann")
        told.extend(lines.chores())
        await office.unfreeze("ann")
        told.extend(lines.chores())
    await office.freeze("ann")
    (newest,) = lines.chores()
    assert await holds.finish(newest)
    for chore in told:
        assert await holds.finish(chore), "there is nothing more to be done about it"
    held = office.distributor("ann")
    assert (held.held_until_ms, lines.chores()) == (newest[3], ())


async def test_a_hold_that_comes_late_finds_a_new_distributor_who_knows_better(
    office: Office,
) -> None:
    lines, holds, stub = office.lines, office.holds, office.programme
    await office.freeze("ann")
    (late,) = lines.chores()
    await office.unfreeze("ann")
    (chore,) = lines.chores()
    assert await holds.finish(chore)
    request = commission.ApplyDistributorRequest(distributor_id="ann")
    assert (await stub.ApplyDistributor(request)).status == com.LINE_STATUS_APPLIED
    assert await holds.finish(late)
    read = commission.GetDistributorRequest(distributor_id="ann")
    assert not (await stub.GetDistributor(read)).distributor.HasField("held_until_time")
    assert lines.chores() == ()


async def test_who_becomes_a_distributor_while_frozen_is_held_from_the_start(
    office: Office,
) -> None:
    lines, holds, stub = office.lines, office.holds, office.programme
    await office.freeze("ann")
    (chore,) = lines.chores()
    assert await holds.finish(chore)
    assert lines.chores() == (), "there was nobody to hold"
    request = commission.ApplyDistributorRequest(distributor_id="ann")
    lines.failures[k.GET_PROFILE] = [Outcome.RETRY]
    assert (await stub.ApplyDistributor(request)).status == com.LINE_STATUS_UNKNOWN
    lines.failures[HOLD_DISTRIBUTOR] = [Outcome.RETRY]
    assert (await stub.ApplyDistributor(request)).status == com.LINE_STATUS_UNKNOWN
    again = await stub.ApplyDistributor(request)
    assert again.status == com.LINE_STATUS_FOUND
    frozen_until_ms = office.lines.clock.now_ms() + 24 * HOUR_MS
    assert again.distributor.held_until_time.ToMilliseconds() == frozen_until_ms
    await office.unfreeze("ann")
    (chore,) = lines.chores()
    assert await holds.finish(chore)
    read = commission.GetDistributorRequest(distributor_id="ann")
    assert not (await stub.GetDistributor(read)).distributor.HasField("held_until_time")
    honest = await stub.ApplyDistributor(commission.ApplyDistributorRequest(distributor_id="bob"))
    assert honest.status == com.LINE_STATUS_APPLIED
    assert not honest.distributor.HasField("held_until_time")

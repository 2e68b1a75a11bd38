"""Risk by the client: profiles, freezes, and their commands."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import stockray
from stockray import AsyncClient, FreezeCause, Status
from stockray.cli import _app
from stockray_proto.v1 import common_pb2
from stockray_proto.v1 import risk_service_pb2 as wire
from typer.testing import CliRunner, Result

from tests.unit.client.scripted import ScriptedServer

UNTIL = datetime(2026, 11, 12, tzinfo=UTC)


def profile(buyer_id: str) -> wire.RiskProfile:
    """Of somebody whom an operator froze."""
    found = wire.RiskProfile(
        buyer_id=buyer_id,
        score=80,
        frozen=True,
        freeze_cause=wire.FREEZE_CAUSE_OPERATOR,
        freeze_caller="ops",
        freeze_reason="stolen cards",
        failed_payment_count=2,
    )
    found.freeze_end_time.FromDatetime(UNTIL)
    return found


async def freeze(request: wire.FreezeRequest, context: Any) -> wire.FreezeResponse:
    return wire.FreezeResponse(
        status=common_pb2.LINE_STATUS_APPLIED, profile=profile(request.buyer_id)
    )


async def unfreeze(request: wire.UnfreezeRequest, context: Any) -> wire.UnfreezeResponse:
    whole = wire.RiskProfile(buyer_id=request.buyer_id, score=100)
    return wire.UnfreezeResponse(status=common_pb2.LINE_STATUS_APPLIED, profile=whole)


async def show(request: wire.GetProfileRequest, context: Any) -> wire.GetProfileResponse:
    return wire.GetProfileResponse(
        status=common_pb2.LINE_STATUS_FOUND, profile=profile(request.buyer_id)
    )


def scripted(server: ScriptedServer) -> ScriptedServer:
    server.on("Freeze", freeze)
    server.on("Unfreeze", unfreeze)
    server.on("GetProfile", show)
    return server


async def test_a_freeze_is_asked_for_and_told_as_it_stands(server: ScriptedServer) -> None:
    scripted(server)
    async with AsyncClient(server.address) as client:
        frozen = await client.freeze("u-7", reason="stolen cards", length=timedelta(hours=2))
        assert frozen.ok
        assert frozen.profile == stockray.RiskProfile(
            buyer_id="u-7",
            score=80,
            frozen=True,
            freeze_end_time=UNTIL,
            freeze_cause=FreezeCause.OPERATOR,
            freeze_caller="ops",
            freeze_reason="stolen cards",
            failed_payment_count=2,
        )
        assert (await client.get_profile("u-7")).profile == frozen.profile
        freed = await client.unfreeze("u-7", reason="no fraud")
        assert freed.profile == stockray.RiskProfile(buyer_id="u-7", score=100)
        await client.freeze("u-8", reason="why")
    first, second = server.calls["Freeze"]
    assert (first.length.ToTimedelta(), first.reason) == (timedelta(hours=2), "stolen cards")
    assert not second.HasField("length")
    assert server.calls["Unfreeze"] == [wire.UnfreezeRequest(buyer_id="u-7", reason="no fraud")]


async def test_a_shard_that_is_away_is_asked_again(server: ScriptedServer) -> None:
    async def away_once(request: wire.FreezeRequest, context: Any) -> wire.FreezeResponse:
        if len(server.calls["Freeze"]) == 1:
            return wire.FreezeResponse(status=common_pb2.LINE_STATUS_RETRY)
        return await freeze(request, context)

    server.on("Freeze", away_once)
    async with AsyncClient(server.address) as client:
        assert (await client.freeze("u-7", reason="why")).status is Status.APPLIED
    assert len(server.calls["Freeze"]) == 2


def run(server: ScriptedServer, *words: str) -> Result:
    return CliRunner().invoke(_app.build(), ["risk", *words, "--address", server.address])


def test_the_command_line_shows_freezes_and_unfreezes(threaded: ScriptedServer) -> None:
    scripted(threaded)
    shown = run(threaded, "show", "u-7", "-o", "json")
    assert shown.exit_code == 0
    told = json.loads(shown.stdout)["profile"]
    assert (told["buyer_id"], told["score"], told["frozen"]) == ("u-7", 80, True)
    frozen = run(threaded, "freeze", "u-7", "--reason", "stolen cards", "--hours", "2")
    assert frozen.exit_code == 0
    (asked,) = threaded.calls["Freeze"]
    assert (asked.buyer_id, asked.length.seconds) == ("u-7", 7_200)
    assert run(threaded, "freeze", "u-7").exit_code == 2
    assert run(threaded, "unfreeze", "u-7", "--reason", "no fraud").exit_code == 0
    assert threaded.calls["Unfreeze"][0].reason == "no fraud"

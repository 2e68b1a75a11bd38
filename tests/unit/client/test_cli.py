"""The command line: data on stdout alone, and exit codes that say what happened."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from stockray.cli import _app
from stockray.cli._campaigns import parse_instant, parse_line
from stockray_proto.v1 import common_pb2, inventory_service_pb2, ops_service_pb2
from stockray_proto.v1 import seckill_service_pb2 as seckill
from typer.testing import CliRunner, Result

from tests.unit.client.scripted import ScriptedServer, answered, refuse


@pytest.fixture
def no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the service distribution were not installed."""
    monkeypatch.setattr(_app, "entry_points", lambda group: ())


def run(server: ScriptedServer, *words: str) -> Result:
    return CliRunner().invoke(_app.build(), [*words, "--address", server.address])


pytestmark = pytest.mark.usefixtures("no_plugins")


def status_of(health: Any) -> Any:
    async def answer(request: Any, context: Any) -> Any:
        response = ops_service_pb2.GetClusterStatusResponse(health=health, version="9")
        response.warnings.append("one standby lags")
        return response

    return answer


@pytest.mark.parametrize(
    ("health", "code"),
    [
        (ops_service_pb2.CLUSTER_HEALTH_OK, 0),
        (ops_service_pb2.CLUSTER_HEALTH_DEGRADED, 3),
        (ops_service_pb2.CLUSTER_HEALTH_FAILED, 1),
    ],
)
def test_status_exits_with_the_clusters_health(
    threaded: ScriptedServer, health: Any, code: int
) -> None:
    threaded.on("GetClusterStatus", status_of(health))
    result = run(threaded, "status", "-o", "json")

    assert result.exit_code == code
    assert json.loads(result.stdout)["version"] == "9"
    assert "one standby lags" in result.stderr


def test_an_unreachable_service_exits_with_4_and_prints_no_data() -> None:
    words = ["status", "--address", "127.0.0.1:1", "--timeout-ms", "100"]
    result = CliRunner().invoke(_app.build(), words)

    assert result.exit_code == 4
    assert result.stdout == ""
    assert "127.0.0.1:1 gave no answer" in result.stderr


def test_a_grab_prints_its_result_and_a_refusal_exits_with_1(threaded: ScriptedServer) -> None:
    words = ("grab", "double-11", "sku-1001", "--buyer", "u-7", "-o", "json")
    won = run(threaded, *words)

    async def sold_out(request: Any, context: Any) -> Any:
        results = [answered(request.lines[0], common_pb2.LINE_STATUS_SOLD_OUT)]
        return seckill.GrabManyResponse(results=results)

    threaded.on("GrabMany", sold_out)
    lost = run(threaded, *words)

    assert (won.exit_code, json.loads(won.stdout)["reservation_id"]) == (0, "r-u-7")
    assert (lost.exit_code, json.loads(lost.stdout)["status"]) == (1, "SOLD_OUT")


def test_all_violations_are_told_and_exit_with_2(threaded: ScriptedServer) -> None:
    async def fail(request: Any, context: Any) -> Any:
        await refuse(
            context,
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_FIELD",
            violations=[("sku.sku_id", "is bad"), ("sku.name", "is long")],
        )

    threaded.on("PutSku", fail)
    result = run(threaded, "sku", "put", "x y")

    assert result.exit_code == 2
    assert "sku.sku_id: is bad" in result.stderr
    assert "sku.name: is long" in result.stderr


def test_a_campaign_is_put_from_options(threaded: ScriptedServer) -> None:
    async def put(request: Any, context: Any) -> Any:
        return seckill.PutCampaignResponse(
            status=common_pb2.LINE_STATUS_APPLIED, campaign=request.campaign
        )

    threaded.on("PutCampaign", put)
    words = "campaign put double-11 --line a:b:100:9900:2 --currency CNY --end +2h --reason why"
    result = run(threaded, *words.split(), "-o", "json")
    sent = threaded.calls["PutCampaign"][0]

    assert result.exit_code == 0, result.stderr
    assert sent.reason == "why"
    assert sent.campaign.lines[0].sku_id == "a:b"
    window = sent.campaign.end_time.ToDatetime() - sent.campaign.start_time.ToDatetime()
    assert window == timedelta(hours=2)
    assert json.loads(result.stdout)["campaign"]["lines"][0]["limit_per_buyer"] == 2


def test_ending_a_campaign_needs_a_yes(threaded: ScriptedServer) -> None:
    async def end(request: Any, context: Any) -> Any:
        return seckill.EndCampaignResponse(status=common_pb2.LINE_STATUS_APPLIED)

    threaded.on("EndCampaign", end)
    refused = run(threaded, "campaign", "end", "double-11")
    assert refused.exit_code == 2
    assert threaded.calls["EndCampaign"] == []

    assert run(threaded, "campaign", "end", "double-11", "--yes").exit_code == 0


@pytest.mark.parametrize("form", ["table", "json", "jsonl"])
def test_a_list_is_shown_in_every_format(threaded: ScriptedServer, form: str) -> None:
    async def page(request: Any, context: Any) -> Any:
        response = inventory_service_pb2.ListStockResponse()
        for name in ("s-1", "s-2"):
            response.stocks.add(sku_id=name, available_count=12_345)
        return response

    threaded.on("ListStock", page)
    result = run(threaded, "stock", "list", "-o", form)

    assert result.exit_code == 0
    assert result.stderr == ""
    if form == "json":
        assert [row["available_count"] for row in json.loads(result.stdout)] == [12_345] * 2
    elif form == "jsonl":
        assert [json.loads(line)["sku_id"] for line in result.stdout.splitlines()] == ["s-1", "s-2"]
    else:
        assert "12,345" in result.stdout


@pytest.mark.parametrize("command", _app.OF_THE_SERVICE)
def test_a_service_command_says_what_to_install(command: str) -> None:
    result = CliRunner().invoke(_app.build(), [command, "--any", "option"])

    assert result.exit_code == 1
    assert result.stdout == ""
    assert "stockray-server" in result.stderr


def test_a_broken_plugin_does_not_stop_the_other_commands(
    threaded: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        value = "somewhere:register"

        def load(self) -> Any:
            raise RuntimeError("broken")

    monkeypatch.setattr(_app, "entry_points", lambda group: (Broken(),))
    threaded.on("GetClusterStatus", status_of(ops_service_pb2.CLUSTER_HEALTH_OK))

    assert run(threaded, "status").exit_code == 0
    assert "somewhere:register" in CliRunner().invoke(_app.build(), ["serve"]).stderr


def test_without_typer_the_command_says_what_to_install() -> None:
    program = (
        "import importlib.util as u, sys; found = u.find_spec;"
        "u.find_spec = lambda name, *more: None if name == 'typer' else found(name, *more);"
        "from stockray.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert "stockray[cli]" in done.stderr


def test_instants_and_lines_are_read_from_words() -> None:
    now = datetime(2026, 11, 11, tzinfo=UTC)
    assert parse_instant("+90m", now) == now + timedelta(minutes=90)
    assert parse_instant("2026-11-11T10:00:00+08:00", now) == now + timedelta(hours=2)
    with pytest.raises(ValueError, match="--line"):
        parse_line("sku:ten")

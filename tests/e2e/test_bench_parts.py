"""The benchmark's parts by themselves: processes, echoes, idle connections, ratios."""

import asyncio
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from actors.core.identity import request_key, slot_of
from server.bench import idle as bench_idle
from server.bench.accrual import Ledger, balance, ledger_of
from server.bench.certificates import make_certificate
from server.bench.generators import Generators, has_h2load, measure_h2load
from server.bench.idle import idle_connections
from server.bench.processes import Watch, open_files_max, resident_bytes, usage_of
from server.bench.result import AckedSales, BenchOptions, BenchResult, CannotMeasure, Measured
from server.bench.rows import Row, chosen, ratios
from server.echo import FRONTS, EchoChild
from server.idle import allow_files
from server.load import Load, LoadOptions
from server.load_calls import ECHOED
from server.sale import CALLER
from server.verify import Ack
from tests.helpers.services import require


def row(name: str, rate: float) -> Measured:
    """A row with nothing but a rate."""
    return Measured(name=name, rate_per_s=rate, p50_ms=None, p99_ms=None, p99_9_ms=None)


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_each_echo_brings_back_what_the_generator_sends(
    front: str, tls: bool, tmp_path: Path
) -> None:
    require(not tls or shutil.which("openssl") is not None, "openssl is missing")
    certificate = make_certificate(tmp_path) if tls else None
    ca = certificate.certificate if certificate else ""
    with EchoChild(front, certificate) as echo:
        load = Load(
            LoadOptions(
                target=echo.target, kind="echo", ca=ca, in_flight=8, connections=2, calls_max=50
            )
        )
        await load.open()
        tally, _ = await load.run(60)
        load.close()
    assert tally.statuses == {ECHOED: 50}
    assert not tally.errors


async def test_several_generators_have_ids_of_their_own_and_their_calls_add_up() -> None:
    acked = AckedSales()
    with EchoChild("nghttp2") as echo:
        options = LoadOptions(
            target=echo.target, kind="echo", in_flight=5, connections=2, seconds=0.3, warm_up_s=0
        )
        found = await Generators(2, acked).measure("both", options, {"server": [echo.pid]})
    assert found.rate_per_s > 0
    assert found.cpu_us_per_line.keys() == {"client", "server"}
    assert found.cpu_us_per_line["client"] > 0, "a generator's CPU is read while it is there"
    assert found.errors == {}
    assert len(acked) == 0, "an echo sells nothing"


async def test_a_generator_without_a_target_ends_the_row() -> None:
    options = LoadOptions(target="127.0.0.1:1", seconds=0.1)
    with pytest.raises(CannotMeasure, match=r"127\.0\.0\.1:1"):
        await Generators(1, AckedSales()).measure("nobody", options, {})


async def test_h2load_measures_the_same_echo(tmp_path: Path) -> None:
    require(has_h2load(), "h2load is not installed: run tools/services.sh h2load")
    with EchoChild("grpcio") as echo:
        options = LoadOptions(target=echo.target, kind="echo", in_flight=8, seconds=1)
        found = await measure_h2load("echo", options, {"server": [echo.pid]}, tmp_path)
    assert found.rate_per_s > 0
    assert found.p50_ms is None
    assert found.cpu_us_per_line["server"] > 0


async def test_an_h2load_that_reaches_nobody_is_no_row(tmp_path: Path) -> None:
    require(has_h2load(), "h2load is not installed: run tools/services.sh h2load")
    options = LoadOptions(target="127.0.0.1:1", kind="echo", in_flight=1, seconds=1)
    with pytest.raises(CannotMeasure, match="h2load"):
        await measure_h2load("echo", options, {}, tmp_path)


async def test_idle_connections_stand_until_the_end_and_beside_calls() -> None:
    with EchoChild("nghttp2") as echo:
        async with idle_connections(echo.target, 150, [echo.pid], "") as held:
            load = Load(LoadOptions(target=echo.target, kind="echo", in_flight=4, calls_max=20))
            await load.open()
            tally, _ = await load.run(60)
            load.close()
    assert held.alive_at_end == 150
    assert tally.statuses == {ECHOED: 20}


async def test_idle_connections_that_their_server_dropped_are_not_counted_as_held() -> None:
    with EchoChild("nghttp2") as echo:
        async with idle_connections(echo.target, 20, [echo.pid], "") as held:
            os.kill(echo.pid, 9)
            # The kernel closes what the dead server had open before it says that it is dead.
            await asyncio.to_thread(os.waitid, os.P_PID, echo.pid, os.WEXITED | os.WNOWAIT)
    assert held.alive_at_end == 0


async def test_too_few_open_files_in_a_gateway_are_said_before_anything_is_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bench_idle, "open_files_max", lambda pid: 1_024)
    with pytest.raises(CannotMeasure, match="1024 open files"):
        async with idle_connections("127.0.0.1:1", 1_000, [os.getpid()], ""):
            pytest.fail("opened")


def test_the_limit_of_open_files_is_raised_as_far_as_it_may_be() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        assert allow_files(100)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == before[1]
        assert not allow_files(before[1] + 1)
        assert open_files_max(os.getpid()) == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_process_that_only_counts_is_the_limit_and_one_that_waits_is_not() -> None:
    code = "print(flush=True)\nwhile True: pass"
    busy = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    idle = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert busy.stdout is not None
        busy.stdout.readline()
        watch = Watch({"shard": [busy.pid], "client": [idle.pid], "gone": [2**22 + 1]})
        before = usage_of(busy.pid).cpu_s
        while usage_of(busy.pid).cpu_s < before + 0.2:
            pass
        shares = watch.shares()
        assert resident_bytes(busy.pid) > 1_000_000
    finally:
        for process in (busy, idle):
            process.kill()
            process.communicate()
    assert shares.limit == "shard"
    assert shares.wanted["client"] < shares.wanted["shard"]
    assert shares.cpu_s["shard"] >= 0.2
    assert shares.cpu_s["gone"] == shares.wanted["gone"] == 0


def test_acked_sales_are_the_acks_of_the_ids_that_were_sent() -> None:
    acked = AckedSales()
    acked.add("g1", [(0, 2), (5, 6)])
    acked.add("g2", [])
    ids = ["g1-000000000000", "g1-000000000001", "g1-000000000005"]
    slot = slot_of("bench")
    assert list(acked) == [Ack(slot, request_key(CALLER, one), True, one) for one in ids]
    assert len(acked) == 3


def test_rows_are_chosen_by_the_beginnings_of_their_names() -> None:
    async def measure() -> Measured:
        return row("never", 0.0)

    rows = [Row(name, "", measure) for name in ("echo_a", "echo_b", "grab_1", "grab_2")]
    assert chosen(rows, ()) == rows
    assert [one.name for one in chosen(rows, ("grab_2", "echo"))] == ["echo_a", "echo_b", "grab_2"]
    with pytest.raises(CannotMeasure, match="'tea'"):
        chosen(rows, ("grab", "tea"))


def test_a_ledger_that_lacks_an_order_or_a_cent_is_no_row() -> None:
    wanted = ledger_of([4_900, 333])
    assert wanted == Ledger(2, 4, -365, 365, 0), "245 + 98 and 16 + 6, rounded down"
    before = Ledger(5, 10, -50, 40, 10)
    after = Ledger(7, 14, -415, 405, 10)
    balance(wanted, after.since(before))
    for wrong in (after._replace(orders=6), after._replace(frozen_minor=404)):
        with pytest.raises(CannotMeasure, match="do not balance"):
            balance(wanted, wrong.since(before))


def test_ratios_are_to_the_faster_measure_of_the_floor() -> None:
    rates = {
        "echo_grpcio_64": 100.0,
        "echo_grpcio_64_h2load": 200.0,
        "echo_grpcio_1024": 50.0,
        "echo_nghttp2_64": 4_000.0,
        "grab_unary_64": 1_000.0,
        "grab_unary_1024": 2_000.0,
        "grab_many": 10_000.0,
        "client_gathered": 5_000.0,
        "grab_aio": 100.0,
    }
    result = BenchResult(results=[row(name, rate) for name, rate in rates.items()])
    cpu = {
        "echo_grpcio_64": {"client": 900, "server": 180},
        "echo_grpcio_64_h2load": {"client": 9, "server": 160},
        "echo_nghttp2_64": {"client": 7, "server": 8},
        "grab_unary_64": {"client": 90, "gateway": 40, "shard": 20, "projector": 100},
    }
    for one in result.results:
        one.cpu_us_per_line = {k: float(v) for k, v in cpu.get(one.name, {}).items()}
    assert ratios(result, BenchOptions()) == {
        "grab_to_echo": 5,
        "grab_many_to_echo": 50,
        "client_to_echo": 25,
        "grab_to_echo_64": 5,
        "grab_to_echo_1024": 40,
        "echo_nghttp2_to_echo_64": 20,
        "grab_to_echo_64_by_cpu": 4,
        "echo_nghttp2_to_echo_64_by_cpu": 20,
        "grab_aio_to_echo": 0.5,
    }
    json.dumps(result.as_data())

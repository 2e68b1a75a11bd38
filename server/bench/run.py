"""A whole benchmark: stores, a service with stock, the rows, the peers, the books at the end.

Every request id and buyer is unique, the invariants are verified, live and on what is left on disk,
and every sale that a generator was told of is looked for. Numbers of different runs say little on a
shared machine; the ratios of one run are what counts.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import grpc
import grpc.aio
from stockray import AsyncClient, Campaign, CampaignLine, ClientOptions, Sku

from actors.core.identity import slot_of
from actors.hosting import set_aside
from server.bench.certificates import make_certificate
from server.bench.cold import measure_cold_starts
from server.bench.result import (
    CAMPAIGN,
    SKU,
    BenchOptions,
    BenchResult,
    CannotMeasure,
    Measured,
    Say,
)
from server.bench.rows import Rows, Service
from server.children import ServeChild
from server.demo import private_stores, until_settled, upgrade_database
from server.echo import Certificate
from server.idle import SPARE_FILES, allow_files
from server.live import replica_claims
from server.peers import measure_mysql, measure_redis_lua
from server.settings import Settings, load
from server.verifying import verify_stores

UNITS = 1_000_000_000


def run_bench(options: BenchOptions, say: Say) -> BenchResult:
    """The whole run, on a temporary directory. Raises CannotMeasure, CannotStart, ChildFailed,
    ServerFailedError, SettingsError or StorageError when it cannot run."""
    directory = Path(tempfile.mkdtemp(prefix="stockray-bench-"))
    try:
        with _stores(options, directory) as flags:
            return _run(options, directory, flags, say)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _stores(options: BenchOptions, directory: Path) -> Iterator[dict[str, str]]:
    if not options.private_services:
        yield {}
        return
    with private_stores(directory) as (journal, database):
        yield {"journal": journal, "database": database}


def _run(options: BenchOptions, directory: Path, flags: dict[str, str], say: Say) -> BenchResult:
    own = {"data_dir": directory / "data", "front": options.front or None}
    settings = load({**own, **flags}, environment={}).settings
    if flags:
        upgrade_database(settings)
    _allow_files(options)
    certificate = make_certificate(directory) if options.tls else None
    run = _Run(
        options=options, settings=settings, directory=directory, certificate=certificate, say=say
    )
    arguments, log = run.serve_arguments(flags), directory / "serve.log"
    with ServeChild(arguments, log=log) as child:
        say("starting the service")
        child.wait_ready()
        asyncio.run(run.measure(child))
        child.terminate()
    result = run.result
    if options.cold_starts:
        result.cold_start_s = measure_cold_starts(
            arguments,
            starts=options.cold_starts,
            log=log,
            logs=settings.log_directory,
            campaigns=run.campaigns,
            ca=run.ca,
            numbers=run.numbers,
            say=say,
        )
    _measure_peers(options, directory, result, say)
    report = verify_stores(settings)
    result.invariants = report.as_data()["invariants"]
    result.ok &= report.ok
    return result


def _allow_files(options: BenchOptions) -> None:
    """Before anything is started, since children inherit the limit."""
    wanted = options.idle_connections + 2 * SPARE_FILES
    if not allow_files(wanted):
        raise CannotMeasure(
            f"--idle-connections {options.idle_connections} needs {wanted} open files in one "
            "process: raise the hard limit (ulimit -Hn)"
        )


class _Run:
    """One service, measured."""

    def __init__(
        self,
        *,
        options: BenchOptions,
        settings: Settings,
        directory: Path,
        certificate: Certificate | None,
        say: Say,
    ) -> None:
        self.result = BenchResult(setting=_setting(options, settings))
        self._options = options
        self._settings = settings
        self._directory = directory
        self._certificate = certificate
        self.ca = Path(certificate.certificate).read_bytes() if certificate else None
        self.campaigns = [_campaign_on(shard, options.shards) for shard in range(options.shards)]
        self.numbers = count()
        self._say = say

    def serve_arguments(self, flags: dict[str, str]) -> list[str]:
        """Of `stockray serve`; by default one shard, so that one primary decides on everything."""
        options = self._options
        arguments = [
            *("--data-dir", str(self._settings.data_dir), "--listen", "127.0.0.1:0"),
            *("--shards", str(options.shards), "--gateways", str(options.gateways)),
            *("--front", self._settings.front),
        ]
        for name, value in flags.items():
            arguments += [f"--{name}", value]
        if self._certificate:
            arguments += ["--tls-certificate", self._certificate.certificate]
            arguments += ["--tls-key", self._certificate.key]
        return arguments

    async def measure(self, child: ServeChild) -> None:
        """All rows, and what the live service says of itself afterwards."""
        # Full collections of this process would stand in every row as latency of the service.
        set_aside()
        own = ClientOptions(tls=self.ca is not None, tls_ca_pem=self.ca)
        async with (
            AsyncClient(child.listen, options=own) as client,
            _channel(child.listen, self.ca) as bare,
        ):
            await _prepare(client, self.campaigns)
            service = Service(
                listen=child.listen,
                serve_pid=child.pid,
                client=client,
                channel=bare,
                directory=self._directory,
                certificate=self._certificate,
            )
            rows = Rows(
                self._options,
                service,
                self.result,
                self._say,
                campaigns=self.campaigns,
                logs=self._settings.log_directory,
                numbers=self.numbers,
            )
            await rows.measure()
            await until_settled(client)
            self._say(f"verifying, with {len(rows.acked):,} sales that generators were told of")
            claims = await replica_claims(client)
        self.result.acks_checked = len(rows.acked)
        report = await asyncio.to_thread(
            verify_stores, self._settings, claims=claims, acks=rows.acked
        )
        self.result.ok = report.ok


def _setting(options: BenchOptions, settings: Settings) -> dict[str, object]:
    return {
        "stores": "Redis, MariaDB" if options.private_services else "SQLite",
        "front": settings.front,
        "gateways": options.gateways,
        "shards": options.shards,
        "generators": options.generators,
        "tls": options.tls,
        "seconds": options.seconds,
        "repeats": options.repeats,
        "load_before": round(os.getloadavg()[0], 1),
    }


def _channel(target: str, ca: bytes | None) -> grpc.aio.Channel:
    if ca is None:
        return grpc.aio.insecure_channel(target)
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(ca))


def _campaign_on(shard: int, shards: int) -> str:
    """The campaign of a shard; the benchmark's own on whichever shard it falls."""
    first = slot_of(CAMPAIGN) % shards
    if not shard:
        return CAMPAIGN
    names = (f"{CAMPAIGN}-{number}" for number in count())
    return next(name for name in names if slot_of(name) % shards == (first + shard) % shards)


async def _prepare(client: AsyncClient, campaigns: Sequence[str]) -> None:
    """One SKU with stock for ever, in campaigns with a limit per buyer."""
    now = datetime.now(UTC)
    sku = Sku(sku_id=SKU, buffer_bps=0, list_price_minor=9_900, currency_code="CNY")
    (await client.put_sku(sku)).raise_for_status()
    (await client.receive_stock(SKU, quantity=UNITS)).raise_for_status()
    line = CampaignLine(
        sku_id=SKU,
        allocation_count=UNITS // len(campaigns),
        list_price_minor=9_900,
        unit_price_minor=4_900,
        limit_per_buyer=2,
    )
    for campaign_id in campaigns:
        campaign = Campaign(
            campaign_id=campaign_id,
            currency_code="CNY",
            start_time=now - timedelta(seconds=1),
            end_time=now + timedelta(hours=5),
            payment_window=timedelta(hours=1),
            lines=(line,),
        )
        (await client.put_campaign(campaign)).raise_for_status()


def _measure_peers(options: BenchOptions, directory: Path, result: BenchResult, say: Say) -> None:
    """What people do today, alone on the machine as the service was."""
    gathered, many = result.rate("client_gathered"), result.rate("grab_many")
    unary = result.rate(f"grab_unary_{options.callers}")
    for peer in options.against:
        say(f"{peer}: {options.seconds:g} s")
        if peer == "redis-lua":
            found = measure_redis_lua(directory, callers=options.callers, seconds=options.seconds)
        else:
            found = measure_mysql(directory, seconds=options.seconds)
        rate = round(found.sold / found.seconds, 1)
        result.results.append(
            Measured(
                name=peer,
                rate_per_s=rate,
                p50_ms=found.latency_us.get_value_at_percentile(50) / 1000,
                p99_ms=found.latency_us.get_value_at_percentile(99) / 1000,
                p99_9_ms=found.latency_us.get_value_at_percentile(99.9) / 1000,
            )
        )
        name = peer.replace("-", "_")
        result.ratios[f"client_to_{name}"] = round(gathered / rate, 2)
        result.ratios[f"grab_many_to_{name}"] = round(many / rate, 2)
        result.ratios[f"grab_to_{name}"] = round(unary / rate, 2)

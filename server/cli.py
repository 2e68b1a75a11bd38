"""The service's commands, added to `stockray` through the entry point `stockray.commands`.

Data goes to standard output and nothing else does; progress and messages go to standard error.
Exit codes: 0 ok, 1 failed, 2 usage, 3 degraded, 4 a store or the service cannot be reached.
"""

import asyncio
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.table import Table
from stockray import AsyncClient, StockrayError

from persistence.errors import StorageError
from persistence.open import open_sink
from persistence.private import ServerFailedError
from server import cli_recovery
from server.bench.result import CROWD, PEERS, BenchOptions, BenchResult, CannotMeasure
from server.bench.run import run_bench
from server.bootstrap import CannotStart
from server.children import ChildFailed
from server.cli_chaos import chaos
from server.cli_options import (
    EXIT_DEGRADED,
    EXIT_FAILED,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    ConfigOption,
    DatabaseOption,
    DataDirOption,
    JournalOption,
    Output,
    OutputOption,
    fail,
    messages,
    settings_of,
)
from server.cli_soak import soak
from server.demo import DemoOptions, run_demo
from server.doctor import Verdict, as_data, examine, worst
from server.live import replica_claims
from server.sale import Plan
from server.settings import SECRETS, Settings, SettingsError
from server.show import SaleProgress, show_bench, show_books, show_findings, show_report
from server.verify import ReplicaClaim
from server.verifying import verify_stores

LOOK_EVERY_S = 0.5


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("serve")(serve)
    app.command("verify")(verify)
    app.command("demo")(demo)
    app.command("bench")(bench)
    app.command("chaos")(chaos)
    app.command("soak")(soak)
    app.command("doctor")(doctor)
    cli_recovery.register(app)
    database = typer.Typer(help="The SQL view's schema.", no_args_is_help=True)
    database.command("upgrade")(upgrade)
    database.command("current")(current)
    app.add_typer(database, name="db")
    config = typer.Typer(help="Settings.", no_args_is_help=True)
    config.command("show")(show_config)
    app.add_typer(config, name="config")


def serve(
    *,
    data_dir: DataDirOption = None,
    journal: JournalOption = None,
    database: DatabaseOption = None,
    ray_address: Annotated[
        str | None, typer.Option(help="Ray to join; left out: a local one.")
    ] = None,
    shards: Annotated[int | None, typer.Option(help="Shards of a new cluster.")] = None,
    gateways: Annotated[int | None, typer.Option(help="Gateway processes.")] = None,
    listen: Annotated[str | None, typer.Option(help="host:port of the gRPC service.")] = None,
    front: Annotated[str | None, typer.Option(help="gRPC server: nghttp2 or grpcio.")] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM file of the certificate chain; serves with TLS.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of the key to it.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="PEM file of who vouches for callers; asks them for one.")
    ] = None,
    rounds: Annotated[str | None, typer.Option(help="Gateway to shard: road, tcp or ray.")] = None,
    risk_profile: Annotated[
        str | None, typer.Option(help="Rates per buyer and address: default, strict or off.")
    ] = None,
    accept_journal: Annotated[
        bool | None,
        typer.Option("--accept-journal", help="Start over a journal that lost its end."),
    ] = None,
    expiry_grace_ms: Annotated[
        int | None, typer.Option(help="Nothing expires for this long after a failover.")
    ] = None,
    output: OutputOption = Output.TABLE,
    config: ConfigOption = None,
) -> None:
    """Run the service in the foreground until SIGTERM or Ctrl-C, then drain and stop."""
    settings = settings_of(
        config,
        data_dir=data_dir,
        journal=journal,
        database=database,
        ray_address=ray_address,
        shards=shards,
        gateways=gateways,
        listen=listen,
        front=front,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        tls_client_ca=tls_client_ca,
        rounds=rounds,
        risk_profile=risk_profile,
        accept_journal=accept_journal,
        expiry_grace_ms=expiry_grace_ms,
    ).settings
    from server.service import Service  # noqa: PLC0415 - it imports Ray, which takes a second

    stopping = threading.Event()
    data = sys.stdout
    service = Service(settings, lambda text: messages.print(f"[dim]{text}[/]"))
    # Ray prints its workers' fates to standard output, which is for data.
    sys.stdout = sys.stderr
    try:
        service.start()
    except CannotStart as error:
        fail(str(error), EXIT_UNREACHABLE if error.unreachable else EXIT_FAILED)
    # After the start: Ray puts in a handler of its own, which ends the process at once.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    ready = {
        "event": "ready",
        "listen": service.listen,
        "data_dir": str(settings.data_dir),
        "journal": "sqlite" if settings.embedded_journal else "redis",
        "database": "sqlite" if settings.embedded_database else "mysql",
        "seconds": service.seconds,
    }
    if output is Output.JSON:
        print(json.dumps(ready), file=data, flush=True)
    else:
        print(
            f"stockray serves gRPC on {service.listen}; data in {settings.data_dir} "
            f"(journal: {ready['journal']}, database: {ready['database']}). "
            "Ctrl-C drains and stops.",
            file=data,
            flush=True,
        )
    while not stopping.wait(LOOK_EVERY_S):
        if service.lost():
            messages.print("Ray's node on this machine has ended: start `stockray serve` again")
            service.forsake()
            os._exit(EXIT_FAILED)
    if not service.stop():
        fail("stopped before the database had caught up; the journal has everything", EXIT_DEGRADED)


def verify(
    *,
    data_dir: DataDirOption = None,
    journal: JournalOption = None,
    database: DatabaseOption = None,
    address: Annotated[
        str | None,
        typer.Option(help="Also compare the memory of the live service at host:port."),
    ] = None,
    output: OutputOption = Output.TABLE,
    config: ConfigOption = None,
) -> None:
    """Check the invariants: journal against SQL, and against live memory with --address."""
    settings = settings_of(config, data_dir=data_dir, journal=journal, database=database).settings
    try:
        claims = asyncio.run(_claims(address)) if address else []
        report = verify_stores(settings, claims=claims)
    except CannotStart as error:
        fail(str(error), EXIT_UNREACHABLE if error.unreachable else EXIT_FAILED)
    except StorageError as error:
        fail(str(error), EXIT_UNREACHABLE if error.retriable else EXIT_FAILED)
    except StockrayError as error:
        fail(f"{address}: {error}", EXIT_UNREACHABLE)
    if output is Output.JSON:
        print(json.dumps(report.as_data(), indent=2))
    else:
        show_report(report, Console())
    if not report.ok:
        raise typer.Exit(EXIT_FAILED)


async def _claims(address: str) -> list[ReplicaClaim]:
    async with AsyncClient(address) as client:
        return await replica_claims(client)


def demo(
    *,
    units: Annotated[int, typer.Option(min=80, max=1_000_000, help="Units on sale.")] = 10_000,
    buyers: Annotated[int, typer.Option(min=100, max=5_000_000, help="Buyers.")] = 100_000,
    seed: Annotated[int, typer.Option(help="What every buyer does is drawn from it.")] = 1,
    journal: JournalOption = None,
    database: DatabaseOption = None,
    private_services: Annotated[
        bool, typer.Option("--private-services", help="Run on a Redis and MariaDB of its own.")
    ] = False,
    with_teams: Annotated[
        bool, typer.Option("--with-teams", help="A group-buy after the flash sale.")
    ] = False,
    integrated: Annotated[
        bool, typer.Option("--integrated", help="Distributors bring the buyers of both.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave its directory behind.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Run a flash sale through a kill -9, from nothing, and print the books. Exit 0 if they
    balance."""
    options = DemoOptions(
        plan=Plan(units=units, buyers=buyers, seed=seed),
        journal=journal or "",
        database=database or "",
        private_services=private_services,
        with_teams=with_teams,
        integrated=integrated,
        keep=keep,
    )
    try:
        with SaleProgress(messages) as progress:
            books = run_demo(options, progress)
    except ChildFailed as error:
        fail(f"the service did not start or stop:\n{error}", error.exit_code or EXIT_FAILED)
    except (CannotStart, StorageError, ServerFailedError) as error:
        fail(str(error))
    if output is Output.JSON:
        print(json.dumps(books.as_data(), indent=2))
    else:
        show_books(books, Console())
    if not books.balanced:
        raise typer.Exit(EXIT_FAILED)


def bench(
    *,
    seconds: Annotated[float, typer.Option(min=0.5, max=600, help="For each row.")] = 5.0,
    callers: Annotated[int, typer.Option(min=1, max=4096, help="Calls in flight.")] = 64,
    crowd: Annotated[int, typer.Option(min=1, max=4096, help="And of the other rows.")] = CROWD,
    many_lines: Annotated[int, typer.Option(min=1, max=4096, help="Lines of a grab_many.")] = 1_000,
    accrual_orders: Annotated[int, typer.Option(min=100, max=10**6, help="Earning.")] = 100_000,
    kills: Annotated[int, typer.Option(min=0, max=1000, help="Measure so many failovers.")] = 0,
    cold_starts: Annotated[int, typer.Option(min=0, max=100, help="And so many starts.")] = 0,
    shards: Annotated[int, typer.Option(min=1, max=16, help="Shards of the service.")] = 1,
    open_reservations: Annotated[
        int, typer.Option(min=0, max=5_000_000, help="Measure memory, kills, starts with so many.")
    ] = 0,
    idle_connections: Annotated[
        int, typer.Option(min=0, max=60_000, help="Measure with so many idle ones held.")
    ] = 0,
    private_services: Annotated[
        bool, typer.Option("--private-services", help="Run on a Redis and MariaDB of its own.")
    ] = False,
    front: Annotated[str, typer.Option(help="As of `serve`; left out: its default.")] = "",
    gateways: Annotated[int, typer.Option(min=1, max=64, help="Gateway processes.")] = 1,
    generators: Annotated[int, typer.Option(min=1, max=64, help="Processes that make load.")] = 1,
    tls: Annotated[bool, typer.Option("--tls", help="With TLS (needs openssl).")] = False,
    rows: Annotated[str, typer.Option(help="Beginnings of names: measure these rows alone.")] = "",
    repeats: Annotated[
        int, typer.Option(min=1, max=100, help="Measure each rate so often; the median counts.")
    ] = 1,
    against: Annotated[
        str, typer.Option(help="Peers to measure in the same run: echo,redis-lua,mysql.")
    ] = "echo",
    output: OutputOption = Output.TABLE,
) -> None:
    """Measure rates, latencies and CPU against a bare grpc.aio echo in the same run."""
    options = BenchOptions(
        against=_peers(against),
        seconds=seconds,
        callers=callers,
        crowd=crowd,
        many_lines=many_lines,
        accrual_orders=accrual_orders,
        kills=kills,
        cold_starts=cold_starts,
        shards=shards,
        open_reservations=open_reservations,
        idle_connections=idle_connections,
        private_services=private_services,
        front=front,
        gateways=gateways,
        generators=generators,
        tls=tls,
        rows=tuple(beginning for beginning in rows.split(",") if beginning),
        repeats=repeats,
    )
    result = _benched(options)
    if output is Output.JSON:
        print(json.dumps(result.as_data(), indent=2))
    else:
        show_bench(result, Console())
    if not result.ok:
        raise typer.Exit(EXIT_FAILED)


def _peers(against: str) -> tuple[str, ...]:
    peers = tuple(peer for peer in against.split(",") if peer and peer != "echo")
    unknown = sorted(set(peers) - set(PEERS))
    if unknown:
        fail(
            f"--against: no such peer {unknown[0]!r}; known are echo, {', '.join(PEERS)}",
            EXIT_USAGE,
        )
    return peers


def _benched(options: BenchOptions) -> BenchResult:
    try:
        return run_bench(options, lambda text: messages.print(f"[dim]{text}[/]", highlight=False))
    except SettingsError as error:
        fail(str(error), EXIT_USAGE)
    except ChildFailed as error:
        fail(f"the service did not start or stop:\n{error}", error.exit_code or EXIT_FAILED)
    except (CannotMeasure, CannotStart, StorageError, ServerFailedError) as error:
        fail(str(error))


def doctor(
    *,
    data_dir: DataDirOption = None,
    journal: JournalOption = None,
    database: DatabaseOption = None,
    output: OutputOption = Output.TABLE,
    config: ConfigOption = None,
) -> None:
    """Look at everything that a start and a sale need, and say what mends it."""
    settings = settings_of(config, data_dir=data_dir, journal=journal, database=database).settings
    findings = examine(settings)
    if output is Output.JSON:
        print(json.dumps(as_data(findings), indent=2))
    else:
        show_findings(findings, Console())
    verdict = worst(findings)
    if verdict is not Verdict.OK:
        raise typer.Exit(EXIT_FAILED if verdict is Verdict.FAIL else EXIT_DEGRADED)


def upgrade(
    *,
    data_dir: DataDirOption = None,
    database: DatabaseOption = None,
    config: ConfigOption = None,
) -> None:
    """Bring the database's schema to the revision that this release needs."""
    settings = settings_of(config, data_dir=data_dir, database=database).settings
    before, after = _with_sink(settings, upgrade=True)
    messages.print(f"schema: {before or 'empty'} -> {after}")


def current(
    *,
    data_dir: DataDirOption = None,
    database: DatabaseOption = None,
    output: OutputOption = Output.TABLE,
    config: ConfigOption = None,
) -> None:
    """Print the database's revision and the one that this release needs."""
    settings = settings_of(config, data_dir=data_dir, database=database).settings
    found, needed = _with_sink(settings, upgrade=False)
    data = {"revision": found, "needed": needed, "current": found == needed}
    print(json.dumps(data) if output is Output.JSON else f"{found or 'empty'} (needs {needed})")
    if found != needed:
        raise typer.Exit(EXIT_DEGRADED)


def _with_sink(settings: Settings, *, upgrade: bool) -> tuple[str, str]:
    """(revision found, revision needed), after an upgrade if asked for."""
    try:
        if settings.embedded_database:
            settings.data_dir.mkdir(parents=True, exist_ok=True)
        sink = open_sink(settings.database_url)
        try:
            found = sink.revision()
            if upgrade:
                sink.upgrade()
                return found[0], sink.revision()[0]
            return found
        finally:
            sink.close()
    except StorageError as error:
        fail(str(error), EXIT_UNREACHABLE if error.retriable else EXIT_FAILED)


def show_config(
    *,
    origin: Annotated[
        bool, typer.Option("--origin", help="Say where each value came from.")
    ] = False,
    output: OutputOption = Output.TABLE,
    config: ConfigOption = None,
) -> None:
    """Print the settings in force. Passwords are not shown."""
    origins = settings_of(config)
    values = {
        key: _masked(key, value) for key, value in origins.settings.model_dump(mode="json").items()
    }
    if output is Output.JSON:
        shown = {
            key: {"value": value, "origin": origins.origin[key]} if origin else value
            for key, value in values.items()
        }
        print(json.dumps(shown, indent=2))
        return
    table = Table("setting", "value", *(["origin"] if origin else []))
    for key, value in values.items():
        table.add_row(key, str(value), *([origins.origin[key]] if origin else []))
    Console().print(table)


def _masked(key: str, value: Any) -> Any:
    """A URL without its password."""
    if key not in SECRETS or not value:
        return value
    parts = urlsplit(value)
    if parts.password is None:
        return value
    return value.replace(f":{parts.password}@", ":***@")

"""The commands for bad days: `recover`, `backup`, `restore`.

Reports go to standard output; progress, questions and errors to standard error.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

import typer
from rich.console import Console
from rich.table import Table

from persistence.errors import StorageError
from persistence.sql.cluster import SqlCluster
from server.backup import Backup
from server.backup_files import CannotBackUp
from server.bootstrap import (
    CannotStart,
    DirectoryLock,
    release_quietly,
    require_free_port,
)
from server.cli_options import (
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
from server.recover import Outcome, Recovery, shard_data, time_text
from server.recover_survey import CannotRecover, Survey
from server.restore import Restore
from server.settings import Settings
from server.show import show_report
from server.verifying import verify_stores

STEP_EVERY_S = 1.0
LIVE_LOOK_S = 2.5
"""A live write-behind that has nothing to do dates its position once a second."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("recover")(recover)
    app.command("backup")(backup)
    app.command("restore")(restore)


def recover(
    *,
    from_sql: Annotated[
        bool, typer.Option("--from-sql", help="From the database; there is no other way yet.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also when nothing seems to be lost.")
    ] = False,
    accept_differences: Annotated[
        bool,
        typer.Option("--accept-differences", help="Also from rows that contradict each other."),
    ] = False,
    data_dir: DataDirOption = None,
    journal: JournalOption = None,
    database: DatabaseOption = None,
    shards: Annotated[
        int | None, typer.Option(help="Shards the cluster had, if nothing says so.")
    ] = None,
    output: OutputOption = Output.TABLE,
    config: ConfigOption = None,
) -> None:
    """Make a lost journal anew from the database, and say what may be missing."""
    if not from_sql:
        fail("say what to recover from: --from-sql", EXIT_USAGE)
    settings = settings_of(
        config, data_dir=data_dir, journal=journal, database=database, shards=shards
    ).settings
    steps = Steps()
    with _locked(settings), _told_errors():
        _require_nobody_else(settings)
        recovery = Recovery(settings, steps.say)
        try:
            found = recovery.look()
            _show_survey(found)
            if found.nothing_lost and not force:
                fail(
                    "nothing is lost: the journals reach as far as the database, and a start can "
                    "use them. `stockray serve` starts; --force rebuilds them all the same"
                )
            if not dry_run:
                _confirm(yes)
            with steps:
                outcome = (
                    recovery.rehearse(found)
                    if dry_run
                    else recovery.run(found, accept_differences=accept_differences)
                )
        finally:
            recovery.close()
    report = outcome.as_data()
    if not dry_run:
        _keep(settings, report)
    if output is Output.JSON:
        print(json.dumps(report, indent=2))
    else:
        _show_outcome(outcome, Console())
    if outcome.verified is False:
        raise typer.Exit(EXIT_FAILED)


PlaceArgument = Annotated[Path, typer.Argument(help="Directory of the backup.")]


def backup(
    place: PlaceArgument,
    *,
    data_dir: DataDirOption = None,
    journal: JournalOption = None,
    database: DatabaseOption = None,
    output: OutputOption = Output.TABLE,
    config: ConfigOption = None,
) -> None:
    """Copy journal, snapshots and database to a new directory, also while the service runs."""
    settings = settings_of(config, data_dir=data_dir, journal=journal, database=database).settings
    with _told_errors(), Steps() as steps:
        manifest = Backup(settings, place.absolute(), steps.say).run()
    _show_manifest(manifest, f"backup in {place.absolute()}", output)


def restore(
    place: PlaceArgument,
    *,
    data_dir: DataDirOption = None,
    journal: JournalOption = None,
    database: DatabaseOption = None,
    output: OutputOption = Output.TABLE,
    config: ConfigOption = None,
) -> None:
    """Bring a backup back into empty stores, of whatever kind, and verify them."""
    settings = settings_of(config, data_dir=data_dir, journal=journal, database=database).settings
    with _locked(settings), _told_errors(), Steps() as steps:
        manifest = Restore(settings, place.absolute(), steps.say).run()
        steps.say("verifying")
        report = verify_stores(settings)
    manifest |= {"verified": report.ok}
    _show_manifest(manifest, f"restored from {place.absolute()}", output)
    if not report.ok:
        show_report(report, messages)
        raise typer.Exit(EXIT_FAILED)


def _show_manifest(manifest: dict[str, Any], title: str, output: Output) -> None:
    """The manifest without the list of its files."""
    data = {key: value for key, value in manifest.items() if key not in {"files", "slots_of"}}
    data |= {
        "files": len(manifest["files"]),
        "bytes": sum(facts["byte_count"] for facts in manifest["files"]),
        "rows": sum(
            facts["items"] for facts in manifest["files"] if facts["name"].startswith("journal")
        ),
    }
    if output is Output.JSON:
        print(json.dumps(data, indent=2))
        return
    table = Table(title=title)
    for name in ("shard", "snapshot", "journal from", "journal to", "database"):
        table.add_column(name, justify="right")
    for shard in data["shards"]:
        info = shard["snapshot"]
        table.add_row(
            str(shard["shard"]),
            "-" if info is None else f"{info['end_seq']:,}",
            f"{shard['journal_first_seq']:,}",
            f"{shard['journal_last_seq']:,}",
            f"{shard['database_seq']:,}",
        )
    console = Console()
    console.print(table)
    console.print(
        f"{data['files']} files, {data['bytes']:,} bytes, as of {time_text(data['ended_ms'])} UTC"
    )


class Steps:
    """Steps on standard error: on a terminal a line that changes, elsewhere a line now and then."""

    def __init__(self) -> None:
        self._status = messages.status("") if messages.is_terminal else None
        self._said_at = 0.0

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def say(self, text: str) -> None:
        """What is being done."""
        if self._status is not None:
            self._status.update(text)
        elif time.monotonic() - self._said_at >= STEP_EVERY_S:
            self._said_at = time.monotonic()
            _say(text)


@contextmanager
def _locked(settings: Settings) -> Iterator[None]:
    """The data directory is ours. Exits if a server has it."""
    lock = None
    try:
        lock = DirectoryLock(settings)
        yield
    except CannotStart as error:
        fail(f"{error}. Stop the service first", EXIT_FAILED)
    finally:
        release_quietly(lock)


def _require_nobody_else(settings: Settings) -> None:
    """No service uses the stores, as far as can be seen from here. An embedded journal's is found
    by the lock; one on a server may be another machine's, which dates its positions meanwhile."""
    if settings.embedded_journal:
        return
    if not settings.listen.endswith(":0"):
        require_free_port(settings.listen)
    cluster = SqlCluster(settings.database_url)
    try:
        before = cluster.positions()
        time.sleep(LIVE_LOOK_S if before else 0)
        if cluster.positions() != before:
            raise CannotStart("database: a service on another machine writes to it")
    finally:
        cluster.close()


@contextmanager
def _told_errors() -> Iterator[None]:
    try:
        yield
    except (CannotRecover, CannotBackUp) as error:
        fail(str(error))
    except CannotStart as error:
        fail(str(error), EXIT_UNREACHABLE if error.unreachable else EXIT_FAILED)
    except OSError as error:
        fail(f"{error.filename or ''}: {error.strerror or error}")
    except StorageError as error:
        fail(str(error), EXIT_UNREACHABLE if error.retriable else EXIT_FAILED)


def _say(text: str) -> None:
    messages.print(f"[dim]{text}[/]", highlight=False)


def _confirm(yes: bool) -> None:
    if yes:
        return
    question = "Entries beyond the database are given up for good. Recover?"
    if not messages.is_terminal or not typer.confirm(question, err=True):
        fail("nothing was changed; --yes recovers without asking")


def _keep(settings: Settings, report: dict[str, Any]) -> None:
    """The report also stands in the data directory: it is asked for long after."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    path = settings.data_dir / f"recovery-{stamp}.json"
    path.write_text(json.dumps(report, indent=2), encoding="utf-8")
    _say(f"this report is kept in {path}")


def _show_survey(found: Survey) -> None:
    for one in found.shards:
        data = shard_data(one, 0)
        text = f"shard {one.shard}: journal {one.left}"
        if one.journal_why:
            text += f" ({one.journal_why})"
        text += f"; database at entry {one.view.seq}, as of {time_text(one.view.as_of_ms) or '-'}"
        if one.catches_up:
            text += f"; {one.catches_up} more entries are in the journal"
        if not data["nothing_missing"]:
            gone = one.gone_at_least
            text += "; " + ("an unknown number" if gone is None else f"at least {gone}")
            text += " of entries after it is gone"
        _say(text)


def _show_outcome(outcome: Outcome, console: Console) -> None:
    data = outcome.as_data()
    title = "What a recovery would find" if outcome.dry_run else "Recovered"
    table = Table(title=title)
    for name in ("shard", "journal", "to entry", "missing from (UTC)", "entries missing", "orders"):
        table.add_column(name, justify="left" if name in ("journal",) else "right")
    for one in data["shards"]:
        gone = one["missing_entries_at_least"]
        table.add_row(
            str(one["shard"]),
            one["journal"],
            f"{one['recovered_to_seq']:,}",
            one["missing_from"] or "nothing",
            "unknown" if gone is None else f"{gone:,}{'+' if gone else ''}",
            f"{one['reservations']:,}",
        )
    console.print(table)
    rebuilt = [f"{count:,} {name.replace('_', ' ')}" for name, count in data["rebuilt"].items()]
    console.print(f"In memory: {', '.join(rebuilt)}", highlight=False)
    if any(not one["nothing_missing"] for one in data["shards"]):
        console.print("\n[bold]What may be missing[/]")
        for text in data["missing"]:
            console.print(f"- {text}", highlight=False)
    for heading, texts in (
        ("Transfers set right", data["transfers_set_right"]),
        ("Rows that contradict each other", data["differences"]),
        ("Violations", data["violations"]),
    ):
        if texts:
            console.print(f"\n[bold]{heading}[/]")
            for text in texts:
                console.print(f"- {text}", highlight=False)
    if data["dead_letters"]:
        console.print(f"\n{data['dead_letters']:,} records stand in dead_letters: not in the rows")
    if outcome.verified is not None:
        console.print("verified: I1 to I6 hold" if outcome.verified else "verified: NOT balanced")

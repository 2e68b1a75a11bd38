"""What the service's commands share: exit codes, options of the same meaning, and how they fail."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from server.settings import Origins, SettingsError, load

EXIT_FAILED, EXIT_USAGE, EXIT_DEGRADED, EXIT_UNREACHABLE = 1, 2, 3, 4

messages = Console(stderr=True)


class Output(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How data is printed.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings file to read.")]
DataDirOption = Annotated[
    Path | None, typer.Option("--data-dir", help="Directory of the embedded mode, and of logs.")
]
JournalOption = Annotated[
    str | None, typer.Option("--journal", help="redis://host:port/0; left out: SQLite files.")
]
DatabaseOption = Annotated[
    str | None,
    typer.Option("--database", help="mysql+pymysql://user:password@host/db; left out: SQLite."),
]


def fail(message: str, code: int = EXIT_FAILED) -> NoReturn:
    """Say what is wrong and what to do, and exit."""
    messages.print(f"[bold red]error:[/] {message}", highlight=False)
    raise typer.Exit(code)


def settings_of(config: Path | None, **flags: Any) -> Origins:
    """Settings, or exit 2."""
    try:
        return load(flags, file=config)
    except SettingsError as error:
        fail(str(error), EXIT_USAGE)

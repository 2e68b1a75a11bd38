"""`stockray soak`: a steady sale with churn, and whether anything grows that should not."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from persistence.errors import StorageError
from server.bootstrap import CannotStart
from server.chart import ChartsMissing
from server.children import ChildFailed
from server.cli_options import EXIT_FAILED, EXIT_USAGE, Output, OutputOption, fail, messages
from server.soak.result import SoakError, SoakOptions, SoakResult
from server.soak.run import run_soak
from server.soak.show import SoakProgress, draw_soak, show_soak


def soak(
    *,
    minutes: Annotated[float, typer.Option(help="Of selling.")] = 10.0,
    rate: Annotated[float, typer.Option(help="Calls a second.")] = 2_000.0,
    seed: Annotated[int, typer.Option(help="Orders are drawn from it.")] = 1,
    chart: Annotated[
        Path | None, typer.Option(help="Draw every measure over time to this SVG file.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave its directory behind.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Sell steadily on a service of its own and watch memory, handles, files and tables.

    Exit 0 only if nothing grew beyond its bound and the books balance; else it names the culprit.
    """
    directory = Path(tempfile.mkdtemp(prefix="stockray-soak-"))
    kept = keep
    try:
        result = _soaked(SoakOptions(directory=directory, minutes=minutes, rate=rate, seed=seed))
        kept = kept or not result.ok
        _draw(result, chart)
    except SoakError as error:
        fail(str(error), EXIT_USAGE)
    finally:
        if kept:
            messages.print(f"logs and stores are left in {directory}", highlight=False)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    if output is Output.JSON:
        print(json.dumps(result.as_data(), indent=2))
    else:
        show_soak(result, Console())
    if not result.ok:
        raise typer.Exit(EXIT_FAILED)


def _soaked(options: SoakOptions) -> SoakResult:
    try:
        with SoakProgress(messages) as progress:
            return run_soak(options, progress)
    except ChildFailed as error:
        fail(f"the service did not start or stop:\n{error}", error.exit_code or EXIT_FAILED)
    except (CannotStart, StorageError) as error:
        fail(str(error))


def _draw(result: SoakResult, chart: Path | None) -> None:
    """The picture, if it was asked for. Where it cannot be drawn that is said."""
    if chart is None:
        return
    try:
        draw_soak(result, chart)
    except ChartsMissing as error:
        messages.print(f"skipped: {error}", highlight=False)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")

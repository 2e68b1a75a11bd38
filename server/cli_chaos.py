"""`stockray chaos`: load, faults on real processes, and a reckoning that can fail."""

import json
import shutil
import tempfile
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from server.chaos.plan import ChaosOptions, PlanError, plan_faults
from server.chaos.result import ChaosResult
from server.chaos.run import CannotRun
from server.chaos.show import ChaosProgress, draw_chaos, show_chaos, show_plan
from server.chart import ChartsMissing

EXIT_FAILED, EXIT_USAGE = 1, 2
SECONDS = 480.0
"""Time for each kind of fault once, or nearly."""

messages = Console(stderr=True)


class Output(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"


def chaos(
    *,
    seconds: Annotated[float, typer.Option(help="Of load; faults are spread over it.")] = SECONDS,
    seed: Annotated[int, typer.Option(help="Faults and load are drawn from it.")] = 1,
    nodes: Annotated[int, typer.Option(help="Ray nodes, the head included.")] = 3,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="One local Ray and SQLite: fewer kinds of faults.")
    ] = False,
    only: Annotated[str, typer.Option(help="Beginnings of kinds: primary-kill,partition,…")] = "",
    plan: Annotated[
        bool, typer.Option("--plan", help="Print the seed's faults, run none.")
    ] = False,
    history: Annotated[
        Path | None, typer.Option(help="Write every operation to this file, as JSON lines.")
    ] = None,
    chart: Annotated[
        Path | None, typer.Option(help="Draw faults against throughput to this SVG file.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave its directory behind.")] = False,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="How data is printed.")
    ] = Output.TABLE,
) -> None:
    """Sell under kill -9, SIGSTOP, partitions and full disks, then check every answer given.

    Exit 0 only if everything held. What this machine cannot do is skipped and named."""
    directory = Path(tempfile.mkdtemp(prefix="stockray-chaos-"))
    wanted = {
        "seconds": seconds,
        "seed": seed,
        "nodes": nodes,
        "embedded": embedded,
        "kinds": tuple(beginning for beginning in only.split(",") if beginning),
        "directory": directory,
    }
    options = _options(wanted)
    held = False
    try:
        if plan:
            _print_plan(options, output)
        held = plan or _play(options, history, chart, output)
    finally:
        if held and not keep:
            shutil.rmtree(directory, ignore_errors=True)
        else:
            messages.print(f"logs and stores are left in {directory}", highlight=False)
    if not held:
        raise typer.Exit(EXIT_FAILED)


def _options(wanted: dict[str, Any]) -> ChaosOptions:
    try:
        return ChaosOptions(**wanted)
    except PlanError as error:
        wanted["directory"].rmdir()
        fail(str(error), EXIT_USAGE)


def _print_plan(options: ChaosOptions, output: Output) -> None:
    faults = plan_faults(options)
    _print(output, [fault._asdict() for fault in faults], lambda c: show_plan(faults, c))


def _play(options: ChaosOptions, history: Path | None, chart: Path | None, output: Output) -> bool:
    """Whether everything held."""
    from server.chaos.whole import run_chaos  # noqa: PLC0415 - it imports Ray, which takes a second

    try:
        with ChaosProgress(messages) as progress:
            result = run_chaos(options, progress)
    except CannotRun as error:
        fail(str(error))
    _write(result, history, chart)
    _print(output, result.as_data(), lambda console: show_chaos(result, console))
    return result.ok


def _write(result: ChaosResult, history: Path | None, chart: Path | None) -> None:
    """The files that were asked for. A picture that cannot be drawn is skipped and said so."""
    try:
        if history is not None:
            result.history.write(history)
        if chart is not None:
            draw_chaos(result, chart)
    except ChartsMissing as error:
        messages.print(f"skipped: {error}", highlight=False)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")


def _print(output: Output, data: Any, show: Callable[[Console], None]) -> None:
    if output is Output.JSON:
        print(json.dumps(data, indent=2))
    else:
        show(Console())


def fail(message: str, code: int = EXIT_FAILED) -> NoReturn:
    """Say what is wrong, and exit."""
    messages.print(f"[bold red]error:[/] {message}", highlight=False)
    raise typer.Exit(code)

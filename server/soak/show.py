"""How a soak looks to a person: a line that moves, a table with sparklines, and a picture."""

import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from rich.console import Console
from rich.table import Table

from server.chart import Panel, bars, draw
from server.soak.judge import Sample, Verdict
from server.soak.result import SoakResult

LINE_EVERY_S = 10.0
SPARK_WIDTH = 40
THIN = 3
"""One look of so many is drawn."""
MB = 1_000_000
PANELS: Mapping[str, tuple[str, float, tuple[str, ...]]] = {
    "calls and sales": ("a second", 1, ("calls", "sales")),
    "memory of the shards' processes": ("MB", MB, ("memory shard",)),
    "memory of the others": (
        "MB",
        MB,
        ("memory gateway", "memory projector", "memory gcs", "memory raylet", "memory serve"),
    ),
    "reservations in memory": ("rows", 1, ("reservations in memory",)),
    "journal, between trims": ("MB", MB, ("journal bytes", "journal files", "WAL files")),
    "snapshots and SQL on disk": ("MB", MB, ("snapshot files", "SQL file")),
    "open files and sockets": ("handles", 1, ("handles",)),
    "threads": ("threads", 1, ("threads",)),
    "logs": ("MB", MB, ("logs", "Ray's files")),
    "tables of Ray's control service": ("rows", 1, ("GCS",)),
}
"""By title: unit, what it is divided by, beginnings of the measures in it."""
COUNTED = ("calls", "sales")


class SoakProgress:
    """Messages, and how far it is: on a terminal one line that changes, else a line now and then.
    `with` it, so that the terminal is left as it was."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = console.status("") if console.is_terminal else None
        self._shown_s = 0.0

    def __enter__(self) -> "SoakProgress":
        if self._status:
            self._status.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def say(self, text: str) -> None:
        """One step."""
        self._console.print(f"[bold]·[/] {text}", highlight=False)

    def look(self, sample: Sample) -> None:
        """How it stands."""
        shards = sum(v for k, v in sample.values.items() if k.startswith("memory shard"))
        text = (
            f"{sample.time_s:.0f} s: {sample.done.get('calls', 0):,} calls, "
            f"{sample.done.get('sales', 0):,} sales, shards {shards / MB:,.0f} MB, "
            f"journal {sample.values.get('journal bytes', 0) / MB:,.1f} MB"
        )
        if self._status:
            self._status.update(text)
        elif time.monotonic() - self._shown_s >= LINE_EVERY_S:
            self._shown_s = time.monotonic()
            self.say(text)


def show_soak(result: SoakResult, console: Console) -> None:
    """The report."""
    done = ", ".join(f"{count:,} {kind}" for kind, count in sorted(result.done.items()))
    console.print(f"{result.rate_per_s:,.0f} calls a second: {done}", highlight=False)
    table = Table(caption="growth and its bound: over the part of the run that is judged")
    for name in ("measure", "over the run"):
        table.add_column(name, no_wrap=True)
    for name in ("begin", "end", "growth", "may grow"):
        table.add_column(name, justify="right", no_wrap=True)
    for verdict in result.verdicts:
        table.add_row(*_row(result, verdict))
    console.print(table)
    short = sum(1 for verdict in result.verdicts if not verdict.judged)
    if short:
        console.print(f"  [yellow]not judged[/] {short} measures: the run is too short for them")
    for answer in result.wrong:
        console.print(f"  [bold red]wrong answer[/] {answer}", highlight=False)
    if result.left:
        console.print(f"  [bold red]processes left[/] {result.left}", highlight=False)
    if result.report is not None:
        for name, law in result.report.invariants.items():
            colour = "green" if law.violations == 0 else "bold red"
            console.print(f"  {name} [{colour}]{law.violations}[/] of {law.checked:,}")
    for culprit in result.culprits:
        console.print(f"  [bold red]grows[/] {culprit}", highlight=False)
    bounded = "[bold green]Everything is bounded.[/]"
    console.print(bounded if result.ok else "[bold red]It does not hold.[/]")


def _row(result: SoakResult, verdict: Verdict) -> tuple[str, ...]:
    colour = "green" if verdict.holds else "bold red"
    if not verdict.judged:
        colour = "yellow"
    seen = [s.values[verdict.measure] for s in result.samples if verdict.measure in s.values]
    figures = (verdict.begin, verdict.end, verdict.growth, verdict.allowed)
    told = [short(figure) for figure in figures] if verdict.judged else ["-"] * 4
    return (f"[{colour}]{verdict.measure}[/]", spark(seen), *told)


def short(figure: float) -> str:
    """A number that fits into a column."""
    if abs(figure) >= MB:
        return f"{figure / MB:,.1f} M"
    return f"{figure:,.0f}"


def spark(values: Sequence[float]) -> str:
    """A series in SPARK_WIDTH characters at most: the last value of each part."""
    step = max(1, -(-len(values) // SPARK_WIDTH))
    return bars(values[step - 1 :: step])


def draw_soak(result: SoakResult, path: Path) -> None:
    """Small multiples over time, as SVG. Raises ChartsMissing and OSError."""
    panels = []
    for title, (unit, divisor, beginnings) in PANELS.items():
        series = _series(result.samples, beginnings, divisor)
        if series:
            thin = {
                name: (times[::THIN], values[::THIN]) for name, (times, values) in series.items()
            }
            panels.append(Panel(title, unit, thin))
    verdict = "everything is bounded" if result.ok else f"grows: {', '.join(result.culprits)}"
    minutes, rate = result.options.minutes, result.rate_per_s
    draw(path, panels, [], title=f"stockray soak, {minutes:g} min, {rate:,.0f} calls/s: {verdict}")


def _series(
    samples: Sequence[Sample], beginnings: tuple[str, ...], divisor: float
) -> dict[str, tuple[list[float], list[float]]]:
    if beginnings == COUNTED:
        return {kind: _rates(samples, kind) for kind in beginnings}
    names = sorted({name for sample in samples for name in sample.values})
    return {
        name: (
            [sample.time_s for sample in samples if name in sample.values],
            [sample.values[name] / divisor for sample in samples if name in sample.values],
        )
        for name in names
        if name.startswith(beginnings)
    }


def _rates(samples: Sequence[Sample], kind: str) -> tuple[list[float], list[float]]:
    times, rates = [], []
    for before, after in pairwise(samples):
        more = after.done.get(kind, 0) - before.done.get(kind, 0)
        times.append(after.time_s)
        rates.append(more / (after.time_s - before.time_s))
    return times, rates

"""How a chaos run looks to a person: while it goes on, and as a report with its timeline."""

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from server.chaos.checks import CHECKS
from server.chaos.gaps import PROGRESS_S, gaps_by_kind
from server.chaos.plan import Fault
from server.chaos.result import ChaosResult
from server.chaos.run import Progress
from server.chart import Marked, Panel, bars, draw, per_second

LINE_EVERY_S = 10.0
TIMELINE_WIDTH = 90
"""Seconds in one row of the timeline."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
EXAMPLES_SHOWN = 3


class ChaosProgress:
    """Messages, and how far it is: on a terminal one line that changes, else a line now and then.
    `with` it, so that the terminal is left as it was."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = console.status("") if console.is_terminal else None
        self._shown_s = 0.0

    def __enter__(self) -> "ChaosProgress":
        if self._status:
            self._status.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def say(self, text: str) -> None:
        """One step."""
        self._console.print(f"[bold]·[/] {text}", highlight=False)

    def look(self, progress: Progress) -> None:
        """How far it is."""
        text = (
            f"{progress.seconds:.0f} s: {progress.operations:,} operations, "
            f"{progress.sales:,} sales, {progress.unknown:,} unknown, "
            f"{progress.faults} of {progress.planned} faults"
        )
        if self._status:
            self._status.update(text)
        elif time.monotonic() - self._shown_s >= LINE_EVERY_S:
            self._shown_s = time.monotonic()
            self.say(text)


def show_chaos(result: ChaosResult, console: Console) -> None:
    """The report: timeline, gaps, what was not run, and every check."""
    data = result.as_data()
    console.print(
        f"seed {result.seed}, {data['seconds']:.0f} s (journal: {result.journal}, database: "
        f"{result.database}): {data['operations']:,} operations, {data['sales']:,} sales, "
        + ", ".join(f"{count:,} {name}" for name, count in sorted(data["outcomes"].items())),
        highlight=False,
    )
    for line in timeline(result):
        console.print(line, highlight=False, markup=False, no_wrap=True, crop=False)
    console.print(_gap_table(result))
    for kind, reason in result.skipped:
        console.print(f"  [yellow]skipped[/] {kind}: {reason}", highlight=False)
    for what in result.failed:
        console.print(f"  [bold red]failed[/] {what}", highlight=False)
    for note in result.notes:
        console.print(f"  {note}", highlight=False)
    console.print(_check_table(result))
    for name, found in result.checks.items():
        for example in found.examples[:EXAMPLES_SHOWN]:
            console.print(f"  [bold red]{name}[/] {example}", highlight=False, markup=True)
    console.print(
        f"{len(result.promotions)} promotions, {data['false_alarms']} of them false alarms; "
        f"settled after {data['settle_s']} s; of what stayed unknown "
        f"{result.doubts['took_effect']} took effect, {result.doubts['did_not']} did not",
        highlight=False,
    )
    for name in ("lost_acks", "phantom_refusals", "oversold"):
        colour = "green" if data[name] == 0 else "bold red"
        console.print(f"  {name.replace('_', ' '):18} [{colour}]{data[name]}[/]")
    verdict = "[bold green]Everything holds.[/]" if result.ok else "[bold red]It does not hold.[/]"
    console.print(verdict)


def show_plan(faults: Sequence[Fault], console: Console) -> None:
    """What a seed asks for."""
    table = Table()
    for name in ("begins s", "lasts s"):
        table.add_column(name, justify="right")
    for name in ("fault", "shard"):
        table.add_column(name)
    for fault in faults:
        shard = "" if fault.shard is None else f"{fault.shard} of all"
        table.add_row(f"{fault.begin_s:.1f}", f"{fault.seconds:.1f}", fault.kind, shard)
    console.print(table)


def letters_of(result: ChaosResult) -> dict[str, str]:
    """A letter for each kind of fault that was carried out, in the order of their names."""
    kinds = sorted({span.kind for span in result.spans})
    return {kind: LETTERS[index % len(LETTERS)] for index, kind in enumerate(kinds)}


def timeline(result: ChaosResult) -> list[str]:
    """Sales a second on each shard as bars, and under them which faults were there."""
    seconds = max(1, int(result.ended_s - result.began_s))
    counts = [
        per_second(times, begin_s=result.began_s, seconds=seconds) for times in result.history.sales
    ]
    top = max((max(of_shard) for of_shard in counts), default=0)
    marks = _marks(result, seconds)
    lines = [f"sales a second on each shard (full: {top}), and faults by letter"]
    for begin in range(0, seconds, TIMELINE_WIDTH):
        end = min(seconds, begin + TIMELINE_WIDTH)
        for shard, of_shard in enumerate(counts):
            lines.append(f"{begin:5} s {shard:2} |{bars(of_shard[begin:end], top=top)}|")
        lines.append(f"   faults  |{marks[begin:end]}|")
    return lines


def _marks(result: ChaosResult, seconds: int) -> str:
    marks = [" "] * seconds
    letters = letters_of(result)
    for span in sorted(result.spans, key=lambda span: span.begun_s):
        first = int(span.begun_s - result.began_s)
        last = int(span.ended_s - result.began_s)
        for second in range(max(0, first), min(seconds, last + 1)):
            marks[second] = letters[span.kind]
    return "".join(marks)


def _gap_table(result: ChaosResult) -> Table:
    table = Table(title="Longest silence of a shard concerned, from the fault on")
    for name in ("", "fault"):
        table.add_column(name, no_wrap=True)
    for name in ("times", "median ms", "worst ms"):
        table.add_column(name, justify="right", no_wrap=True)
    letters = letters_of(result)
    for kind, found in sorted(gaps_by_kind(result.gaps).items()):
        table.add_row(
            letters[kind],
            kind,
            f"{found['count']:.0f}",
            f"{found['median']:,.0f}",
            f"{found['worst']:,.0f}",
        )
    for kind, found in sorted(gaps_by_kind(result.commission_gaps).items()):
        table.add_row(
            letters[kind],
            f"{kind}: of commission",
            f"{found['count']:.0f}",
            f"{found['median']:,.0f}",
            f"{found['worst']:,.0f}",
        )
    table.add_row("", "none (the machine's own)", "", "", f"{result.calm_gap_ms:,.0f}")
    return table


def _check_table(result: ChaosResult) -> Table:
    table = Table(caption=f"progress: within {PROGRESS_S:.0f} s of a fault's end")
    table.add_column("check", no_wrap=True)
    table.add_column("what must hold")
    table.add_column("checked", justify="right")
    table.add_column("violated", justify="right")
    for name, found in result.checks.items():
        colour = "bold red" if found.violations else "green" if found.checked else "yellow"
        table.add_row(name, CHECKS[name], f"{found.checked:,}", f"[{colour}]{found.violations}[/]")
    return table


def draw_chaos(result: ChaosResult, path: Path) -> None:
    """The timeline as SVG. Raises ChartsMissing and OSError."""
    seconds = max(1, int(result.ended_s - result.began_s))
    axis = [float(second) for second in range(seconds)]
    sales = {
        f"shard {shard}": (axis, _counts(times, result.began_s, seconds))
        for shard, times in enumerate(result.history.sales)
    }
    outcomes = {}
    for outcome in ("ok", "fail", "unknown"):
        times = [o.ended_s for o in result.history.operations if o.outcome == outcome]
        outcomes[outcome] = (axis, _counts(times, result.began_s, seconds))
    spans = [
        Marked(span.kind, span.begun_s - result.began_s, span.ended_s - result.began_s)
        for span in result.spans
    ]
    panels = [
        Panel("acknowledged sales", "a second", sales),
        Panel("operations by outcome", "a second", outcomes),
    ]
    title = f"stockray chaos, seed {result.seed}: {'holds' if result.ok else 'does not hold'}"
    draw(path, panels, spans, title=title)


def _counts(times: Sequence[float], begin_s: float, seconds: int) -> list[float]:
    return [float(count) for count in per_second(times, begin_s=begin_s, seconds=seconds)]

"""Pictures of a run: bars of text for a terminal, and an SVG where matplotlib is installed.

Panels share one time axis, in seconds from the beginning of the run; spans (faults, phases) are
laid over all of them. Matplotlib is an extra of the distribution (`charts`), imported only here and
only when a picture is asked for, by its object interface: no window system, no global state.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

BLOCKS = " ▁▂▃▄▅▆▇█"
POINTS_MAX = 20_000
"""Of one series: a picture has no use for more."""
WIDTH_MIN, WIDTH_MAX, SECONDS_PER_INCH = 12.0, 40.0, 20.0
"""A long run with many spans is a wide picture, so that their names can be read."""
COLOURS = ("#c0392b", "#8e44ad", "#d35400", "#2c3e50", "#16a085", "#7f8c8d", "#b7950b", "#2e4053")


class ChartsMissing(Exception):
    """The picture cannot be drawn here; the message says what is needed."""


class Marked(NamedTuple):
    """Something that lasted from `begin_s` to `end_s`; equal labels share a colour."""

    label: str
    begin_s: float
    end_s: float


class Panel(NamedTuple):
    """One plot: series by name, each as (seconds, values). `unit` is written on the axis."""

    title: str
    unit: str
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]]


def bars(values: Sequence[float], *, top: float = 0.0) -> str:
    """One character for each value, up to `top` (the highest of them when 0). Only 0 is blank, so
    that little can be told from nothing."""
    highest = top or max(values, default=0.0) or 1.0
    steps = len(BLOCKS) - 1
    return "".join(
        BLOCKS[0 if value <= 0 else max(1, min(steps, round(value / highest * steps)))]
        for value in values
    )


def per_second(times: Sequence[float], *, begin_s: float, seconds: int) -> list[int]:
    """How many of the times are in each second after `begin_s`."""
    counts = [0] * seconds
    for time_s in times:
        second = int(time_s - begin_s)
        if 0 <= second < seconds and time_s >= begin_s:
            counts[second] += 1
    return counts


def draw(path: Path, panels: Sequence[Panel], spans: Sequence[Marked], *, title: str) -> None:
    """Write the picture as SVG. Raises ChartsMissing without matplotlib, ValueError without a
    panel or with a series that is too long, OSError when the file cannot be written."""
    if not panels:
        raise ValueError("panels: at least one")
    for panel in panels:
        for name, (seconds, values) in panel.series.items():
            if len(seconds) != len(values) or len(seconds) > POINTS_MAX:
                raise ValueError(f"{name}: {len(seconds)} times, {len(values)} values")
    try:
        from matplotlib import rc_context  # noqa: PLC0415 - an extra
        from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise ChartsMissing("charts need matplotlib: install stockray-server[charts]") from error
    end_s = max([span.end_s for span in spans] + [0.0])
    width = min(WIDTH_MAX, max(WIDTH_MIN, end_s / SECONDS_PER_INCH))
    figure = Figure(figsize=(width, 1.2 + 2.2 * len(panels)), layout="constrained")
    FigureCanvasSVG(figure)
    figure.suptitle(title, fontsize=11)
    colours = {
        label: COLOURS[index % len(COLOURS)]
        for index, label in enumerate(dict.fromkeys(span.label for span in spans))
    }
    every = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
    for axes, panel in zip((row[0] for row in every), panels, strict=True):
        for name, (seconds, values) in panel.series.items():
            axes.plot(seconds, values, label=name, linewidth=1.0)
        for span in spans:
            until_s = max(span.end_s, span.begin_s + 0.3)
            axes.axvspan(span.begin_s, until_s, color=colours[span.label], alpha=0.25, linewidth=0)
        axes.set_title(panel.title, fontsize=9, loc="left")
        axes.set_ylabel(panel.unit, fontsize=8)
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, linewidth=0.3)
        axes.legend(fontsize=7, loc="upper right", ncols=4)
    for span in spans:
        every[0][0].annotate(
            span.label,
            (span.begin_s, 1.0),
            xycoords=("data", "axes fraction"),
            rotation=90,
            fontsize=6,
            va="top",
            color=colours[span.label],
        )
    every[-1][0].set_xlabel("seconds", fontsize=8)
    # Texts as texts: half the size of their outlines, and to be found.
    with rc_context({"svg.fonttype": "none"}):
        figure.savefig(path, format="svg", metadata={"Date": None})

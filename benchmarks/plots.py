"""Pictures of the measurements, as SVG. They need matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.interleaving import Timing
from benchmarks.results import Entry, Results
from benchmarks.sweeps import SWEEPS
from benchmarks.tables import called
from revinc.atomic_files import write_atomically

THROUGHPUT, SWEPT = "throughput.svg", "sweeps.svg"
STABLE: Any = {"svg.hashsalt": "benchmarks", "font.size": 9}
"""Settings with which the same numbers make the same file."""


def draw_all(results: Results, folder: Path) -> list[str]:
    """Write the pictures of the parts that were measured; their names. Needs matplotlib."""
    try:
        import matplotlib as mpl
    except ImportError:
        return []
    mpl.use("Agg")
    with mpl.rc_context(STABLE):
        drawn = []
        if any(entry.seconds for entry in results.entries):
            save(throughput_figure(results.entries), folder / THROUGHPUT)
            drawn.append(THROUGHPUT)
        if results.sweeps:
            save(sweeps_figure(results), folder / SWEPT)
            drawn.append(SWEPT)
    return drawn


def save(figure: Any, path: Path) -> None:
    """Write a figure and close it."""
    from matplotlib import pyplot

    draw = partial(
        figure.savefig, format=path.suffix[1:], metadata={"Date": None}, bbox_inches="tight"
    )
    write_atomically(path, draw)
    pyplot.close(figure)


def throughput_figure(entries: Sequence[Entry]) -> Any:
    """Steps per second of all models together against their number; both axes logarithmic."""
    import matplotlib as mpl
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5.5))
    axes.set_prop_cycle(color=[*mpl.color_sequences["Dark2"], *mpl.color_sequences["tab10"]])
    timed = [entry for entry in entries if entry.seconds]
    markers = iter("osD^vPX*<>hp8dosD^vPX")
    for title, group in groupby(timed, key=lambda entry: entry.title):
        ours = list(group)
        rates = [Timing(title, tuple(1 / s for s in entry.timing.seconds)) for entry in ours]
        marker = next(markers)
        line(axes, [entry.width for entry in ours], rates, title, marker)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="models side by side",
        ylabel="model-steps per second (median; bars: range)",
    )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    return figure


def sweeps_figure(results: Results) -> Any:
    """A panel per swept size: microseconds per model-step of every contender."""
    from matplotlib import pyplot

    n_columns = min(2, len(results.sweeps))
    n_rows = -(-len(results.sweeps) // n_columns)
    figure, panels = pyplot.subplots(
        n_rows, n_columns, figsize=(4.5 * n_columns, 3.5 * n_rows), squeeze=False
    )
    for axes in panels.flat[len(results.sweeps) :]:
        axes.set_visible(False)
    for (axis, points), axes in zip(results.sweeps.items(), panels.flat, strict=False):
        for number, first in enumerate(points[0].entries):
            of_one = [(p.value, p.entries[number]) for p in points if p.entries[number].seconds]
            values = [value for value, _ in of_one]
            costs = [
                Timing("", tuple(1e6 * s for s in entry.timing.seconds)) for _, entry in of_one
            ]
            line(axes, values, costs, called(first), "osD"[number % 3])
        axes.set(xscale="log", yscale="log", xlabel=SWEEPS[axis].title, ylabel="us per model-step")
        axes.set_xticks([point.value for point in points])
        axes.minorticks_off()
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.tight_layout()
    figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0), frameon=False)
    return figure


def line(
    axes: Any, values: Sequence[int], timings: Sequence[Timing], label: str, marker: str
) -> None:
    """Draw medians, with bars from the least to the most."""
    medians = [timing.median for timing in timings]
    below = [timing.median - timing.range[0] for timing in timings]
    above = [timing.range[1] - timing.median for timing in timings]
    axes.errorbar(
        values, medians, [below, above], label=label, marker=marker, ms=5, lw=1, capsize=2
    )

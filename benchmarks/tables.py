"""Tables of measurements, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from benchmarks.interleaving import Timing
from benchmarks.results import Entry, Point, Results
from benchmarks.sweeps import SWEEPS

NONE = "-"
MIB = 2**20


@dataclass(frozen=True)
class Sheet:
    """A table of text: the first column names the rows, the others hold numbers."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]

    def for_terminal(self) -> Table:
        first, *others = self.headings
        table = Table(first, title=self.title, title_justify="left", title_style="bold", box=None)
        for heading in others:
            table.add_column(heading, justify="right")
        for row in self.rows:
            table.add_row(*row)
        return table

    def as_markdown(self) -> str:
        head = [line(self.headings), "|---|" + "---:|" * (len(self.headings) - 1)]
        return "\n".join([*head, *map(line, self.rows)])


def line(cells: Sequence[str]) -> str:
    """A row in Markdown."""
    return f"| {' | '.join(cell.replace('|', ' ') for cell in cells)} |"


def number(value: float) -> str:
    """Three digits, or as many as a whole number has."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread(timing: Timing, scale: float = 1.0) -> str:
    """The least and the most."""
    low, high = timing.range
    return f"{number(scale * low)} .. {number(scale * high)}"


def speed_up(reference: Timing | None, timing: Timing) -> str:
    """The reference's time over this one, round by round: the median, and the range."""
    if reference is None:
        return NONE
    ratios = reference.ratios_to(timing)
    return f"{number(ratios.median)} ({spread(ratios)})"


def fastest(entries: Sequence[Entry]) -> Entry | None:
    """The entry with the least median time per model-step."""
    timed = [entry for entry in entries if entry.seconds]
    return min(timed, key=lambda entry: entry.timing.median, default=None)


def references(entries: Sequence[Entry]) -> tuple[Entry | None, Entry | None]:
    """The references: the tutorial's loop at its best, and the best of all torch contenders."""
    loop = fastest([entry for entry in entries if entry.name.startswith("transformer-lens")])
    return loop, fastest([entry for entry in entries if entry.framework == "torch"])


def throughput_sheet(results: Results) -> Sheet:
    """A row per contender: time per model-step, and models trained per second."""
    entries, steps_of_a_model = results.entries, results.settings["steps"]
    loop, best = (entry.timing if entry else None for entry in references(entries))
    rows: list[list[str]] = []
    for entry in entries:
        if entry.missing:
            why = f"not available: {entry.missing}"
            rows.append([entry.title, f"{entry.width:,}", why, *[NONE] * 4])
            continue
        timing = entry.timing
        rows.append(
            [
                entry.title,
                f"{entry.width:,}",
                number(1e6 * timing.median),
                spread(timing, 1e6),
                number(1 / (steps_of_a_model * timing.median)),
                speed_up(loop, timing),
                speed_up(best, timing),
            ]
        )
    headings = (
        "contender",
        "models",
        "us per model-step",
        "min .. max",
        "models/s",
        "x loop",
        "x best torch",
    )
    return Sheet("Throughput", headings, rows)


def start_sheet(entries: Sequence[Entry]) -> Sheet:
    """A row per contender: time to the first result, compilation, memory."""
    rows = [
        [
            f"{entry.title}, {entry.width:,}" if entry.width > 1 else entry.title,
            *(
                f"{of[start]:.1f}" if start in of else NONE
                for of in (entry.first_result, entry.done_once)
                for start in ("cold", "warm")
            ),
            f"{entry.host_bytes / MIB:,.0f}",
            NONE if entry.device_bytes is None else f"{entry.device_bytes / MIB:,.0f}",
        ]
        for entry in entries
        if not entry.missing
    ]
    headings = (
        "contender",
        "first result, cold, s",
        "warm, s",
        "compiling, cold, s",
        "warm, s",
        "peak memory, MiB",
        "of the GPU, MiB",
    )
    return Sheet("Starting, and memory", headings, rows)


def sweep_sheet(axis: str, points: Sequence[Point]) -> Sheet:
    """A row per value: the cost with every contender, and its ratio to the first."""
    first, *others = points[0].entries
    rows = []
    for point in points:
        costs = [f"{cost(entry)}" for entry in point.entries]
        reference, *rest = (entry.timing if entry.seconds else None for entry in point.entries)
        ratios = [NONE if timing is None else speed_up(reference, timing) for timing in rest]
        rows.append([str(point.value), *costs, *ratios])
    headings = [SWEEPS[axis].title]
    headings += [f"{called(entry)}, us per model-step" for entry in (first, *others)]
    headings += [f"x, {called(entry)}" for entry in others]
    return Sheet(f"Cost against {SWEEPS[axis].title}", headings, rows)


def cost(entry: Entry) -> str:
    """Median and range of a model's step in microseconds, or why there is none."""
    if entry.missing:
        return entry.missing
    return f"{number(1e6 * entry.timing.median)} ({spread(entry.timing, 1e6)})"


def called(entry: Entry) -> str:
    """A contender, and its width if it has one."""
    return entry.title if entry.width == 1 else f"{entry.title}, {entry.width} models"


def whole_run_sheet(results: Results) -> Sheet:
    """A row per program: process start to weights on disk; the speed-up is over the last."""
    timings = [Timing(title, tuple(seconds)) for title, seconds in results.whole_runs.items()]
    return timing_sheet("Whole run", timings, "s", 1.0)


def waiting_sheet(starts: Mapping[str, Sequence[float]]) -> Sheet:
    """A row per event that a person waits for; the ratio is to the first row's time."""
    first, *others = (Timing(title, tuple(seconds)) for title, seconds in starts.items())
    rows = [
        [
            timing.name,
            number(timing.median),
            spread(timing),
            number(timing.ratio_to(first)),
        ]
        for timing in (first, *others)
    ]
    return Sheet("Waiting", ("event", "median s", "min .. max", "times the first"), rows)


def calls_sheet(calls: Mapping[str, Mapping[str, Sequence[float]]]) -> Sheet:
    """A row per call of a person who explores a model: milliseconds in both frameworks."""
    rows = []
    for title, by_framework in calls.items():
        ours, theirs = (Timing(title, tuple(by_framework.get(f, ()))) for f in ("jax", "torch"))
        row = [title, number(1e3 * ours.median), spread(ours, 1e3)]
        if theirs.seconds:
            row += [number(1e3 * theirs.median), number(ours.ratio_to(theirs))]
        rows.append(row if theirs.seconds else [*row, NONE, NONE])
    headings = (
        "call, outside jit",
        "JAX, ms",
        "min .. max",
        "TransformerLens, ms",
        "JAX / TransformerLens",
    )
    return Sheet("Exploring", headings, rows)


def timing_sheet(title: str, timings: Sequence[Timing], unit: str, scale: float) -> Sheet:
    """Medians and ranges; the speed-up is over the last one, the reference."""
    rows = [
        [
            timing.name,
            number(scale * timing.median),
            spread(timing, scale),
            speed_up(timings[-1], timing),
        ]
        for timing in timings
    ]
    return Sheet(title, ("contender", f"median {unit}", "min .. max", "speed-up"), rows)


def all_sheets(results: Results) -> list[Sheet]:
    """The tables of every part that was measured."""
    sheets = []
    if results.entries:
        sheets += [throughput_sheet(results), start_sheet(results.entries)]
    if results.calls:
        sheets.append(calls_sheet(results.calls))
    if results.starts:
        sheets.append(waiting_sheet(results.starts))
    if results.whole_runs:
        sheets.append(whole_run_sheet(results))
    return sheets + [sweep_sheet(axis, points) for axis, points in results.sweeps.items()]

"""The page of results: Markdown, with pictures beside it."""

from __future__ import annotations

from pathlib import Path

from benchmarks.interactive import BATCH, CALLS
from benchmarks.plots import SWEPT, THROUGHPUT, draw_all
from benchmarks.results import FILE, Results
from benchmarks.same_training import FACTOR, FIRST_STEPS
from benchmarks.tables import (
    Sheet,
    calls_sheet,
    references,
    start_sheet,
    sweep_sheet,
    throughput_sheet,
    waiting_sheet,
    whole_run_sheet,
)
from revinc.atomic_files import write_text

PAGE = "README.md"


def write_page(results: Results, folder: Path) -> Path:
    """Write the pictures and the page; its path."""
    drawn = draw_all(results, folder)
    text = "\n\n".join(part for part in page(results, drawn) if part) + "\n"
    write_text(folder / PAGE, text)
    return folder / PAGE


def page(results: Results, drawn: list[str]) -> list[str]:
    """The paragraphs of the page."""
    parts = ["# Benchmarks", introduction(results), machine(results)]
    if results.entries:
        parts += [
            section(throughput_sheet(results), throughput_words(results)),
            picture(THROUGHPUT, "Model-steps per second against models side by side", drawn),
            section(start_sheet(results.entries), start_words(results)),
        ]
    if results.calls:
        parts.append(section(calls_sheet(results.calls), calls_words(results)))
    if results.starts:
        parts.append(section(waiting_sheet(results.starts), waiting_words(results)))
    if results.whole_runs:
        parts.append(section(whole_run_sheet(results), whole_run_words(results)))
    if results.sweeps:
        sheets = [sweep_sheet(axis, points) for axis, points in results.sweeps.items()]
        parts += [section(sheet) for sheet in sheets]
        parts.append(picture(SWEPT, "Cost of a model's step against sizes", drawn))
    return parts


def introduction(results: Results) -> str:
    settings = results.settings
    return (
        f"Written by `{results.command}` from [{FILE}]({FILE}), which holds every time in seconds. "
        "Other machines give other times; the ratios are what to look at.\n\n"
        f"All train {trained(results)} from the same initial "
        "weights on the same batches; where models are trained side by side, each has its own "
        f"seed. Before a contender is timed, its losses over the first {FIRST_STEPS} steps are "
        f"compared with a float64 run: it may be {FACTOR:g} times as far from it as torch's "
        "own float32 runs (from the weights as they are, and moved by an ulp) are at most. "
        "Contenders have a process each and are timed in turn (A B A B ..), "
        f"{settings['rounds']:g} rounds of about {settings['seconds']:g} s each; numbers are "
        "medians over rounds. Ratios are taken within a round, and their median and range given."
    )


def trained(results: Results) -> str:
    """The training config in words."""
    if results.config:
        return f"what the flags `{results.config}` say"
    return "the tutorial's model in float32 (batches of 16, AdamW)"


def machine(results: Results) -> str:
    sheet = Sheet("", ("measured on", ""), list(map(list, results.machine.items())))
    return sheet.as_markdown().replace("---:", "---")


def section(sheet: Sheet, words: str = "") -> str:
    return "\n\n".join(filter(None, (f"## {sheet.title}", words, sheet.as_markdown())))


def throughput_words(results: Results) -> str:
    loop, best = references(results.entries)
    words = "`us per model-step`: time per training step, divided by the models that it trains. "
    words += (
        f"`models/s`: those trained per second, {results.settings['steps']:,.0f} steps each, "
        "without starting and evaluation. "
    )
    if loop:
        words += f"`x loop`: how many times faster than {loop.title}. "
    if best:
        words += f"`x best torch`: than {best.title}, {best.width:,} side by side. "
    used = max((entry.bound_used for entry in results.entries), default=0.0)
    return words + f"The most that a contender needed of the bound on its first losses: {used:.0%}."


def start_words(results: Results) -> str:  # noqa: ARG001
    return (
        f"First result: from process start to the losses of the first {FIRST_STEPS} steps; cold "
        "with empty compilation caches, warm with what the cold start left there. Compiling: what "
        "the first of two such calls in a process took longer than the second. Each was measured "
        "once. Peak memory is the process's."
    )


def calls_words(results: Results) -> str:
    return (
        f"Calls on {BATCH} sequences of a model with given weights, in one process: means of {CALLS} "
        f"calls, {results.settings['rounds']:g} rounds in turn, torch with 1 thread and without "
        "gradients. The ratio is taken within a round. A first call compiles for a batch size that "
        "was not seen before."
    )


def waiting_words(results: Results) -> str:
    return (
        "Seconds from the start of a process to an event in it, "
        f"{results.settings['starts']:g} rounds in turn. The ratio is taken within a round. The "
        "page alone is counted from the weights on disk."
    )


def whole_run_words(results: Results) -> str:
    return (
        f"A training command of {results.settings['steps']:g} steps, from process start to weights "
        f"on disk, {results.settings['whole_runs']:g} rounds."
    )


def picture(name: str, caption: str, drawn: list[str]) -> str:
    return f"![{caption}]({name})" if name in drawn else ""

"""The page of what was asked of a GPU: Markdown, written from the record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.gpu.record import FILE, Record
from benchmarks.gpu.stages import Outcome
from benchmarks.results import Results
from benchmarks.same_training import FIRST_STEPS
from benchmarks.tables import NONE, Sheet, throughput_sheet
from revinc import PRESETS
from revinc.atomic_files import write_text

PAGE = "gpu.md"
PRESET_OF = {"table": "tutorial", "grokking": "grokking"}
"""By the stages that measure, the preset that they train."""


def write_page(record: Record, folder: Path) -> Path:
    """Write the page; its path."""
    write_text(folder / PAGE, "\n\n".join(paragraphs(record)) + "\n")
    return folder / PAGE


def paragraphs(record: Record) -> Iterator[str]:
    """The paragraphs of the page."""
    yield f"# {title(record)}"
    yield f"Written by `{record.command}`; [{FILE}]({FILE}) holds every time in seconds."
    if record.dry_run:
        yield (
            "This was a dry run: no GPU was used, everything had tiny sizes, and **no number here says "
            "anything about a GPU**."
        )
    yield stages_sheet(record).as_markdown()
    for outcome in record.outcomes:
        yield f"## {outcome.name}: {record.stages[outcome.name]}"
        yield from words_of(outcome)
        if outcome.entries:
            yield times(outcome)
    yield "## Measured on"
    rows = list(map(list, record.machine.items()))
    yield Sheet("", ("what", ""), rows).as_markdown().replace("---:", "---")


def title(record: Record) -> str:
    return "A dry run on a CPU" if record.dry_run else f"On {record.machine['torch sees']}"


def stages_sheet(record: Record) -> Sheet:
    """A row per stage, also for those that were not begun."""
    ended = {outcome.name: outcome for outcome in record.outcomes}
    rows = []
    for name, what in record.stages.items():
        verdict, seconds = "not begun", NONE
        if outcome := ended.get(name):
            verdict, seconds = "FAILED" if outcome.failure else "passed", f"{outcome.seconds:.0f}"
        rows.append([f"{name}: {what}", verdict, seconds])
    total = sum(outcome.seconds for outcome in record.outcomes)
    rows.append(["all", "", f"{total:.0f}"])
    return Sheet("", ("stage", "outcome", "seconds"), rows)


def words_of(outcome: Outcome) -> Iterator[str]:
    """Why the stage failed, and its remarks as a list."""
    if outcome.failure:
        yield f"**Failed**: {outcome.failure}"
    if outcome.remarks:
        yield "\n".join(f"- {remark}" for remark in outcome.remarks)


def times(outcome: Outcome) -> str:
    """The table of a stage that measures, and what its columns mean."""
    steps = PRESETS[PRESET_OF[outcome.name]].steps
    results = Results("", {}, {"steps": steps}, outcome.entries)
    words = (
        "`us per model-step`: the time of a training step, divided by the models that it trains. "
        f"`models/s`: those trained per second, {steps:,} steps each, without starting and "
        "evaluation. `x loop`: how many times faster than the tutorial's loop on TransformerLens, on "
        "the same machine; `x best torch`: than the fastest contender in torch. Ratios are taken "
        f"within a round. Before the timing the losses of {FIRST_STEPS} steps were compared with a "
        "float64 run."
    )
    return f"{words}\n\n{throughput_sheet(results).as_markdown()}"

"""The stages of the command: each asks one thing, and the first that fails ends it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.gpu.failure import StageFailed
from benchmarks.gpu.sizes import Sizes
from benchmarks.results import Entry
from revinc.errors import one_line
from revinc.terminal import PlainConsole


@dataclass(frozen=True)
class Setting:
    """What a stage is given.

    Attributes:
        sizes: how much it asks.
        home: an empty folder, which is deleted at the end.
        console: where it prints and shows its progress.
    """

    sizes: Sizes
    home: Path
    console: PlainConsole


@dataclass(frozen=True)
class Findings:
    """What a stage found: sentences, and the times of contenders if it measured any."""

    remarks: list[str]
    entries: list[Entry] = field(default_factory=list)


@dataclass(frozen=True)
class Stage:
    """A question to the GPU.

    Attributes:
        name: a word for it.
        title: what it does, in a sentence without a full stop.
        ask: finds the answer, or raises `StageFailed` or another error.
    """

    name: str
    title: str
    ask: Callable[[Setting], Findings]


@dataclass(frozen=True)
class Outcome:
    """What came of a stage.

    Attributes:
        name: the stage's name.
        seconds: that it took.
        failure: a sentence; empty if the stage passed.
        remarks: sentences on what was found.
        entries: the times of contenders.
    """

    name: str
    seconds: float
    failure: str = ""
    remarks: list[str] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)


def run_stages(stages: Sequence[Stage], setting: Setting) -> Iterator[Outcome]:
    """Run the stages in order up to the first that fails; yield the outcome of each."""
    for number, stage in enumerate(stages, 1):
        setting.console.print(
            f"{number}/{len(stages)} {stage.name}: {stage.title} ...", soft_wrap=True
        )
        outcome = run_stage(stage, setting)
        for remark in outcome.remarks:
            setting.console.print(f"  {remark}", soft_wrap=True)
        verdict = "failed" if outcome.failure else "passed"
        setting.console.print(f"  {verdict} after {outcome.seconds:.0f} s")
        yield outcome
        if outcome.failure:
            return


def run_stage(stage: Stage, setting: Setting) -> Outcome:
    """Run one stage. Whatever goes wrong is its outcome."""
    begin = time.perf_counter()
    try:
        findings, failure = stage.ask(setting), ""
    except StageFailed as error:
        findings, failure = Findings([]), one_line(error)
    except Exception as error:  # on a GPU anything can happen, and what was found is to be kept
        findings, failure = Findings([]), f"{type(error).__name__}: {one_line(error)}"
    seconds = time.perf_counter() - begin
    return Outcome(stage.name, seconds, failure, findings.remarks, findings.entries)

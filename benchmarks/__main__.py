"""Ways of training a model, timed side by side: writes results.json, a page and pictures."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax

from benchmarks import start
from benchmarks.contender import Contender
from benchmarks.entrants import Effort, measure
from benchmarks.interactive import N_CALLS, time_calls
from benchmarks.machine import describe_machine, in_a_line
from benchmarks.progress import progress_bar
from benchmarks.registry import IN_SWEEPS, all_contenders, sweep_contenders
from benchmarks.report import write_page
from benchmarks.results import Point, Results
from benchmarks.same_training import AnotherTraining
from benchmarks.sweeps import SWEEPS, measure_sweep
from benchmarks.tables import all_sheets
from benchmarks.whole_runs import time_whole_runs
from benchmarks.worker import WorkerFailed
from revinc import PRESETS, TrainConfig, UserError
from revinc.command_errors import add_version, fail, run_command, words_parser
from revinc.config_flags import as_flags, changed_fields
from revinc.config_parser import make_config_parser, parse_config, preset
from revinc.errors import near_names, shown
from revinc.flag_values import folder
from revinc.interrupts import run_to_exit
from revinc.terminal import PlainConsole

PARTS = ("throughput", "interactive", "start", "whole-runs", "sweeps")
OUT = Path("docs/benchmarks")

FULL = Effort(rounds=9, seconds=0.4)
QUICK = Effort(rounds=5, seconds=0.15, starts=("cold",))
PER_POINT = Effort(rounds=5, seconds=0.3, starts=("cold",))
WHOLE_RUNS, STARTS = 3, 5
"""Rounds of whole runs, and of what a person waits for."""


@dataclass(frozen=True)
class Selection:
    """The parts and the names of contenders that ``--only`` selects."""

    parts: Sequence[str]
    names: Sequence[str]


def select(
    only: Sequence[str] | None, known: Sequence[str], quick: bool, tutorial: bool = True
) -> Selection:
    """Read ``--only``. Names of contenders alone select the throughput part.

    Args:
        only: names of parts and contenders; None selects all.
        known: names of all contenders.
        quick: whether only the throughput part is selected by default.
        tutorial: whether the training config is the tutorial's, whose sizes the sweeps vary.

    Raises:
        UserError: for a name that is neither, or sweeps of another config.
    """
    only = only or []
    for name in only:
        if name not in (*PARTS, *known):
            hint = near_names(name, (*PARTS, *known))
            listed = f"parts: {', '.join(PARTS)}; contenders: {', '.join(known)}"
            raise UserError(f"--only: {shown(name)} is unknown{hint} ({listed})")
    parts = [part for part in PARTS if part in only]
    names = [name for name in known if name in only]
    if "sweeps" in parts and names and not set(names) & set(IN_SWEEPS):
        raise UserError(f"--only: sweeps compare {', '.join(IN_SWEEPS)}")
    if "sweeps" in parts and not tutorial:
        raise UserError("--only: sweeps vary the tutorial's config; leave other flags of it out")
    everything = PARTS[:1] if quick else PARTS if tutorial else PARTS[:-1]
    return Selection(parts or (PARTS[:1] if names else everything), names or known)


def benchmark_command(given: Sequence[str]) -> int | None:
    parser = make_parser()
    cfg, args = parse_config(parser, given, preset)
    console = PlainConsole()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.redraw:
        console.print(f"Page: {write_page(Results.load(args.out), args.out)}", soft_wrap=True)
        return None
    everyone = all_contenders(cfg, args.quick)
    names = list(dict.fromkeys(c.name for c in everyone))
    selection = select(args.only, names, args.quick, cfg == PRESETS["tutorial"])
    contenders = [contender for contender in everyone if contender.name in selection.names]
    # This process draws weights and compares losses; the accelerator is for the contenders.
    jax.config.update("jax_platforms", "cpu")
    try:
        for results in benchmark(cfg, selection, contenders, given, args.quick, console):
            results.save(args.out)  # whatever happens to the next part
    except (AnotherTraining, WorkerFailed) as error:
        return fail(parser, str(error), 1)
    for sheet in all_sheets(results):
        console.print()
        console.print(sheet.for_terminal())
    console.print()
    console.print(f"Page: {write_page(results, args.out)}", soft_wrap=True)
    return None


def benchmark(
    cfg: TrainConfig,
    selection: Selection,
    contenders: Sequence[Contender],
    given: Sequence[str],
    quick: bool,
    console: PlainConsole,
) -> Iterator[Results]:
    """Measure the selected parts, one after the other; the results so far, after each."""
    effort, words = QUICK if quick else FULL, list(as_flags(changed_fields(cfg)))
    results = Results(
        command=shlex.join(["python", "-m", "benchmarks", *given]),
        config=shlex.join(words),
        machine=describe_machine(),
        settings={
            "rounds": effort.rounds,
            "seconds": effort.seconds,
            "whole_runs": WHOLE_RUNS,
            "starts": STARTS,
            "steps": cfg.steps,
            "rounds of sweeps": PER_POINT.rounds,
        },
    )
    console.print(in_a_line(results.machine))
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        if "throughput" in selection.parts:
            n_steps = sum(map(effort.steps_of, contenders)) + 1
            with progress_bar(console, "throughput", n_steps) as follow:
                entries = measure(contenders, cfg, effort, home, follow)
            yield (results := dataclasses.replace(results, entries=entries))
        if "interactive" in selection.parts:
            with progress_bar(console, "interactive", (effort.rounds + 1) * N_CALLS) as follow:
                timed_calls = time_calls(cfg, effort.rounds, follow)
            yield (results := dataclasses.replace(results, calls=timed_calls))
        if "start" in selection.parts:
            n_turns = STARTS * len(start.contenders(words, home))
            with progress_bar(console, "start", n_turns) as follow:
                starts = start.time_starts(words, STARTS, home, follow)
            yield (results := dataclasses.replace(results, starts=starts))
        if "whole-runs" in selection.parts:
            timed = whole_runs(words, home, console)
            yield (results := dataclasses.replace(results, whole_runs=timed))
        if "sweeps" in selection.parts:
            compared = sweep_contenders(selection.names)
            for axis, points in sweeps(compared, home, console):
                swept = results.sweeps | {axis: points}
                yield (results := dataclasses.replace(results, sweeps=swept))


def whole_runs(words: Sequence[str], home: Path, console: PlainConsole) -> dict[str, list[float]]:
    """The seconds of every whole run, by title."""
    with progress_bar(console, "whole runs", 3 * WHOLE_RUNS) as follow:
        timings = time_whole_runs(words, WHOLE_RUNS, home / "runs", follow)
    return {title: list(timing.seconds) for title, timing in timings.items()}


def sweeps(
    contenders: Sequence[Contender], home: Path, console: PlainConsole
) -> Iterator[tuple[str, list[Point]]]:
    """The points of every sweep, one sweep after the other."""
    per_point = sum(map(PER_POINT.steps_of, contenders))
    for axis, sweep in SWEEPS.items():
        with progress_bar(console, f"sweep of {axis}", per_point * len(sweep.values)) as follow:
            yield axis, measure_sweep(sweep, contenders, PER_POINT, home / axis, follow)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the flags that are no fields of the training config."""
    parser = make_config_parser("python -m benchmarks")
    parser.description = __doc__
    add_version(parser)
    parser.add_argument(
        "--quick", action="store_true", help="fewer widths and rounds; no sweeps, no whole runs"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help=f"parts ({', '.join(PARTS)}) or contenders; an unknown name lists them",
    )
    parser.add_argument(
        "--out", type=folder, default=OUT, metavar="FOLDER", help=f"where results go ({OUT})"
    )
    parser.add_argument(
        "--redraw",
        action="store_true",
        help="measure nothing; write the page from the results in FOLDER",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_command(words_parser("python -m benchmarks", benchmark_command), argv)


if __name__ == "__main__":
    run_to_exit(main)

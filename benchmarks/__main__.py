"""``python -m benchmarks``: ways of training the tutorial's model, side by side on this machine.

Writes results.json, a page and pictures of it into a folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.contender import Contender
from benchmarks.entrants import Effort, Follow, measure
from benchmarks.machine import describe_machine
from benchmarks.registry import IN_SWEEPS, all_contenders, sweep_contenders
from benchmarks.report import write_page
from benchmarks.results import Point, Results
from benchmarks.same_training import AnotherTraining
from benchmarks.sweeps import SWEEPS, measure_sweep
from benchmarks.tables import all_sheets
from benchmarks.whole_runs import time_whole_runs
from benchmarks.worker import WorkerFailed
from revinc import PRESETS, UserError
from revinc.cli import fail, run_command
from revinc.errors import near_names

PARTS = ("throughput", "whole-runs", "sweeps")
OUT = Path("docs/benchmarks")

FULL = Effort(rounds=9, seconds=0.4)
QUICK = Effort(rounds=5, seconds=0.15, starts=("cold",))
PER_POINT = Effort(rounds=5, seconds=0.3, starts=("cold",))
WHOLE_RUNS = 3


@dataclass(frozen=True)
class Choice:
    """What ``--only`` leaves: parts, and contenders by name."""

    parts: Sequence[str]
    names: Sequence[str]


def chosen(only: Sequence[str] | None, known: Sequence[str], quick: bool) -> Choice:
    """Names of parts choose parts; names of contenders choose these, and throughput if no part is named.

    Raises:
        UserError: for a name that is neither.
    """
    only = only or []
    for name in only:
        if name not in (*PARTS, *known):
            hint = near_names(name, (*PARTS, *known))
            listed = f"parts: {', '.join(PARTS)}; contenders: {', '.join(known)}"
            raise UserError(f"--only: {name!r} is unknown{hint} ({listed})")
    parts = [part for part in PARTS if part in only]
    names = [name for name in known if name in only]
    if "sweeps" in parts and names and not set(names) & set(IN_SWEEPS):
        raise UserError(f"--only: sweeps compare {', '.join(IN_SWEEPS)}")
    everything = PARTS[:1] if quick else PARTS
    return Choice(parts or (PARTS[:1] if names else everything), names or known)


def benchmark_command(args: argparse.Namespace) -> int | None:
    console = Console(highlight=False)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.redraw:
        console.print(f"Page: {write_page(Results.load(args.out), args.out)}", soft_wrap=True)
        return None
    everyone = all_contenders(args.quick)
    choice = chosen(args.only, list(dict.fromkeys(c.name for c in everyone)), args.quick)
    contenders = [contender for contender in everyone if contender.name in choice.names]
    # This process draws weights and judges; the accelerator is the contenders'.
    jax.config.update("jax_platforms", "cpu")
    try:
        for results in benchmark(choice, contenders, args, console):
            results.save(args.out)  # whatever happens to the next part
    except (AnotherTraining, WorkerFailed) as error:
        return fail(args.parser, str(error), 1)
    for sheet in all_sheets(results):
        console.print()
        console.print(sheet.for_terminal())
    console.print(f"\nPage: {write_page(results, args.out)}", soft_wrap=True)
    return None


def benchmark(
    choice: Choice, contenders: Sequence[Contender], args: argparse.Namespace, console: Console
) -> Iterator[Results]:
    """Measure the chosen parts, one after the other: what is known after each."""
    effort = QUICK if args.quick else FULL
    results = Results(
        command=shlex.join(["python", "-m", "benchmarks", *args.given]),
        machine=describe_machine(),
        settings={
            "rounds": effort.rounds,
            "seconds": effort.seconds,
            "whole_runs": WHOLE_RUNS,
            "steps": PRESETS["tutorial"].steps,
            "rounds of sweeps": PER_POINT.rounds,
        },
    )
    console.print(", ".join(f"{name} {value}" for name, value in results.machine.items()))
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        if "throughput" in choice.parts:
            n_steps = sum(map(effort.steps_of, contenders)) + 1
            with followed(console, "throughput", n_steps) as follow:
                recipe = PRESETS["tutorial"]
                entries = measure(contenders, recipe, effort, home, follow)
            yield (results := dataclasses.replace(results, entries=entries))
        if "whole-runs" in choice.parts:
            yield (results := dataclasses.replace(results, whole_runs=whole_runs(home, console)))
        if "sweeps" in choice.parts:
            compared = sweep_contenders(choice.names)
            for axis, points in sweeps(compared, home, console):
                swept = results.sweeps | {axis: points}
                yield (results := dataclasses.replace(results, sweeps=swept))


def whole_runs(home: Path, console: Console) -> dict[str, list[float]]:
    """The seconds of every whole run, by title."""
    steps = PRESETS["tutorial"].steps
    with followed(console, "whole runs", 3 * WHOLE_RUNS) as follow:
        timings = time_whole_runs(WHOLE_RUNS, steps, home / "runs", follow)
    return {title: list(timing.seconds) for title, timing in timings.items()}


def sweeps(
    contenders: Sequence[Contender], home: Path, console: Console
) -> Iterator[tuple[str, list[Point]]]:
    """The points of every sweep, one sweep after the other."""
    per_point = sum(map(PER_POINT.steps_of, contenders))
    for axis, sweep in SWEEPS.items():
        with followed(console, f"sweep of {axis}", per_point * len(sweep.values)) as follow:
            yield axis, measure_sweep(sweep, contenders, PER_POINT, home / axis, follow)


@contextmanager
def followed(console: Console, title: str, total: int) -> Iterator[Follow]:
    """A bar that moves whenever what it yields is told what is being done."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[doing]}"),
    )
    quiet = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=quiet) as bar:
        task = bar.add_task(title, total=total, doing="")
        done = -1

        def follow(doing: str) -> None:
            nonlocal done
            done += 1
            bar.update(task, completed=done, doing=doing)

        yield follow


def make_parser(given: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="fewer widths and rounds, no sweeps and whole runs"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help=f"parts ({', '.join(PARTS)}) or contenders; an unknown name lists them",
    )
    parser.add_argument(
        "--out", type=Path, default=OUT, metavar="FOLDER", help=f"where results go ({OUT})"
    )
    parser.add_argument(
        "--redraw",
        action="store_true",
        help="measure nothing; write the page from FOLDER's results",
    )
    parser.set_defaults(command=benchmark_command, parser=parser, given=given)
    return parser


def main(argv: list[str] | None = None) -> int:
    given = sys.argv[1:] if argv is None else argv
    return run_command(make_parser(given), given)


if __name__ == "__main__":
    sys.exit(main())

"""``python -m parity check RUN``: is the model in a run folder the one that TransformerLens runs?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from jax_revinc import Run
from parity.bridge import to_transformer_lens
from parity.levels import TITLES, Level, check_level, check_names
from parity.sides import Question
from parity.training_levels import check_every_step, check_optimizer
from revinc.cli import run_command
from revinc.config import DTYPES
from revinc.tasks import predicted_positions


def check_command(args: argparse.Namespace) -> int:
    run = Run.load(args.run)
    console = Console(highlight=False)
    levels = []
    with console.status("comparing") as status:
        for name in args.levels:
            status.update(f"comparing: {name} {TITLES[name]}")
            levels += check(run, name, args.dtype)
    for level in levels:
        show(console, level)
    return 0 if all(level.passed for level in levels) else 1


def check(run: Run, name: str, dtypes: list[str]) -> list[Level]:
    """One level in each precision that it has: L0 needs none, L5 is of float64 alone."""
    ours = run.model()
    theirs = to_transformer_lens(ours)
    task = run.config.task
    question = Question(task.sequences(), predicted_positions(task))
    if name == "L0":
        return [check_names(ours, theirs, question)]
    if name == "L5":
        return [check_every_step(run.config)]
    if name == "L4":
        return [check_optimizer(run.config, dtype) for dtype in dtypes]
    return [check_level(name, ours, theirs, question, dtype) for dtype in dtypes]


def show(console: Console, level: Level) -> None:
    """A row per tensor, then what else there is to say, then the verdict."""
    if level.name != "L0":
        console.print(comparison_table(level))
    for remark in level.remarks:
        console.print(remark, soft_wrap=True)
    verdict = "PASS" if level.passed else "FAIL"
    counted = f"{len(level.comparisons)} tensors, {len(level.failures)} differ"
    console.print(f"{verdict}  {level.title}, {level.dtype}: {counted}\n", soft_wrap=True)


def comparison_table(level: Level) -> Table:
    """Errors and bounds of a level, in execution order."""
    title = f"{level.title}, {level.dtype}"
    table = Table("tensor", "shape", box=None, title=title, title_justify="left")
    for heading in ("error", "bound", "verdict"):
        table.add_column(heading, justify="right")
    for row in level.comparisons:
        verdict = "ok" if row.passed else "[bold red]FAIL[/]"
        label = f"{row.name} ({row.note})" if row.note else row.name
        table.add_row(label, str(list(row.shape)), f"{row.error:.1e}", f"{row.bound:.1e}", verdict)
    return table


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="parity", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    check = commands.add_parser("check", help="compare a run's model across the frameworks")
    check.add_argument("run", type=Path, metavar="RUN", help="a finished run folder")
    check.add_argument(
        "--dtype", nargs="+", choices=DTYPES, default=["float64", "float32"], help="default: both"
    )
    check.add_argument(
        "--levels", nargs="+", choices=TITLES, default=list(TITLES), help="default: all"
    )
    check.set_defaults(command=check_command)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(make_parser()))

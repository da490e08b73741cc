"""``python -m parity check RUN``: is the model in a run folder the one that TransformerLens runs?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from parity.forward import Comparison, compare_forward
from revinc.cli import run_command
from revinc.config import DTYPES
from revinc.runs import Run


def check_command(args: argparse.Namespace) -> int:
    run = Run.load(args.run)
    task, console = run.config.task, Console(highlight=False)
    verdicts = []
    for dtype in args.dtype:
        comparisons = compare_forward(
            run.config.model, run.state_dict(), task.sequences(), task.loss_mask(), dtype
        )
        passed = all(comparison.passed for comparison in comparisons)
        console.print(comparison_table(comparisons, dtype))
        console.print(
            f"{'PASS' if passed else 'FAIL'}  {dtype}: {len(comparisons)} tensors over all "
            f"{len(task.sequences())} sequences, JAX against TransformerLens 3.9\n"
        )
        verdicts.append(passed)
    return 0 if all(verdicts) else 1


def comparison_table(comparisons: list[Comparison], dtype: str) -> Table:
    """A row per tensor, in execution order."""
    table = Table("tensor", "shape", box=None, title=dtype, title_justify="left")
    for heading in ("error", "bound", "verdict"):
        table.add_column(heading, justify="right")
    for row in comparisons:
        verdict = "ok" if row.passed else "[bold red]FAIL[/]"
        table.add_row(
            row.name, str(list(row.shape)), f"{row.error:.1e}", f"{row.bound:.1e}", verdict
        )
    return table


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="parity", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    check = commands.add_parser("check", help="compare a run's model across the frameworks")
    check.add_argument("run", type=Path, metavar="RUN", help="a finished run folder")
    check.add_argument(
        "--dtype", nargs="+", choices=DTYPES, default=["float64", "float32"], help="default: both"
    )
    check.set_defaults(command=check_command)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(make_parser()))

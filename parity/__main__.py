"""``python -m parity check [RUN]``: is the model in a run folder the one that TransformerLens runs?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from jax_revinc import Run
from parity.check import OURS, check
from parity.levels import TITLES
from parity.page import write_page
from revinc import PRESETS, UserError
from revinc.cli import run_command
from revinc.model_config import DTYPES
from revinc.recipe_parser import DEFAULT_PRESET
from torch_reference.installed import MODULES, VERSION, WORLD

JSON = "parity.json"
PAGE = "parity.html"


def check_command(args: argparse.Namespace) -> int:
    if args.against not in (None, WORLD):
        raise UserError(
            f"TransformerLens {VERSION} is installed here, not {args.against}; the two can't be "
            "installed together, and the README says how to get an environment of each"
        )
    subject = PRESETS[DEFAULT_PRESET] if args.run is None else Run.load(args.run)
    console = Console(highlight=False)

    def follow(levels: Sequence[str]) -> Iterator[str]:
        with console.status("comparing") as status:
            for name in levels:
                status.update(f"comparing: {name} {TITLES[name]}")
                yield name

    report = check(subject, args.levels, args.dtype, follow, args.engine)
    report.print(console)
    folder = args.out or args.run or Path()
    folder.mkdir(parents=True, exist_ok=True)
    report.save_json(folder / JSON)
    verdict = "PASS" if report.passed else "FAIL"
    console.print(f"{verdict}  {report.subject}", soft_wrap=True)
    console.print(f"Page to open: {write_page(report, folder / PAGE)}", soft_wrap=True)
    return 0 if report.passed else 1


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="parity", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    checking = commands.add_parser("check", help="compare a run's model across the frameworks")
    checking.add_argument(
        "run",
        type=Path,
        nargs="?",
        metavar="RUN",
        help=f"a finished run folder (default: a fresh model of the {DEFAULT_PRESET} preset)",
    )
    checking.add_argument(
        "--against", choices=MODULES, help="the TransformerLens that must be installed"
    )
    checking.add_argument(
        "--dtype", nargs="+", choices=DTYPES, default=["float64", "float32"], help="default: both"
    )
    checking.add_argument(
        "--engine",
        choices=OURS,
        default="xla",
        help="what computes our losses, gradients and training (default: xla)",
    )
    checking.add_argument(
        "--levels",
        nargs="+",
        choices=TITLES,
        help="default: all; L7 only for a recipe whose torch population is stored: the tutorial's",
    )
    checking.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help=f"where {JSON} and {PAGE} go (default: RUN, or the current folder)",
    )
    checking.set_defaults(command=check_command)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(make_parser()))

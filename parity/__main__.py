"""``python -m parity check [RUN]``: compare a run's model and its training with TransformerLens."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from jax_revinc import Run
from parity.check import ENGINES, check
from parity.levels import TITLES
from parity.page import write_page
from revinc import PRESETS, UserError
from revinc.command_errors import add_task_of, run_command
from revinc.config_parser import DEFAULT_PRESET
from revinc.flag_values import folder, path
from revinc.interrupts import run_to_exit
from revinc.model_config import DTYPES
from revinc.terminal import PlainConsole, PlainParser
from torch_reference.installed_transformer_lens import MODULES, VERSION, WORLD

JSON = "parity.json"
PAGE = "parity.html"


def check_command(args: argparse.Namespace) -> int:
    if args.against not in (None, WORLD):
        raise UserError(
            f"TransformerLens {VERSION} is installed here, not {args.against}; the two can't be "
            "installed together; docs/check_parity.md says how to get an environment of each"
        )
    if args.task is not None and args.run is None:
        raise UserError(
            "--task says where to find the task of a run, but no run folder is given; add the run "
            "folder, or leave --task out"
        )
    subject = PRESETS[DEFAULT_PRESET] if args.run is None else Run.load(args.run, args.task)
    console = PlainConsole()

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
    parser = PlainParser(prog="parity", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    checking = commands.add_parser(
        "check", help="compare a run's model and its training with TransformerLens"
    )
    checking.add_argument(
        "run",
        type=path,
        nargs="?",
        metavar="RUN",
        help=f"a finished run folder (default: a fresh model of the {DEFAULT_PRESET} preset)",
    )
    add_task_of(checking, "the run")
    checking.add_argument(
        "--against", choices=MODULES, help="the version of TransformerLens that must be installed"
    )
    checking.add_argument(
        "--dtype",
        nargs="+",
        choices=DTYPES,
        default=["float64", "float32"],
        help="precisions to compare in (default: both)",
    )
    checking.add_argument(
        "--engine",
        choices=ENGINES,
        default="xla",
        help="engine that computes the losses, gradients and training in JAX (default: xla)",
    )
    checking.add_argument(
        "--levels",
        nargs="+",
        choices=TITLES,
        help="levels of the check (default: all that apply to the run); "
        + "; ".join(f"{name}: {title}" for name, title in TITLES.items()),
    )
    checking.add_argument(
        "--out",
        type=folder,
        metavar="FOLDER",
        help=f"where to write {JSON} and {PAGE} (default: RUN, or the current folder)",
    )
    checking.set_defaults(command=check_command)
    return parser


if __name__ == "__main__":
    run_to_exit(lambda: run_command(make_parser()))

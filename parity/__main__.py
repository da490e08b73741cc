"""The command ``python -m parity check``: a run's model and training, against TransformerLens."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from jax_revinc import Run, TrainConfig
from jax_revinc.compilation.compilation_cache import enable_compilation_cache
from parity.check import ENGINES, QUICK, applicable_levels, check, quick_levels
from parity.levels import TITLES
from parity.page import write_page
from parity.report import print_level
from revinc import PRESETS, UserError
from revinc.command_errors import add_task_of, add_version, run_command
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
    cfg = subject.config if isinstance(subject, Run) else subject
    levels = args.levels or (applicable_levels(cfg) if args.all else quick_levels(cfg))
    console = PlainConsole()
    report = check(subject, levels, args.dtype, partial(print_level, console), args.engine)
    folder = args.out or args.run or Path()
    folder.mkdir(parents=True, exist_ok=True)
    report.save_json(folder / JSON)
    if not args.levels and (sentence := left_out(cfg, levels)):
        console.print(sentence, soft_wrap=True)
    verdict = "PASS" if report.passed else "FAIL"
    console.print(f"{verdict}  {report.subject}", soft_wrap=True)
    console.print(f"Page to open: {write_page(report, folder / PAGE)}", soft_wrap=True)
    return 0 if report.passed else 1


def left_out(cfg: TrainConfig, levels: Sequence[str]) -> str:
    """A sentence on the levels that were not checked, and why not; empty if there are none."""
    applicable = applicable_levels(cfg)
    slow = [name for name in applicable if name not in levels]
    if slow:
        return f"Not checked: {', '.join(slow)}, which take minutes; --all checks them too."
    if impossible := [name for name in TITLES if name not in applicable]:
        return f"Not checked: {', '.join(impossible)}; torch has nothing to compare this run with."
    return ""


def make_parser() -> argparse.ArgumentParser:
    parser = PlainParser(
        prog="python -m parity",
        description="Compare a run's model and its training with TransformerLens.",
    )
    add_version(parser)
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
    which = checking.add_mutually_exclusive_group()
    which.add_argument(
        "--all",
        action="store_true",
        help="all levels that can be checked for the run: minutes, the first time",
    )
    which.add_argument(
        "--levels",
        nargs="+",
        choices=TITLES,
        help=f"levels of the check (default: {', '.join(QUICK)}); "
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


def main() -> int:
    enable_compilation_cache()
    return run_command(make_parser())


if __name__ == "__main__":
    run_to_exit(main)

"""``python -m jax_revinc train | inspect | report``"""

from __future__ import annotations

import argparse
import sys

from jax_revinc.compilation_cache import enable_compilation_cache
from jax_revinc.training import train
from revinc.cli import add_training_flags, config_from_flags, run_command
from revinc.console import Reporter


def train_command(args: argparse.Namespace) -> None:
    cfg = config_from_flags(args)
    reporter = Reporter()
    run = train(cfg, args.out, resume=args.resume, overwrite=args.overwrite, reporter=reporter)
    reporter.finished(run)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jax-revinc", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    training = commands.add_parser("train", help="train a model and write a run folder")
    add_training_flags(training)
    training.set_defaults(command=train_command)
    return parser


def main() -> int:
    enable_compilation_cache()
    return run_command(make_parser())


if __name__ == "__main__":
    sys.exit(main())

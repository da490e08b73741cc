"""``python -m torch_reference train``: the tutorial's program on TransformerLens, same run folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from revinc.cli import add_training_flags, config_from_flags, run_command
from revinc.console import Reporter
from revinc.runs import Run
from torch_reference.training import train


def train_command(args: argparse.Namespace) -> None:
    like = Run.load(args.like) if args.like else None
    cfg = config_from_flags(args, base=like.config if like else None)
    reporter = Reporter()
    run = train(
        cfg,
        args.out,
        resume=args.resume,
        overwrite=args.overwrite,
        init=like.state_dict(step=0) if like else None,
        device=args.device,
        reporter=reporter,
    )
    reporter.finished(run)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="torch_reference", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    training = commands.add_parser("train", help="train a model and write a run folder")
    add_training_flags(training)
    training.add_argument(
        "--like",
        type=Path,
        metavar="RUN",
        help="take this run's config, batches and initial weights",
    )
    training.add_argument("--device", help="a torch device (default: the GPU if there is one)")
    training.set_defaults(command=train_command)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(make_parser()))

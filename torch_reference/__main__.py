"""``python -m torch_reference train | population``: the tutorial's program on TransformerLens."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from revinc import PRESETS, TrainConfig, UserError
from revinc.cli import add_training_flags, config_from_flags, run_command
from revinc.console import Reporter
from revinc.recipe_parser import RecipeParser, preset_or_run
from revinc.runs import CONFIG, Run
from revinc.validation import require_int
from torch_reference.population import train_population
from torch_reference.training import train

OF_INITIAL_WEIGHTS = ("seed", "init_seed", "init_mode", "initializer_range")


def train_command(args: argparse.Namespace) -> None:
    if args.threads is not None:
        require_int("threads", args.threads, at_least=1)
        torch.set_num_threads(args.threads)
    like = Run.load(args.like) if args.like else None
    if like and (chosen := [flag for flag in OF_INITIAL_WEIGHTS if flag in args]):
        raise UserError(f"--like brings its own initial weights; leave out {', '.join(chosen)}")
    cfg = config_from_flags(args)
    reporter = Reporter()
    run = train(
        cfg,
        args.out,
        resume=args.resume,
        overwrite=args.overwrite,
        init=like.state_dict(step=0) if like else None,
        device=args.device,
        reporter=reporter,
        log=args.log,
    )
    reporter.finished(run)
    reporter.say(f"For its page: jax-revinc report {run.path}")


def like_or_other(flags: argparse.Namespace) -> TrainConfig:
    """The config of the run that flags name by ``--like``, or else what they begin with without it."""
    if flags.like and "preset" in flags:
        raise UserError("--preset and --like exclude each other; choose one")
    is_there = flags.like and (flags.like / CONFIG).exists()
    return Run.load(flags.like).config if is_there else preset_or_run(flags)


def population_command(args: argparse.Namespace) -> None:
    require_int("seeds", args.seeds, at_least=1)
    require_int("jobs", args.jobs, at_least=1)
    command = f"python -m torch_reference population --preset {args.preset} --seeds {args.seeds}"
    cfg = PRESETS[args.preset]
    outcomes = train_population(cfg, range(args.seeds), args.out, args.jobs, command)
    solved = (outcomes.final("holdout_accuracy") == 1).mean()
    print(f"{len(outcomes.table)} seeds in {args.out}; {solved:.1%} reach 100% on the holdout")


def make_parser() -> argparse.ArgumentParser:
    parser = RecipeParser(prog="torch_reference", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    training = commands.add_parser("train", help="train a model and write a run folder")
    add_training_flags(training, like_or_other)
    training.add_argument(
        "--like",
        type=Path,
        metavar="RUN",
        help="take this run's initial weights, and its config and batches but for the flags given",
    )
    training.add_argument(
        "--threads", type=int, metavar="N", help="torch's threads (one is enough for tiny models)"
    )
    training.add_argument("--device", help="a torch device (default: the GPU if there is one)")
    training.set_defaults(command=train_command)

    many = commands.add_parser("population", help="train many seeds, keep what became of each")
    many.add_argument("--preset", choices=PRESETS, default="tutorial", help="default: tutorial")
    many.add_argument("--seeds", type=int, required=True, metavar="N", help="seeds 0 to N - 1")
    many.add_argument("--jobs", type=int, default=2, metavar="N", help="processes (default: 2)")
    many.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="Parquet; seeds in it are kept"
    )
    many.set_defaults(command=population_command)
    return parser


if __name__ == "__main__":
    sys.exit(run_command(make_parser()))

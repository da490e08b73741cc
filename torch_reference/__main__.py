"""The command ``python -m torch_reference``: the tutorial's program on TransformerLens."""

from __future__ import annotations

import argparse

import torch

from revinc import PRESETS, TrainConfig, UserError
from revinc.command_errors import add_command, add_version, run_command
from revinc.config_parser import add_run_flags, make_config_parser, parse_config, preset_or_run
from revinc.flag_values import integer, path
from revinc.interrupts import run_to_exit
from revinc.number_format import percentage
from revinc.progress_output import Reporter
from revinc.runs import CONFIG, Run
from revinc.tasks import task_flag
from revinc.terminal import PlainConsole, PlainParser
from revinc.validation import require_int
from torch_reference.threads import fitting_threads
from torch_reference.train_many_seeds import train_population
from torch_reference.training import train

PROG = "python -m torch_reference"

OF_INITIAL_WEIGHTS = ("seed", "init_seed", "init_mode", "initializer_range")
"""Flags of the initial weights, which exclude ``--like``."""

SOME: dict[str, int] = {"at_least": 1, "below": 2**10}
"""The bounds of the numbers of threads and processes."""


def parse_train(words: list[str]) -> tuple[TrainConfig, argparse.Namespace]:
    """Parse the words after ``python -m torch_reference train`` into a config and flags."""
    parser = make_config_parser(f"{PROG} train")
    add_run_flags(parser)
    parser.add_argument(
        "--like",
        type=path,
        metavar="RUN",
        help="take this run's initial weights and batches, and its config except for given flags",
    )
    parser.add_argument(
        "--threads",
        type=integer,
        metavar="N",
        help="torch's threads (default: one for a tiny model, else torch's own choice)",
    )
    parser.add_argument("--device", help="a torch device (default: the GPU if there is one)")
    return parse_config(parser, words, like_or_other)


def train_command(words: list[str]) -> None:
    cfg, args = parse_train(words)
    n_threads = fitting_threads(cfg.model, cfg.batch_size)
    if args.threads is not None:
        n_threads = require_int("threads", args.threads, **SOME)
    torch.set_num_threads(n_threads)
    like = Run.load(args.like) if args.like else None
    if like and (chosen := [flag for flag in OF_INITIAL_WEIGHTS if flag in args]):
        raise UserError(
            f"--like sets the initial weights; leave out the flags for {', '.join(chosen)}"
        )
    reporter = Reporter(verbose=args.verbose)
    run = train(
        cfg,
        args.out,
        resume=args.resume,
        overwrite=args.overwrite,
        init=like.state_dict(step=0) if like else None,
        device=args.device,
        reporter=reporter,
        log=args.log,
        keep=args.keep,
    )
    reporter.finished(run)
    reporter.say(f"For its page: jax-revinc report {run.path}{task_flag(cfg.task)}")


def like_or_other(flags: argparse.Namespace) -> TrainConfig:
    """The config that other flags modify: of the run that ``--like`` names, else of a preset."""
    if flags.like and "preset" in flags:
        raise UserError("--preset and --like exclude each other; choose one")
    is_there = flags.like and (flags.like / CONFIG).exists()
    return Run.load(flags.like).config if is_there else preset_or_run(flags)


def population_command(args: argparse.Namespace) -> None:
    require_int("seeds", args.seeds, at_least=1, below=2**32)
    require_int("jobs", args.jobs, **SOME)
    command = f"python -m torch_reference population --preset {args.preset} --seeds {args.seeds}"
    cfg = PRESETS[args.preset]
    outcomes = train_population(cfg, range(args.seeds), args.out, args.jobs, command)
    solved = (outcomes.final("holdout_accuracy") == 1).mean()
    PlainConsole().print(
        f"{len(outcomes.table)} seeds in {args.out}; "
        f"{percentage(solved, 1)} reach 100% on the holdout",
        soft_wrap=True,
    )


def make_parser() -> argparse.ArgumentParser:
    parser = PlainParser(prog=PROG, description="Train TransformerLens' model in torch.")
    add_version(parser)
    commands = parser.add_subparsers(required=True, metavar="command")
    add_command(commands, "train", "train a model and write a run folder", train_command)

    many = commands.add_parser("population", help="train many seeds and write their outcomes")
    many.add_argument("--preset", choices=PRESETS, default="tutorial", help="default: tutorial")
    many.add_argument("--seeds", type=integer, required=True, metavar="N", help="seeds 0 to N - 1")
    many.add_argument("--jobs", type=integer, default=2, metavar="N", help="processes (default: 2)")
    many.add_argument(
        "--out",
        type=path,
        required=True,
        metavar="FILE",
        help="a Parquet file; seeds that it holds are not trained again",
    )
    many.set_defaults(command=population_command)
    return parser


if __name__ == "__main__":
    run_to_exit(lambda: run_command(make_parser()))

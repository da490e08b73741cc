"""The command ``jax-revinc export``, which takes a model out of a population as a run folder."""

from __future__ import annotations

import argparse

from jax_revinc.population import load
from jax_revinc.population.export_model import best_model, export_model
from revinc.command_errors import add_task_of
from revinc.flag_values import integer, path
from revinc.number_format import percentage
from revinc.tasks import task_flag
from revinc.terminal import PlainConsole, PlainParser


def parse(words: list[str]) -> argparse.Namespace:
    """Parse the words after ``jax-revinc export``."""
    parser = PlainParser(prog="jax-revinc export", description=__doc__)
    parser.add_argument("store", type=path, metavar="STORE", help="a population's folder")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", type=integer, metavar="N", help="the model's number")
    which.add_argument(
        "--best",
        action="store_true",
        help="the model with the best holdout accuracy; of several, that with the lowest loss",
    )
    parser.add_argument("--out", type=path, required=True, metavar="RUN", help="the run folder")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in RUN")
    add_task_of(parser, "the population")
    return parser.parse_args(words)


def run_command(words: list[str]) -> None:
    args, console = parse(words), PlainConsole()
    population = load(args.store, args.task)
    model = best_model(population) if args.best else args.model
    run = export_model(population, model, args.out, overwrite=args.overwrite)
    last, task = run.metrics.iloc[-1], run.config.task
    solved = "solved" if last["holdout_accuracy"] >= task.solved else "not solved"
    for line in (
        f"Model {model} of {args.store} is the run {args.out} now: "
        f"{percentage(last['holdout_accuracy'])} of the holdout is right, {solved}.",
        f"Its page: jax-revinc report {args.out}{task_flag(task)}",
        f"Against TransformerLens: python -m parity check {args.out}{task_flag(task)}",
    ):
        console.print(line, soft_wrap=True)

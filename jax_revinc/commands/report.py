"""The command ``jax-revinc report``, which writes the page of a run, of a population's model, or of
two runs side by side.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from jax_revinc.population import load
from jax_revinc.population.store import CONFIG
from jax_revinc.report import write_comparison, write_population_model_page, write_report
from jax_revinc.training import Run
from revinc import TrainConfig, UserError
from revinc.command_errors import add_task_of
from revinc.flag_values import integer, path
from revinc.memory_estimate import require_room_to_look_into
from revinc.terminal import PlainConsole, PlainParser

DESCRIPTION = (
    "Write the page of a run again, a page that compares two runs, or the page of one model of a "
    "population."
)


def parse(words: list[str]) -> argparse.Namespace:
    """Parse the words after ``jax-revinc report``."""
    parser = PlainParser(prog="jax-revinc report", description=DESCRIPTION)
    parser.add_argument(
        "folder", type=path, metavar="RUN", help="a finished run; with --model, a population"
    )
    parser.add_argument(
        "other",
        type=path,
        nargs="?",
        metavar="OTHER",
        help="another run of the same task, to compare them on a page in RUN",
    )
    parser.add_argument(
        "--model",
        type=integer,
        metavar="N",
        help="write the page of this model of the population RUN into its folder",
    )
    add_task_of(parser, "the runs or the population")
    args = parser.parse_args(words)
    if args.other is not None and args.model is not None:
        parser.error("--model N takes a population alone; name one folder")
    return args


def run_command(words: list[str]) -> None:
    cfg, write = what_to_write(parse(words))
    console = PlainConsole()
    require_room_to_look_into(cfg)
    with console.status("Writing the page ..."):
        page = write()
    console.print(f"Page to open: {page}", soft_wrap=True)


def what_to_write(args: argparse.Namespace) -> tuple[TrainConfig, Callable[[], Path]]:
    """The config of what the command line names, and a function that writes the page about it."""
    if args.model is not None:
        population = load(args.folder, args.task)
        return population.config, partial(write_population_model_page, population, args.model)
    runs = [load_run(folder, args.task) for folder in (args.folder, args.other) if folder]
    return runs[0].config, partial(write_report if len(runs) == 1 else write_comparison, *runs)


def load_run(folder: Path, task: str | None) -> Run:
    """Open a run folder.

    Raises:
        UserError: if it is no run folder. Of a population, it says how to choose a model.
    """
    if (folder / CONFIG).is_file():
        raise UserError(
            f"{folder} is a population; name one of its models by --model N, or write the page of "
            f"all: jax-revinc atlas {folder}"
        )
    return Run.load(folder, task)

"""The command ``jax-revinc atlas``, which writes the page and the tables of a population."""

from __future__ import annotations

import argparse

from rich.progress import Progress, SpinnerColumn

from jax_revinc.population import load
from jax_revinc.report.atlas.page import FOLDER, write_atlas
from revinc.command_errors import add_task_of
from revinc.flag_values import path
from revinc.terminal import PlainConsole, PlainParser


def parse(words: list[str]) -> argparse.Namespace:
    """Parse the words after ``jax-revinc atlas``."""
    parser = PlainParser(prog="jax-revinc atlas", description=__doc__)
    parser.add_argument("store", type=path, metavar="STORE", help="a population's folder")
    add_task_of(parser, "the population")
    return parser.parse_args(words)


def run_command(words: list[str]) -> None:
    args = parse(words)
    population = load(args.store, args.task)
    console = PlainConsole()
    columns = (SpinnerColumn(), *Progress.get_default_columns())
    with console.progress(*columns) as bar:
        n_parts = len(population) + 1  # the page is drawn after the last model
        task = bar.add_task("measuring the claims on every model", total=n_parts)
        page = write_atlas(population, lambda n_models: bar.advance(task, n_models))
    console.print(f"Tables: {page.parent / FOLDER}", soft_wrap=True)
    console.print(f"Page to open: {page}", soft_wrap=True)

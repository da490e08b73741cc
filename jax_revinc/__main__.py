"""The command line ``jax-revinc``: train models, inspect them and write pages about them."""

from __future__ import annotations

import argparse
import logging
from typing import Any, NoReturn

import numpy as np
from rich.progress import Progress, SpinnerColumn

from jax_revinc.analysis.claims import why_none
from jax_revinc.analysis.inspection import activation_tables, prediction_sentence, weight_tables
from jax_revinc.analysis.terminal_tables import TABLES
from jax_revinc.compilation_cache import enable_compilation_cache
from jax_revinc.engines.engine_choice import add_engine_flag
from jax_revinc.population import load
from jax_revinc.population.command import population_command
from jax_revinc.report.atlas.page import FOLDER, write_atlas
from jax_revinc.report.page import write_report
from jax_revinc.training import Run, train
from revinc import TrainConfig
from revinc.command_errors import add_command, add_task_of, run_command
from revinc.config_parser import add_run_flags, make_config_parser, parse_config, preset_or_run
from revinc.dataset import make_dataset
from revinc.flag_values import integer, path
from revinc.interrupts import run_to_exit
from revinc.memory_estimate import require_room_to_look_into
from revinc.progress_output import Reporter
from revinc.terminal import PlainConsole, PlainFormatter, PlainParser, styled
from revinc.validation import require_index


def parse_train(words: list[str]) -> tuple[TrainConfig, argparse.Namespace]:
    """Parse the words after ``jax-revinc train`` into a training config and the other flags."""
    parser = make_config_parser("jax-revinc train")
    add_run_flags(parser)
    add_engine_flag(parser)
    return parse_config(parser, words, preset_or_run)


def train_command(words: list[str]) -> None:
    cfg, args = parse_train(words)
    require_room_to_look_into(cfg)
    reporter = Reporter()
    run = train(
        cfg,
        args.out,
        resume=args.resume,
        overwrite=args.overwrite,
        engine=args.engine,
        reporter=reporter,
        log=args.log,
    )
    reporter.finished(run)
    reporter.say("Looking into the model for its page ...")
    reporter.say(f"Page to open: {write_report(run)}")


def report_command(args: argparse.Namespace) -> None:
    run, console = Run.load(args.run, args.task), PlainConsole()
    require_room_to_look_into(run.config)
    with console.status("Looking into the model ..."):
        page = write_report(run)
    console.print(f"Page to open: {page}", soft_wrap=True)


def atlas_command(args: argparse.Namespace) -> None:
    population = load(args.store, args.task)
    console = PlainConsole()
    columns = (SpinnerColumn(), *Progress.get_default_columns())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        n_parts = len(population) + 1  # the page is drawn after the last model
        task = bar.add_task("measuring the claims on every model", total=n_parts)
        page = write_atlas(population, lambda n_models: bar.advance(task, n_models))
    console.print(f"Tables: {page.parent / FOLDER}", soft_wrap=True)
    console.print(f"Page to open: {page}", soft_wrap=True)


def inspect_command(args: argparse.Namespace) -> None:
    run, console = Run.load(args.run, args.task), PlainConsole()
    with console.status("Looking into the model ..."):
        print_inspection(run, args, console)


def print_inspection(run: Run, args: argparse.Namespace, console: PlainConsole) -> None:
    cfg, task, model = run.config.model, run.config.task, run.model(args.step)
    for layer in args.layer or ():
        require_index("layer", layer, cfg.n_layers)
    for head in args.head or ():
        require_index("head", head, cfg.n_heads)
    layers = range(cfg.n_layers) if args.layer is None else args.layer

    names = args.hook or [
        name
        for layer in layers
        for name in model.hook_dict
        if name in (f"blocks.{layer}.attn.hook_pattern", f"blocks.{layer}.hook_mlp_out")
    ]
    tokens = np.array([args.tokens]) if args.tokens else holdout_samples(run, args.sample)
    logits, cache = model.run_with_cache(tokens, names_filter=names)
    for i, sequence in enumerate(tokens):
        console.print()
        console.print(styled(prediction_sentence(task, sequence, np.asarray(logits[i]))))
        for name in names:
            activation = np.asarray(cache[name][i])
            heads = args.head if args.hook or activation.ndim == 3 else None
            console.print(*activation_tables(name, activation, task, sequence, heads), sep="\n")
    if not args.hook and not cfg.attn_only:
        for layer in layers:
            console.print(*weight_tables(model, layer), sep="\n")
    by_default = [] if why_none(task) else ["claims"]
    for table in by_default if args.tables is None else args.tables:
        console.print()
        console.print(styled(table))
        console.print(*TABLES[table](model, task), sep="\n")


def holdout_samples(run: Run, samples: list[int]) -> np.ndarray:
    """The input tokens [samples, pos] of the holdout sequences with the indices `samples`."""
    dataset = make_dataset(run.config)
    for sample in samples:
        require_index("holdout sample", sample, len(dataset.holdout_rows))
    return dataset.tokens[dataset.holdout_rows[samples], :-1]


def make_parser() -> argparse.ArgumentParser:
    parser = PlainParser(prog="jax-revinc", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    add_command(commands, "train", "train a model and write a run folder", train_command)

    inspect = commands.add_parser(
        "inspect",
        help="print attention patterns, MLP outputs and weights, and tables of what was learned",
    )
    _add_run(inspect, inspect_command)
    numbers: dict[str, Any] = {"type": integer, "nargs": "+", "metavar": "N"}
    what = inspect.add_mutually_exclusive_group()
    what.add_argument("--layer", **numbers, help="layers to print (default: all)")
    what.add_argument(
        "--hook",
        nargs="+",
        metavar="NAME",
        help="activations to print, by hook name (default: attention patterns and MLP outputs)",
    )
    inspect.add_argument("--head", **numbers, help="heads to print (default: all)")
    of = inspect.add_mutually_exclusive_group()
    of.add_argument(
        "--sample",
        **numbers,
        default=[0],
        help="holdout sequences to feed, counted from 0 (default: 0)",
    )
    of.add_argument("--tokens", **numbers, help="token ids to feed instead of a holdout sequence")
    inspect.add_argument(
        "--tables",
        nargs="*",
        choices=TABLES,
        help="tables of what was learned over the whole task (default: claims, if it has any)",
    )
    inspect.add_argument(
        "--step",
        type=integer,
        metavar="N",
        help="inspect the snapshot after N updates (default: the final weights)",
    )

    add_command(
        commands, "population", "train a population of models into a folder", population_command
    )

    atlas = commands.add_parser("atlas", help="write the page and the tables of a population")
    atlas.add_argument("store", type=path, metavar="STORE", help="a population's folder")
    add_task_of(atlas, "the population")
    atlas.set_defaults(command=atlas_command)

    report = commands.add_parser("report", help="write the page of a run again")
    _add_run(report, report_command)
    return parser


def _add_run(parser: argparse.ArgumentParser, command: object) -> None:
    parser.add_argument("run", type=path, metavar="RUN", help="a finished run folder")
    add_task_of(parser, "the run")
    parser.set_defaults(command=command)


def main() -> int:
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter("%(message)s"))
    logging.basicConfig(handlers=[handler])
    logging.getLogger("jax_revinc").setLevel(logging.INFO)
    enable_compilation_cache()
    return run_command(make_parser())


def command_line() -> NoReturn:
    """The entry point of the command ``jax-revinc``: run `main`, then exit the process."""
    run_to_exit(main)


if __name__ == "__main__":
    command_line()

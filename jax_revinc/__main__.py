"""``python -m jax_revinc train | inspect | report | population | atlas``: train models, look into them, draw them."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from jax_revinc.analysis.claims import why_none
from jax_revinc.analysis.inspection import activation_tables, prediction_sentence, weight_tables
from jax_revinc.analysis.tables import TABLES
from jax_revinc.compilation_cache import enable_compilation_cache
from jax_revinc.engines.choice import add_engine_flag
from jax_revinc.population import load
from jax_revinc.population.command import add_population_flags
from jax_revinc.report.atlas.page import FOLDER, write_atlas
from jax_revinc.report.page import write_report
from jax_revinc.training import Run, train
from revinc.cli import add_training_flags, config_from_flags, run_command
from revinc.console import Reporter
from revinc.dataset import make_dataset
from revinc.recipe_parser import RecipeParser
from revinc.validation import require_index


def train_command(args: argparse.Namespace) -> None:
    cfg = config_from_flags(args)
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
    print(f"Page to open: {write_report(Run.load(args.run))}")


def atlas_command(args: argparse.Namespace) -> None:
    population = load(args.store)
    console = Console(highlight=False)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("putting the claims to every model", total=len(population))
        page = write_atlas(population, lambda n_models: bar.advance(task, n_models))
    console.print(f"Tables: {page.parent / FOLDER}", soft_wrap=True)
    console.print(f"Page to open: {page}", soft_wrap=True)


def inspect_command(args: argparse.Namespace) -> None:
    run = Run.load(args.run)
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
    console = Console(highlight=False)
    for i, sequence in enumerate(tokens):
        console.print(f"\n[bold]{prediction_sentence(task, sequence, np.asarray(logits[i]))}")
        for name in names:
            activation = np.asarray(cache[name][i])
            heads = args.head if args.hook or activation.ndim == 3 else None
            console.print(*activation_tables(name, activation, task, sequence, heads), sep="\n")
    for layer in () if args.hook or cfg.attn_only else layers:
        console.print(*weight_tables(model, layer), sep="\n")
    for table in ([] if why_none(task) else ["claims"]) if args.tables is None else args.tables:
        console.print(f"\n[bold]{table}")
        console.print(*TABLES[table](model, task), sep="\n")


def holdout_samples(run: Run, samples: list[int]) -> np.ndarray:
    """The tokens fed for holdout samples, by their number in the split."""
    dataset = make_dataset(run.config)
    for sample in samples:
        require_index("holdout sample", sample, len(dataset.holdout_rows))
    return dataset.tokens[dataset.holdout_rows[samples], :-1]


def make_parser() -> argparse.ArgumentParser:
    parser = RecipeParser(prog="jax-revinc", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    training = commands.add_parser("train", help="train a model and write a run folder")
    add_training_flags(training)
    add_engine_flag(training)
    training.set_defaults(command=train_command)

    inspect = commands.add_parser(
        "inspect", help="print attention patterns, MLP outputs and weights, and what was learned"
    )
    _add_run(inspect, inspect_command)
    numbers: dict[str, Any] = {"type": int, "nargs": "+", "metavar": "N"}
    what = inspect.add_mutually_exclusive_group()
    what.add_argument("--layer", **numbers, help="layers (default: all)")
    what.add_argument(
        "--hook", nargs="+", metavar="NAME", help="these activations instead of the usual ones"
    )
    inspect.add_argument("--head", **numbers, help="heads (default: all)")
    of = inspect.add_mutually_exclusive_group()
    of.add_argument(
        "--sample", **numbers, default=[0], help="holdout samples, counted from 0 (default: 0)"
    )
    of.add_argument("--tokens", **numbers, help="token ids to feed instead of a sample")
    inspect.add_argument(
        "--tables",
        nargs="*",
        choices=TABLES,
        help="what was learned, over the whole task (default: claims, where the task allows any)",
    )
    inspect.add_argument("--step", type=int, metavar="N", help="a snapshot instead of the end")

    population = commands.add_parser("population", help="train many models into a store")
    add_population_flags(population)

    atlas = commands.add_parser("atlas", help="write a population's page and tables")
    atlas.add_argument("store", type=Path, metavar="STORE", help="a population's folder")
    atlas.set_defaults(command=atlas_command)

    report = commands.add_parser("report", help="write the run's page anew")
    _add_run(report, report_command)
    return parser


def _add_run(parser: argparse.ArgumentParser, command: object) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run folder")
    parser.set_defaults(command=command)


def main() -> int:
    logging.basicConfig(format="%(message)s")
    logging.getLogger("jax_revinc").setLevel(logging.INFO)
    enable_compilation_cache()
    return run_command(make_parser())


if __name__ == "__main__":
    sys.exit(main())

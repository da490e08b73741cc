"""The command ``jax-revinc inspect``, which prints what a model does and what it has learned."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Int

from jax_revinc.analysis.claims import why_none
from jax_revinc.analysis.inspection import (
    HEADS_FIRST,
    activation_tables,
    prediction_sentence,
    weight_tables,
)
from jax_revinc.analysis.terminal_tables import TABLES
from jax_revinc.commands.run_argument import add_run
from jax_revinc.evaluation import evaluate, has_own_predictions
from jax_revinc.forward.token_checks import check_tokens
from jax_revinc.model import HookedTransformer
from jax_revinc.training import Run
from revinc import Task
from revinc.dataset import make_dataset
from revinc.flag_values import integer
from revinc.number_format import percentage
from revinc.runs import BEST
from revinc.tasks import reading_cells
from revinc.terminal import PlainConsole, PlainParser, styled
from revinc.token_labels import which_sequences
from revinc.validation import require_index


def parse(words: list[str]) -> argparse.Namespace:
    """Parse the words after ``jax-revinc inspect``."""
    parser = PlainParser(prog="jax-revinc inspect", description=__doc__)
    add_run(parser)
    numbers: dict[str, Any] = {"type": integer, "nargs": "+", "metavar": "N"}
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--layer", **numbers, help="layers to print (default: all)")
    what.add_argument(
        "--hook",
        nargs="+",
        metavar="NAME",
        help="activations to print, by hook name (default: attention patterns and MLP outputs)",
    )
    parser.add_argument("--head", **numbers, help="heads to print (default: all)")
    of = parser.add_mutually_exclusive_group()
    of.add_argument(
        "--sample",
        **numbers,
        help="holdout sequences to feed, counted from 0 (default: 0)",
    )
    of.add_argument("--tokens", **numbers, help="token ids to feed instead of a holdout sequence")
    parser.add_argument(
        "--tables",
        nargs="*",
        choices=TABLES,
        help="tables of what was learned over the whole task, without activations unless another "
        "flag chooses some (default: activations, then claims if the task has any)",
    )
    parser.add_argument(
        "--step",
        type=step,
        metavar="N|best",
        help="inspect the snapshot after N updates, or that of the best evaluation (default: the "
        "final weights)",
    )
    return parser.parse_args(words)


def step(text: str) -> int | str:
    """Parse a number of updates, or ``best``."""
    return text if text == BEST else integer(text)


def run_command(words: list[str]) -> None:
    args = parse(words)
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

    chosen = (args.layer, args.hook, args.head, args.sample, args.tokens)
    if not args.tables or any(choice is not None for choice in chosen):
        print_activations(run, model, args, layers, console)
        if not args.hook and not cfg.attn_only:
            for layer in layers:
                console.print(*weight_tables(model, layer), sep="\n")
        print_accuracy(model, task, console)
    by_default = [] if why_none(task) else ["claims"]
    for table in by_default if args.tables is None else args.tables:
        console.print()
        console.print(styled(table))
        console.print(*TABLES[table](model, task), sep="\n")


def print_activations(
    run: Run,
    model: HookedTransformer,
    args: argparse.Namespace,
    layers: Iterable[int],
    console: PlainConsole,
) -> None:
    """Print what the model predicts on some sequences, and its activations there."""
    task = run.config.task
    names = args.hook or [
        name
        for layer in layers
        for name in model.hook_dict
        if name in (f"blocks.{layer}.attn.hook_pattern", f"blocks.{layer}.hook_mlp_out")
    ]
    sequences = None if args.tokens else holdout_samples(run, args.sample or [0])
    typed = [args.tokens] if sequences is None else sequences[:, :-1]
    tokens = np.asarray(check_tokens(model.cfg, typed))  # without negative ids
    logits, cache = model.run_with_cache(tokens, names_filter=names)
    for i, fed in enumerate(tokens):
        right = None if sequences is None else sequences[i, 1:]
        console.print()
        console.print(styled(prediction_sentence(task, fed, np.asarray(logits[i]), right)))
        for name in names:
            activation = np.asarray(cache[name][i])
            heads = args.head if args.hook or activation.ndim == 3 else None
            console.print(*activation_tables(name, activation, task, fed, heads), sep="\n")
    if reading_cells(task) and any(name.endswith(HEADS_FIRST) for name in names):
        console.print("* the position of the token that decides the answer")


def print_accuracy(model: HookedTransformer, task: Task, console: PlainConsole) -> None:
    """Print how much of the task is right, fed the right tokens and fed the model's own."""
    console.print()
    console.print(styled(f"accuracy on {which_sequences(task)} sequences"))
    console.print(f"fed the right tokens: {percentage(evaluate(model, task).accuracy)}")
    if has_own_predictions(model.cfg, task):
        own = evaluate(model, task, free_running=True)
        console.print(f"fed its own predictions: {percentage(own.accuracy)}")


def holdout_samples(run: Run, samples: list[int]) -> Int[np.ndarray, "samples seq"]:
    """The holdout sequences with the indices `samples`."""
    dataset = make_dataset(run.config)
    for sample in samples:
        require_index("holdout sample", sample, len(dataset.holdout_rows))
    return dataset.tokens[dataset.holdout_rows[samples]]

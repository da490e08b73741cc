"""The command ``jax-revinc population``, which trains many models into one folder."""

from __future__ import annotations

import argparse
from argparse import ArgumentTypeError
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import chain

import jax

from jax_revinc.engines.engine_choice import add_engine_flag
from jax_revinc.population.best_evaluations import lost_sentences
from jax_revinc.population.processes import join_job, use_cpu_devices
from jax_revinc.population.progress import Progress
from jax_revinc.population.store import CONFIG, Store, read_store
from jax_revinc.population.success_rate import success_table
from jax_revinc.population.training import train_population
from revinc import TrainConfig, UserError
from revinc.config import SEEDS
from revinc.config_parser import add_verbose_flag, make_config_parser, parse_config, preset
from revinc.field_flags import READERS, Parser
from revinc.flag_values import address, integer, path
from revinc.sweep import IDENTITY, MOST_MODELS, kind_of, number_of, sweep
from revinc.tasks import task_flag
from revinc.validation import require_index, require_int


def parse(words: list[str]) -> tuple[TrainConfig, argparse.Namespace]:
    """Parse the arguments of ``jax-revinc population``, where swept fields take lists of values."""
    parser = make_config_parser("jax-revinc population")
    add_population_flags(parser)
    return parse_config(parser, words, preset_or_population, AXES)


def run_command(words: list[str]) -> None:
    cfg, args = parse(words)
    check_execution(args)
    if args.keep is not None:
        raise UserError(
            "a population keeps only final weights, so leave --keep out; to keep the best weights "
            "of a run, use: jax-revinc train --keep best"
        )
    store = resumed_store(args)
    axes = {name: getattr(args, name) for name in IDENTITY if name in args}
    if store and not axes and args.seeds is None:
        models = store.models
    else:
        models = sweep(cfg, axes, seeds_to_train(args, axes, store))
    use_cpu_devices(args.devices)
    place = (args.coordinator, args.processes, args.process)
    distributed = args.distributed or any(part is not None for part in place)
    progress = Progress(verbose=args.verbose)
    with join_job(*place) if distributed else nullcontext():
        population = train_population(
            cfg,
            models,
            args.out,
            resume=args.resume,
            engine=args.engine,
            width=args.width,
            progress=progress,
        )
        if jax.process_index() == 0:
            progress.console.print(success_table(population.metrics, cfg.task.solved))
            for sentence in lost_sentences(population.best, cfg.task.solved):
                progress.say(sentence)
            progress.say(f"Its page: jax-revinc atlas {args.out}{task_flag(cfg.task)}")


def check_execution(args: argparse.Namespace) -> None:
    """Raise a UserError if --width, --devices, --processes or --process is out of range."""
    for name, most in (("width", MOST_MODELS), ("devices", 2**10), ("processes", 2**20)):
        if getattr(args, name) is not None:
            require_int(name, getattr(args, name), at_least=1, below=most)
    if args.process is not None:
        require_index("process", args.process, args.processes or 2**20)


def resumed_store(flags: argparse.Namespace) -> Store | None:
    """Open the population that ``--resume`` continues; None without that flag or a population."""
    is_there = flags.resume and flags.out and (flags.out / CONFIG).exists()
    return read_store(flags.out) if is_there else None


def preset_or_population(flags: argparse.Namespace) -> TrainConfig:
    """The training config of ``--preset``, else of the population to resume, else the default."""
    store = None if "preset" in flags else resumed_store(flags)
    return store.config if store else preset(flags)


def seeds_to_train(
    args: argparse.Namespace, axes: dict[str, Sequence[object]], store: Store | None
) -> Sequence[int] | None:
    """The seeds that ``--seeds`` gives; None if only flags such as ``--data-seed`` give seeds.

    Raises:
        UserError: if no flag gives seeds.
    """
    if args.seeds is None and not axes.keys() & set(SEEDS):
        verb = "add" if store else "train"
        raise UserError(
            f"the number of models is missing: give --seeds; --seeds 4096 would {verb} models with "
            "seeds 0 to 4095"
        )
    seeds: Sequence[int] | None = args.seeds
    return seeds


def number_of_seeds(text: str) -> Sequence[int]:
    """Parse the value of ``--seeds``: ``4096`` is 0 to 4095; ``4096:8192`` is 4096 to 8191."""
    return seed_values(text if ":" in text else f"0:{text}")


def seed_values(text: str) -> Sequence[int]:
    """Parse a text of seeds: ``0``, ``0,3,5``, ``0:64`` (0 to 63) or a mixture, ``0:64,99``."""
    spans = [seed_span(part) for part in text.split(",")]
    if sum(map(number_of, spans)) > MOST_MODELS:
        raise ArgumentTypeError(
            f"more seeds than the {MOST_MODELS:,} models that a population can have"
        )
    return spans[0] if len(spans) == 1 else list(chain.from_iterable(spans))


def seed_span(text: str) -> range:
    """Parse a single seed such as ``3``, or a range of seeds such as ``0:64`` for 0 to 63."""
    first, colon, end = text.partition(":")
    return range(integer(first), integer(end) if colon else integer(first) + 1)


def list_of(parse: Parser) -> Parser:
    """Make a parser of values separated by commas, such as ``1e-3,3e-3``; `parse` reads each."""
    return lambda text: [parse(part) for part in text.split(",")]


AXES = {
    name: seed_values if name in SEEDS else list_of(READERS[kind_of(name)]) for name in IDENTITY
}
"""The functions that parse the values of swept fields and seeds."""


def add_population_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``jax-revinc population`` that set no config field, such as ``--out``."""
    parser.add_argument(
        "--out", type=path, required=True, metavar="STORE", help="the store's folder"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the population in STORE, or add to it"
    )
    parser.add_argument(
        "--seeds",
        type=number_of_seeds,
        metavar="N",
        help="N models for every combination of swept values, with seeds 0 to N - 1; or A:B for "
        "seeds A to B - 1. Seeds with a flag of their own (--data-seed 0) are crossed with these",
    )
    parser.add_argument("--keep", help=argparse.SUPPRESS)  # to say why it is refused
    add_verbose_flag(parser)
    how = parser.add_argument_group("execution")
    add_engine_flag(how)
    how.add_argument(
        "--width", type=integer, metavar="N", help="models that a device trains side by side"
    )
    how.add_argument(
        "--devices",
        type=integer,
        metavar="N",
        help="devices into which a CPU is divided (default: one per core)",
    )
    how.add_argument(
        "--distributed",
        action="store_true",
        help="this is one of several processes, which SLURM, MPI, GKE or a TPU pod started",
    )
    how.add_argument(
        "--coordinator", type=address, metavar="HOST:PORT", help="address of process 0"
    )
    how.add_argument("--processes", type=integer, metavar="N", help="number of processes")
    how.add_argument("--process", type=integer, metavar="I", help="number of this process")

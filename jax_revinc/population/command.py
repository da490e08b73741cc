"""``python -m jax_revinc population``: train many models into a store."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path

import jax

from jax_revinc.engines.choice import add_engine_flag
from jax_revinc.population.processes import joined, use_cpu_devices
from jax_revinc.population.progress import Progress
from jax_revinc.population.store import CONFIG, Store, read_store
from jax_revinc.population.success import success_table
from jax_revinc.population.training import train_population
from revinc import TrainConfig, UserError
from revinc.cli import add_recipe_flags, config_from_flags
from revinc.config import SEEDS
from revinc.recipe_parser import RecipeParser, preset
from revinc.sweep import IDENTITY, sweep


def population_command(args: argparse.Namespace) -> None:
    store = resumed(args)
    axes = {name: values for name, values in vars(args).items() if name in IDENTITY}
    for name, values in axes.items():
        delattr(args, name)
        if len(values) == 1:  # then it is the recipe's, for which the default may not do
            setattr(args, name, values[0])
    cfg = config_from_flags(args)
    if store and not axes and args.seeds is None:
        models = store.models
    else:
        models = sweep(cfg, axes, seeds_to_train(args, axes, store))
    use_cpu_devices(args.devices)
    asked_for_others = (args.coordinator, args.processes, args.process)
    distributed = args.distributed or any(part is not None for part in asked_for_others)
    progress = Progress()
    with joined(*asked_for_others) if distributed else nullcontext():
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
            progress.say(f"Its page: jax-revinc atlas {args.out}")


def resumed(flags: argparse.Namespace) -> Store | None:
    """The population that flags go on with, if they go on with one."""
    is_there = flags.resume and flags.out and (flags.out / CONFIG).exists()
    return read_store(flags.out) if is_there else None


def preset_or_population(flags: argparse.Namespace) -> TrainConfig:
    """The preset that flags name, or else the recipe of the population that they go on with, or the default."""
    store = None if "preset" in flags else resumed(flags)
    return store.config if store else preset(flags)


def seeds_to_train(
    args: argparse.Namespace, axes: dict[str, list[object]], store: Store | None
) -> list[int] | None:
    """The seeds that were asked for, if any but those with axes of their own."""
    if args.seeds is None and not axes.keys() & set(SEEDS):
        what = "add to it" if store else "train"
        raise UserError(f"how many models? --seeds 4096 would {what} those of seeds 0 to 4095")
    seeds: list[int] | None = args.seeds
    return seeds


def number_of_seeds(text: str) -> list[int]:
    """Seeds from ``4096`` (0 to 4095) or ``4096:8192``."""
    return seed_values(text if ":" in text else f"0:{text}")


def seed_values(text: str) -> list[int]:
    """Seeds from ``0``, ``0,3,5``, ``0:64`` (0 to 63) and any of these together."""
    seeds: list[int] = []
    for part in text.split(","):
        first, colon, end = part.partition(":")
        seeds += range(int(first), int(end)) if colon else [int(first)]
    return seeds


def numbers(text: str) -> list[float]:
    """Numbers from ``1e-3,3e-3``."""
    return [float(part) for part in text.split(",")]


def words(text: str) -> list[str]:
    """Words from ``prefix,random``."""
    return text.split(",")


def address(text: str) -> str:
    """An address such as ``localhost:8476``."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError
    return text


PARSERS = {
    "lr": numbers,
    "weight_decay": numbers,
    "split": words,
    "init_seed": seed_values,
    "data_seed": seed_values,
    "split_seed": seed_values,
}


def add_population_flags(parser: RecipeParser) -> None:
    """The store, the seeds, the recipe with its axes, and what trains it."""
    parser.add_argument(
        "--out", type=Path, required=True, metavar="STORE", help="the store's folder"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the population in STORE, or add to it"
    )
    parser.add_argument(
        "--seeds",
        type=number_of_seeds,
        metavar="N",
        help="N models at every point, with seeds 0 to N - 1; or A:B for seeds A to B - 1. Seeds that have a "
        "flag of their own (--data-seed 0) are crossed with these",
    )
    add_recipe_flags(parser, preset_or_population, axes=PARSERS)
    how = parser.add_argument_group("execution")
    add_engine_flag(how)
    how.add_argument(
        "--width", type=int, metavar="N", help="models that a device trains side by side"
    )
    how.add_argument(
        "--devices",
        type=int,
        metavar="N",
        help="devices that a CPU counts as (default: one per core)",
    )
    how.add_argument(
        "--distributed",
        action="store_true",
        help="one of several processes, found by SLURM, MPI, GKE or a TPU pod",
    )
    how.add_argument("--coordinator", type=address, metavar="HOST:PORT", help="where process 0 is")
    how.add_argument("--processes", type=int, metavar="N", help="how many processes there are")
    how.add_argument("--process", type=int, metavar="I", help="which of them this is")
    parser.set_defaults(command=population_command)

"""Command lines for one model of a population, and one that trains the whole population again."""

from __future__ import annotations

import dataclasses
import shlex

import pandas as pd

from jax_revinc.population import Population
from revinc import PRESETS, TrainConfig
from revinc.config import SEEDS
from revinc.config_flags import as_flags, changed_fields
from revinc.config_parser import DEFAULT_PRESET
from revinc.sweep import IDENTITY, SWEPT, sweep
from revinc.tasks import task_flag


def train_command(cfg: TrainConfig, out: str) -> str:
    """The command line that trains one model, of the config `cfg`, into the run folder `out`."""
    own = {name: getattr(cfg, name) for name in IDENTITY}
    return shlex.join(
        ["jax-revinc", "train", "--out", out, *as_flags({**changed_fields(cfg, IDENTITY), **own})]
    )


def report_command(population: Population, model: int) -> str:
    """The command line that writes the page of one model of a population."""
    words = ["jax-revinc", "report", str(population.path), "--model", str(model)]
    return shlex.join(words) + task_flag(population.config.task)


def export_command(population: Population, model: int) -> str:
    """The command line that takes one model out of a population as a run folder."""
    words = ["jax-revinc", "export", str(population.path), "--model", str(model)]
    return shlex.join([*words, "--out", f"runs/model-{model}"]) + task_flag(population.config.task)


def population_command(population: Population) -> str:
    """The command line that trains the same population again; "" if no single command can."""
    planned, cfg = population.planned, population.config
    values = {name: planned[name].unique().tolist() for name in IDENTITY}
    varied = [name for name in SEEDS if len(values[name]) > 1]
    lead = (varied or SEEDS)[0]
    together = [name for name in SEEDS if (planned[name] == planned[lead]).all()]
    # Seeds that are crossed, each with its own values, need no --seeds.
    crossed = bool(varied) and len(together) == 1
    seeds = None if crossed else values[lead]
    own = varied if crossed else [name for name in SEEDS if name not in together]
    axes = {name: values[name] for name in own}
    axes |= {name: values[name] for name in SWEPT if len(values[name]) > 1}
    fixed = {name: v[0] for name, v in values.items() if len(v) == 1 and name not in axes}
    if not same_models(sweep(dataclasses.replace(cfg, **fixed), axes, seeds), planned):
        return ""
    usual = PRESETS[DEFAULT_PRESET]
    asked = {
        **changed_fields(cfg, IDENTITY),
        **{k: v for k, v in fixed.items() if k in SWEPT and v != getattr(usual, k)},
        **({"split_seed": fixed["split_seed"]} if crossed and fixed.get("split_seed") else {}),
        **({} if seeds is None else {"seeds": span(seeds)}),
        **{k: span(v) if k in SEEDS else ",".join(map(str, v)) for k, v in axes.items()},
        "width": population.engine["width"],
    }
    out = str(population.path)
    return shlex.join(["jax-revinc", "population", "--out", out, *as_flags(asked)])


def span(seeds: list[int]) -> str:
    """Seeds as the value of a flag: ``0:64`` for 0 to 63, or ``0:3,7:8`` if there are gaps."""
    runs: list[list[int]] = []
    for seed in sorted(seeds):
        if runs and seed == runs[-1][1]:
            runs[-1][1] += 1
        else:
            runs.append([seed, seed + 1])
    return ",".join(f"{first}:{end}" for first, end in runs)


def same_models(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Whether two tables of models list the same models, in any order."""
    columns = list(IDENTITY)
    index, other_index = (pd.MultiIndex.from_frame(plan[columns]) for plan in (one, other))
    return len(one) == len(other) and bool(index.isin(other_index).all())

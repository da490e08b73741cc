"""What to type to get a model, or the whole population, again."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from jax_revinc.population import Population
from revinc import PRESETS, HookedTransformerConfig, TrainConfig
from revinc.config import SEEDS, train_fields
from revinc.recipe_parser import DEFAULT_PRESET
from revinc.sweep import IDENTITY, SWEPT, sweep


def train_command(cfg: TrainConfig, out: str) -> str:
    """The command that trains the run `cfg` into the folder `out`, rates and seeds spelled out."""
    own = {name: getattr(cfg, name) for name in IDENTITY}
    return shlex.join(["jax-revinc", "train", "--out", out, *flags({**recipe(cfg), **own})])


def population_command(population: Population) -> str:
    """The command that plans the models of a population; empty if they were not planned as one sweep."""
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
        **recipe(cfg),
        **{k: v for k, v in fixed.items() if k in SWEPT and v != getattr(usual, k)},
        **({"split_seed": fixed["split_seed"]} if crossed and fixed.get("split_seed") else {}),
        **({} if seeds is None else {"seeds": span(seeds)}),
        **{k: span(v) if k in SEEDS else ",".join(map(str, v)) for k, v in axes.items()},
        "width": population.engine["width"],
    }
    out = str(population.path)
    return shlex.join(["jax-revinc", "population", "--out", out, *flags(asked)])


def recipe(cfg: TrainConfig) -> dict[str, Any]:
    """What must be said of a config beside `IDENTITY`: where it differs from the preset that flags begin with."""
    preset = PRESETS[DEFAULT_PRESET]
    said = {} if type(cfg.task) is type(preset.task) else {"task": cfg.task.name}
    usual = type(cfg.task) if said else preset.task
    fields = {name: v for name, v in cfg.to_dict()["task"].items() if name != "name"}
    said |= {name: v for name, v in fields.items() if v != getattr(usual, name, None)}
    fitting = {"d_vocab": len(cfg.task.vocabulary), "n_ctx": len(cfg.task.position_labels)}
    model = preset.model.replace(**fitting) if said else preset.model
    said |= {
        field.name: getattr(cfg, field.name)
        for field in train_fields()
        if field.name not in (*IDENTITY, "snapshots")
        and getattr(cfg, field.name) != getattr(preset, field.name)
    }
    return said | model_changes(cfg.model, model)


def model_changes(cfg: HookedTransformerConfig, usual: HookedTransformerConfig) -> dict[str, Any]:
    """The fewest fields that make `cfg` of `usual`: those that follow from others are left out."""
    changes = {k: v for k, v in cfg.to_dict().items() if v != getattr(usual, k)}
    for name in list(changes):
        fewer = {k: v for k, v in changes.items() if k != name}
        if usual.replace(**fewer) == cfg:
            changes = fewer
    return changes


def flags(values: Mapping[str, Any]) -> Iterable[str]:
    """Fields as the command line takes them."""
    for name, value in values.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        else:
            yield from (f"--{flag}", "none" if value is None else str(value))


def span(seeds: list[int]) -> str:
    """Seeds as ``0:64``, or as ``0:3,7:8`` if some between are missing."""
    runs: list[list[int]] = []
    for seed in sorted(seeds):
        if runs and seed == runs[-1][1]:
            runs[-1][1] += 1
        else:
            runs.append([seed, seed + 1])
    return ",".join(f"{first}:{end}" for first, end in runs)


def same_models(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Whether two plans have the same models, in whatever order."""
    columns = list(IDENTITY)
    index, other_index = (pd.MultiIndex.from_frame(plan[columns]) for plan in (one, other))
    return len(one) == len(other) and bool(index.isin(other_index).all())

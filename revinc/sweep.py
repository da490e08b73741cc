"""Which models a population has: every hyperparameter point with every seed, as a table."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from revinc.config import SEEDS, TrainConfig, differences
from revinc.errors import UserError

SWEPT = ("lr", "weight_decay", "split")
"""Fields of the config in which the models of a population may differ, beside their seeds."""

IDENTITY = (*SWEPT, *SEEDS)
"""What tells a population's models apart. None is known by a number of its own."""


def sweep(
    cfg: TrainConfig,
    axes: Mapping[str, Sequence[Any]] | None = None,
    seeds: Sequence[int] | None = None,
) -> pd.DataFrame:
    """The models of a sweep: one row each, with the columns of `IDENTITY`.

    Args:
        cfg: what has no axis is taken from here.
        axes: values of fields of `IDENTITY`; all are crossed with each other.
        seeds: for the seeds that have no axis, together: model s has init, data and split seed s.

    Raises:
        UserError: for an axis that is none, is empty or repeats a value, or a value that the config refuses;
            or for seeds when every seed has an axis of its own.
    """
    axes = {name: np.atleast_1d(values).tolist() for name, values in (axes or {}).items()}
    for name, values in axes.items():
        if name not in IDENTITY:
            raise UserError(f"{name} can't be swept; choose among {', '.join(IDENTITY)}")
        check_values(name, values)
        for value in values:
            dataclasses.replace(cfg, **{name: value})
    # Seeds come first, so that a population which is not finished has all points evenly.
    crossed = [
        *([] if seeds is None else [seeds_together(cfg, axes, seeds)]),
        *([{name: value} for value in axes[name]] for name in (*SEEDS, *SWEPT) if name in axes),
    ]
    fixed = {name: getattr(cfg, name) for name in IDENTITY}
    rows = [
        {**fixed, **{k: v for part in parts for k, v in part.items()}}
        for parts in itertools.product(*crossed)
    ]
    return typed(pd.DataFrame(rows, columns=list(IDENTITY)))


def seeds_together(
    cfg: TrainConfig, axes: Mapping[str, Any], seeds: Sequence[int]
) -> list[dict[str, int]]:
    """For each of `seeds`, the seeds without an axis that have its value."""
    check_values("seeds", seeds)
    for seed in (min(seeds), max(seeds)):
        cfg.with_seed(seed)
    together = [name for name in SEEDS if name not in axes]
    if not together:
        raise UserError(f"{', '.join(SEEDS)} all have values of their own; leave seeds out")
    return [dict.fromkeys(together, int(seed)) for seed in seeds]


def check_values(name: str, values: Sequence[Any]) -> None:
    """Raise a UserError unless there are values, and none twice."""
    if not len(values):
        raise UserError(f"{name} has no values to sweep over")
    if len(set(values)) < len(values):
        twice = next(value for value in values if list(values).count(value) > 1)
        raise UserError(f"{name} has {twice} more than once")


def typed(models: pd.DataFrame) -> pd.DataFrame:
    """The table with the column types that it has on disk."""
    types = {"lr": "float64", "weight_decay": "float64", "split": "str"}
    return models.astype(types | dict.fromkeys(SEEDS, "int64"))


def new_models(asked: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """The rows of `asked` that are not in `known`, in order, each once."""
    columns = list(IDENTITY)
    asked = asked[columns].drop_duplicates()
    is_known = pd.MultiIndex.from_frame(asked).isin(pd.MultiIndex.from_frame(known[columns]))
    return asked[~is_known].reset_index(drop=True)


def run_of(cfg: TrainConfig, model: Any) -> TrainConfig:
    """The config with which ``train`` trains a model of the population of `cfg`, given as a row or a dict."""
    own: dict[str, Any] = {name: float(model[name]) for name in ("lr", "weight_decay")}
    own |= {name: int(model[name]) for name in SEEDS}
    return dataclasses.replace(cfg, split=str(model["split"]), **own)


def other_recipe(ours: TrainConfig, theirs: TrainConfig) -> list[str]:
    """A phrase for every field in which two populations' configs differ beside `IDENTITY`."""
    same = {name: getattr(ours, name) for name in IDENTITY}
    return differences(ours, dataclasses.replace(theirs, **same))

"""Sweeps: the table of all models of a population, one for each combination of values and seeds.

`SWEPT` is the one list of swept fields. The columns of tables, the flags of the command line and
the config of a single model follow from it and from the types of `TrainConfig`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from revinc.config import SEEDS, TrainConfig, differences
from revinc.config_fields import type_hints
from revinc.errors import UserError
from revinc.memory_estimate import BYTES_PER_MODEL, require_memory
from revinc.validation import require_int, require_several

SWEPT = ("lr", "weight_decay", "lr_end", "split")
"""The fields, beside the seeds, in which the configs of a population's models may differ."""

IN_EVERY_STORE = ("lr", "weight_decay", "split")
"""The swept fields of the first version, for which every store has a column.

A store that lacks the column of a later field has the config's value there.
"""

IDENTITY = (*SWEPT, *SEEDS)
"""The columns of a table of models. No two models of a population agree in all of them."""

COLUMN_TYPES = {float: "float64", int: "int64", str: "str"}
"""The type of a column on disk, by the type of its field."""

MOST_MODELS = 2**24
"""The largest number of models in a population: their table alone takes a few gigabytes."""


def kind_of(name: str) -> type:
    """The type, float, int or str, of a config field in which models of a population may differ."""
    kind: type = type_hints(TrainConfig)[name]
    return kind


def is_numeric(name: str) -> bool:
    """Whether a config field in which models of a population may differ holds numbers."""
    return kind_of(name) is not str


def later_columns(cfg: TrainConfig) -> dict[str, Any]:
    """The config's values for columns that a table of models from an earlier version may lack."""
    return {name: getattr(cfg, name) for name in SWEPT if name not in IN_EVERY_STORE}


def sweep(
    cfg: TrainConfig,
    axes: Mapping[str, Sequence[Any]] | None = None,
    seeds: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Make the table of a population's models: a row for each combination of values and seeds.

    Args:
        cfg: the config whose values fields without an axis have.
        axes: values of fields of `IDENTITY`; models have every combination of them.
        seeds: the seeds of fields without an axis: model s has init, data and split seed s.

    Raises:
        UserError: for an unknown, empty or repeating axis; a value that the config refuses; seeds
            when every seed field has an axis; or more than `MOST_MODELS` models.
    """
    for name in axes or {}:
        if name not in IDENTITY:
            raise UserError(f"{name} can't be swept; choose from {', '.join(IDENTITY)}")
    every = {name: values_of(name, values) for name, values in (axes or {}).items()}
    if seeds is not None:
        seeds = values_of("seeds", seeds)
    n_models = math.prod(map(number_of, [*every.values(), *([] if seeds is None else [seeds])]))
    check_number_of_models(n_models)
    require_room_for_models(n_models)
    axes = {
        name: [getattr(dataclasses.replace(cfg, **{name: value}), name) for value in values]
        for name, values in every.items()
    }
    for name, values in axes.items():
        check_values(name, values)
    # Seeds vary slowest, so that an unfinished population covers all points evenly.
    crossed: list[Mapping[str, Sequence[Any]]] = [
        *([] if seeds is None else [seeds_together(cfg, axes, seeds)]),
        *({name: axes[name]} for name in (*SEEDS, *SWEPT) if name in axes),
    ]
    sizes = [len(next(iter(part.values()))) for part in crossed]
    places = np.indices(sizes).reshape(len(sizes), math.prod(sizes))
    models = {name: np.full(places.shape[1], getattr(cfg, name)) for name in IDENTITY}
    for part, place in zip(crossed, places, strict=True):
        models |= {name: np.asarray(values)[place] for name, values in part.items()}
    return with_column_types(pd.DataFrame(models))


def number_of(values: Sequence[Any]) -> int:
    """The number of values in a sequence, which may be a `range` too long for `len`."""
    if isinstance(values, range):
        return max(0, -(-(values.stop - values.start) // values.step))  # len() fails from 2**63 on
    return len(values)


def check_number_of_models(n: int) -> None:
    """Raise a UserError if `n` models are more than a population may have."""
    if n > MOST_MODELS:
        raise UserError(
            f"{n:,} models are too many; a population has at most {MOST_MODELS:,} models"
        )


def seeds_together(
    cfg: TrainConfig, axes: Mapping[str, Any], seeds: Sequence[int]
) -> dict[str, Sequence[int]]:
    """A dict of seed fields (init, data, split) not in `axes`; each has the values `seeds`."""
    if not isinstance(seeds, range):
        seeds = [require_int("seeds", seed) for seed in seeds]
    check_values("seeds", seeds)
    for seed in (min(seeds), max(seeds)):
        cfg.with_seed(seed)
    together = [name for name in SEEDS if name not in axes]
    if not together:
        raise UserError(
            f"{', '.join(SEEDS)} all have values of their own, so the argument seeds would "
            "have no effect; leave it out"
        )
    return dict.fromkeys(together, seeds)


def values_of(name: str, values: Any) -> Sequence[Any]:
    """The values given for a swept field as a sequence; a single value becomes a list of one."""
    is_one = isinstance(values, str) or getattr(values, "ndim", None) == 0
    return [values] if is_one or not hasattr(values, "__len__") else require_several(name, values)


def require_room_for_models(n_models: int) -> None:
    """Raise a UserError if the table of `n_models` models can't fit into memory."""
    what = f"the table of {n_models:,} models"
    require_memory(what, BYTES_PER_MODEL * n_models, "number of seeds or of values")


def check_values(name: str, values: Sequence[Any]) -> None:
    """Raise a UserError if a swept field has no values, or has a value twice."""
    if not len(values):
        raise UserError(f"{name} has no values to sweep over")
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            raise UserError(f"{name} has {value} more than once; give each value once")
        seen.add(value)


def with_column_types(models: pd.DataFrame) -> pd.DataFrame:
    """Convert a table of models to the column types that it has on disk."""
    return models.astype({name: COLUMN_TYPES[kind_of(name)] for name in IDENTITY})


def new_models(asked: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """The models of the table `asked` that are not in the table `known`, in order, each once."""
    columns = list(IDENTITY)
    asked = asked[columns].drop_duplicates()
    is_known = pd.MultiIndex.from_frame(asked).isin(pd.MultiIndex.from_frame(known[columns]))
    return asked[~is_known].reset_index(drop=True)


def run_of(cfg: TrainConfig, model: Any) -> TrainConfig:
    """Make the training config of one model from the population's config and the model's row.

    Args:
        cfg: the population's config.
        model: the model's values of `IDENTITY`, as a row of the table or a dict.
    """
    return dataclasses.replace(cfg, **{name: kind_of(name)(model[name]) for name in IDENTITY})


def shared_differences(ours: TrainConfig, theirs: TrainConfig) -> list[str]:
    """A phrase for every field, except swept fields and seeds, in which two configs differ."""
    same = {name: getattr(ours, name) for name in IDENTITY}
    return differences(ours, dataclasses.replace(theirs, **same))

"""Outcomes of a population's models, such as solving the holdout, and groups of models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from jax_revinc.population.shards import DIVERGED
from revinc.sweep import SWEPT

OUTCOME = "outcome"
GENERALISES, TRAIN_ONLY, NEITHER, DIVERGES = "generalises", "train only", "neither", "diverged"

OUTCOMES = {
    GENERALISES: "solves the holdout",
    TRAIN_ONLY: "solves the training split alone",
    NEITHER: "solves neither split",
    DIVERGES: "diverged",
}
"""The possible outcomes of a model, and what each means."""

MOST_POINTS = 60
"""Hyperparameter points up to which each is a group of its own."""

ALL = "all models"

Masks = dict[str, Bool[np.ndarray, " models"]]
"""Groups of models by name: for each model, whether it is in the group."""


def outcomes(metrics: pd.DataFrame, solved: float) -> pd.Series:
    """The outcome of every model: which splits it solves, or that it diverged.

    Args:
        metrics: as `Population.metrics`. A model that diverged has no accuracy.
        solved: the accuracy from which a split counts as solved.
    """
    conditions = {
        DIVERGES: metrics[DIVERGED].notna(),
        GENERALISES: metrics["holdout_accuracy"] >= solved,
        TRAIN_ONLY: metrics["train_accuracy"] >= solved,
    }
    found = np.select(list(conditions.values()), list(conditions), NEITHER)
    return pd.Series(found, metrics.index, dtype="str")


def groups(models: pd.DataFrame) -> Masks:
    """Groups of models to compare: all, generalising, not generalising; without diverged models."""
    finite = (models[OUTCOME] != DIVERGES).to_numpy()
    generalises = (models[OUTCOME] == GENERALISES).to_numpy()
    return {"all": finite, "generalising": generalises, "not generalising": finite & ~generalises}


def scopes(models: pd.DataFrame) -> Masks:
    """Groups of models to choose from on a page: all, by kind of split, and by hyperparameters."""
    points = models[list(SWEPT)].drop_duplicates().sort_values(list(SWEPT))
    splits = sorted(models["split"].unique())
    found = {ALL: np.ones(len(models), dtype=bool)}
    if 1 < len(splits) < len(points):
        found |= {f"split {name}": (models["split"] == name).to_numpy() for name in splits}
    if 1 < len(points) <= MOST_POINTS:
        for point in points.to_dict("records"):
            is_there = (models[list(SWEPT)] == pd.Series(point)).all(axis=1)
            found[point_name(point)] = is_there.to_numpy()
    return found


def point_name(point: Mapping[Any, Any] | pd.Series) -> str:
    """A combination of hyperparameters in words: "lr 0.01, weight decay 0, split random".

    Args:
        point: values by name; those of no field of `SWEPT` are ignored.
    """
    return ", ".join(
        f"{name.replace('_', ' ')} {value_text(point[name])}" for name in SWEPT if name in point
    )


def value_text(value: Any) -> str:
    """The value of a swept field as text; a number is written as short as possible."""
    return value if isinstance(value, str) else f"{value:g}"


def field_words(name: str) -> str:
    """The name of a swept field in words, such as "learning rate" for lr."""
    return "learning rate" if name == "lr" else name.replace("_", " ")

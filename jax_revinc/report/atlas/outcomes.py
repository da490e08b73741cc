"""How each model of a population ended, and which models are looked at together."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Bool

from jax_revinc.population.chunks import DIVERGED
from revinc.sweep import SWEPT

OUTCOME = "outcome"
GENERALISES, TRAIN_ONLY, NEITHER, DIVERGES = "generalises", "train only", "neither", "diverged"

OUTCOMES = {
    GENERALISES: "solves the holdout",
    TRAIN_ONLY: "solves the training split alone",
    NEITHER: "solves neither split",
    DIVERGES: "diverged",
}
"""What may become of a model, and what each means."""

MOST_POINTS = 60
"""Hyperparameter points up to which each can be looked at alone."""

ALL = "all models"

Masks = dict[str, Bool[np.ndarray, " models"]]
"""Which models are in a group, by its name."""


def outcomes(metrics: pd.DataFrame, solved: float) -> pd.Series:
    """One of `OUTCOMES` for every model, by the accuracy from which a split is solved.

    What diverged has no accuracy, whatever it had before.
    """
    conditions = {
        DIVERGES: metrics[DIVERGED].notna(),
        GENERALISES: metrics["holdout_accuracy"] >= solved,
        TRAIN_ONLY: metrics["train_accuracy"] >= solved,
    }
    found = np.select(list(conditions.values()), list(conditions), NEITHER)
    return pd.Series(found, metrics.index, dtype="str")


def groups(models: pd.DataFrame) -> Masks:
    """The groups whose claims are compared. Models that diverged are in none: nothing holds of NaN."""
    sound = (models[OUTCOME] != DIVERGES).to_numpy()
    generalises = (models[OUTCOME] == GENERALISES).to_numpy()
    return {"all": sound, "generalising": generalises, "not generalising": sound & ~generalises}


def scopes(models: pd.DataFrame) -> Masks:
    """What of a population can be looked at alone: all, the splits, the points; each only if there are several."""
    points = models[list(SWEPT)].drop_duplicates().sort_values(list(SWEPT))
    splits = sorted(models["split"].unique())
    found = {ALL: np.ones(len(models), dtype=bool)}
    if 1 < len(splits) < len(points):
        found |= {f"split {name}": (models["split"] == name).to_numpy() for name in splits}
    if 1 < len(points) <= MOST_POINTS:
        for point in points.to_dict("records"):
            is_there = (models[list(SWEPT)] == pd.Series(point)).all(axis=1)
            found[point_name(*point.values())] = is_there.to_numpy()
    return found


def point_name(lr: float, weight_decay: float, split: str) -> str:
    """A hyperparameter point in words."""
    return f"lr {lr:g}, weight decay {weight_decay:g}, split {split}"

"""The best evaluation of a training, and whether the training lost what it had learned by the end.

These are the definitions for a run and for a population alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int


def merit(evaluation: Mapping[str, float]) -> tuple[float, float]:
    """What decides which of two evaluations is better: the greater tuple is.

    It is the one with the higher holdout accuracy; of two with the same, that with the lower
    holdout loss. Of several evaluations with equal merit, the earliest counts as the best.
    """
    return evaluation["holdout_accuracy"], -evaluation["holdout_loss"]


def best_evaluation(
    accuracy: Float[np.ndarray, "*models evaluations"],
    loss: Float[np.ndarray, "*models evaluations"],
) -> Int[np.ndarray, "*models"]:
    """The index of each training's best evaluation, which is the earliest of the greatest `merit`.

    Args:
        accuracy: the holdout accuracy at every evaluation; NaN from the step on at which a training
            diverged. A training without any number has the index 0.
        loss: the holdout loss at the same evaluations.
    """
    accuracy = np.where(np.isnan(accuracy), -np.inf, accuracy)
    is_highest = accuracy == accuracy.max(axis=-1, keepdims=True)
    losses = np.where(is_highest & ~np.isnan(loss), loss, np.inf)
    return np.argmin(losses, axis=-1)


def has_lost_it(
    accuracy: Float[np.ndarray, "*models evaluations"], solved: float
) -> Bool[np.ndarray, "*models"]:
    """Whether each training solved the holdout at some evaluation, and no longer at the last one.

    Args:
        accuracy: the holdout accuracy at every evaluation; NaN from the step on at which a training
            diverged, which counts as not solved.
        solved: the accuracy from which the holdout counts as solved, the task's.
    """
    is_solved = accuracy >= solved
    return is_solved.any(axis=-1) & ~is_solved[..., -1]


class BestSoFar:
    """The best evaluation of a run while it is trained.

    Args:
        evaluations: those that were made so far, each with its step and metrics.

    Attributes:
        step: the step of the best one; None if there are none yet.
    """

    def __init__(self, evaluations: Sequence[Mapping[str, float]]) -> None:
        self._best = max(evaluations, key=merit, default=None)

    @property
    def step(self) -> int | None:
        return None if self._best is None else int(self._best["step"])

    def add(self, evaluation: Mapping[str, float]) -> None:
        """Take account of the latest evaluation; one that was added already changes nothing."""
        if self._best is None or merit(evaluation) > merit(self._best):
            self._best = evaluation

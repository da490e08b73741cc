"""When each model of a population was at its best, and how many lost what they had learned."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from jax_revinc.population.success_rate import rate_text
from revinc.best_evaluation import best_evaluation, has_lost_it
from revinc.number_format import percent

BEST_STEP, BEST_ACCURACY, LOST_IT = "best_step", "best_holdout_accuracy", "lost_it"


def best_table(
    index: pd.Index,
    steps: Int[np.ndarray, " evaluations"],
    accuracy: Float[np.ndarray, "models evaluations"],
    loss: Float[np.ndarray, "models evaluations"],
    solved: float,
) -> pd.DataFrame:
    """Make the table `Population.best`, a row per model.

    Args:
        index: the models' numbers.
        steps: the steps of the evaluations.
        accuracy: the holdout accuracy at every evaluation; NaN once a model has diverged.
        loss: the holdout loss at every evaluation.
        solved: the accuracy from which the holdout counts as solved.
    """
    at = best_evaluation(accuracy, loss)
    best = accuracy[np.arange(len(accuracy)), at]
    step = pd.Series(steps[at], index, dtype="Int64").mask(np.isnan(best))
    return pd.DataFrame(
        {BEST_STEP: step, BEST_ACCURACY: best, LOST_IT: has_lost_it(accuracy, solved)}, index
    )


def lost_sentences(best: pd.DataFrame, solved: float) -> list[str]:
    """A list with a sentence on how many models solved the holdout and lost it; empty if none did.

    Args:
        best: as `Population.best`, or any table with its columns.
        solved: the accuracy from which the holdout counts as solved.
    """
    n, lost = len(best), int(best[LOST_IT].sum())
    if not lost:
        return []
    ever = int((best[BEST_ACCURACY] >= solved).sum())
    return [
        f"{rate_text(ever, n)} reached {percent(solved)} of the holdout at some evaluation "
        f"({ever:,}), and {rate_text(lost, n)} reached it and had lost it again by the last one "
        f"({lost:,})."
    ]

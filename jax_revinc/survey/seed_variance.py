"""The share of the variance of holdout accuracy that each of several seeds explains."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from revinc.config import SEEDS
from revinc.sweep import SWEPT

SHUFFLES = 999
CHANCE = 0.95
"""The quantile of the shuffles that counts as explained by chance."""


def seed_factors(models: pd.DataFrame) -> dict[str, str]:
    """The kinds of seeds that vary independently, by name; kinds that vary together count as one.

    There are fewer than two if the seeds are not crossed.
    """
    split_is_drawn = (models["split"] == "random").any()
    factors: dict[str, list[str]] = {}
    for seed in SEEDS:
        if models[seed].nunique() < 2 or (seed == "split_seed" and not split_is_drawn):
            continue
        same = next((lead for lead in factors if go_together(models[lead], models[seed])), seed)
        factors.setdefault(same, []).append(seed)
    words = {
        lead: [name.removesuffix("_seed") for name in names] for lead, names in factors.items()
    }
    return {f"{' and '.join(names)} seed": lead for lead, names in words.items()}


def go_together(one: pd.Series, other: pd.Series) -> bool:
    """Whether each value of one column occurs with a single value of the other, and vice versa."""
    pairs = pd.concat([one, other], axis=1).drop_duplicates()
    return len(pairs) == one.nunique() == other.nunique()


def seeds_table(models: pd.DataFrame) -> pd.DataFrame:
    """A table of the share of the variance of holdout accuracy that each kind of seed explains.

    It is empty unless at least two kinds of seeds vary independently.

    The variance is that of holdout accuracy within hyperparameter points, for every split. `chance`
    is the share that a seed without any effect stays below in 95% of cases, measured on shuffled
    models.

    Args:
        models: a row for each model: swept fields, seeds and `holdout_accuracy`.
    """
    rows = []
    for split, of_split in models.groupby("split"):
        factors = seed_factors(of_split)
        known = of_split.dropna(subset="holdout_accuracy")
        accuracy = known["holdout_accuracy"]
        deviation = (
            accuracy - accuracy.groupby([known[name] for name in SWEPT]).transform("mean")
        ).to_numpy()
        if len(factors) < 2 or not deviation.any():
            continue
        for name, seed in factors.items():
            levels, values = pd.factorize(known[seed])
            rows.append(
                {
                    "split": split,
                    "seed": name,
                    "values": len(values),
                    "models": len(known),
                    "explained": explained(deviation, levels),
                    "chance": by_chance(deviation, levels),
                }
            )
    return pd.DataFrame(rows)


def explained(deviation: Float[np.ndarray, " models"], levels: Int[np.ndarray, " models"]) -> float:
    """The share of the variance of `deviation` that lies between models of different `levels`."""
    counts = np.bincount(levels)
    between = (np.bincount(levels, deviation) ** 2 / counts).sum()
    return float(between / (deviation**2).sum())


def by_chance(deviation: Float[np.ndarray, " models"], levels: Int[np.ndarray, " models"]) -> float:
    """The share of variance that a seed explains by chance: the 95% quantile of many shuffles."""
    rng = np.random.default_rng(0)
    shuffled = [explained(rng.permutation(deviation), levels) for _ in range(SHUFFLES)]
    return float(np.quantile(shuffled, CHANCE))

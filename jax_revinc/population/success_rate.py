"""The share of a population's models that solve the task, with its confidence interval."""

from __future__ import annotations

import math
from statistics import NormalDist

import pandas as pd
from rich.table import Table
from rich.text import Text

from jax_revinc.population.shards import DIVERGED
from revinc.number_format import percent, percentage
from revinc.sweep import SWEPT, is_numeric

HEADINGS = {"weight_decay": "decay"}
"""Shorter headings of swept fields, so that the table fits 80 columns."""


def interval(hits: int, n: int) -> tuple[float, float]:
    """The 95% confidence interval of the rate `hits` / `n` (Wilson, JASA 22, 1927).

    It is that of `scipy.stats.binomtest`, without importing `scipy.stats`, which takes a second.
    """
    rate, square = hits / n, NormalDist().inv_cdf(0.975) ** 2
    middle = (hits + square / 2) / (n + square)
    reach = math.sqrt(square * (n * rate * (1 - rate) + square / 4)) / (n + square)
    return 0.0 if hits == 0 else middle - reach, 1.0 if hits == n else middle + reach


def rate_text(hits: int, n: int) -> str:
    """A rate with its 95% interval, such as ``20.1% [18.9 .. 21.4]``."""
    low, high = interval(hits, n)
    return f"{percentage(hits / n, 1)} [{100 * low:.1f} .. {100 * high:.1f}]"


def by_point(metrics: pd.DataFrame, solved: float) -> pd.DataFrame:
    """Count the models that solve the train or holdout split, per combination of swept values.

    Args:
        metrics: a row per model, as `Population.metrics`.
        solved: the accuracy from which a split counts as solved.

    Returns:
        A row per combination: the number of `models`, how many solve each split (`train_perfect`,
        `holdout_perfect`), how many `diverged`, and the mean accuracies.
    """
    perfect = pd.DataFrame(
        {
            **{name: metrics[name] for name in SWEPT},
            "models": 1,
            "train_perfect": metrics["train_accuracy"] >= solved,
            "holdout_perfect": metrics["holdout_accuracy"] >= solved,
            "diverged": metrics[DIVERGED].notna(),
        }
    )
    counted = perfect.groupby(list(SWEPT), sort=True).sum().astype(int)
    means = metrics.groupby(list(SWEPT), sort=True)[["train_accuracy", "holdout_accuracy"]].mean()
    return counted.join(means).reset_index()


def success_table(metrics: pd.DataFrame, solved: float) -> Table:
    """A table, for a terminal, of the share of models that solve each split, by swept values.

    Args:
        metrics: a row per model, as `Population.metrics`.
        solved: the accuracy from which a split counts as solved.
    """
    table = Table(box=None, header_style="bold")
    outcomes = (
        "models",
        f"train {percent(solved)}",
        f"holdout {percent(solved)}",
        Text("mean\nholdout"),
        "diverged",
    )
    # 80 columns hold few fields. Those in which no model differs stand above the table.
    fields = [name for name in SWEPT if metrics[name].nunique() > 1]
    for name in fields:
        table.add_column(
            HEADINGS.get(name, name), justify="right" if is_numeric(name) else "left", no_wrap=True
        )
    for heading in outcomes:
        table.add_column(heading, justify="right", no_wrap=True)
    for point in by_point(metrics, solved).to_dict("records"):
        n = point["models"]
        table.add_row(
            *(f"{point[name]:g}" if is_numeric(name) else point[name] for name in fields),
            f"{n:,}",
            percentage(point["train_perfect"] / n, 1),
            rate_text(point["holdout_perfect"], n),
            "" if point["diverged"] == n else percentage(point["holdout_accuracy"], 1),
            f"{point['diverged']:,}",
        )
    return table

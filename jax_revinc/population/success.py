"""How many models come how far, with the interval in which the rate lies."""

from __future__ import annotations

import pandas as pd
from rich.table import Table
from scipy.stats import binomtest

from jax_revinc.population.chunks import DIVERGED
from revinc.labels import percent
from revinc.sweep import SWEPT


def interval(hits: int, n: int) -> tuple[float, float]:
    """The 95% interval of a rate (Wilson, JASA 22, 1927)."""
    found = binomtest(hits, n).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def rate_text(hits: int, n: int) -> str:
    """A rate with its 95% interval, such as ``20.1% [18.9 .. 21.4]``."""
    low, high = interval(hits, n)
    return f"{hits / n:.1%} [{100 * low:.1f} .. {100 * high:.1f}]"


def by_point(metrics: pd.DataFrame, solved: float) -> pd.DataFrame:
    """For every hyperparameter point: models, how many solve each split, how many diverged.

    Args:
        metrics: as `Population.metrics`.
        solved: the accuracy from which a split is solved, the task's.
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
    """`by_point` for the terminal."""
    table = Table(box=None, header_style="bold")
    for heading in (
        "lr",
        "decay",
        "split",
        "models",
        f"train {percent(solved)}",
        f"holdout {percent(solved)}",
        "mean",
        "diverged",
    ):
        table.add_column(heading, justify="left" if heading == "split" else "right", no_wrap=True)
    for point in by_point(metrics, solved).to_dict("records"):
        n = point["models"]
        table.add_row(
            f"{point['lr']:g}",
            f"{point['weight_decay']:g}",
            point["split"],
            f"{n:,}",
            f"{point['train_perfect'] / n:.1%}",
            rate_text(point["holdout_perfect"], n),
            "" if point["diverged"] == n else f"{point['holdout_accuracy']:.1%}",
            f"{point['diverged']:,}",
        )
    return table

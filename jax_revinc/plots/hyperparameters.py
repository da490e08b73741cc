"""Figures of the share of a population's models that solve the task, by hyperparameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from jax_revinc.plots.heatmaps import grid, heatmap
from jax_revinc.plots.population_training import SPLIT_NAMES
from jax_revinc.plots.theme import digits, label
from jax_revinc.survey.outcomes import field_words, value_text
from jax_revinc.survey.rate_intervals import Rate
from revinc.sweep import SWEPT, is_numeric

MOST_INTERVALS = 6
"""Columns up to which a cell of a heatmap has its interval written in."""


def success(points: pd.DataFrame, split: str = "holdout") -> go.Figure:
    """Heatmaps of the share of models that solve a split (train or holdout), by hyperparameters.

    Two numeric fields are the axes; there is a heatmap for each value of the other fields.

    Args:
        points: a row for each hyperparameter point, as `jax_revinc.survey.atlas_tables.points_table`
            makes it.
        split: the split that is to be solved, "train" or "holdout".
    """
    return grid(success_figures(points, split).values())


def success_figures(points: pd.DataFrame, split: str) -> dict[str, go.Figure]:
    """Heatmaps of success rates by two hyperparameters, one per combination of the other ones."""
    vertical, horizontal = heatmap_axes(points)
    others = [
        name
        for name in SWEPT
        if name not in (vertical, horizontal)
        and (not is_numeric(name) or points[name].nunique() > 1)
    ]
    return {
        "-".join(map(value_text, values)): success_figure(
            of_values, split, dict(zip(others, values, strict=True)), (vertical, horizontal)
        )
        for values, of_values in points.groupby(others)
    }


def heatmap_axes(points: pd.DataFrame) -> tuple[str, str]:
    """Choose two numeric hyperparameters as axes (vertical, horizontal), those that vary first."""
    numeric = [name for name in SWEPT if is_numeric(name)]
    chosen = sorted(numeric, key=lambda name: points[name].nunique() == 1)[:2]
    horizontal, vertical = (name for name in numeric if name in chosen)
    return vertical, horizontal


def success_figure(
    points: pd.DataFrame, split: str, others: dict[str, Any], axes: tuple[str, str]
) -> go.Figure:
    """A heatmap of success rates by two hyperparameters; the dict `others` fixes the other ones."""
    vertical, horizontal = axes
    rates = [
        Rate(int(hits), int(n))
        for hits, n in zip(points[f"{split}_perfect"], points["models"], strict=True)
    ]
    few = points[horizontal].nunique() <= MOST_INTERVALS

    def cells(value: Callable[[Rate], Any]) -> list[list[Any]]:
        table = points.assign(cell=[value(rate) for rate in rates])
        table = table.pivot(index=vertical, columns=horizontal, values="cell").astype(object)
        return table.where(table.notna(), None).to_numpy().tolist()

    rows, columns = (list(map(value_text, np.unique(points[name]))) for name in axes)
    names = [field_words(name) for name in axes]
    where = ", ".join(f"{field_words(k)} “{value_text(v)}”" for k, v in others.items())
    drawn = heatmap(
        cells(lambda rate: digits(rate.value)),
        rows=rows,
        columns=columns,
        limits=(0, 1),
        hover=f"{names[1]} %{{x}}, {names[0]} %{{y}}: %{{customdata}}",
        axes=(names[0], names[1]),
        title=f"{label(where).capitalize()}: models that solve the {SPLIT_NAMES[split]}",
        subtitle="share of the models",
        height=150 + 58 * len(rows),
    )
    return drawn.update_traces(
        text=cells(lambda rate: cell_text(rate, few)),
        customdata=cells(lambda rate: f"{rate.text}, {rate.hits:,} of {rate.n:,}"),
        texttemplate="%{text}",
        textfont={"size": 12},
        showscale=False,
        xgap=2,
        ygap=2,
    ).update_yaxes(range=[-0.5, len(rows) - 0.5])


def cell_text(rate: Rate, with_interval: bool) -> str:
    """The text in a heatmap's cell: a rate in percent, with a confidence interval if asked for."""
    low, high = rate.bounds
    interval = f"<br><span style='font-size:0.8em'>{100 * low:.0f} .. {100 * high:.0f}</span>"
    return f"{rate.value:.0%}{interval if with_interval else ''}"

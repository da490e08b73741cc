"""A scatter plot of a population: a point for each model, placed by two numbers such as losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from jax_revinc.plots.theme import LEGEND_BELOW, LOG_AXIS, digits, figure
from jax_revinc.survey.atlas_tables import BEST_READING
from jax_revinc.survey.outcomes import OUTCOME, OUTCOMES, field_words
from revinc.sweep import SWEPT, is_numeric

SHARE: dict[str, Any] = {"type": "linear", "tickformat": ".0%", "autorange": True}
OF_ALL: dict[str, Any] = {"type": "linear", "tickformat": ".0%", "range": [-0.03, 1.05]}
LOG: dict[str, Any] = {**LOG_AXIS, "autorange": True}
PLAIN: dict[str, Any] = {"type": "linear", "tickformat": "~g", "autorange": True}

SCATTER_AXES = {
    "attention on the deciding tokens": (BEST_READING, OF_ALL),
    "holdout accuracy": ("holdout_accuracy", OF_ALL),
    "training accuracy": ("train_accuracy", OF_ALL),
    "holdout loss": ("holdout_loss", LOG),
    "training loss": ("train_loss", LOG),
    "increment made by embeddings": ("increment_share.embed", SHARE),
    "increment made by heads": ("increment_share.heads", SHARE),
    "increment made by MLPs": ("increment_share.mlps", SHARE),
} | {field_words(name): (name, PLAIN) for name in SWEPT if is_numeric(name)}
"""What an axis of the scatter plot may show: the column of the table of models, and how the axis is
drawn."""

STYLES = dict(
    zip(OUTCOMES, (("train", "circle"), ("holdout", "diamond"), ("batch", "square")), strict=False)
)
"""The colour and the symbol of each outcome that has a point."""


def scatter(
    models: pd.DataFrame,
    x: str = "attention on the deciding tokens",
    y: str = "holdout accuracy",
) -> go.Figure:
    """A scatter plot of models by two quantities such as accuracies, coloured by what they solve.

    Args:
        models: a row for each model, as `jax_revinc.survey.atlas_tables.models_table` makes it.
        x: the horizontal quantity, a key of `SCATTER_AXES` whose column the table has.
        y: the vertical quantity, also a key of `SCATTER_AXES`.
    """
    by_outcome = split_by_outcome(models)
    traces = [
        go.Scatter(
            x=axis_values(part, x),
            y=axis_values(part, y),
            name=OUTCOMES[name],
            mode="markers",
            marker={"size": 8, "symbol": STYLES[name][1], "opacity": 0.75},
            text=[f"model {model}" for model in part.index],
            hovertemplate="%{text}<extra></extra>",
        )
        for name, part in by_outcome.items()
    ]
    return figure(
        *traces,
        title="Models",
        colours=[STYLES[name][0] for name in by_outcome],
        height=480,
        legend=LEGEND_BELOW,
        xaxis=scatter_axis(x),
        yaxis=scatter_axis(y),
        hovermode="closest",
    )


def split_by_outcome(models: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Split a table of models by outcome (which splits they solve), without those that diverged."""
    return {name: part for name in STYLES if len(part := models[models[OUTCOME] == name])}


def axis_values(models: pd.DataFrame, quantity: str) -> list[float | None]:
    """Every model's value of a quantity, rounded, for an axis of the scatter plot."""
    return [digits(value) for value in models[SCATTER_AXES[quantity][0]]]


def scatter_axis(quantity: str) -> dict[str, Any]:
    """The Plotly settings of a scatter plot's axis for a quantity such as "holdout accuracy"."""
    return {"title": {"text": quantity}, **SCATTER_AXES[quantity][1]}


def scatter_quantities(models: pd.DataFrame) -> Sequence[str]:
    """The names of the quantities that this table of models can show on an axis."""
    return [
        name
        for name, (column, _) in SCATTER_AXES.items()
        if column in models and (column not in SWEPT or models[column].nunique() > 1)
    ]

"""Figures of how a population's models learn: their final accuracy and learning curves."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from jax_revinc.plots.heatmaps import Version
from jax_revinc.plots.theme import digits, figure
from jax_revinc.plots.training import CURVES, QUANTITIES, short
from jax_revinc.population import Population
from jax_revinc.survey.atlas_tables import QUANTILES
from jax_revinc.survey.rate_intervals import Rate

SPLIT_NAMES = {"train": "training split", "holdout": "holdout"}

BINS = 40
"""Bins of accuracies below 100%, which has a bar of its own."""
BIN_EDGES = np.linspace(0, 1, BINS + 1)
PERFECT = 1 + 1.5 / BINS
"""Where the bar of exactly 100% stands: apart from the bins."""

BANDS = {"q05": None, "q95": "tonexty", "q25": None, "q75": "tonexty", "q50": None}
"""The lines of learning curves, and where each fills down to: the line before it. The median is on
top."""


def accuracy_histogram(models: pd.DataFrame, split: str = "holdout") -> go.Figure:
    """A histogram of the final accuracy of a population's models, with 95% confidence intervals.

    Exactly 100% has a bar of its own.

    Args:
        models: a row for each model, with the columns of `Population.metrics`.
        split: "train" or "holdout".
    """
    return histogram_figure(models[f"{split}_accuracy"], split)


def histogram_figure(accuracy: pd.Series, split: str) -> go.Figure:
    """A histogram of the models' accuracies on a split, which are NaN for models that diverged."""
    middles = (BIN_EDGES[:-1] + BIN_EDGES[1:]) / 2
    version = histogram_version(accuracy)
    trace = go.Bar(
        x=[*np.round(middles, 5).tolist(), PERFECT],
        y=version["data.0.y"],
        error_y={
            "type": "data",
            "symmetric": False,
            "thickness": 1,
            "width": 0,
            "array": version["data.0.error_y.array"],
            "arrayminus": version["data.0.error_y.arrayminus"],
        },
        text=version["data.0.text"],
        textposition="none",
        width=0.92 / BINS,
        hovertemplate="%{text}<extra></extra>",
    )
    return figure(
        trace,
        title=f"Accuracy on the {SPLIT_NAMES[split]}",
        colours=[split],
        height=330,
        xaxis={
            "title": "tokens predicted right",
            "range": [0, PERFECT + 1.1 / BINS],
            "tickvals": [0, 0.25, 0.5, 0.75, PERFECT],
            "ticktext": ["0%", "25%", "50%", "75%", "=100%"],
        },
        yaxis={"title": "share of the models", "tickformat": ".0%", "rangemode": "tozero"},
    )


def histogram_version(accuracy: pd.Series) -> Version:
    """The model-dependent parts of an accuracy histogram, as a dict from JSON path to value.

    Shares are of all models. Those that diverged have no accuracy and no bar. An empty bin has no
    interval.
    """
    below = np.histogram(accuracy[accuracy < 1], BIN_EDGES)[0].tolist()
    rates = [Rate(hits, len(accuracy)) for hits in (*below, int((accuracy == 1).sum()))]
    names = [f"{low:.1%} to {high:.1%}" for low, high in itertools.pairwise(BIN_EDGES)]
    texts = zip([*names, "exactly 100%"], rates, strict=True)
    return {
        "data.0.y": [digits(rate.value) for rate in rates],
        "data.0.error_y.array": [digits(r.bounds[1] - r.value) if r.hits else 0 for r in rates],
        "data.0.error_y.arrayminus": [
            digits(r.value - r.bounds[0]) if r.hits else 0 for r in rates
        ],
        "data.0.text": [f"{name}: {r.text}, {r.hits:,}" if r.hits else "" for name, r in texts],
    }


def learning_curves(population: Population, metric: str = "holdout_accuracy") -> go.Figure:
    """A figure of a metric during training: its median, and bands of 50% and 90% of the models.

    Args:
        population: finished models. One that has diverged no longer counts.
        metric: one of `revinc.engine.METRICS`, such as "train_loss".

    Raises:
        UserError: for an unknown metric, or if a shard is damaged.
    """
    curves = pd.DataFrame(population.curves(metric))
    quantiles = curves.quantile(list(QUANTILES.values())).to_numpy()
    table = pd.DataFrame(dict(zip(QUANTILES, quantiles, strict=True)))
    return curves_figure(table.assign(step=population.steps, metric=metric))


def curves_figure(quantiles: pd.DataFrame) -> go.Figure:
    """A figure of learning curves: median and bands of a metric, from a table of its quantiles."""
    split, quantity = quantiles["metric"].iloc[0].split("_")
    version = curves_version(quantiles)
    traces = [
        go.Scatter(
            x=quantiles["step"].tolist(),
            y=version[f"data.{i}.y"],
            name="median" if name == "q50" else f"{QUANTILES[name]:.0%}",
            mode="lines",
            fill=fill,
            opacity=1 if name == "q50" else 0.5,
            line={"width": 2.4 if name == "q50" else 0},
            hovertemplate="%{y:.3~g}" if quantity == "loss" else "%{y:.1%}",
        )
        for i, (name, fill) in enumerate(BANDS.items())
    ]
    title = f"{quantity.capitalize()}: {SPLIT_NAMES[split]}"
    layout = {**CURVES, "height": 330, "showlegend": False, "yaxis": QUANTITIES[quantity]}
    return figure(*traces, title=title, colours=[split], **layout)


def curves_version(quantiles: pd.DataFrame) -> Version:
    """The model-dependent parts of learning curves, as a dict from JSON path to value."""
    _, quantity = quantiles["metric"].iloc[0].split("_")
    return {f"data.{i}.y": short(quantiles[name], quantity) for i, name in enumerate(BANDS)}

"""The atlas' figures, from its tables. As in all pages, colours are the theme's."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from jax_revinc.report.atlas.outcomes import Masks
from jax_revinc.report.atlas.rates import Rate
from jax_revinc.report.atlas.tables import QUANTILES, WHOLE
from jax_revinc.report.figures import CURVES_LAYOUT
from jax_revinc.report.shell import Gallery, Picture

SCOPE = "scope"
"""The chooser of the models that distributions and curves are of."""

SPLITS = ("train", "holdout")

BINS = 40
"""Bins of accuracies below 100%, which has a bar of its own."""

MOST_WRITTEN = 6
"""Columns up to which a cell of a heatmap has its interval written in."""

GROUPS = {"generalising": "that generalise", "not generalising": "that do not"}
"""The groups of models that figures of claims compare, and their names there, after a number."""

WIDEST_SHARE = (-0.6, 1.6)
"""The shares of the increment that are in view: of logits that hardly favour answers, shares can be any number."""


SPLIT_NAMES = {"train": "training split", "holdout": "holdout"}

BIN_EDGES = np.linspace(0, 1, BINS + 1)
PERFECT = 1 + 1.5 / BINS
"""Where the bar of exactly 100% stands: apart, so that it is not taken for one more bin."""


def histogram_pictures(models: pd.DataFrame, scopes: Masks) -> Gallery:
    """The distribution of final accuracy on each split, in every scope, with 95% intervals."""
    return {
        f"histogram-{split}": Picture(
            histogram_figure(split),
            SCOPE,
            [bars(models[f"{split}_accuracy"][mask]) for mask in scopes.values()],
        )
        for split in SPLITS
    }


def bars(accuracy: pd.Series) -> dict[str, Any]:
    """How many models have which accuracy, by place in `histogram_figure`.

    Shares are of all models, those that diverged included: they have no accuracy, and no bar.
    """
    below = np.histogram(accuracy[accuracy < 1], BIN_EDGES)[0].tolist()
    rates = [Rate(hits, len(accuracy)) for hits in (*below, int((accuracy == 1).sum()))]
    names = [f"{low:.1%} to {high:.1%}" for low, high in itertools.pairwise(BIN_EDGES)]
    names.append("exactly 100%")
    # Of an empty bin nothing is drawn: its interval would only be noise.
    return {
        "data.0.y": [digits(rate.value) for rate in rates],
        "data.0.error_y.array": [digits(r.bounds[1] - r.value) if r.hits else 0 for r in rates],
        "data.0.error_y.arrayminus": [
            digits(r.value - r.bounds[0]) if r.hits else 0 for r in rates
        ],
        "data.0.text": [
            f"{name}: {rate.text}, {rate.hits:,}" if rate.hits else ""
            for name, rate in zip(names, rates, strict=True)
        ],
    }


def histogram_figure(split: str) -> go.Figure:
    """Bars of equal width below 100%, and one of exactly 100%; how high they are, `bars` says."""
    middles = (BIN_EDGES[:-1] + BIN_EDGES[1:]) / 2
    figure = go.Figure(
        go.Bar(
            x=[*np.round(middles, 5).tolist(), PERFECT],
            error_y={"type": "data", "symmetric": False, "thickness": 1, "width": 0},
            textposition="none",
            width=0.92 / BINS,
            hovertemplate="%{text}<extra></extra>",
        )
    )
    return figure.update_layout(
        title={"text": f"Accuracy on the {SPLIT_NAMES[split]}"},
        meta={"colours": [split]},
        margin={"l": 60, "r": 12, "t": 48, "b": 44},
        xaxis={
            "title": "tokens predicted right",
            "range": [0, PERFECT + 1.1 / BINS],
            "tickvals": [0, 0.25, 0.5, 0.75, PERFECT],
            "ticktext": ["0%", "25%", "50%", "75%", "=100%"],
        },
        yaxis={"title": "share of the models", "tickformat": ".0%", "rangemode": "tozero"},
    )


BANDS = {"q05": None, "q95": "tonexty", "q25": None, "q75": "tonexty", "q50": None}
"""The lines of a band figure, and where each fills down to: the line before it. The median is on top."""


def curve_pictures(curves: pd.DataFrame) -> Gallery:
    """Loss and accuracy on both splits during training, as bands of quantiles, in every scope."""
    gallery = {}
    for metric, of_metric in curves.groupby("metric", sort=False):
        split, quantity = str(metric).split("_")
        by_scope = of_metric.groupby("scope", sort=False)
        versions = [
            {f"data.{i}.y": [digits(v) for v in of_scope[name]] for i, name in enumerate(BANDS)}
            for _, of_scope in by_scope
        ]
        steps = sorted(of_metric["step"].unique().tolist())
        gallery[f"curves-{quantity}-{split}"] = Picture(
            band_figure(steps, quantity, split), SCOPE, versions
        )
    return gallery


def band_figure(steps: list[int], quantity: str, split: str) -> go.Figure:
    """The median of a metric within bands that hold 50% and 90% of the models; their heights come later."""
    figure = go.Figure()
    for name, fill in BANDS.items():
        is_median = name == "q50"
        figure.add_scatter(
            x=steps,
            name="median" if is_median else f"{QUANTILES[name]:.0%}",
            mode="lines",
            fill=fill,
            opacity=1 if is_median else 0.5,
            line={"width": 2.4 if is_median else 0},
            hovertemplate="%{y:.3~g}" if quantity == "loss" else "%{y:.1%}",
        )
    return figure.update_layout(
        CURVES_LAYOUT,
        title={"text": f"{quantity.capitalize()}: {SPLIT_NAMES[split]}"},
        meta={"colours": [split]},
        showlegend=False,
        yaxis=QUANTITIES[quantity],
    )


QUANTITIES: dict[str, dict[str, Any]] = {
    "loss": {"type": "log", "title": "cross-entropy (nats)", "dtick": 1, "tickformat": "~g"},
    "accuracy": {"range": [0, 1.03], "tickformat": ".0%", "title": "tokens predicted right"},
}
"""The vertical axes of curves."""


def rate_pictures(points: pd.DataFrame) -> Gallery:
    """For every split: how often each point's models solve training split and holdout."""
    return {
        f"rates-{kind}-{measured}": Picture(rate_heatmap(of_kind, measured, str(kind)))
        for kind, of_kind in points.groupby("split")
        for measured in SPLITS
    }


def rate_heatmap(points: pd.DataFrame, measured: str, kind: str) -> go.Figure:
    """The rate of models that solve a split, by learning rate and weight decay."""

    def grid(value: Callable[[pd.Series], object]) -> list[list[Any]]:
        cells = points.assign(cell=points.apply(value, axis=1))
        table = cells.pivot(index="weight_decay", columns="lr", values="cell").astype(object)
        return table.where(table.notna(), None).to_numpy().tolist()

    def rate(point: pd.Series) -> Rate:
        return Rate(int(point[f"{measured}_perfect"]), int(point["models"]))

    few = points["lr"].nunique() <= MOST_WRITTEN
    written = grid(lambda p: cell_text(rate(p), few))
    columns, rows = np.unique(points["lr"]), np.unique(points["weight_decay"])
    figure = go.Figure(
        go.Heatmap(
            z=grid(lambda p: digits(rate(p).value)),
            x=[f"{lr:g}" for lr in columns],
            y=[f"{decay:g}" for decay in rows],
            text=written,
            customdata=grid(lambda p: f"{rate(p).text}, {rate(p).hits:,} of {rate(p).n:,}"),
            texttemplate="%{text}",
            textfont={"size": 12},
            zmin=0,
            zmax=1,
            autocolorscale=True,
            showscale=False,
            xgap=2,
            ygap=2,
            hoverongaps=False,
            hovertemplate="lr %{x}, weight decay %{y}: %{customdata}<extra></extra>",
        )
    )
    axis = {
        "type": "category",
        "showgrid": False,
        "ticks": "",
        "fixedrange": True,
        "automargin": True,
    }
    return figure.update_layout(
        title={
            "text": f"Split “{kind}”: who solves the {SPLIT_NAMES[measured]}",
            "subtitle": {"text": "share of the models"},
        },
        margin={"l": 8, "r": 8, "t": 60, "b": 8},
        xaxis={**axis, "title": "learning rate"},
        yaxis={**axis, "title": "weight decay"},
    )


def cell_text(rate: Rate, with_interval: bool) -> str:
    """A rate in a heatmap's cell: in whole percents, for it is narrow."""
    low, high = rate.bounds
    interval = f"<br><span style='font-size:0.8em'>{100 * low:.0f} .. {100 * high:.0f}</span>"
    return f"{rate.value:.0%}{interval if with_interval else ''}"


CLAIM_TITLES = {
    "head_reverses": ("Reads", "gives the deciding tokens most of its attention"),
    "increments": ("Increments", "makes most of the answers' logits"),
    "necessary": ("Necessary", "more than half of the skill is lost without it"),
    "sufficient": ("Sufficient", "alone brings more than half of the skill back"),
}
"""The claims that have a figure: title and meaning."""

ALSO = {"head_reverses": ("attention_reverses",)}
"""Claims that are drawn in the figure of another one."""


def claim_pictures(rates: pd.DataFrame) -> Gallery:
    """How often each claim holds of each component, in models that generalise and in others."""
    return {
        f"claim-{claim}": Picture(
            dots_figure(rates[rates["claim"].isin((*ALSO.get(claim, ()), claim))], *titles)
        )
        for claim, titles in CLAIM_TITLES.items()
    }


def dots_figure(rates: pd.DataFrame, title: str, subtitle: str) -> go.Figure:
    """A rate with its interval for every part, two groups side by side."""
    parts = list(rates["part"].unique())
    names = [PARTS.get(part, part) for part in parts]
    figure = go.Figure()
    offsets = dict(zip(GROUPS, (-0.13, 0.13), strict=True))
    for group, symbol in zip(GROUPS, ("circle", "diamond"), strict=True):
        of_group = rates[rates["group"] == group].set_index("part").loc[parts]
        found = [
            Rate(int(hits), int(n)) for hits, n in zip(of_group["hits"], of_group["n"], strict=True)
        ]
        figure.add_scatter(
            x=[digits(value) for value in of_group["rate"]],
            y=[i + offsets[group] for i in range(len(parts))],
            name=group_name(group, of_group["n"].max()),
            mode="markers",
            marker={"size": 9, "symbol": symbol},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [digits(v) for v in of_group["high"] - of_group["rate"]],
                "arrayminus": [digits(v) for v in of_group["rate"] - of_group["low"]],
                "thickness": 1.5,
                "width": 0,
            },
            text=[
                f"{name}: {rate.text} of the {group_name(group, rate.n)}"
                for name, rate in zip(names, found, strict=True)
            ],
            hovertemplate="%{text}<extra></extra>",
        )
    return figure.update_layout(
        title={"text": title, "subtitle": {"text": subtitle}},
        legend=LEGEND_BELOW,
        margin={"l": 8, "r": 16, "t": 54, "b": 8},
        xaxis={"range": [-0.02, 1.02], "tickformat": ".0%", "automargin": True},
        yaxis={**rows_axis(names), "automargin": True},
    )


LEGEND_BELOW = {"orientation": "h", "x": 0, "y": -0.12, "yanchor": "top"}


def rows_axis(parts: Sequence[str]) -> dict[str, Any]:
    """A vertical axis with a row for every part, the first on top."""
    return {
        "tickvals": list(range(len(parts))),
        "ticktext": list(parts),
        "range": [len(parts) - 0.5, -0.5],
        "showgrid": False,
        "fixedrange": True,
    }


def shares_picture(shares: pd.DataFrame) -> Gallery:
    """How much of the increment each component makes: boxes from quartile to quartile, whiskers to 5% and 95%."""
    figure = go.Figure()
    for group in GROUPS:
        of_group = shares[(shares["group"] == group) & (shares["models"] > 0)]
        quantiles = {
            key: [digits(value) for value in of_group[column]]
            for key, column in {
                "lowerfence": "q05",
                "q1": "q25",
                "median": "q50",
                "q3": "q75",
                "upperfence": "q95",
            }.items()
        }
        names = [PARTS.get(part, part) for part in of_group["part"]]
        figure.add_box(
            y=names,
            orientation="h",
            name=group_name(group, of_group["models"].max()),
            line={"width": 1.5},
            visible=len(of_group) > 0,
            **quantiles,
        )
    figure.update_layout(
        title={
            "text": "Who makes how much of the increment",
            "subtitle": {"text": "median, half of the models, 90% of the models"},
        },
        boxmode="group",
        legend={**LEGEND_BELOW, "traceorder": "normal"},
        margin={"l": 8, "r": 16, "t": 54, "b": 8},
        xaxis={"tickformat": ".0%", "range": list(WIDEST_SHARE), "automargin": True},
        yaxis={
            "type": "category",
            "autorange": "reversed",
            "showgrid": False,
            "fixedrange": True,
            "automargin": True,
        },
    )
    return {"shares": Picture(figure)}


PARTS = {"heads": "all heads", "mlps": "all MLPs", WHOLE: "heads together"}
"""Parts of a model that need other words in a figure."""


def group_name(group: str, n: float) -> str:
    """A group's name and size for a legend."""
    return f"{int(n) if n > 0 else 0:,} {GROUPS[group]}"


def digits(value: float) -> float | None:
    """A number as short as a figure needs it; None where there is none."""
    return float(f"{value:.4g}") if np.isfinite(value) else None

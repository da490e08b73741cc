"""Figures that compare runs: their curves on the same axes."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from jax_revinc.plots.theme import figure, label
from jax_revinc.plots.training import CURVES, QUANTITIES, lines, short

DASHES = ("solid", "dot")
"""How the curves of each run are drawn."""


def compared_curves(metrics: Mapping[str, pd.DataFrame], quantity: str) -> go.Figure:
    """A figure of the loss or the accuracy of two runs on both splits.

    Colours tell the splits apart; the first run's curves are solid, the second's dotted.

    Args:
        metrics: by the name of each run, its table of metrics.
        quantity: "loss" or "accuracy".
    """
    traces = []
    for (name, table), dash in zip(metrics.items(), DASHES, strict=True):
        curves = {
            f"{split}, {label(name)}": short(table[f"{split}_{quantity}"], quantity)
            for split in ("train", "holdout")
        }
        drawn = lines(table["step"].tolist(), curves, hover="%{y:.4~g}")
        traces += [{**trace, "line": {**trace["line"], "dash": dash}} for trace in drawn]
    layout = {
        **CURVES,
        "height": 400,
        "legend": {"y": -0.2, "x": 0, "xanchor": "left", "yanchor": "top"},
    }
    return figure(
        *traces,
        title=quantity.capitalize(),
        colours=["train", "holdout"] * len(metrics),
        yaxis=QUANTITIES[quantity],
        **layout,
    )

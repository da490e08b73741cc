"""Figures of one run over its training steps: loss, accuracy, and what its heads attend to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from jax_revinc.analysis.snapshots import reading_shares, shown_steps, snapshot_patterns
from jax_revinc.plots.theme import LOG_AXIS, digits, figure
from jax_revinc.training import Run
from revinc import UserError

MOST_BATCH_LOSSES = 4000
"""Losses of single batches that are drawn; those of a longer run are thinned out."""

SHARE_AXIS: dict[str, Any] = {"range": [0, 1.03], "tickformat": ".0%"}
QUANTITIES: dict[str, dict[str, Any]] = {
    "loss": {**LOG_AXIS, "title": "cross-entropy (nats)"},
    "accuracy": {**SHARE_AXIS, "title": "tokens predicted right"},
}
"""The vertical axis of each kind of metric."""

CURVES: dict[str, Any] = {
    "hovermode": "x unified",
    "height": 360,
    "showlegend": True,
    "xaxis": {"title": "step"},
}
"""The layout of all curves over steps."""


def loss(run: Run) -> go.Figure:
    """Curves of a run's loss on the training split, the holdout and each batch, on a log axis.

    Args:
        run: a run with metrics, finished or not.
    """
    return loss_figure(run.metrics, None if run.is_exported else run.losses)


def accuracy(run: Run) -> go.Figure:
    """Curves of a run's accuracy, the share of tokens predicted right, on both splits.

    Args:
        run: a run with metrics, finished or not.
    """
    return split_curves(run.metrics, "accuracy")


def reading(run: Run) -> go.Figure:
    """Curves of each head's attention on the tokens that decide the answers, over training steps.

    Each snapshot of the run gives a point of the curves. The attention is that of the positions
    that predict an answer, averaged over them and over the sequences.

    Args:
        run: a run with two snapshots or more, of a task in which one token decides each answer.

    Raises:
        UserError: if the run has fewer than two snapshots, or its task has no `sources`,
            which are the positions of the tokens that decide the answers.
    """
    steps = shown_steps(run)
    if len(steps) < 2 or not run.config.task.sources:
        raise UserError(
            "can't draw attention over training steps: the run must have two snapshots or more "
            "(train with --snapshots every:100), and its task must list in `sources` the positions "
            "of the tokens that decide the answers"
        )
    shares = reading_shares(snapshot_patterns(run, steps), run.config.task)
    return reading_figure(steps, shares)


def loss_figure(metrics: pd.DataFrame, losses: pd.DataFrame | None = None) -> go.Figure:
    """The figure of a run's loss, from its tables of metrics and, if any, of batch losses."""
    if losses is None:
        return split_curves(metrics, "loss")
    every = -(-len(losses) // MOST_BATCH_LOSSES)
    batches = losses.iloc[::every]
    of_batches = {
        "type": "scatter",
        "x": batches["step"].tolist(),
        "y": short(batches["loss"], "loss"),
        "name": "batch" if every == 1 else f"batch (1 in {every})",
        "line": {"width": 1},
        "zorder": -1,
    }
    return split_curves(metrics, "loss", of_batches)


def split_curves(metrics: pd.DataFrame, quantity: str, *more: dict[str, Any]) -> go.Figure:
    """A figure of the loss or the accuracy on both splits, from a run's table of metrics.

    Args:
        metrics: a row for each evaluation.
        quantity: "loss" or "accuracy".
        more: further traces.
    """
    curves = {
        split: short(metrics[f"{split}_{quantity}"], quantity) for split in ("train", "holdout")
    }
    traces = lines(metrics["step"].tolist(), curves, hover="%{y:.4~g}")
    title, yaxis = quantity.capitalize(), QUANTITIES[quantity]
    return figure(*traces, *more, title=title, yaxis=yaxis, **CURVES)


def short(numbers: pd.Series, quantity: str) -> list[float | None]:
    """Numbers with four digits, to keep JSON short; None leaves a gap in a curve.

    A loss of 0 is None, because a log axis has no place for it.

    Args:
        numbers: the numbers.
        quantity: "loss" or "accuracy".
    """
    return [None if quantity == "loss" and x == 0 else digits(x) for x in numbers]


def reading_figure(
    steps: list[int], shares: Mapping[str, Float[np.ndarray, " steps"]]
) -> go.Figure:
    """A figure of how much each head attends to the tokens that decide answers, at each step."""
    rounded = {head: share.round(4) for head, share in shares.items()}
    yaxis = {**SHARE_AXIS, "title": "attention on the needed token"}
    traces = lines(steps, rounded, hover="%{y:.1%}")
    return figure(*traces, title="When heads learned where to look", yaxis=yaxis, **CURVES)


def lines(steps: list[int], curves: Mapping[str, Any], hover: str) -> list[dict[str, Any]]:
    """Traces of one curve over the training steps for each entry of the dict `curves`."""
    return [
        {
            "type": "scatter",
            "x": steps,
            "y": list(curve),
            "name": name,
            "mode": "lines",
            "line": {"width": 2.2},
            "hovertemplate": hover,
        }
        for name, curve in curves.items()
    ]

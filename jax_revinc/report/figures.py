"""The report's figures, each from plain arrays. They carry no colours: those are the theme's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from jax_revinc.report.shell import Picture

DECIMALS = 4
MOST_BATCH_LOSSES = 4000
"""How many losses of single batches are drawn; a longer run is thinned out."""
MOST_WRITTEN = 16
"""Rows and columns up to which a heatmap has its numbers written in."""
CURVES_LAYOUT: dict[str, Any] = {
    "hovermode": "x unified",
    "legend": {"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"},
    "margin": {"l": 64, "r": 12, "t": 48, "b": 44},
    "xaxis": {"title": "step"},
}
"""Of all curves over the steps of a training."""
BAR = -0.68
"""Where the bar that marks the predicting rows stands: just left of the first column, at -0.5."""


def loss_figure(metrics: pd.DataFrame, losses: pd.DataFrame) -> go.Figure:
    """The loss of both splits at every evaluation, over the loss of every batch; log scale."""
    every = -(-len(losses) // MOST_BATCH_LOSSES)
    batches = losses.iloc[::every]
    figure = _split_curves(metrics, "loss")
    figure.add_scatter(
        x=batches["step"].tolist(),
        y=[float(f"{loss:.4g}") for loss in batches["loss"]],
        name="batch" if every == 1 else f"batch (1 in {every})",
        line={"width": 1},
        zorder=-1,
    )
    figure.update_yaxes(type="log", title="cross-entropy (nats)", dtick=1, tickformat="~g")
    return figure.update_layout(title={"text": "Loss"})


def accuracy_figure(metrics: pd.DataFrame) -> go.Figure:
    """The share of predicted tokens that are right in both splits, at every evaluation."""
    figure = _split_curves(metrics, "accuracy")
    figure.update_yaxes(range=[0, 1.03], tickformat=".0%", title="tokens predicted right")
    return figure.update_layout(title={"text": "Accuracy"})


def _split_curves(metrics: pd.DataFrame, quantity: str) -> go.Figure:
    figure = go.Figure()
    for split in ("train", "holdout"):
        figure.add_scatter(
            x=metrics["step"].tolist(),
            y=metrics[f"{split}_{quantity}"].round(6).tolist(),
            name=split,
            line={"width": 2.2},
        )
    figure.update_traces(mode="lines", hovertemplate="%{y:.4~g}")
    return figure.update_layout(
        CURVES_LAYOUT,
    )


def pattern_picture(
    patterns: Sequence[Float[np.ndarray, "query key"]],
    labels: Sequence[Sequence[str]],
    *,
    axis: str,
    title: str,
    predicting: dict[int, str],
    reading: Sequence[tuple[int, int]],
) -> Picture:
    """How much every position looks at every earlier one, in every version of a head's pattern.

    Args:
        patterns: attention probabilities; the future, which a causal model can't see, is left blank.
        labels: names of the positions, in every version.
        axis: the chooser of the version that is shown.
        title: which head this is.
        predicting: the rows whose next token must be predicted, and the name of that token.
        reading: the cells (row, column) to outline, where a head that fetches the needed token looks.
    """
    future = np.triu(np.ones_like(patterns[0], dtype=bool), k=1)
    versions: list[dict[str, Any]] = [
        {
            "data.0.z": _rounded(np.where(future, np.nan, pattern)),
            "data.0.x": list(names),
            "data.0.y": [
                f"<b>{name} → {predicting[row]}</b>" if row in predicting else name
                for row, name in enumerate(names)
            ],
            "layout.title.subtitle.text": _reading_score(pattern, reading),
        }
        for pattern, names in zip(patterns, labels, strict=True)
    ]
    figure = _heatmap(
        patterns[0],
        rows=versions[0]["data.0.y"],
        columns=labels[0],
        limits=(0, 1),
        hover="%{y} looks at %{x}: %{z:.4f}",
    )
    figure.update_layout(
        title=_title(title, ""),
        shapes=[*map(_bar, predicting), *map(_outline, reading)],
        xaxis={"title": "looks at (source)", "range": [BAR - 0.1, len(labels[0]) - 0.5]},
        yaxis={"title": "position (destination)"},
    )
    return Picture(figure, axis, versions)


def _bar(row: int) -> dict[str, Any]:
    return {
        "type": "line",
        "x0": BAR,
        "x1": BAR,
        "y0": row - 0.5,
        "y1": row + 0.5,
        "line": {"width": 5},
    }


def _outline(cell: tuple[int, int]) -> dict[str, Any]:
    row, column = cell
    return {
        "type": "rect",
        "x0": column - 0.46,
        "x1": column + 0.46,
        "y0": row - 0.46,
        "y1": row + 0.46,
    }


def _reading_score(
    pattern: Float[np.ndarray, "query key"], reading: Sequence[tuple[int, int]]
) -> str:
    if not reading:
        return ""
    score = np.mean([pattern[cell] for cell in reading])
    return f"{score:.0%} of the predicting rows' attention is outlined"


def matrix_picture(
    matrices: Sequence[Float[np.ndarray, "rows columns"]],
    *,
    title: str,
    axes: tuple[str, str],
    axis: str = "",
    subtitle: str = "",
    largest: float = 0.0,
    rows: Sequence[Sequence[str]] | None = None,
    columns: Sequence[str] | None = None,
) -> Picture:
    """A matrix of signed numbers in every version, its colours diverging around zero alike in all.

    Args:
        matrices: such as W_in, or the MLP output at every position for every sequence.
        title: which one it is.
        axes: what its rows and its columns are.
        axis: the chooser of the version that is shown, if there are several.
        subtitle: more about it; its shape by default.
        largest: the magnitude at which the colours end; by default the largest in any version.
        rows: names of the rows, in every version; by default their indices.
        columns: names of the columns; by default their indices.
    """
    largest = largest or max(float(np.abs(matrix).max()) for matrix in matrices) or 1.0
    n_rows, n_columns = matrices[0].shape
    names = rows or [[str(i) for i in range(n_rows)]] * len(matrices)
    figure = _heatmap(
        matrices[0],
        rows=names[0],
        columns=columns or [str(i) for i in range(n_columns)],
        limits=(-largest, largest),
        hover=f"{axes[0]} %{{y}}, {axes[1]} %{{x}}: %{{z:.4f}}",
    )
    figure.update_layout(
        title=_title(title, subtitle or f"{n_rows} by {n_columns}"),
        xaxis={"title": axes[1]},
        yaxis={"title": axes[0]},
    )
    versions = [
        {"data.0.z": _rounded(matrix), "data.0.y": list(labels)}
        for matrix, labels in zip(matrices, names, strict=True)
    ]
    return Picture(figure, axis, versions if axis else ())


def _heatmap(
    z: Float[np.ndarray, "rows columns"],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    limits: tuple[float, float],
    hover: str,
) -> go.Figure:
    """A heatmap, first row on top. Small ones have their numbers written in, large ones a scale."""
    written = max(len(rows), len(columns)) <= MOST_WRITTEN
    gap = 1 if written else 0
    trace = go.Heatmap(
        z=_rounded(z),
        x=list(columns),
        y=list(rows),
        zmin=limits[0],
        zmax=limits[1],
        autocolorscale=True,
        texttemplate="%{z:.2f}" if written else None,
        textfont={"size": 11},
        showscale=not written,
        colorbar={"thickness": 8, "outlinewidth": 0},
        hovertemplate=f"{hover}<extra></extra>",
        hoverongaps=False,
        xgap=gap,
        ygap=gap,
    )
    axis: dict[str, Any] = {"type": "category", "showgrid": False, "ticks": "", "fixedrange": True}
    return go.Figure(trace).update_layout(
        margin={"l": 8, "r": 8, "t": 54, "b": 8},
        xaxis={**axis, "automargin": True},
        yaxis={**axis, "automargin": True, "range": [len(rows) - 0.5, -0.5]},
    )


def _title(text: str, subtitle: str) -> dict[str, Any]:
    return {"text": text, "subtitle": {"text": subtitle}}


def _rounded(z: Float[np.ndarray, "rows columns"]) -> list[list[float | None]]:
    """Rows of decimals, as JSON takes few characters for them and none for what is not there."""
    return [[None if np.isnan(v) else round(float(v), DECIMALS) for v in row] for row in z]

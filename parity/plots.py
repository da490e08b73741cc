"""The figures of the parity page: errors relative to bounds, distances of runs, distributions."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import plotly.graph_objects as go

from jax_revinc.plots.theme import figure, label
from parity.comparison import Comparison
from parity.free_running_level import PARTED, Distances, PartingSteps
from parity.levels import Level
from parity.outcome_comparison import UNITS, Distribution
from parity.worst_row import of_its_bound

HEIGHT = 340
"""Of every figure, in pixels."""

MOST_TICKS = 8
"""Decades that have a tick on the axis of errors."""

KINDS = {
    "within its bound": {"symbol": "circle", "size": 7},
    "FAILS": {"symbol": "x", "size": 11},
    "differs, as known": {"symbol": "diamond", "size": 10},
}
"""The kinds of a tensor, and how each is drawn; always in this order, so that each has its
colour."""


@functools.singledispatch
def draw(evidence: Any) -> go.Figure:
    """Draw a parity level's data as a figure, of a kind that depends on the type of the data.

    Args:
        evidence: a value of `Level.evidence`.
    """
    raise TypeError(f"no figure is defined for parity data of the type {type(evidence).__name__}")


@draw.register
def distribution_figure(evidence: Distribution) -> go.Figure:
    """Draw the cumulative distribution of a quantity over seeds, in JAX and in torch."""
    quantity, samples = evidence
    finite = np.isfinite(samples.values)
    traces = [
        go.Scatter(
            x=samples.values[finite].tolist(),
            y=(counts.cumsum() / counts.sum())[finite].round(4).tolist(),
            name=f"{name}, {counts.sum()} seeds",
            mode="lines",
            line={"width": 2.2, "shape": "hv"},
            hovertemplate="%{y:.1%}",
        )
        for name, counts in (("torch", samples.first), ("JAX", samples.second))
    ]
    return untitled_figure(
        traces,
        hovermode="x unified",
        xaxis={"title": quantity.name, "tickformat": UNITS[quantity.unit]},
        yaxis={"title": "seeds at or below", "tickformat": ".0%", "range": [0, 1.03]},
    )


@draw.register
def distance_figure(evidence: Distances) -> go.Figure:
    """Draw, against the step, the largest difference so far between the losses of a seed's runs."""
    ours, theirs = evidence
    gaps = {
        "JAX and torch": ours.plain[None] - theirs.plain,
        "nudged": np.concatenate([runs.nudged - runs.plain for runs in evidence]),
        "jittered": np.concatenate([runs.jittered - runs.plain for runs in evidence]),
    }
    traces = []
    for depth, (name, gap) in enumerate(gaps.items()):
        so_far = np.maximum.accumulate(np.abs(gap), axis=1)[:, ::2].clip(1e-17)
        # All runs of a kind are one line, with a gap after each.
        trace = go.Scatter(
            x=[x for _ in so_far for x in [*range(0, gap.shape[1], 2), None]],
            y=[y for run in so_far for y in [*(float(f"{v:.3g}") for v in run), None]],
            name=name,
            mode="lines",
            line={"width": 1 if depth else 2.2},
            zorder=-depth,
            hovertemplate="step %{x}: %{y:.1e}",
        )
        traces.append(trace)
    drawn = untitled_figure(
        traces,
        xaxis={"title": "step"},
        yaxis={"type": "log", "title": "losses apart (nats)", "dtick": 2, "tickformat": "~e"},
    )
    return drawn.add_hline(PARTED, line={"dash": "dot"})


@draw.register
def partings_figure(evidence: PartingSteps) -> go.Figure:
    """Draw, in one row for each seed, the steps at which the losses of its runs begin to differ."""
    rows = evidence.rows
    kinds = {
        "JAX and torch": [[row.cross] for row in rows],
        "nudged": [[*chain(*row.nudged.values())] for row in rows],
        "jittered": [row.ranked[1:] for row in rows],
    }
    tick = {"symbol": "line-ns-open", "size": 16, "line": {"width": 2}}
    traces = []
    for depth, (name, by_row) in enumerate(kinds.items()):
        points = [
            (step, row.name)
            for row, steps in zip(rows, by_row, strict=True)
            for step in steps
            if step < row.never
        ]
        trace = go.Scatter(
            x=[step for step, _ in points],
            y=[seed for _, seed in points],
            name=name,
            mode="markers",
            marker=tick if depth else {"symbol": "diamond", "size": 11},
            zorder=-depth,
            hovertemplate="%{y}: step %{x}",
        )
        traces.append(trace)
    return untitled_figure(
        traces,
        xaxis={"title": "step"},
        yaxis={"categoryarray": [row.name for row in rows], "autorange": "reversed"},
    )


class Scale:
    """A logarithmic vertical axis, with a place below it for zeros and one above for infinities.

    All precisions of a level have the same scale, so that their figures can be compared.
    """

    def __init__(self, levels: Sequence[Level]) -> None:
        values = [row.used for level in levels for row in drawn_rows(level)]
        powers = [math.log10(value) for value in values if 0 < value < math.inf]
        self._low = math.floor(min([-2, *powers]))
        self._high = math.ceil(max([0, *powers]))
        self._lanes = {"0": self.place(0)} if 0 in values else {}
        self._lanes |= {"∞": self.place(math.inf)} if math.inf in values else {}

    def place(self, value: float) -> float:
        """The height on the axis at which a value is drawn."""
        if value == 0:
            return self._low - 1
        return self._high + 1 if value == math.inf else round(math.log10(value), 4)

    def axis(self) -> dict[str, object]:
        """The Plotly settings of the axis."""
        every = -(-(self._high - self._low) // MOST_TICKS)
        powers = [power for power in range(self._low, self._high + 1) if power % every == 0]
        names = ["1" if power == 0 else f"10<sup>{power}</sup>" for power in powers]
        places = [*powers, *self._lanes.values()]
        return {
            "title": "error / bound",
            "range": [min(places) - 0.5, max(places) + 0.7],
            "tickvals": places,
            "ticktext": [*names, *self._lanes],
        }


def drawn_rows(level: Level) -> list[Comparison]:
    """The tensor comparisons that a level's figure shows; empty if all tensors must be equal."""
    rows = [row for row in level.rows if isinstance(row, Comparison)]
    return rows if any(row.bound for row in rows) else []


def error_figure(level: Level, scale: Scale) -> go.Figure | None:
    """Draw a parity level's result: a dot for each tensor, at its error divided by its bound.

    Returns:
        None if the level has no tensors with a bound.
    """
    rows = drawn_rows(level)
    if not rows:
        return None
    traces = []
    for kind, marker in KINDS.items():
        numbered = [(i, row) for i, row in enumerate(rows, 1) if kind_of(row) == kind]
        trace = go.Scatter(
            x=[i for i, _ in numbered],
            y=[scale.place(row.used) for _, row in numbered],
            text=[hover_text(i, row) for i, row in numbered],
            name=kind,
            mode="markers",
            marker=marker,
            hovertemplate="%{text}<extra></extra>",
            showlegend=bool(numbered),
        )
        traces.append(trace)
    drawn = untitled_figure(
        traces,
        xaxis={
            "title": "tensors, numbered in execution order",
            "range": [0.2, len(rows) + 0.8],
            "showgrid": False,
        },
        yaxis=scale.axis(),
    )
    bound = {"text": "bound", "xanchor": "left", "x": 0}
    return drawn.add_hline(0, line={"dash": "dot"}, annotation=bound)


def kind_of(row: Comparison) -> str:
    """The kind of a tensor's result in a figure: within its bound, failed, or known to differ."""
    if not row.passed:
        return "FAILS"
    return "differs, as known" if row.known else "within its bound"


def hover_text(number: int, row: Comparison) -> str:
    """The text about a tensor that a figure shows under the mouse pointer, as Plotly's HTML."""
    allowed = f": {of_its_bound(row.used)} it" if 0 < row.used < math.inf else ""
    entries = f"{list(row.worst_index)}: {row.ours:.9g} in JAX, {row.theirs:.9g} in TransformerLens"
    lines = [
        f"<b>{number} {label(row.name)}</b>",
        f"error {row.error:.1e}, bound {row.bound:.1e}{allowed}",
        entries if row.worst_index else "",
        label(row.note),
        label(row.known),
    ]
    return "<br>".join(line for line in lines if line)


def untitled_figure(traces: Iterable[Any], **layout: Any) -> go.Figure:
    """Make a Plotly figure without a title, because the page puts a caption at it."""
    return figure(*traces, height=HEIGHT, margin={"t": 34}, **layout)

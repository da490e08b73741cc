"""Heatmaps of attention patterns and of matrices, and several heatmaps in one figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from jax_revinc.plots.theme import LIGHT, figure, label

DECIMALS = 4
MOST_WRITTEN = 16
"""Rows and columns up to which a heatmap has its numbers written in its cells."""
BAR = -0.68
"""Horizontal place of the bar that marks a predicting row: left of the first column, at -0.5."""
CELL = 32
"""Height of a matrix's row, in pixels."""
AXIS: dict[str, Any] = {"type": "category", "showgrid": False, "ticks": "", "fixedrange": True}

Version = dict[str, Any]
"""The values of a figure that change with a reader's choice, by path in the figure's JSON, such as
``data.0.z``."""


def pattern(
    attention: Float[np.ndarray, "query key"],
    labels: Sequence[str],
    *,
    title: str,
    answers: Mapping[int, str],
    needed: Sequence[tuple[int, int]],
) -> go.Figure:
    """A heatmap of one head's attention pattern.

    Args:
        attention: attention probabilities [query, key]; zeros above the diagonal are left blank.
        labels: names of the positions.
        title: which head it is.
        answers: by row that predicts an answer, the name of that answer; these rows have a bar.
        needed: cells (row, column) with an outline: where the token is that an answer depends on.
    """
    version = pattern_version(attention, labels, answers, needed)
    return heatmap(
        version["data.0.z"],
        rows=version["data.0.y"],
        columns=version["data.0.x"],
        limits=(0, 1),
        hover="%{y} looks at %{x}: %{z:.4f}",
        axes=("position (destination)", "looks at (source)"),
        title=title,
        subtitle=version["layout.title.subtitle.text"],
        shapes=[*map(bar, answers), *map(outline, needed)],
        xaxis={"range": [BAR - 0.1, len(labels) - 0.5]},
    )


def pattern_version(
    attention: Float[np.ndarray, "query key"],
    labels: Sequence[str],
    answers: Mapping[int, str],
    needed: Sequence[tuple[int, int]],
) -> Version:
    """The input-dependent parts of an attention heatmap, as a dict from JSON path to value."""
    future = np.triu(attention == 0, k=1)  # a bidirectional model has attention there
    names = escaped(labels)
    return {
        "data.0.z": decimals(np.where(future, np.nan, attention)),
        "data.0.x": names,
        "data.0.y": [
            f"<b>{name} → {label(answers[row])}</b>" if row in answers else name
            for row, name in enumerate(names)
        ],
        "layout.title.subtitle.text": reading_score(attention, needed),
    }


def reading_score(
    attention: Float[np.ndarray, "query key"], needed: Sequence[tuple[int, int]]
) -> str:
    """A sentence with the mean attention that goes to the tokens on which the answers depend."""
    if not needed:
        return ""
    score = np.mean([attention[cell] for cell in needed])
    return f"{score:.0%} of the predicting rows' attention is outlined"


def bar(row: int) -> dict[str, Any]:
    """A vertical bar, as a Plotly shape, that marks a row of a heatmap at its left end."""
    line = {"type": "line", "x0": BAR, "x1": BAR, "line": {"width": 5}}
    return {**line, "y0": row - 0.5, "y1": row + 0.5}


def outline(cell: tuple[int, int]) -> dict[str, Any]:
    """An outline, as a Plotly shape, around the cell (row, column) of a heatmap."""
    (row, column), half = cell, 0.46
    across = {"x0": column - half, "x1": column + half}
    return {"type": "rect", **across, "y0": row - half, "y1": row + half}


def matrix(
    values: Float[np.ndarray, "rows columns"],
    *,
    title: str,
    axes: tuple[str, str],
    subtitle: str = "",
    largest: float = 0.0,
    rows: Iterable[object] | None = None,
    columns: Iterable[object] | None = None,
    height: int | None = None,
) -> go.Figure:
    """A heatmap of signed numbers, in colours that diverge around zero.

    Args:
        values: such as W_in; NaN is left blank.
        title: which matrix it is.
        axes: what its rows are and what its columns are.
        subtitle: more about it; by default its shape.
        largest: the magnitude at which the colours end; by default the matrix's largest.
        rows: names of the rows; by default their indices.
        columns: names of the columns; by default their indices.
        height: of the figure in pixels; by default what its rows need, up to a limit.
    """
    n_rows, n_columns = values.shape
    largest = largest or float(np.nanmax(np.abs(values))) or 1.0
    version = matrix_version(values, range(n_rows) if rows is None else rows)
    return heatmap(
        version["data.0.z"],
        rows=version["data.0.y"],
        columns=escaped(range(n_columns) if columns is None else columns),
        limits=(-largest, largest),
        hover=f"{axes[0]} %{{y}}, {axes[1]} %{{x}}: %{{z:.4f}}",
        axes=axes,
        title=title,
        subtitle=subtitle or f"{n_rows} by {n_columns}",
        height=height or min(120 + CELL * n_rows, 560),
    )


def with_one_range(figures: Mapping[str, go.Figure]) -> dict[str, go.Figure]:
    """Give heatmaps one range of colours, so that they can be compared, and print the range."""
    largest = max((drawn.data[0].zmax for drawn in figures.values()), default=0)
    for drawn in figures.values():
        drawn.data[0].update(zmin=-largest, zmax=largest)
        subtitle = drawn.layout.title.subtitle
        subtitle.text = f"{subtitle.text}; colours end at ±{largest:.2g}"
    return dict(figures)


def matrix_version(values: Float[np.ndarray, "rows columns"], rows: Iterable[object]) -> Version:
    """The input-dependent parts of a matrix heatmap, as a dict from JSON path to value."""
    return {"data.0.z": decimals(values), "data.0.y": escaped(rows)}


def heatmap(
    z: list[list[float | None]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    limits: tuple[float, float],
    hover: str,
    axes: tuple[str, str],
    xaxis: Mapping[str, Any] | None = None,
    **layout: Any,
) -> go.Figure:
    """A Plotly heatmap: small ones have numbers written in their cells, large ones a colour bar.

    Args:
        z: the numbers, a list for each row; None is left blank.
        rows: names of the rows, escaped.
        columns: names of the columns, escaped.
        limits: the numbers at which the colours begin and end.
        hover: Plotly's template of what is said of a cell.
        axes: titles of the vertical and the horizontal axis.
        xaxis: more properties of the horizontal axis.
        layout: arguments of `theme.figure`.
    """
    written = max(len(rows), len(columns)) <= MOST_WRITTEN
    gap = 1 if written else 0
    trace = {
        "type": "heatmap",
        "z": z,
        "x": columns,
        "y": rows,
        "zmin": limits[0],
        "zmax": limits[1],
        "autocolorscale": True,
        "texttemplate": "%{z:.2~r}" if written else None,
        "textfont": {"size": 11},
        "showscale": not written,
        "colorbar": {"thickness": 8, "outlinewidth": 0},
        "hovertemplate": f"{hover}<extra></extra>",
        "hoverongaps": False,
        "xgap": gap,
        "ygap": gap,
    }
    vertical, horizontal = axes
    return figure(
        trace,
        xaxis={**AXIS, "title": {"text": horizontal}, **(xaxis or {})},
        yaxis={**AXIS, "title": {"text": vertical}, "range": [len(rows) - 0.5, -0.5]},
        **layout,
    )


def grid(figures: Iterable[go.Figure], columns: int = 2) -> go.Figure:
    """Join several heatmaps in one figure, side by side, each under its own title."""
    figures = list(figures)
    columns = min(columns, len(figures))
    n_rows = -(-len(figures) // columns)
    joined = make_subplots(
        n_rows,
        columns,
        subplot_titles=[drawn.layout.title.text for drawn in figures],
        horizontal_spacing=0.24 / columns,
        vertical_spacing=0.24 / n_rows,
    )
    for i, drawn in enumerate(figures):
        place = {"row": i // columns + 1, "col": i % columns + 1}
        for trace in drawn.data:
            joined.add_trace(trace, **place)
        joined.update_xaxes(drawn.layout.xaxis, **place).update_yaxes(drawn.layout.yaxis, **place)
        for shape in drawn.layout.shapes:
            joined.add_shape(shape, **place)
    joined.update_traces(showscale=False)
    return joined.update_layout(
        template=LIGHT.template, width=470 * columns, height=60 + 400 * n_rows
    )


def decimals(z: Float[np.ndarray, "rows columns"]) -> list[list[float | None]]:
    """A matrix as lists of rounded numbers, to keep JSON short; NaN becomes None."""
    z = np.asarray(z, np.float64)
    return np.where(np.isnan(z), None, z.round(DECIMALS)).tolist()  # type: ignore[no-any-return,call-overload]


def escaped(names: Iterable[object]) -> list[str]:
    """Names with their HTML characters escaped, because Plotly reads names as HTML."""
    return [label(name) for name in names]

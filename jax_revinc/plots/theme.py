"""Colours and layout of every figure and page, for a light and a dark background."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go

from revinc.printable_text import printable

FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"
LEGEND_ABOVE = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"}
LEGEND_BELOW = {"orientation": "h", "x": 0, "xanchor": "left", "y": -0.14, "yanchor": "top"}
MARGIN = {"l": 8, "r": 12, "t": 54, "b": 8}
"""Pixels around a figure's axes, beside what their labels take."""
LOG_AXIS: dict[str, Any] = {"type": "log", "dtick": 1, "exponentformat": "e"}
"""An axis with a tick for each power of ten, such as 0.01 or 1e-5."""


@dataclass(frozen=True, kw_only=True)
class Theme:
    """The colours of pages, text, curves and heatmaps, either for a light or a dark background."""

    page: str
    card: str
    ink: str
    muted: str
    line: str
    train: str
    holdout: str
    batch: str
    mark: str
    right: str
    wrong: str
    sequential: tuple[str, ...]
    diverging: tuple[str, ...]

    def css_variables(self) -> str:
        """The theme's colours as CSS variables, such as ``--ink: #1d2630;``."""
        plain = ("page", "card", "ink", "muted", "line", "train", "mark", "right", "wrong")
        variables = {name: getattr(self, name) for name in plain}
        variables["scale"] = f"linear-gradient(90deg, {', '.join(self.sequential)})"
        return " ".join(f"--{name}: {value};" for name, value in variables.items())

    def colours(self) -> dict[str, str]:
        """The colours for curves and points in figures, as a dict with keys such as "train"."""
        return {
            name: getattr(self, name)
            for name in ("train", "holdout", "batch", "mark", "right", "wrong", "muted")
        }

    @functools.cached_property
    def template(self) -> go.layout.Template:
        """The Plotly template of every figure: fonts, colours, margins, legend."""
        axis = {
            "automargin": True,
            "gridcolor": self.line,
            "linecolor": self.line,
            "zeroline": False,
            "tickfont": {"color": self.muted},
            "ticklabelstandoff": 4,
            "title": {"font": {"color": self.muted}, "standoff": 8},
        }
        title = {
            "x": 0,
            "y": 1,
            "yanchor": "top",
            "pad": {"l": 4, "t": 4},
            "font": {"size": 14},
            "subtitle": {"font": {"size": 12, "color": self.muted}},
        }
        layout = go.Layout(
            font={"family": FONT, "size": 12, "color": self.ink},
            paper_bgcolor="rgba(0,0,0,0)",
            plot_bgcolor="rgba(0,0,0,0)",
            colorway=[self.train, self.holdout, self.batch],
            colorscale={"sequential": scale(self.sequential), "diverging": scale(self.diverging)},
            shapedefaults={"line": {"color": self.mark, "width": 2}},
            title=title,
            legend=LEGEND_ABOVE,
            margin=MARGIN,
            xaxis=axis,
            yaxis=axis,
        )
        return go.layout.Template(layout=layout)


def scale(colours: tuple[str, ...]) -> list[tuple[float, str]]:
    """A Plotly colour scale of evenly spaced colours."""
    return [(i / (len(colours) - 1), colour) for i, colour in enumerate(colours)]


LIGHT = Theme(
    page="#fbfbf9",
    card="#ffffff",
    ink="#1d2630",
    muted="#5b6672",
    line="#e0e4e8",
    train="#1f66a8",
    holdout="#c8551b",
    batch="#a9b5c1",
    mark="#d9660a",
    right="#23774a",
    wrong="#b3261e",
    sequential=("#f4f8fb", "#c6dcee", "#6fabd6", "#2272b4", "#0a3a70"),
    diverging=("#1f5f9e", "#8fbbdc", "#f6f6f4", "#eaa27c", "#ae3b1f"),
)
DARK = Theme(
    page="#12161b",
    card="#181d23",
    ink="#e4e8ec",
    muted="#9aa5b1",
    line="#2c343d",
    train="#62aeea",
    holdout="#f08a4f",
    batch="#55616d",
    mark="#ff8b2b",
    right="#67c48f",
    wrong="#ff8a80",
    sequential=("#1f2730", "#1f4163", "#2a6ba5", "#66afe8", "#d6ebfb"),
    diverging=("#7dbcf2", "#2f6594", "#232a32", "#9c4d30", "#ffab85"),
)


def figure(
    *traces: Any, title: str = "", subtitle: str = "", colours: Sequence[str] = (), **layout: Any
) -> go.Figure:
    """A Plotly figure in the project's style, on a light background.

    Args:
        traces: Plotly traces, or dicts of their properties, which are made faster.
        title: the figure's title.
        subtitle: a second line, smaller.
        colours: names of `Theme.colours` for the traces in turn; by default the theme's colorway.
            They are also kept in ``layout.meta.colours``, by which a page finds the dark ones.
        layout: further properties of the Plotly layout.
    """
    if colours:
        light = LIGHT.colours()
        layout["colorway"] = [light[name] for name in colours]
        layout["meta"] = {"colours": list(colours), **layout.get("meta", {})}
    layout |= {"title": {"text": title, "subtitle": {"text": subtitle}}}
    # Made at once: Plotly takes several times as long to update a figure.
    return go.Figure({"data": traces, "layout": {"template": LIGHT.template, **layout}})


def label(value: object) -> str:
    """A value as one line of text with HTML characters escaped, because Plotly reads HTML."""
    return escape(printable(value), quote=False)


def digits(value: float) -> float | None:
    """A number rounded to four significant digits, to keep pages small; None if not finite."""
    return float(f"{value:.4g}") if math.isfinite(value) else None

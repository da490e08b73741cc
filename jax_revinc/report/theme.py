"""The report's colours, on a light and on a dark page: for its figures and for its style sheet."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go

FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"


@dataclass(frozen=True, kw_only=True)
class Theme:
    """The colours of one mode: of the page, of the lines in curves, and of heatmaps from low to high."""

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
        """Declarations for the style sheet, such as ``--ink: #1d2630;``."""
        plain = ("page", "card", "ink", "muted", "line", "train", "mark", "right", "wrong")
        variables = {name: getattr(self, name) for name in plain}
        variables["scale"] = f"linear-gradient(90deg, {', '.join(self.sequential)})"
        return " ".join(f"--{name}: {value};" for name, value in variables.items())

    def colours(self) -> dict[str, str]:
        """The colours that a figure may ask for by name."""
        return {
            name: getattr(self, name)
            for name in ("train", "holdout", "batch", "mark", "right", "wrong", "muted")
        }

    def template(self) -> go.layout.Template:
        """What every figure takes its fonts and colours from."""
        axis = {
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

"""Charts of a level of comparisons: a dot for each tensor, as high as the share of its bound that it uses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from plotly.graph_objects import Figure

from parity.comparison import Comparison
from parity.levels import Level
from parity.margins import known, of_its_bound, used

MOST_TICKS = 8

KINDS = {
    "within its bound": {"symbol": "circle", "size": 7},
    "FAILS": {"symbol": "x", "size": 11},
    "differs, as known": {"symbol": "diamond", "size": 10},
}
"""What a tensor can be, and how it is drawn; always in this order, so that each has its colour."""


class Scale:
    """A vertical axis of decades, with a lane below them for zeros and one above for infinities.

    All precisions of a level have the same, so that their charts can be compared.
    """

    def __init__(self, levels: Sequence[Level]) -> None:
        values = [used(row) for level in levels for row in drawn_rows(level)]
        powers = [math.log10(value) for value in values if 0 < value < math.inf]
        self._low = math.floor(min([-2, *powers]))
        self._high = math.ceil(max([0, *powers]))
        self._lanes = {"0": self.place(0)} if 0 in values else {}
        self._lanes |= {"∞": self.place(math.inf)} if math.inf in values else {}

    def place(self, value: float) -> float:
        """How high a value is drawn."""
        if value == 0:
            return self._low - 1
        return self._high + 1 if value == math.inf else round(math.log10(value), 4)

    def axis(self) -> dict[str, object]:
        """For Plotly."""
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
    """The level's comparisons, unless they allow no error at all: those are yes or no, and need no chart."""
    rows = [row for row in level.rows if isinstance(row, Comparison)]
    return rows if any(row.bound for row in rows) else []


def strip(level: Level, scale: Scale) -> Figure | None:
    """The chart of a level in one precision, its tensors in their order, if there is something to draw."""
    rows = drawn_rows(level)
    if not rows:
        return None
    figure = Figure()
    for kind, marker in KINDS.items():
        numbered = [(i, row) for i, row in enumerate(rows, 1) if kind_of(row) == kind]
        figure.add_scatter(
            x=[i for i, _ in numbered],
            y=[scale.place(used(row)) for _, row in numbered],
            text=[described(i, row) for i, row in numbered],
            name=kind,
            mode="markers",
            marker=marker,
            hovertemplate="%{text}<extra></extra>",
            showlegend=bool(numbered),
        )
    figure.add_hline(
        0, line={"dash": "dot"}, annotation={"text": "bound", "xanchor": "left", "x": 0}
    )
    return figure.update_layout(
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"},
        margin={"l": 56, "r": 8, "t": 30, "b": 44},
        xaxis={
            "title": "tensors, numbered in execution order",
            "range": [0.2, len(rows) + 0.8],
            "showgrid": False,
        },
        yaxis=scale.axis(),
    )


def kind_of(row: Comparison) -> str:
    """One of `KINDS`."""
    if not row.passed:
        return "FAILS"
    return "differs, as known" if known(row) else "within its bound"


def described(number: int, row: Comparison) -> str:
    """What is said of a tensor when it is pointed at; Plotly reads it as HTML."""
    share = used(row)
    allowed = f": {of_its_bound(share)} it" if 0 < share < math.inf else ""
    entries = f"{list(row.worst_index)}: {row.ours:.9g} in JAX, {row.theirs:.9g} in TransformerLens"
    lines = [
        f"<b>{number} {escape(row.name)}</b>",
        f"error {row.error:.1e}, bound {row.bound:.1e}{allowed}",
        entries if row.worst_index else "",
        escape(row.note),
        escape(known(row)),
    ]
    return "<br>".join(line for line in lines if line)

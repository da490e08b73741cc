"""The scatter of models: what is across and up, and its points by outcome."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from jax_revinc.report import markup
from jax_revinc.report.atlas.figures import LEGEND_BELOW, digits
from jax_revinc.report.atlas.outcomes import OUTCOME, OUTCOMES
from jax_revinc.report.atlas.shown import short_name
from jax_revinc.report.atlas.tables import BEST_READING
from jax_revinc.report.shell import Gallery, Picture
from revinc.sweep import SWEPT

SHARE: dict[str, Any] = {"type": "linear", "tickformat": ".0%", "autorange": True}
OF_ALL: dict[str, Any] = {"type": "linear", "tickformat": ".0%", "range": [-0.03, 1.05]}
LOG: dict[str, Any] = {"type": "log", "tickformat": "~g", "dtick": 1, "autorange": True}
PLAIN: dict[str, Any] = {"type": "linear", "tickformat": "~g", "autorange": True}

AXES = {
    "attention on the deciding tokens": (BEST_READING, OF_ALL),
    "holdout accuracy": ("holdout_accuracy", OF_ALL),
    "training accuracy": ("train_accuracy", OF_ALL),
    "holdout loss": ("holdout_loss", LOG),
    "training loss": ("train_loss", LOG),
    "increment made by embeddings": ("increment_share.embed", SHARE),
    "increment made by heads": ("increment_share.heads", SHARE),
    "increment made by MLPs": ("increment_share.mlps", SHARE),
    "learning rate": ("lr", PLAIN),
    "weight decay": ("weight_decay", PLAIN),
}
"""What may be across and up: the column, and how its axis is drawn."""

STYLES = dict(
    zip(OUTCOMES, (("train", "circle"), ("holdout", "diamond"), ("batch", "square")), strict=False)
)
"""The colour and the symbol of each outcome that has a point."""


def axes(chosen: pd.DataFrame) -> list[str]:
    """Which of `AXES` there are: of rates, those that differ."""
    return [
        name
        for name, (column, _) in AXES.items()
        if column in chosen and (column not in SWEPT or chosen[column].nunique() > 1)
    ]


def scatter_picture(chosen: pd.DataFrame) -> Gallery:
    """The chosen models as points, by outcome. The page's script moves them to other axes and marks one."""
    numbers = dict(zip(chosen.index, range(len(chosen)), strict=True))
    by_outcome = {name: part for name in OUTCOMES if len(part := chosen[chosen[OUTCOME] == name])}
    figure = go.Figure()
    for name, part in by_outcome.items():
        figure.add_scatter(
            name=OUTCOMES[name],
            mode="markers",
            marker={"size": 8, "symbol": STYLES[name][1], "opacity": 0.75},
            customdata=[numbers[model] for model in part.index],
            text=[short_name(model, row) for model, row in part.iterrows()],
            hovertemplate="%{text}<extra></extra>",
        )
    figure.add_scatter(
        name="shown below",
        mode="markers",
        marker={"size": 17, "symbol": "circle-open", "line": {"width": 3}},
        hoverinfo="skip",
    )
    values: dict[str, dict[str, Any]] = {
        name: {
            "values": [[digits(value) for value in part[column]] for part in by_outcome.values()],
            "axis": {"title": {"text": name}, **drawn},
        }
        for name, (column, drawn) in AXES.items()
        if name in axes(chosen)
    }
    across, up = list(values)[:2]
    figure.update_layout(
        title={"text": "Models"},
        meta={"colours": [*(STYLES[name][0] for name in by_outcome), "mark"], "axes": values},
        legend={**LEGEND_BELOW, "y": -0.16},
        margin={"l": 64, "r": 12, "t": 40, "b": 8},
        xaxis=values[across]["axis"],
        yaxis=values[up]["axis"],
        hovermode="closest",
    )
    return {"scatter": Picture(figure)}


def axes_chooser(chosen: pd.DataFrame) -> str:
    """What the scatter's axes are chosen by."""
    fields = "".join(
        f"<label>{label} <select name='{letter}'>{options(axes(chosen), first)}</select></label>"
        for letter, label, first in (("x", "Across", 0), ("y", "up", 1))
    )
    return f"<form class='axes' autocomplete='off'>{fields}</form>"


def options(names: list[str], first: int) -> str:
    """A list's options, one of them chosen."""
    return "".join(
        f"<option{' selected' if i == first else ''}>{markup.text(name)}</option>"
        for i, name in enumerate(names)
    )

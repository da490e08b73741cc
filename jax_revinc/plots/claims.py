"""Figures of how many models have heads and MLPs that work as the tutorial claims."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from jax_revinc.plots.theme import LEGEND_BELOW, digits, figure
from jax_revinc.survey.atlas_tables import WHOLE
from jax_revinc.survey.rate_intervals import Rate

GROUPS = {"generalising": "that generalise", "not generalising": "that do not"}
"""The groups of models that are compared, and their words after a number of models."""

SHARES_IN_VIEW = (-0.6, 1.6)
"""The range of shares that is drawn: where logits hardly favour the answers, a share can be any
number."""

CLAIM_TITLES = {
    "head_reverses": ("Reads", "gives the deciding tokens most of its attention"),
    "increments": ("Makes the answers", "makes most of the answers' logits"),
    "necessary": ("Needed", "more than half of the skill is lost without it"),
    "sufficient": ("Enough on its own", "alone brings more than half of the skill back"),
}
"""The claims that have a figure: title and meaning."""

ALSO = {"head_reverses": ("attention_reverses",)}
"""Claims that are drawn in the figure of another one."""

PARTS = {"heads": "all heads", "mlps": "all MLPs", WHOLE: "heads together"}
"""Parts of a model that have other words in a figure."""

ROWS = {"showgrid": False, "fixedrange": True}
"""A vertical axis with a row for each name."""


def claim_rates(claims: pd.DataFrame, claim: str = "increments") -> go.Figure:
    """A figure of how often a claim about a component holds, in models that generalise and others.

    Args:
        claims: a row for each claim, part and group, as `jax_revinc.survey.atlas_tables.claims_table`
            makes it.
        claim: "head_reverses", "increments", "necessary" or "sufficient".
    """
    rates = claims[claims["claim"].isin((*ALSO.get(claim, ()), claim))]
    title, subtitle = CLAIM_TITLES[claim]
    parts = list(rates["part"].unique())
    names = [PARTS.get(part, part) for part in parts]
    styles = zip(GROUPS, ("circle", "diamond"), (-0.13, 0.13), strict=True)
    traces = []
    for group, symbol, offset in styles:
        of_group = rates[rates["group"] == group].set_index("part").loc[parts]
        counted = zip(names, of_group["hits"], of_group["n"], strict=True)
        trace = go.Scatter(
            x=[digits(value) for value in of_group["rate"]],
            y=[i + offset for i in range(len(parts))],
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
                f"{name}: {Rate(int(hits), int(n)).text} of the {group_name(group, n)}"
                for name, hits, n in counted
            ],
            hovertemplate="%{text}<extra></extra>",
        )
        traces.append(trace)
    return figure(
        *traces,
        title=title,
        subtitle=subtitle,
        height=120 + 38 * claims.groupby("claim")["part"].nunique().max(),
        legend=LEGEND_BELOW,
        xaxis={"range": [-0.02, 1.02], "tickformat": ".0%"},
        yaxis={
            **ROWS,
            "tickvals": list(range(len(parts))),
            "ticktext": names,
            "range": [len(parts) - 0.5, -0.5],
        },
    )


def increment_shares(shares: pd.DataFrame) -> go.Figure:
    """Box plots of each component's share of the logits that turn a token into its answer.

    Boxes are from quartile to quartile, whiskers at 5% and 95% of the models.

    Args:
        shares: a row for each component and group, as `jax_revinc.survey.atlas_tables.shares_table` makes
            it.
    """
    ends = {"lowerfence": "q05", "q1": "q25", "median": "q50", "q3": "q75", "upperfence": "q95"}
    groups = {
        group: shares[(shares["group"] == group) & (shares["models"] > 0)] for group in GROUPS
    }
    traces = [
        go.Box(
            y=[PARTS.get(part, part) for part in rows["part"]],
            orientation="h",
            name=group_name(group, rows["models"].max()),
            line={"width": 1.5},
            visible=len(rows) > 0,
            **{end: [digits(value) for value in rows[column]] for end, column in ends.items()},
        )
        for group, rows in groups.items()
    ]
    return figure(
        *traces,
        title="Who makes how much of the answers",
        subtitle="median, half of the models, 90% of the models",
        height=120 + 46 * shares["part"].nunique(),
        boxmode="group",
        legend={**LEGEND_BELOW, "traceorder": "normal"},
        xaxis={"type": "linear", "tickformat": ".0%", "range": list(SHARES_IN_VIEW)},
        yaxis={**ROWS, "type": "category", "autorange": "reversed"},
    )


def group_name(group: str, n: float) -> str:
    """The legend's text for a group of `n` models, such as "12 that generalise"."""
    return f"{int(n) if n > 0 else 0:,} {GROUPS[group]}"

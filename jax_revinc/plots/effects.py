"""Figures of ablation, activation patching and path patching of a model on a task."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from jax_revinc.analysis.effects import ablation_costs, by_row, edges, recovery, row_labels
from jax_revinc.model import HookedTransformer
from jax_revinc.plots.components import Figures
from jax_revinc.plots.heatmaps import grid, matrix
from revinc import Task

PATCHED = {
    "resid_pre": "The residual stream before a layer",
    "attn_out": "Attention output",
    "mlp_out": "MLP output",
    "z": "Output of a head",
}
"""Titles of the patched activations."""


def patching(model: HookedTransformer, task: Task) -> go.Figure:
    """Heatmaps of the share of the answers' logit margin that patching an activation restores.

    There is a cell for each layer and position; 0 is nothing, 1 is all. See
    `jax_revinc.analysis.effects.recovery`.

    Args:
        model: a model of the task.
        task: one in which one token decides each answer.

    Raises:
        UserError: if no single token decides each answer, or not all can be changed at once.
    """
    return grid(patching_figures(recovery(model, task), task).values())


def patching_figures(
    restored: Mapping[str, Float[np.ndarray, "n_layers pos *n_heads"]], task: Task
) -> Figures:
    """A dict from names like "patching-z" to a heatmap of patching that kind of activation."""
    return {
        f"patching-{name}": matrix(
            by_row(shares),
            title=PATCHED[name],
            subtitle="share of the answers' margin that comes back",
            axes=("head" if shares.ndim > 2 else "layer", "position"),
            largest=1.0,
            rows=row_labels(shares),
            columns=task.position_labels[: shares.shape[1]],
        )
        for name, shares in restored.items()
    }


def paths(model: HookedTransformer, task: Task) -> go.Figure:
    """A heatmap of the answers' logit margin lost if a path between two components is corrupted.

    Args:
        model: a model of the task.
        task: one in which one token decides each answer.

    Raises:
        UserError: if no single token decides each answer, or not all can be changed at once.
    """
    return paths_figure(edges(model, task))


def paths_figure(lost: pd.DataFrame) -> go.Figure:
    """A heatmap of the margin lost by corrupting each path, from a table of the shares."""
    return matrix(
        lost.to_numpy(),
        title="Path by path",
        subtitle="share of the answers' margin lost by corrupting it",
        axes=("written by", "read by"),
        largest=1.0,
        rows=lost.index,
        columns=lost.columns,
    )


def ablation(model: HookedTransformer, task: Task) -> go.Figure:
    """A heatmap of the accuracy lost by zero, mean and resample ablation of each component.

    Args:
        model: a model of the task.
        task: the accuracy is on its sequences.
    """
    return component_figure(ablation_costs(model, task))


def position_ablation(model: HookedTransformer, task: Task) -> go.Figure:
    """A heatmap of accuracy lost by mean ablation of the residual stream, by layer and position.

    Args:
        model: a model of the task.
        task: the accuracy is on its sequences.
    """
    return position_figure(ablation_costs(model, task), task)


def ablation_figures(costs: pd.DataFrame, task: Task) -> Figures:
    """A dict of two heatmaps of the accuracy lost by ablation: by component, and by position."""
    return {
        "ablation": component_figure(costs),
        "ablation-position": position_figure(costs, task),
    }


def component_figure(costs: pd.DataFrame) -> go.Figure:
    """A heatmap of the accuracy lost by ablating each component, from a table of the changes."""
    lost = -costs["accuracy_change"]
    is_component = lost.index.get_level_values("kind") != "position"
    by_method = lost[is_component].unstack("method", sort=False)
    return matrix(
        by_method.to_numpy(dtype=float),
        title="Without a component",
        subtitle="accuracy lost, by what it is replaced by",
        axes=("component", "replaced by"),
        largest=1.0,
        rows=[component_name(hook, part) for _, hook, part in by_method.index],
        columns=by_method.columns,
    )


def position_figure(costs: pd.DataFrame, task: Task) -> go.Figure:
    """A heatmap of the accuracy lost by ablating each position, from a table of the changes."""
    lost = -costs["accuracy_change"].xs("position", level="kind").xs("mean", level="method")
    by_position = lost.unstack("part", sort=False)
    return matrix(
        by_position.to_numpy(dtype=float),
        title="Without what a position knows",
        subtitle="accuracy lost if the residual stream before a layer is its mean there",
        axes=("layer", "position"),
        largest=1.0,
        columns=task.position_labels[: by_position.shape[1]],
    )


def component_name(hook: str, part: int | None) -> str:
    """A short name for the activation at a hook, or for one head (`part`) of it, like "L0 z 1"."""
    *place, name = hook.split(".")
    layer = f"L{place[1]} " if place[0] == "blocks" else "final "
    norm = f"{place[-1]} " if place[-1].startswith("ln") and place[-1] != "ln_final" else ""
    return f"{layer}{norm}{name.removeprefix('hook_')}" + ("" if pd.isna(part) else f" {part}")

"""All figures of a report by name: a single one, or one for every view."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jax_revinc.report import figures
from jax_revinc.report.contents import View, mlp_weights
from jax_revinc.report.shell import Gallery
from jax_revinc.training import Run
from revinc import Task
from revinc.tasks import predicted_positions, reading_cells


def curves(run: Run) -> Gallery:
    """How loss and accuracy went during training."""
    return {
        "loss": [figures.loss_figure(run.metrics, run.losses)],
        "accuracy": [figures.accuracy_figure(run.metrics)],
    }


def patterns(task: Task, views: Sequence[View]) -> Gallery:
    """The attention pattern of every head of every layer, in every view."""
    names = task.position_labels
    predicting = {position - 1: names[position] for position in predicted_positions(task)}
    return {
        f"pattern-{layer}-{head}": [
            figures.pattern_figure(
                view.activity.patterns[layer][head],
                view.labels,
                title=f"Layer {layer}, head {head}",
                predicting=predicting,
                reading=reading_cells(task),
            )
            for view in views
        ]
        for layer, heads in enumerate(views[0].activity.patterns)
        for head in range(len(heads))
    }


def mlp_outs(views: Sequence[View]) -> Gallery:
    """The MLP output of every layer that has one, in every view; a layer's colours mean the same in all."""
    by_layer = zip(*(view.activity.mlp_outs for view in views), strict=True)
    return {
        f"mlp_out-{layer}": [
            figures.matrix_figure(
                mlp_out,
                title=f"Layer {layer}, MLP output",
                axes=("position", "residual dimension"),
                largest=float(np.abs(outs).max()),
                rows=view.labels,
            )
            for view, mlp_out in zip(views, outs, strict=True)
        ]
        for layer, outs in enumerate(by_layer)
    }


def weights(run: Run) -> Gallery:
    """W_in and W_out of every layer's MLP, as far as they are shown."""
    axes = {"W_in": ("residual dimension", "neuron"), "W_out": ("neuron", "residual dimension")}
    return {
        f"{name}-{layer}": [
            figures.matrix_figure(matrix, title=f"Layer {layer}, {name}", axes=axes[name])
        ]
        for layer, matrices in enumerate(mlp_weights(run))
        for name, matrix in matrices.items()
    }

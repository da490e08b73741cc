"""All pictures of a report by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jax_revinc.report import figures
from jax_revinc.report.contents import View, mlp_weights
from jax_revinc.report.shell import Gallery, Picture
from jax_revinc.training import Run
from revinc import Task
from revinc.tasks import predicted_positions, reading_cells

SEQUENCE = "sequence"
"""The chooser of the sequence that is shown."""

STRONG_VOTES = 0.98
"""The share of votes that have colours of their own; a few sequences' are many times stronger than all others'."""


def curves(run: Run) -> Gallery:
    """How loss and accuracy went during training."""
    return {
        "loss": Picture(figures.loss_figure(run.metrics, run.losses)),
        "accuracy": Picture(figures.accuracy_figure(run.metrics)),
    }


def patterns(task: Task, views: Sequence[View]) -> Gallery:
    """The attention pattern of every head of every layer, in every view."""
    return {
        f"pattern-{layer}-{head}": figures.pattern_picture(
            [view.activity.patterns[layer][head] for view in views],
            [view.labels for view in views],
            axis=SEQUENCE,
            title=f"Layer {layer}, head {head}",
            predicting=predicting(task),
            reading=reading_cells(task),
        )
        for layer, heads in enumerate(views[0].activity.patterns)
        for head in range(len(heads))
    }


def predicting(task: Task) -> dict[int, str]:
    """The rows that predict an answer, and its name."""
    names = task.position_labels
    return {position - 1: names[position] for position in predicted_positions(task)}


def mlp_outs(views: Sequence[View]) -> Gallery:
    """The MLP output of every layer that has one, in every view."""
    return {
        f"mlp_out-{layer}": figures.matrix_picture(
            [view.activity.mlp_outs[layer] for view in views],
            title=f"Layer {layer}, MLP output",
            axes=("position", "residual dimension"),
            axis=SEQUENCE,
            rows=[view.labels for view in views],
        )
        for layer in range(len(views[0].activity.mlp_outs))
    }


def attribution(task: Task, views: Sequence[View]) -> Gallery:
    """What each component adds to the logit of the right token, in every view."""
    names = task.position_labels
    votes = [view.activity.attribution for view in views]
    return {
        "attribution": figures.matrix_picture(
            votes,
            title="What votes for the right answer",
            subtitle="logits added to the right token, less those added to the others on average",
            axes=("component", "answer"),
            axis=SEQUENCE,
            largest=float(np.quantile(np.abs(votes), STRONG_VOTES)),
            rows=[view.components for view in views],
            columns=[names[position] for position in predicted_positions(task)],
        )
    }


def weights(run: Run) -> Gallery:
    """W_in and W_out of every layer's MLP, as far as they are shown."""
    axes = {"W_in": ("residual dimension", "neuron"), "W_out": ("neuron", "residual dimension")}
    return {
        f"{name}-{layer}": figures.matrix_picture(
            [matrix], title=f"Layer {layer}, {name}", axes=axes[name]
        )
        for layer, matrices in enumerate(mlp_weights(run))
        for name, matrix in matrices.items()
    }

"""Figures of one model's components: attention, MLPs, and what each adds to the logits.

A page needs every figure by name and alone: functions called ``*_figures`` give those, as a dict.
The public functions show the same figures side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int

from jax_revinc.analysis.attention import attention_patterns
from jax_revinc.analysis.attribution import logit_attribution
from jax_revinc.analysis.increment import Increment, component_labels, increment_score
from jax_revinc.model import HookedTransformer
from jax_revinc.plots.heatmaps import grid, matrix, pattern, with_one_range
from revinc import HookedTransformerConfig, Task
from revinc.number_format import whole_percentage
from revinc.tasks import eval_positions, reading_cells
from revinc.token_labels import sequence_labels, token_label
from revinc.weights import StateDict

Figures = dict[str, go.Figure]
"""Figures by name."""

STRONG_VOTES = 0.98
"""The share of contributions that have colours of their own; a few are many times stronger than all
others."""


def attention(
    model: HookedTransformer,
    tokens: Int[np.ndarray, "batch pos"] | Int[np.ndarray, " pos"],
    task: Task | None = None,
) -> go.Figure:
    """Heatmaps of every head's attention pattern, averaged over the inputs if there are several.

    Args:
        model: any model.
        tokens: the ids that the model is fed, [batch, pos] or [pos].
        task: if given, positions have its names, rows that predict an answer a bar, and tokens that
            an answer depends on an outline.

    Raises:
        UserError: for tokens of a wrong shape, type or range.
    """
    tokens = np.atleast_2d(np.asarray(tokens))
    patterns = np.asarray(attention_patterns(model, tokens)).mean(1)
    labels = input_labels(tokens, task)
    places = np.ndindex(*patterns.shape[:2])
    return grid(head_figure(patterns[place], place, labels, task) for place in places)


def head_figure(
    attention: Float[np.ndarray, "query key"],
    place: tuple[int, ...],
    labels: Sequence[str],
    task: Task | None,
) -> go.Figure:
    """A heatmap of one head's attention pattern; `place` is the pair (layer, head)."""
    layer, head = place
    return pattern(
        attention,
        labels,
        title=f"Layer {layer}, head {head}",
        answers=answer_names(task) if task else {},
        needed=reading_cells(task) if task else [],
    )


def input_labels(tokens: Int[np.ndarray, "batch pos"], task: Task | None) -> list[str]:
    """Axis labels for the positions of the inputs; for a single input they include its tokens."""
    batch, n = tokens.shape
    if task is None:
        return [str(i) if batch > 1 else f"{i}={token}" for i, token in enumerate(tokens[0])]
    return position_names(task, n) if batch > 1 else sequence_labels(task, tokens[0])


def answer_names(task: Task) -> dict[int, str]:
    """A dict from each position that predicts an answer to the name of the answer's position."""
    return {position - 1: task.position_labels[position] for position in eval_positions(task)}


def position_names(task: Task, n: int) -> list[str]:
    """The task's names of the first `n` positions; a position without a name gets its number."""
    return [*task.position_labels, *map(str, range(len(task.position_labels), n))][:n]


def attribution(model: HookedTransformer, task: Task) -> go.Figure:
    """A heatmap of direct logit attribution by component: right token's logit minus the others'.

    It is the mean over all sequences of the task. See
    `jax_revinc.analysis.attribution.logit_attribution`.

    Args:
        model: a model of the task.
        task: its sequences and answers.
    """
    components, votes = logit_attribution(model, task.sequences(), eval_positions(task))
    return attribution_figure(np.asarray(votes).mean(1), components, task)


def attribution_figure(
    votes: Float[np.ndarray, "components n_predicted"],
    components: Iterable[str],
    task: Task,
    largest: float = 0.0,
) -> go.Figure:
    """A heatmap of the array `votes`: what each component adds to each right answer's logit."""
    return matrix(
        votes,
        title="Contributions to the right answer",
        subtitle="logits added to the right token, less those added to the others on average",
        axes=("component", "answer"),
        largest=largest,
        rows=components,
        columns=answer_names(task).values(),
        height=120 + 26 * len(votes),
    )


def mlp_outputs(
    model: HookedTransformer,
    tokens: Int[np.ndarray, "batch pos"] | Int[np.ndarray, " pos"],
    task: Task | None = None,
) -> go.Figure:
    """Heatmaps of each MLP's output at every position, averaged over the inputs if several.

    Args:
        model: a model with MLPs.
        tokens: the ids that the model is fed, [batch, pos] or [pos].
        task: if given, positions have its names.
    """
    tokens = np.atleast_2d(np.asarray(tokens))
    _, cache = model.run_with_cache(tokens)
    labels = input_labels(tokens, task)
    outputs = [np.asarray(cache["mlp_out", layer]).mean(0) for layer in range(model.cfg.n_layers)]
    return grid(mlp_output_figure(values, i, labels) for i, values in enumerate(outputs))


def mlp_output_figure(
    values: Float[np.ndarray, "pos d_model"],
    layer: int,
    labels: Iterable[object],
    largest: float = 0.0,
) -> go.Figure:
    """A heatmap of one layer's MLP output at every position."""
    return matrix(
        values,
        title=f"Layer {layer}, MLP output",
        axes=("position", "residual dimension"),
        rows=labels,
        largest=largest,
    )


def mlp_weights(model: HookedTransformer) -> go.Figure:
    """Heatmaps of each MLP's weights, W_in [d_model, d_mlp] and W_out [d_mlp, d_model].

    Args:
        model: a model with MLPs.
    """
    return grid(mlp_weight_figures(model.state_dict(), model.cfg).values())


def mlp_weight_figures(weights: StateDict, cfg: HookedTransformerConfig) -> Figures:
    """A dict from names like "W_in-0" (weight, layer) to a heatmap of that MLP weight matrix."""
    axes = {"W_in": ("residual dimension", "neuron"), "W_out": ("neuron", "residual dimension")}
    figures = {
        f"{name}-{layer}": matrix(
            weights[f"blocks.{layer}.mlp.{name}"], title=f"Layer {layer}, {name}", axes=axes[name]
        )
        for layer in range(cfg.n_layers)
        for name in axes
    }
    return with_one_range(figures)


def increments(model: HookedTransformer, task: Task) -> go.Figure:
    """Heatmaps of what each component adds to the logits, for each token that decides an answer.

    Attention patterns and norms are held fixed. See
    `jax_revinc.analysis.increment.increment_score`.

    Args:
        model: a model of the task.
        task: one with `sources` and `answers`.
    """
    found = increment_score(
        model, task.sequences(), eval_positions(task), task.sources, task.answers
    )
    return grid(increment_figures(found, model.cfg, task).values())


def increment_figures(found: Increment, cfg: HookedTransformerConfig, task: Task) -> Figures:
    """A dict from names like "increment-L0H0" to a heatmap of what the component adds to logits."""
    symbols = [token_label(task, token) for token in range(len(task.answers))]
    writes, shares = np.asarray(found.writes), np.asarray(found.share)
    figures = {
        f"increment-{component}": matrix(
            values,
            title=component,
            subtitle=f"{whole_percentage(float(share))} of the answer made here",
            axes=("token read", "logit"),
            rows=symbols,
            columns=symbols,
        )
        for component, values, share in zip(component_labels(cfg), writes, shares, strict=True)
    }
    return with_one_range(figures)

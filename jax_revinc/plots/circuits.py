"""Figures of a model's circuits: QK and OV of heads, MLPs, the path from embedding to logits."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from jax_revinc.analysis.circuits import QKCircuit, mlp_map, ov_circuit, qk_circuit, qk_view
from jax_revinc.analysis.circuits import direct_path as direct_path_map
from jax_revinc.model import HookedTransformer
from jax_revinc.plots.components import Figures, position_names
from jax_revinc.plots.heatmaps import grid, matrix, with_one_range
from revinc import HookedTransformerConfig, Task
from revinc.token_labels import token_label


def qk_circuits(model: HookedTransformer, task: Task) -> go.Figure:
    """Heatmaps of each head's QK circuit: how much a position (or token) attends to another.

    Args:
        model: a model whose norms can be folded.
        task: names tokens and positions.

    Raises:
        UserError: if the model's norms can't be folded into its weights (shortformer).
    """
    return grid(qk_figures(qk_circuit(model), model.cfg, task).values())


def qk_figures(circuit: QKCircuit, cfg: HookedTransformerConfig, task: Task) -> Figures:
    """A dict from names like "qk-0-1" (layer, head) to a heatmap of that head's QK circuit."""
    positions, tokens = position_names(task, cfg.n_ctx), token_names(task, cfg.d_vocab)
    by, circuits, names = qk_view(circuit, positions, tokens)
    figures = {
        f"qk-{layer}-{head}": matrix(
            values,
            title=f"Layer {layer}, head {head}: QK by {by}",
            axes=(f"query's {by}", f"key's {by}"),
            rows=names,
            columns=names,
        )
        for (layer, head), values in by_head(circuits)
    }
    return with_one_range(figures)


def ov_circuits(model: HookedTransformer, task: Task) -> go.Figure:
    """Heatmaps of every head's OV circuit: what attending to a token adds to each logit.

    Args:
        model: a model whose norms can be folded.
        task: names tokens.

    Raises:
        UserError: if the model's norms can't be folded into its weights (shortformer).
    """
    return grid(ov_figures(np.asarray(ov_circuit(model)), task).values())


def ov_figures(
    circuit: Float[np.ndarray, "n_layers n_heads d_vocab d_vocab_out"], task: Task
) -> Figures:
    """A dict from names like "ov-0-1" (layer, head) to a heatmap of that head's OV circuit."""
    figures = {
        f"ov-{layer}-{head}": token_map(
            task, values, f"Layer {layer}, head {head}: OV", "token looked at"
        )
        for (layer, head), values in by_head(circuit)
    }
    return with_one_range(figures)


def mlp_maps(model: HookedTransformer, task: Task) -> go.Figure:
    """Heatmaps of the logits that each MLP adds if its only input is one token's embedding.

    Args:
        model: a model with MLPs, whose norms can be folded.
        task: names tokens.

    Raises:
        UserError: if the model has no MLPs, or its norms can't be folded into its weights
            (shortformer).
    """
    return grid(mlp_figures(np.asarray(mlp_map(model)), task).values())


def mlp_figures(maps: Float[np.ndarray, "n_layers d_vocab d_vocab_out"], task: Task) -> Figures:
    """A dict from names like "mlp-0" (layer) to a heatmap of what the MLP adds for one token."""
    figures = {
        f"mlp-{layer}": token_map(task, values, f"Layer {layer}: MLP on one token")
        for layer, values in enumerate(maps)
    }
    return with_one_range(figures)


def direct_path(model: HookedTransformer, task: Task) -> go.Figure:
    """A heatmap of what each token's embedding adds directly to the logits, ``W_E @ W_U``.

    Args:
        model: a model whose norms can be folded.
        task: names tokens.

    Raises:
        UserError: if the model's norms can't be folded into its weights (shortformer).
    """
    return direct_figure(np.asarray(direct_path_map(model)), task)


def direct_figure(values: Float[np.ndarray, "d_vocab d_vocab_out"], task: Task) -> go.Figure:
    """A heatmap of the direct path from tokens to logits."""
    return token_map(task, values, "Direct path")


def token_map(
    task: Task,
    values: Float[np.ndarray, "d_vocab d_vocab_out"],
    title: str,
    rows: str = "token",
) -> go.Figure:
    """A heatmap of a matrix of logits: a row per input token, a column per output token."""
    return matrix(
        values,
        title=title,
        axes=(rows, "logit"),
        rows=token_names(task, len(values)),
        columns=token_names(task, values.shape[1]),
    )


def token_names(task: Task, n: int) -> list[str]:
    """The names that a task gives to the token ids 0 to `n` - 1."""
    return [token_label(task, token) for token in range(n)]


def by_head(
    circuits: Float[np.ndarray, "n_layers n_heads rows columns"],
) -> list[tuple[tuple[int, int], Float[np.ndarray, "rows columns"]]]:
    """A list of ((layer, head), matrix) pairs, from an array of every head's circuit matrix."""
    return [(place, circuits[place]) for place in np.ndindex(*circuits.shape[:2])]

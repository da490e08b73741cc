"""Tables for the terminal, as in the tutorial: attention patterns, MLP outputs and MLP weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from jax_revinc.analysis.matrix_table import MatrixTable
from jax_revinc.model import HookedTransformer
from revinc import Task, UserError
from revinc.tasks import reading_cells
from revinc.token_labels import next_labels, sequence_labels, token_label

HEADS_FIRST = ("hook_pattern", "hook_attn_scores")
"""Activations of shape [n_heads, query, key]; others of heads are [pos, n_heads, d_head]."""


def activation_tables(
    name: str,
    activation: Float[np.ndarray, "*pos_and_heads"],
    task: Task,
    tokens: Int[np.ndarray, " pos"],
    heads: Sequence[int] | None = None,
) -> Iterator[MatrixTable]:
    """Tables for the terminal of an activation on one sequence: one table, or one for each head.

    Rows are positions, labelled with their tokens; the last column names the token to predict. In
    an attention pattern a star marks the position of the token that decides the answer.

    Args:
        name: the activation's hook name.
        activation: its values on the sequence.
        task: the task, for labels.
        tokens: the tokens fed.
        heads: indices of heads, if the activation has them.

    Raises:
        UserError: for `heads` of an activation without them.
    """
    labels = sequence_labels(task, tokens)
    notes = next_labels(task, len(tokens))
    if activation.ndim == 2 and heads is not None:
        raise UserError(f"the activation {name} has no heads to choose from; give no heads for it")
    if activation.ndim == 2:
        yield MatrixTable(name, activation, labels, notes=notes)
        return
    is_pattern = name.endswith(HEADS_FIRST)
    by_head = activation if is_pattern else np.moveaxis(activation, 1, 0)
    for head in range(len(by_head)) if heads is None else heads:
        columns, marked = (labels, reading_cells(task)) if is_pattern else (None, ())
        yield MatrixTable(f"{name}, head {head}", by_head[head], labels, columns, notes, marked)


def weight_tables(model: HookedTransformer, layer: int) -> Iterator[MatrixTable]:
    """Tables for the terminal of W_in [d_model, d_mlp] and W_out [d_mlp, d_model] of one MLP."""
    for name in (f"blocks.{layer}.mlp.W_in", f"blocks.{layer}.mlp.W_out"):
        matrix = np.asarray(model.params[name])
        rows = [str(row) for row in range(len(matrix))]
        yield MatrixTable(name, matrix, rows)


def prediction_sentence(
    task: Task,
    tokens: Int[np.ndarray, " pos"],
    logits: Float[np.ndarray, "pos d_vocab_out"],
    right: Int[np.ndarray, " pos"] | None = None,
) -> str:
    """A sentence with a model's input tokens, and its predictions where the task asks for one.

    Args:
        task: the task, for labels.
        tokens: the tokens fed.
        logits: the model's.
        right: the token that is right at each position, if known; it is named beside a wrong one.
    """
    fed = " ".join(sequence_labels(task, tokens))
    predicted = []
    for i, name in enumerate(next_labels(task, len(tokens))):
        if name:
            token = int(logits[i].argmax())
            should = int(right[i]) if right is not None else token
            aside = "" if token == should else f" (right: {token_label(task, should)})"
            predicted.append(f"{name}={token_label(task, token)}{aside}")
    return f"{fed}  predicts  {' '.join(predicted) or 'nothing that the task asks for'}"

"""Tables for the terminal, as in the tutorial: attention patterns, MLP outputs and MLP weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int
from rich.table import Table

from jax_revinc.model import HookedTransformer
from revinc import Task, UserError
from revinc.token_labels import next_labels, sequence_labels, token_label

HEADS_FIRST = ("hook_pattern", "hook_attn_scores")
"""Activations of shape [n_heads, query, key]; others of heads are [pos, n_heads, d_head]."""


def activation_tables(
    name: str,
    activation: Float[np.ndarray, "*pos_and_heads"],
    task: Task,
    tokens: Int[np.ndarray, " pos"],
    heads: Sequence[int] | None = None,
) -> Iterator[Table]:
    """Tables for the terminal of an activation on one sequence: one table, or one for each head.

    Rows are positions, labelled with their tokens; the last column names the token to predict.

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
        yield matrix_table(name, activation, labels, notes=notes)
        return
    is_pattern = name.endswith(HEADS_FIRST)
    by_head = activation if is_pattern else np.moveaxis(activation, 1, 0)
    for head in range(len(by_head)) if heads is None else heads:
        columns = labels if is_pattern else None
        yield matrix_table(f"{name}, head {head}", by_head[head], labels, columns, notes)


def weight_tables(model: HookedTransformer, layer: int) -> Iterator[Table]:
    """Tables for the terminal of W_in [d_model, d_mlp] and W_out [d_mlp, d_model] of one MLP."""
    for name in (f"blocks.{layer}.mlp.W_in", f"blocks.{layer}.mlp.W_out"):
        matrix = np.asarray(model.params[name])
        rows = [str(row) for row in range(len(matrix))]
        yield matrix_table(name, matrix, rows)


def matrix_table(
    title: str,
    values: Float[np.ndarray, "rows columns"],
    rows: Sequence[str],
    columns: Sequence[str] | None = None,
    notes: Sequence[str] | None = None,
) -> Table:
    """A table for the terminal of a matrix with labels; any `notes` become a last column."""
    table = Table("", title=title, title_justify="left", title_style="bold", box=None)
    for column in columns or map(str, range(values.shape[1])):
        table.add_column(column, justify="right")
    if notes is not None:
        table.add_column("predicts", justify="right", style="bold")
    for i, label in enumerate(rows):
        numbers = ["" if np.isnan(value) else f"{value:.3f}" for value in values[i]]
        table.add_row(label, *numbers, *([] if notes is None else [notes[i]]))
    return table


def prediction_sentence(
    task: Task,
    tokens: Int[np.ndarray, " pos"],
    logits: Float[np.ndarray, "pos d_vocab_out"],
) -> str:
    """A sentence with a model's input tokens, and its predictions where the task asks for one."""
    fed = " ".join(sequence_labels(task, tokens))
    names = next_labels(task, len(tokens))
    predicted = [
        f"{name}={token_label(task, int(token))}"
        for name, token in zip(names, logits.argmax(-1), strict=True)
        if name
    ]
    return f"{fed}  predicts  {' '.join(predicted) or 'nothing that the task asks for'}"

"""The tutorial's inspection as tables: attention patterns, MLP outputs and MLP weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int
from rich.table import Table

from jax_revinc.model import HookedTransformer
from revinc import Task, UserError
from revinc.labels import next_labels, sequence_labels, token_label

HEADS_FIRST = ("hook_pattern", "hook_attn_scores")
"""Activations of shape [head, query, key]; others that have heads are [pos, head, d_head]."""


def activation_tables(
    name: str,
    activation: Float[np.ndarray, "*pos_and_heads"],
    task: Task,
    tokens: Int[np.ndarray, " pos"],
    heads: Sequence[int] | None = None,
) -> Iterator[Table]:
    """An activation on one sequence: a table, or one for each of `heads` (all by default).

    Rows are positions, named with their tokens; the last column says what a row must predict.
    """
    labels = sequence_labels(task, tokens)
    notes = next_labels(task, len(tokens))
    if activation.ndim == 2 and heads is not None:
        raise UserError(f"{name} has no heads to choose from")
    if activation.ndim == 2:
        yield matrix_table(name, activation, labels, notes=notes)
        return
    is_pattern = name.endswith(HEADS_FIRST)
    by_head = activation if is_pattern else np.moveaxis(activation, 1, 0)
    for head in range(len(by_head)) if heads is None else heads:
        columns = labels if is_pattern else None
        yield matrix_table(f"{name}, head {head}", by_head[head], labels, columns, notes)


def weight_tables(model: HookedTransformer, layer: int) -> Iterator[Table]:
    """W_in [d_model, d_mlp] and W_out [d_mlp, d_model] of a layer's MLP."""
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
    """Numbers with named rows and columns; `notes`, if any, fill a last column, "predicts"."""
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
    """The sequence that was fed and what the model predicts where the task asks."""
    fed = " ".join(sequence_labels(task, tokens))
    names = next_labels(task, len(tokens))
    predicted = [
        f"{name}={token_label(task, int(token))}"
        for name, token in zip(names, logits.argmax(-1), strict=True)
        if name
    ]
    return f"{fed}  predicts  {' '.join(predicted) or 'nothing that the task asks for'}"

"""Tables for the terminal of what a model learned: one function for each kind of evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np
import pandas as pd
from rich.console import RenderableType
from rich.table import Table

from jax_revinc.analysis.attention import attention_patterns, reversal_score, summarize_patterns
from jax_revinc.analysis.attribution import logit_attribution
from jax_revinc.analysis.circuits import (
    direct_path,
    fold_layer_norm,
    mlp_map,
    ov_circuit,
    qk_circuit,
    qk_view,
)
from jax_revinc.analysis.claims import claims
from jax_revinc.analysis.effects import ablation_costs, by_row, edges, recovery, row_labels
from jax_revinc.analysis.matrix_table import MatrixTable
from jax_revinc.model import HookedTransformer
from revinc import Task
from revinc.tasks import eval_positions, reading_cells
from revinc.token_labels import token_label

MOST_SEQUENCES = 4096
"""The most sequences to average over: the task's first."""


def claims_tables(model: HookedTransformer, task: Task) -> Iterator[RenderableType]:
    """The tutorial's claims about a model as sentences, and a table of each component's numbers."""
    found = claims(model, task)
    yield from found.sentences(model.cfg)
    components = found.to_dict(model.cfg)["components"]
    names = ("increment", "increment_share", "accuracy_without", "accuracy_restored")
    numbers = np.array([[record[name] for name in names] for record in components.values()])
    yield MatrixTable("what each component does", numbers, list(components), names)


def attention_tables(model: HookedTransformer, task: Task) -> Iterator[RenderableType]:
    """Tables of the positions that each head attends to where an answer is predicted."""
    patterns = attention_patterns(model, task.sequences()[:MOST_SEQUENCES, :-1])
    summary = jax.tree.map(np.asarray, summarize_patterns(patterns))
    labels = task.position_labels
    rows = [position - 1 for position in eval_positions(task)]
    cells = reading_cells(task)
    score = jax.tree.map(np.asarray, reversal_score(patterns, cells)) if cells else None
    for layer, head in heads(model):
        table = Table(
            "row", "predicts", title=f"layer {layer}, head {head}: where it looks", box=None
        )
        for heading in (
            "prefers",
            "on inputs",
            "entropy",
            *(["on what it needs", "largest"] if score else []),
        ):
            table.add_column(heading, justify="right")
        for i, row in enumerate(rows):
            preferred = int(summary.preferred[layer, head, row])
            numbers = [
                f"{summary.preferred_share[layer, head, row]:.0%}",
                f"{summary.entropy[layer, head, row]:.2f}",
            ]
            if score:
                numbers += [
                    f"{score.attention[layer, head, i]:.3f}",
                    f"{score.largest[layer, head, i]:.0%}",
                ]
            table.add_row(labels[row], labels[row + 1], labels[preferred], *numbers)
        yield table


def attribution_tables(model: HookedTransformer, task: Task) -> Iterator[RenderableType]:
    """A table of each component's part of the right token's logit margin over the other tokens."""
    predicted = eval_positions(task)
    tokens = task.sequences()[:MOST_SEQUENCES]
    labels, votes = logit_attribution(model, tokens, predicted)
    names = [task.position_labels[position] for position in predicted]
    yield MatrixTable(
        "logits for the right token over the others'", np.asarray(votes).mean(1), labels, names
    )


def ablation_tables(model: HookedTransformer, task: Task) -> Iterator[RenderableType]:
    """A table of the change in accuracy when each component is ablated, by method of ablation."""
    changes = ablation_costs(model, task)["accuracy_change"].unstack("method", sort=False)
    rows = [hook if pd.isna(part) else f"{hook} {part}" for _, hook, part in changes.index]
    yield MatrixTable(
        "change in accuracy, by what it is replaced by",
        changes.to_numpy(dtype=float),
        rows,
        list(changes.columns),
    )


def patching_tables(model: HookedTransformer, task: Task) -> Iterator[RenderableType]:
    """Tables of the share of the answers' logit margin that patching an activation restores."""
    for name, shares in recovery(model, task).items():
        yield MatrixTable(
            f"patching {name}: share of the answers that comes back",
            by_row(shares),
            row_labels(shares),
            task.position_labels[: shares.shape[1]],
        )


def paths_tables(model: HookedTransformer, task: Task) -> Iterator[RenderableType]:
    """A table of the answers' logit margin lost if a path between components is corrupted."""
    lost = edges(model, task)
    yield MatrixTable(
        "paths, from row to column: share of the answers lost without",
        lost.to_numpy(),
        list(lost.index),
        list(lost.columns),
    )


def circuits_tables(model: HookedTransformer, task: Task) -> Iterator[RenderableType]:
    """Tables of the heads' QK and OV circuits, and of the logits that MLPs and direct path add."""
    cfg = model.cfg
    fed = [token_label(task, token) for token in range(cfg.d_vocab)]
    out = [token_label(task, token) for token in range(cfg.d_vocab_out)]
    length = min(cfg.n_ctx, len(task.position_labels))
    positions = list(task.position_labels[:length])
    folded = fold_layer_norm(model)  # once, not in every circuit
    by, qk, read = qk_view(qk_circuit(folded), positions, fed)
    ov = np.asarray(ov_circuit(folded))
    for layer, head in heads(model):
        name = f"L{layer}H{head}"
        yield MatrixTable(f"QK of {name}: query's by key's {by}", qk[layer, head], read, read)
        yield MatrixTable(f"OV of {name}: token to logits", ov[layer, head], fed, out)
    if not cfg.attn_only:
        for layer, matrix in enumerate(np.asarray(mlp_map(folded))):
            yield MatrixTable(f"MLP of layer {layer}: token to logits", matrix, fed, out)
    yield MatrixTable("direct path: token to logits", np.asarray(direct_path(folded)), fed, out)


def heads(model: HookedTransformer) -> Iterable[tuple[int, int]]:
    """The (layer, head) indices of all heads of a model."""
    return [
        (layer, head) for layer in range(model.cfg.n_layers) for head in range(model.cfg.n_heads)
    ]


TABLES: dict[str, Callable[[HookedTransformer, Task], Iterator[RenderableType]]] = {
    "claims": claims_tables,
    "attention": attention_tables,
    "attribution": attribution_tables,
    "ablation": ablation_tables,
    "patching": patching_tables,
    "paths": paths_tables,
    "circuits": circuits_tables,
}
"""The functions by their names on the command line."""

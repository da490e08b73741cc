"""The circuits that a run's weights make, as pictures: what each path does to a token, whatever the input."""

from __future__ import annotations

import numpy as np

from jax_revinc.analysis.circuits import (
    direct_path,
    fold_layer_norm,
    mlp_map,
    ov_circuit,
    qk_view,
)
from jax_revinc.analysis.increment import component_labels, increment_score
from jax_revinc.model import HookedTransformer
from jax_revinc.report import figures
from jax_revinc.report.contents import MOST_WEIGHTS
from jax_revinc.report.shell import Gallery
from revinc import Task
from revinc.labels import token_label
from revinc.tasks import predicted_positions


def circuit_pictures(model: HookedTransformer, task: Task) -> Gallery:
    """QK and OV circuits of every head, the direct path, each MLP's map of tokens; none if there are none or too large."""
    cfg = model.cfg
    if cfg.positional_embedding_type == "shortformer":
        return {}
    if max(cfg.n_ctx, cfg.d_vocab) * max(cfg.n_ctx, cfg.d_vocab_out) > MOST_WEIGHTS:
        return {}
    fed = [token_label(task, token) for token in range(cfg.d_vocab)]
    out = [token_label(task, token) for token in range(cfg.d_vocab_out)]
    positions = [*task.position_labels, *map(str, range(len(task.position_labels), cfg.n_ctx))]
    positions = positions[: cfg.n_ctx]
    folded = fold_layer_norm(model)  # once, not in every circuit
    ov = ov_circuit(folded)
    by, qk, read = qk_view(folded, positions, fed)
    gallery: Gallery = {}

    def draw(
        name: str,
        title: str,
        matrix: object,
        rows: list[str],
        columns: list[str],
        axes: tuple[str, str],
    ) -> None:
        gallery[name] = figures.matrix_picture(
            [np.asarray(matrix)], title=title, axes=axes, rows=[rows], columns=columns
        )

    for layer in range(cfg.n_layers):
        for head in range(cfg.n_heads):
            where, title = f"{layer}-{head}", f"Layer {layer}, head {head}"
            draw(
                f"qk-{where}",
                f"{title}: QK by {by}",
                qk[layer, head],
                read,
                read,
                (f"query's {by}", f"key's {by}"),
            )
            draw(
                f"ov-{where}",
                f"{title}: OV",
                ov[layer, head],
                fed,
                out,
                ("token looked at", "logit"),
            )
    if not cfg.attn_only:
        for layer, matrix in enumerate(mlp_map(folded)):
            draw(
                f"mlp-{layer}",
                f"Layer {layer}: MLP on one token",
                matrix,
                fed,
                out,
                ("token", "logit"),
            )
    draw("direct", "Direct path", direct_path(folded), fed, out, ("token", "logit"))
    return gallery


def increment_pictures(model: HookedTransformer, task: Task) -> Gallery:
    """What every component makes of the token that decides an answer; none if no single token does."""
    if not task.sources:
        return {}
    found = increment_score(
        model, task.sequences(), predicted_positions(task), task.sources, task.answers
    )
    symbols = [token_label(task, token) for token in range(len(task.answers))]
    return {
        f"increment-{label}": figures.matrix_picture(
            [np.asarray(written)],
            title=label,
            subtitle=f"{share:.0%} of the answer made here",
            axes=("token read", "logit"),
            rows=[symbols],
            columns=symbols,
        )
        for label, written, share in zip(
            component_labels(model.cfg), found.writes, found.share, strict=True
        )
    }

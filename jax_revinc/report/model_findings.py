"""Data for the HTML page of a run: what interventions on its model, and its weights, tell of it.

One compiled program finds everything, and is kept for the next page: see `kept_programs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.analysis import circuits, effects
from jax_revinc.analysis.ablation import METHODS, Ablation, all_components
from jax_revinc.analysis.circuits import QKCircuit
from jax_revinc.analysis.claims import Claims, measure_claims, partners, why_none
from jax_revinc.analysis.increment import Increment, component_labels, score_increments
from jax_revinc.analysis.patching import PatchSweep, patch_together, sweep_families
from jax_revinc.analysis.path_patching import PathPatches, patch_paths, receivers, senders
from jax_revinc.compilation.kept_programs import keepable, run_kept
from jax_revinc.model import HookedTransformer
from revinc import HookedTransformerConfig, Task
from revinc.tasks import eval_positions
from revinc.weights import StateDict, parameter_count

MOST_WEIGHTS = 2**14
"""The size of the largest weight matrix that is drawn."""


@keepable
class Circuits(NamedTuple):
    """A model's circuits, from its folded weights.

    Attributes:
        qk, ov, direct, mlp: see `jax_revinc.analysis.circuits`; `mlp` is None without MLPs.
    """

    qk: QKCircuit
    ov: Float[Array, "n_layers n_heads d_vocab d_vocab_out"]
    direct: Float[Array, "d_vocab d_vocab_out"]
    mlp: Float[Array, "n_layers d_vocab d_vocab_out"] | None


@keepable
class Findings(NamedTuple):
    """What interventions on a model, and its weights, tell of it.

    Attributes:
        ablation: of every component by every method: see `effects.ablate_by_all`.
        increment: the increment score; None if no single token decides an answer.
        claims: the tutorial's claims; None, as `patches` and `paths`, if there is a reason
            (`why_none`).
        patches: activation patching of `effects.PATCHED`.
        paths: path patching.
        circuits: None if they can't be folded, or are too large to be drawn.
    """

    ablation: Ablation
    increment: Increment | None
    claims: Claims | None
    patches: PatchSweep | None
    paths: PathPatches | None
    circuits: Circuits | None


for kind in (Ablation, Claims, Increment, PatchSweep, PathPatches, QKCircuit):
    keepable(kind)


def find(cfg: HookedTransformerConfig, weights: StateDict, task: Task) -> Findings:
    """Find everything about a model that its page draws, beside what it does on each sequence.

    Args:
        cfg: the model's config.
        weights: the model's.
        task: the task that it was trained on.
    """
    _, order = effects.ablated_sequences(task)
    settings = {
        "predicted": eval_positions(task),
        "sources": [int(position) for position in task.sources],  # of any task, also NumPy's
        "answers": [int(token) for token in task.answers],
        "solved": float(task.solved),
        "has_circuits": has_circuits(cfg),
    }
    arguments = {
        "params": weights,
        "tokens": task.sequences().astype(np.int32),
        "partner": None if why_none(task) else partners(task).astype(np.int32),
        "order": order,
    }
    return run_kept(find_all, cfg, settings, arguments, find_work(cfg, task))


def find_all(
    cfg: HookedTransformerConfig,
    *,
    predicted: Sequence[int],
    sources: Sequence[int],
    answers: Sequence[int],
    solved: float,
    has_circuits: bool,
    params: Mapping[str, Array],
    tokens: Int[Array, "n_sequences seq"],
    partner: Int[Array, " n_sequences"] | None,
    order: Int[Array, " sequences"],
) -> Findings:
    """The result of `find`, as a function that can be traced.

    Args:
        cfg: the model's config.
        predicted: the task's eval positions.
        sources, answers, solved: the task's.
        has_circuits: whether circuits are wanted.
        params: the model's.
        tokens: the task's sequences.
        partner: from `partners`; None if the task has none.
        order: the order of resampling.
    """
    model = HookedTransformer(cfg, params=params)
    at, decided_by, answered = tuple(predicted), tuple(sources), tuple(answers)
    if not decided_by:
        tokens = tokens[: effects.MOST_PAIRS]
    run = model.run_with_cache(tokens[:, :-1])
    some, of_some = tokens[: effects.MOST_PAIRS], of_rows(run, np.s_[: effects.MOST_PAIRS])
    increment = claims = patches = paths = None
    if decided_by:
        increment = score_increments(model, tokens, at, decided_by, answered, run)
    if partner is not None and increment is not None:
        claims = measure_claims(model, tokens, partner, at, decided_by, solved, run, increment)
        rows = partner[: effects.MOST_PAIRS]
        of_partners = of_rows(run, rows)

        def margins(logits: Array) -> Array:
            return effects.answer_margins(logits, some, at)

        def mean_margin(logits: Array) -> Array:
            return margins(logits).mean()

        families = sweep_families(cfg, effects.patched_sites(cfg))
        corrupted = tokens[rows, :-1]
        patches = patch_together(model, families, margins, corrupted, of_some, of_partners)
        paths = patch_paths(model, some[:, :-1], mean_margin, of_some, of_partners)
    return Findings(
        ablation=effects.ablate_by_all(model, at, some, order, of_some, in_lanes=False),
        increment=increment,
        claims=claims,
        patches=patches,
        paths=paths,
        circuits=find_circuits(model) if has_circuits else None,
    )


def of_rows(run: Any, rows: Any) -> Any:
    """The logits and the activations of some of a run's sequences."""
    return jax.tree.map(itemgetter(rows), run)


def find_circuits(model: HookedTransformer) -> Circuits:
    """The circuits of a model whose norms can be folded, as a function that can be traced."""
    folded = circuits.fold_layer_norm(model)  # once, not in every circuit
    return Circuits(
        circuits.qk_circuit(folded),
        circuits.ov_circuit(folded),
        circuits.direct_path(folded),
        None if model.cfg.attn_only else circuits.mlp_map(folded),
    )


def has_circuits(cfg: HookedTransformerConfig) -> bool:
    """Whether the model has circuits, small enough to be drawn."""
    if cfg.positional_embedding_type == "shortformer":  # whose norms can't be folded
        return False
    most = max(cfg.n_ctx, cfg.d_vocab) * max(cfg.n_ctx, cfg.d_vocab_out)
    return most <= MOST_WEIGHTS


def find_work(cfg: HookedTransformerConfig, task: Task) -> float:
    """About how many multiplications `find_all` takes: parameters times tokens of all its runs."""
    tokens = task.sequences()
    fed = tokens.shape[1] - 1
    runs = len(METHODS) * len(all_components(cfg, fed))
    if task.sources:
        runs += cfg.n_layers * fed * (3 + cfg.n_heads) + len(senders(cfg)) * len(receivers(cfg))
    some = runs * min(len(tokens), effects.MOST_PAIRS)
    every = 4 * len(component_labels(cfg)) * len(tokens) if task.sources else 0
    return float(parameter_count(cfg) * fed * (some + every))

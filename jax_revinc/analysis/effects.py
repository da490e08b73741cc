"""The effects of ablating and of patching a model's components, averaged over a task."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.analysis.ablation import (
    METHODS,
    Ablation,
    ablate_by,
    ablation_table,
    split_methods,
)
from jax_revinc.analysis.claims import partners
from jax_revinc.analysis.patching import Metric, MetricPerPair, PatchSweep, patch_sweep
from jax_revinc.analysis.path_patching import (
    PathPatches,
    is_edge,
    path_patch,
    receivers,
    senders,
)
from jax_revinc.compilation.numerical_settings import numerics, with_numerics
from jax_revinc.model import HookedTransformer
from revinc import HookedTransformerConfig, Task
from revinc.tasks import eval_positions

MOST_PAIRS = 256
"""The most pairs of sequences to average over: the task's first."""

PATCHED = ("resid_pre", "attn_out", "mlp_out", "z")


def recovery(
    model: HookedTransformer, task: Task
) -> dict[str, Float[np.ndarray, "n_layers pos *n_heads"]]:
    """For each activation, the share of the right answers' logit margin that patching it restores.

    A clean input is a sequence of the task; the corrupted one is its partner, in which every token
    that decides an answer is replaced. The margin is the logit of a right answer minus the mean of
    the other tokens' logits. 0 is the corrupted run's margin, 1 the clean run's, mean over the
    pairs.

    Args:
        model: the model.
        task: the task that it was trained on.

    Raises:
        UserError: if answers are not each decided by one token, or the deciding tokens can't all be
            changed at once.
    """
    clean, corrupted = pairs(task)
    return recovered(patch_sweep(model, clean, corrupted, margin(task), patched_sites(model.cfg)))


def patched_sites(cfg: HookedTransformerConfig) -> list[str]:
    """The names of the activations that `recovery` patches."""
    return [name for name in PATCHED if name != "mlp_out" or not cfg.attn_only]


def recovered(found: PatchSweep) -> dict[str, Float[np.ndarray, "n_layers pos *n_heads"]]:
    """For each patched activation, the share of the clean metric that comes back, over all pairs."""
    clean, corrupted = np.asarray(found.clean).mean(), np.asarray(found.corrupted).mean()
    return {
        name: (np.asarray(found.patched[name]).mean(-1) - corrupted) / (clean - corrupted)
        for name in PATCHED  # jit sorts the names of a dict
        if name in found.patched
    }


def edges(model: HookedTransformer, task: Task) -> pd.DataFrame:
    """The share of the answers' logit margin lost if a path between two components is corrupted.

    Rows are senders, columns receivers; NaN where there is no path. The margin, the pairs and the
    arguments are those of `recovery`; the paths those of `path_patching.path_patch`.

    Raises:
        UserError: as `recovery`.
    """
    clean, corrupted = pairs(task)
    found = path_patch(model, clean, corrupted, mean_margin(task))
    with numerics(model.cfg):
        corrupted_margin = mean_margin(task)(model(corrupted))
    return lost_shares(model.cfg, found, np.asarray(corrupted_margin))


def lost_shares(
    cfg: HookedTransformerConfig, found: PathPatches, corrupted: Float[np.ndarray, ""]
) -> pd.DataFrame:
    """The table of `edges`, from the effects of corrupting paths and the corrupted run's metric."""
    lost = -np.asarray(found.effects) / (np.asarray(found.clean) - corrupted)
    rows, columns = senders(cfg), receivers(cfg)
    is_path = [[is_edge(cfg, row, column) for column in columns] for row in rows]
    names = ([row.name for row in rows], [column.name for column in columns])
    return pd.DataFrame(np.where(is_path, lost, np.nan), *names)


def pairs(task: Task) -> tuple[Int[np.ndarray, "pair pos"], Int[np.ndarray, "pair pos"]]:
    """Inputs for patching: clean sequences, and the same with the deciding tokens replaced."""
    tokens = task.sequences()
    return tokens[:MOST_PAIRS, :-1], tokens[partners(task)[:MOST_PAIRS], :-1]


@functools.cache
def margin(task: Task) -> MetricPerPair:
    """A metric for patching: a right answer's logit minus the other tokens' mean logit."""
    tokens, predicted = task.sequences()[:MOST_PAIRS], eval_positions(task)
    return lambda logits: answer_margins(logits, tokens, predicted)


def answer_margins(
    logits: Float[Array, "pair pos d_vocab_out"],
    tokens: Int[Array, "pair seq"] | Int[np.ndarray, "pair seq"],
    predicted: tuple[int, ...],
) -> Float[Array, " pair"]:
    """A right answer's logit minus the other tokens' mean logit, mean over a sequence's answers."""
    at = np.array(predicted)
    at_answers = logits[:, at - 1]
    right = jax.nn.one_hot(tokens[:, at], logits.shape[-1], dtype=bool)
    others = jnp.where(right, 0, at_answers).sum(-1) / (logits.shape[-1] - 1)
    return (jnp.where(right, at_answers, 0).sum(-1) - others).mean(-1)


@functools.cache
def mean_margin(task: Task) -> Metric:
    """A metric for patching: the right answers' logit margin, averaged over all inputs."""
    return lambda logits: margin(task)(logits).mean()


@with_numerics
def ablation_costs(model: HookedTransformer, task: Task) -> pd.DataFrame:
    """The change in loss and accuracy on a task when each component is ablated, as a table.

    The index is method, kind, hook and part; the columns are `loss_change` (nats) and
    `accuracy_change`. Resampling uses a fixed random order.
    """
    tokens, order = ablated_sequences(task)
    found = _ablate_by_all(model, eval_positions(task), tokens, order)
    return costs(model.cfg, tokens.shape[1] - 1, found)


def ablated_sequences(
    task: Task,
) -> tuple[Int[np.ndarray, "batch seq"], Int[np.ndarray, " batch"]]:
    """The sequences on which components are ablated, and the order in which they are resampled."""
    tokens = task.sequences()[:MOST_PAIRS]
    order = np.random.default_rng(0).permutation(len(tokens))
    return tokens.astype(np.int32), order.astype(np.int32)


def ablate_by_all(
    model: HookedTransformer,
    predicted: tuple[int, ...],
    tokens: Int[Array, "batch seq"],
    order: Int[Array, " batch"],
    intact: tuple[Array, Mapping[str, Array]],
    in_lanes: bool,
) -> Ablation:
    """Ablate every component by every method, as a function that can be traced: see `ablate_by`."""
    return ablate_by(model, predicted, jnp.arange(len(METHODS)), tokens, order, intact, in_lanes)


@functools.partial(jax.jit, static_argnums=1)
def _ablate_by_all(
    model: HookedTransformer,
    predicted: tuple[int, ...],
    tokens: Int[Array, "batch seq"],
    order: Int[Array, " batch"],
) -> Ablation:
    intact = model.run_with_cache(tokens[:, :-1])
    return ablate_by_all(model, predicted, tokens, order, intact, in_lanes=True)


def costs(cfg: HookedTransformerConfig, n_positions: int, found: Ablation) -> pd.DataFrame:
    """The table of `ablation_costs`, from the result of `ablate_by_all`."""
    table = ablation_table(cfg, n_positions, split_methods(cfg, n_positions, found))
    return table.set_index(["method", "kind", "hook", "part"])


def by_row(shares: Float[np.ndarray, "n_layers pos *n_heads"]) -> Float[np.ndarray, "row pos"]:
    """Reshape results of patching to a matrix [row, pos], with a row for every layer or head."""
    return shares if shares.ndim == 2 else shares.swapaxes(1, 2).reshape(-1, shares.shape[1])


def row_labels(shares: Float[np.ndarray, "n_layers pos *n_heads"]) -> list[str]:
    """Labels for rows of patching results: layers such as "0", or heads such as "L0H1"."""
    n_layers, _, *heads = shares.shape
    if not heads:
        return [str(layer) for layer in range(n_layers)]
    return [f"L{layer}H{head}" for layer in range(n_layers) for head in range(heads[0])]

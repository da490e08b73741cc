"""What hangs on each part of a model, over a task: what is lost without it, what it brings back, by which path."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.analysis.ablation import (
    ablation_table,
    mean_ablation,
    resample_ablation,
    zero_ablation,
)
from jax_revinc.analysis.claims import partners
from jax_revinc.analysis.patching import Metric, MetricPerPair, patch_sweep
from jax_revinc.analysis.path_patching import is_edge, path_patch, receivers, senders
from jax_revinc.model import HookedTransformer
from jax_revinc.numerics import numerics
from revinc import Task
from revinc.tasks import predicted_positions

MOST_PAIRS = 256
"""Pairs of sequences that the shares are averaged over: the first, if the task has more."""

PATCHED = ("resid_pre", "attn_out", "mlp_out", "z")


def recovery(
    model: HookedTransformer, task: Task
) -> dict[str, Float[np.ndarray, "layer pos *head"]]:
    """By activation, the share of the answers' margin that it brings back at each layer and position.

    Clean is a sequence of the task, corrupted its partner, in which every token that decides an answer is another
    one. The margin is the logit of each right answer over the mean of the other tokens'; 0 is the
    corrupted run's, 1 the clean run's, both in the mean over all pairs.

    Raises:
        UserError: if no single token decides each answer, or not all can be changed at once.
    """
    clean, corrupted = pairs(task)
    sites = [name for name in PATCHED if name != "mlp_out" or not model.cfg.attn_only]
    found = patch_sweep(model, clean, corrupted, margin(task), sites)
    clean_margin, corrupted_margin = (
        np.asarray(found.clean).mean(),
        np.asarray(found.corrupted).mean(),
    )
    return {
        name: (np.asarray(found.patched[name]).mean(-1) - corrupted_margin)
        / (clean_margin - corrupted_margin)
        for name in sites
    }


def edges(model: HookedTransformer, task: Task) -> pd.DataFrame:
    """For every path from a sender (row) to a receiver, the share of the answers' margin lost with it corrupted.

    The margin and the pairs are those of `recovery`. NaN where there is no path. See `path_patching.path_patch`.

    Raises:
        UserError: as `recovery`.
    """
    clean, corrupted = pairs(task)
    found = path_patch(model, clean, corrupted, mean_margin(task))
    with numerics(model.cfg):
        corrupted_margin = mean_margin(task)(model(corrupted))
    lost = -np.asarray(found.effects) / (np.asarray(found.clean) - np.asarray(corrupted_margin))
    rows, columns = senders(model.cfg), receivers(model.cfg)
    is_path = [[is_edge(model.cfg, row, column) for column in columns] for row in rows]
    names = ([row.name for row in rows], [column.name for column in columns])
    return pd.DataFrame(np.where(is_path, lost, np.nan), *names)


def pairs(task: Task) -> tuple[Int[np.ndarray, "pair pos"], Int[np.ndarray, "pair pos"]]:
    """What a model is fed of clean sequences, and of their partners, in which every deciding token is another."""
    tokens = task.sequences()
    return tokens[:MOST_PAIRS, :-1], tokens[partners(task)[:MOST_PAIRS], :-1]


@functools.cache
def margin(task: Task) -> MetricPerPair:
    """The logit of each clean answer over the mean of the other tokens', mean over the answers."""
    tokens = task.sequences()[:MOST_PAIRS]
    predicted = np.array(predicted_positions(task))

    def margins(logits: Float[Array, "pair pos d_vocab_out"]) -> Float[Array, " pair"]:
        at_answers = logits[:, predicted - 1]
        right = jax.nn.one_hot(tokens[:, predicted], logits.shape[-1], dtype=bool)
        others = jnp.where(right, 0, at_answers).sum(-1) / (logits.shape[-1] - 1)
        return (jnp.where(right, at_answers, 0).sum(-1) - others).mean(-1)

    return margins


@functools.cache
def mean_margin(task: Task) -> Metric:
    """`margin`, mean over the pairs."""
    return lambda logits: margin(task)(logits).mean()


def ablation_costs(model: HookedTransformer, task: Task) -> pd.DataFrame:
    """What each component's ablation costs on the task, by method, kind, hook and part.

    The columns are `loss_change` (nats) and `accuracy_change`. Resampled is from a fixed random order.
    """
    tokens = task.sequences()[:MOST_PAIRS]
    predicted = predicted_positions(task)
    order = np.random.default_rng(0).permutation(len(tokens))
    found = {
        "zero": zero_ablation(model, tokens, predicted),
        "mean": mean_ablation(model, tokens, predicted),
        "resample": resample_ablation(model, tokens, predicted, order),
    }
    table = ablation_table(model.cfg, tokens.shape[1] - 1, found)
    return table.set_index(["method", "kind", "hook", "part"])


def by_row(shares: Float[np.ndarray, "layer pos *head"]) -> Float[np.ndarray, "row pos"]:
    """A row for every layer, or for every head of every layer."""
    return shares if shares.ndim == 2 else shares.swapaxes(1, 2).reshape(-1, shares.shape[1])


def row_labels(shares: Float[np.ndarray, "layer pos *head"]) -> list[str]:
    """The names of `by_row`'s rows."""
    n_layers, _, *heads = shares.shape
    if not heads:
        return [str(layer) for layer in range(n_layers)]
    return [f"L{layer}H{head}" for layer in range(n_layers) for head in range(heads[0])]

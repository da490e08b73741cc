"""How attention formed in training: each head's mean pattern at each snapshot of a run."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.compilation.kept_programs import run_kept
from jax_revinc.model import HookedTransformer
from jax_revinc.objective import Params
from jax_revinc.training import Run
from revinc import HookedTransformerConfig, Task
from revinc.tasks import reading_cells
from revinc.weights import StateDict, parameter_count

MOST_SNAPSHOTS = 100
"""Snapshots that are shown; more are thinned out, and the last one stays."""

MOST_SEQUENCES = 1024
"""Sequences that a mean pattern is over: the first ones, if the task has more."""


def shown_steps(run: Run) -> list[int]:
    """The steps of a run's snapshots to show, ascending; only some of them if there are many."""
    steps = sorted(run.snapshot_steps)
    every = -(-len(steps) // MOST_SNAPSHOTS) or 1
    return steps[::-1][::every][::-1]


def snapshot_patterns(
    run: Run, steps: list[int]
) -> Float[np.ndarray, "steps n_layers n_heads query key"]:
    """The mean attention pattern of every head at each of a run's snapshots `steps`.

    Args:
        run: a run with snapshots.
        steps: steps of snapshots, as in `Run.snapshot_steps`.
    """
    snapshots = [run.state_dict(step) for step in steps]
    stacked = {name: np.stack([snapshot[name] for snapshot in snapshots]) for name in snapshots[0]}
    return mean_patterns(run.config.model, stacked, run.config.task)


def mean_patterns(
    cfg: HookedTransformerConfig, stacked: StateDict, task: Task
) -> Float[np.ndarray, "models n_layers n_heads query key"]:
    """The mean attention pattern of every head in each of several models, by one kept program.

    Args:
        cfg: the config of all models.
        stacked: their weights, with a model axis first.
        task: the mean is over its sequences, at most `MOST_SEQUENCES`.
    """
    tokens = task.sequences()[:MOST_SEQUENCES, :-1].astype(np.int32)
    n_models = len(next(iter(stacked.values())))
    work = n_models * tokens.size * parameter_count(cfg)
    return run_kept(find_patterns, cfg, {}, {"stacked": stacked, "tokens": tokens}, work)


def find_patterns(
    cfg: HookedTransformerConfig, *, stacked: Mapping[str, Array], tokens: Int[Array, "batch pos"]
) -> Float[Array, "models n_layers n_heads query key"]:
    """The result of `mean_patterns`, as a function that can be traced."""

    def one(params: Params) -> Array:
        _, cache = HookedTransformer(cfg, params=params).run_with_cache(tokens)
        return jnp.stack([cache["pattern", layer].mean(0) for layer in range(cfg.n_layers)])

    return jax.lax.map(one, dict(stacked))


def reading_shares(
    patterns: Float[np.ndarray, "models n_layers n_heads query key"], task: Task
) -> dict[str, Float[np.ndarray, " models"]]:
    """For each head, such as "L1H0", its mean attention on the tokens that decide the answers.

    Args:
        patterns: of several models, or of one at several steps.
        task: one with `sources`.
    """
    rows, columns = np.array(reading_cells(task)).T
    shares = patterns[..., rows, columns].mean(-1)
    _, n_layers, n_heads = shares.shape
    return {
        f"L{layer}H{head}": shares[:, layer, head]
        for layer in range(n_layers)
        for head in range(n_heads)
    }

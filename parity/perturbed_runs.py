"""Training runs from one start in JAX and in torch, plain and with rounding noise added."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import Array
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, Int
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from jax_revinc import numerics
from jax_revinc.engines.xla import Gradient, State, update
from jax_revinc.objective import Params
from jax_revinc.optimizer import make_optimizer, optimizer_settings
from jax_revinc.training import draw_weights
from parity.jitter import jitter
from parity.kept_arrays import kept
from parity.progress import busy, follow
from parity.training_levels import require_finite
from revinc import TrainConfig
from revinc.dataset import make_dataset
from revinc.objective import make_objective
from revinc.weights import StateDict
from torch_reference import TorchEngine


class Perturbed(NamedTuple):
    """How many runs with added rounding noise each seed has, beside one plain run.

    Attributes:
        nudged: runs with one initial weight moved by an ulp.
        jittered: runs with every weight moved by an ulp, up or down at random, before every update.
    """

    nudged: int
    jittered: int


class Start(NamedTuple):
    """The start of a run: its weights and batches, and whether rounding noise is added (jitter)."""

    data_seed: int
    weights: StateDict
    rows: Int[np.ndarray, "steps batch"]
    jittered: bool


RunInTorch = Callable[
    [TrainConfig, Sequence[Start], np.random.Generator], Float[np.ndarray, "runs steps"]
]
"""A function like `run_in_torch`."""


class Runs(NamedTuple):
    """The batch losses of one seed's runs in one framework: plain, and with rounding noise."""

    plain: Float[np.ndarray, " steps"]
    nudged: Float[np.ndarray, "n_nudged steps"]
    jittered: Float[np.ndarray, "n_jittered steps"]


def starts(cfg: TrainConfig, perturbed: Perturbed, rng: np.random.Generator) -> list[Start]:
    """The starts of one seed's runs: first a plain run, then the runs with added rounding noise."""
    weights = draw_weights(cfg)
    plain = Start(cfg.data_seed, weights, make_dataset(cfg).rows(0, cfg.steps), False)
    nudged = [plain._replace(weights=nudge(weights, rng)) for _ in range(perturbed.nudged)]
    jittered = [plain._replace(jittered=True)] * perturbed.jittered
    return [plain, *nudged, *jittered]


def nudge(weights: StateDict, rng: np.random.Generator) -> StateDict:
    """A copy of the weights with one number, drawn at random, moved by one ulp (last-place unit).

    It is a weight of a block, since all of those are used, and not 0.
    """
    name = rng.choice([n for n, w in weights.items() if n.startswith("blocks.") and w.any()])
    nudged = weights[name].copy()
    place = rng.choice(np.flatnonzero(nudged))
    nudged.flat[place] = jitter(nudged.flat[place], rng)
    return weights | {name: nudged}


def run_in_jax(
    cfg: TrainConfig, starts: Sequence[Start], gradient: Gradient | None = None
) -> Float[np.ndarray, "runs steps"]:
    """Train runs in JAX, all in one compiled program; return the loss of every batch.

    Args:
        cfg: the training config of all runs.
        starts: the start of each run.
        gradient: computes loss and gradient; XLA's by default.
    """
    objective = make_objective(cfg)
    fixed, rates = optimizer_settings(cfg)

    def run(params: Params, batches: Array, jittered: Array, key: Array) -> Array:
        def step(state: State, inputs: tuple[Array, Array]) -> tuple[State, Array]:
            params, opt_state = state
            batch, key = inputs
            flat, unravel = ravel_pytree(params)
            infinity = jnp.inf * jax.random.rademacher(key, flat.shape, flat.dtype)
            params = unravel(jnp.nextafter(flat, jnp.where(jittered, infinity, flat)))
            state = (params, opt_state)
            return update(cfg.model, fixed, objective, rates, state, batch, gradient)

        state = (params, make_optimizer(fixed, rates).init(params))
        _, losses = jax.lax.scan(step, state, (batches, jax.random.split(key, cfg.steps)))
        return losses

    with numerics(cfg.model), busy("L6: JAX runs, all at once"):
        keys = jax.random.split(jax.random.key(0), len(starts))
        each = [(start.weights, sequences(cfg, start), start.jittered) for start in starts]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
        return np.asarray(jax.jit(jax.vmap(run))(*stacked, keys))


def sequences(cfg: TrainConfig, start: Start) -> Int[np.ndarray, "steps batch seq"]:
    """The token sequences of every batch of a run."""
    tokens, rows = make_dataset(replace(cfg, data_seed=start.data_seed)).examples(start.rows)
    return tokens[rows]


def run_in_torch(
    cfg: TrainConfig, starts: Sequence[Start], rng: np.random.Generator
) -> Float[np.ndarray, "runs steps"]:
    """Train runs in torch, some with random rounding noise added; return the loss of every batch.

    Raises:
        Diverged: if a loss becomes NaN or infinite.
    """

    def run(start: Start) -> Float[np.ndarray, " steps"]:
        engine = TorchEngine(replace(cfg, data_seed=start.data_seed), "cpu")
        state = engine.start(start.weights)
        losses = []
        for rows in start.rows:
            if start.jittered:
                jitter_model(state.model, rng)
            state, loss = engine.advance(state, rows[None])
            losses.append(loss)
        require_finite(np.concatenate(losses))
        return np.concatenate(losses)

    return np.stack([run(start) for start in follow(starts, "L6: torch runs")])


def kept_run_in_torch(
    cfg: TrainConfig, starts: Sequence[Start], rng: np.random.Generator
) -> Float[np.ndarray, "runs steps"]:
    """The losses of `run_in_torch`, from the user's cache folder if they are kept there."""
    each = {
        f"{i}/{name}": value
        for i, start in enumerate(starts)
        for name, value in (start._asdict() | start.weights).items()
        if name != "weights"
    }
    given = {"config": cfg.to_dict(), "rng": rng.bit_generator.state, **each}
    return kept("losses", given, lambda: {"losses": run_in_torch(cfg, starts, rng)})["losses"]


@torch.no_grad()
def jitter_model(model: torch.nn.Module, rng: np.random.Generator) -> None:
    """Move every weight of a torch model by one unit in the last place, up or down at random."""
    flat = parameters_to_vector(model.parameters()).numpy()
    vector_to_parameters(torch.from_numpy(jitter(flat, rng)), model.parameters())


def by_seed(losses: Float[np.ndarray, "runs steps"], perturbed: Perturbed) -> list[Runs]:
    """Group the losses of all runs by seed.

    The runs of every seed are in the order of `starts`.
    """
    n_seeds = len(losses) // (1 + sum(perturbed))
    ends = (1, 1 + perturbed.nudged)
    parts = (np.split(of_seed, ends) for of_seed in np.split(losses, n_seeds))
    return [Runs(plain, nudged, jittered) for (plain,), nudged, jittered in parts]

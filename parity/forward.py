"""The same weights and tokens give the same activations, logits and losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import jax
import numpy as np
import torch
from jaxtyping import Int

from jax_revinc import HookedTransformer, HookedTransformerConfig, numerics
from jax_revinc.objective import predictions, token_losses
from revinc.weights import StateDict
from torch_reference import objective as torch_objective
from torch_reference.model import make_model, write_weights

FLOAT64_BOUND = 1e-12
"""Normwise, on every tensor in float64."""

FLOAT32_FACTOR = 4.0
"""In float32 we may be this many times as far from the float64 truth as TransformerLens is."""

Activations = dict[str, np.ndarray]


@dataclass(frozen=True)
class Comparison:
    """One tensor on both sides."""

    name: str
    shape: tuple[int, ...]
    error: float
    bound: float
    same_infinities: bool

    @property
    def passed(self) -> bool:
        """False for a NaN error too."""
        return self.same_infinities and self.error <= self.bound


def compare_forward(
    cfg: HookedTransformerConfig,
    weights: StateDict,
    tokens: Int[np.ndarray, "batch seq"],
    loss_mask: np.ndarray,
    dtype: str,
    ours: Callable[..., Activations] | None = None,
) -> list[Comparison]:
    """Every activation in execution order, then the logits and every token's loss, in `dtype`.

    float64 is compared with TransformerLens directly. In float32 both are compared with
    TransformerLens' float64 result on the same weights, and ours may be `FLOAT32_FACTOR` times as far
    from it as theirs: a bound that scales with how ill-conditioned each tensor is. (Losses are
    compared token by token: the error of a lone number, their mean, can vanish by luck.)

    Args:
        cfg: the model's config; its dtype is replaced by `dtype`.
        weights: what both sides load.
        tokens: whole sequences; the models are fed all but the last token.
        loss_mask: true at the tokens whose loss counts.
        dtype: "float32" or "float64".
        ours: computes our side, `jax_forward` by default (tests put a broken one here).
    """
    cfg, wide = cfg.replace(dtype=dtype), cfg.replace(dtype="float64")
    weights = {name: weight.astype(dtype) for name, weight in weights.items()}
    mine = (ours or jax_forward)(cfg, weights, tokens, loss_mask)
    truth = torch_forward(wide, weights, tokens, loss_mask)
    if dtype == "float64":
        bounds = dict.fromkeys(truth, FLOAT64_BOUND)
    else:
        theirs = torch_forward(cfg, weights, tokens, loss_mask)
        bounds = {name: FLOAT32_FACTOR * distance(theirs[name], truth[name]) for name in truth}
    return [
        Comparison(
            name=name,
            shape=truth[name].shape,
            error=distance(mine[name], truth[name]),
            bound=bounds[name],
            same_infinities=bool((np.isinf(mine[name]) == np.isinf(truth[name])).all()),
        )
        for name in truth
    ]


def distance(value: np.ndarray, truth: np.ndarray) -> float:
    """Normwise: max abs difference over max abs value, both where the truth is finite."""
    finite = np.isfinite(truth)
    difference = np.abs(value[finite].astype(np.float64) - truth[finite])
    scale = np.abs(truth[finite]).max()
    return float(difference.max() / scale) if scale else float(difference.max())


def jax_forward(
    cfg: HookedTransformerConfig,
    weights: StateDict,
    tokens: Int[np.ndarray, "batch seq"],
    loss_mask: np.ndarray,
) -> Activations:
    """Our activations, logits and losses, under jit."""
    with numerics(cfg):
        outputs = _jitted_forward(cfg, tuple(loss_mask), weights, tokens)
    return {name: np.asarray(value) for name, value in outputs.items()}


@partial(jax.jit, static_argnums=(0, 1))
def _jitted_forward(
    cfg: HookedTransformerConfig,
    loss_mask: tuple[bool, ...],
    params: dict[str, jax.Array],
    tokens: jax.Array,
) -> dict[str, jax.Array]:
    logits, cache = HookedTransformer(cfg, params=params).run_with_cache(tokens[:, :-1])
    losses = token_losses(*predictions(cfg, params, tokens, np.array(loss_mask)))
    return {**cache, "logits": logits, "losses": losses}


def torch_forward(
    cfg: HookedTransformerConfig,
    weights: StateDict,
    tokens: Int[np.ndarray, "batch seq"],
    loss_mask: np.ndarray,
) -> Activations:
    """TransformerLens' activations, logits and losses."""
    model = make_model(cfg)
    write_weights(model, cfg, weights)
    ids = torch.as_tensor(tokens.copy(), dtype=torch.long)
    predicted = torch.as_tensor(np.flatnonzero(loss_mask))
    with torch.no_grad():
        logits, cache = model.run_with_cache(ids[:, :-1])
        losses = torch_objective.token_losses(*torch_objective.predictions(model, ids, predicted))
    outputs = {"logits": cast(torch.Tensor, logits), "losses": losses}
    return {name: tensor.numpy() for name, tensor in (cache.cache_dict | outputs).items()}

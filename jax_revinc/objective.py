"""What training minimises and evaluation counts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.model import HookedTransformer
from revinc import HookedTransformerConfig
from revinc.objective import Objective

Params = dict[str, Array]


def predictions(
    cfg: HookedTransformerConfig,
    params: Params,
    tokens: Int[Array, "batch seq"],
    predicted: tuple[int, ...],
) -> tuple[Float[Array, "batch n_predicted d_vocab_out"], Int[Array, "batch n_predicted"]]:
    """The logits that predict the tokens at positions `predicted`, and those tokens.

    The model is fed all tokens but the last; the logits at position p predict token p + 1. Behind the last attention
    positions do not see each other, so there only those are computed that predict something.
    """
    first, behind = predicted[0], predicted[-1] + 1
    at = np.array(predicted) - first
    kept = "resid_post" if cfg.attn_only or cfg.parallel_attn_mlp else "resid_mid"
    stream = f"blocks.{cfg.n_layers - 1}.hook_{kept}"

    def tap(name: str, activation: Array) -> Array:
        return activation[:, first - 1 : behind - 1] if name == stream else activation

    logits = HookedTransformer(cfg, params=params)(tokens[:, :-1], tap=tap)
    return logits[:, at], tokens[:, first:behind][:, at]


def token_losses(
    logits: Float[Array, "batch n_predicted d_vocab_out"],
    targets: Int[Array, "batch n_predicted"],
    label_smoothing: float = 0.0,
) -> Float[Array, "batch n_predicted"]:
    """Cross-entropy of each predicted token, in nats; smoothed as Szegedy et al. (2016, section 7) do."""
    if label_smoothing:
        one_hot = jax.nn.one_hot(targets, logits.shape[-1], dtype=logits.dtype)
        return optax.softmax_cross_entropy(logits, optax.smooth_labels(one_hot, label_smoothing))
    log_probs = jax.nn.log_softmax(logits, axis=-1)
    return -jnp.take_along_axis(log_probs, targets[..., None], axis=-1)[..., 0]


def mean_loss(
    cfg: HookedTransformerConfig,
    params: Params,
    tokens: Int[Array, "batch seq"],
    objective: Objective,
) -> Float[Array, ""]:
    """The training loss: mean cross-entropy over every predicted token of every example."""
    logits, targets = predictions(cfg, params, tokens, objective.predicted)
    return token_losses(logits, targets, objective.label_smoothing).mean()


def summed(
    cfg: HookedTransformerConfig,
    params: Params,
    sequence: Int[Array, " seq"],
    predicted: tuple[int, ...],
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """What an evaluation counts in one sequence: the predicted tokens' summed loss, and how many are right."""
    logits, targets = predictions(cfg, params, sequence[None], predicted)
    return token_losses(logits, targets).sum(), (logits.argmax(-1) == targets).sum()

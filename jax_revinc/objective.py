"""What training minimises and evaluation counts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
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

    The model is fed all tokens but the last; the logits at position p predict token p + 1.
    """
    logits = HookedTransformer(cfg, params=params)(tokens[:, :-1])
    at = jnp.array(predicted)
    return logits[:, at - 1], tokens[:, at]


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

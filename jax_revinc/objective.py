"""What training minimises and evaluation counts: only the tokens that the task asks for."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.model import HookedTransformer
from revinc import HookedTransformerConfig

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
    logits: Float[Array, "batch n_predicted d_vocab_out"], targets: Int[Array, "batch n_predicted"]
) -> Float[Array, "batch n_predicted"]:
    """Cross-entropy of each predicted token, in nats."""
    log_probs = jax.nn.log_softmax(logits, axis=-1)
    return -jnp.take_along_axis(log_probs, targets[..., None], axis=-1)[..., 0]


def mean_loss(
    cfg: HookedTransformerConfig,
    params: Params,
    tokens: Int[Array, "batch seq"],
    predicted: tuple[int, ...],
) -> Float[Array, ""]:
    """The training loss: mean cross-entropy over every predicted token of every example."""
    return token_losses(*predictions(cfg, params, tokens, predicted)).mean()

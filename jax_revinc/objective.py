"""The loss that training minimises, and the sums from which an evaluation computes metrics."""

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
    positions: tuple[int, ...],
) -> tuple[Float[Array, "batch n_positions d_vocab_out"], Int[Array, "batch n_positions"]]:
    """The model's logits for the tokens at `positions`, and those tokens as targets.

    The model is fed all tokens but the last; its logits at position p predict token p + 1. After
    the last attention layer positions do not see each other, so only those are computed there that
    predict one of the tokens.
    """
    first, end = positions[0], positions[-1] + 1
    at = np.array(positions) - first
    kept = "resid_post" if cfg.attn_only or cfg.parallel_attn_mlp else "resid_mid"
    stream = f"blocks.{cfg.n_layers - 1}.hook_{kept}"

    def tap(name: str, activation: Array) -> Array:
        return activation[:, first - 1 : end - 1] if name == stream else activation

    logits = HookedTransformer(cfg, params=params)(tokens[:, :-1], tap=tap)
    return logits[:, at], tokens[:, first:end][:, at]


def token_losses(
    logits: Float[Array, "batch n_positions d_vocab_out"],
    targets: Int[Array, "batch n_positions"],
    label_smoothing: float = 0.0,
) -> Float[Array, "batch n_positions"]:
    """The cross-entropy of each target token, in nats.

    Labels are smoothed as in Szegedy et al. (2016, section 7). Targets must be below d_vocab_out,
    which can't be checked here: the loss of any other is NaN, or meaningless if smoothed.
    """
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
    """The training loss: the mean cross-entropy at all positions that are trained on."""
    logits, targets = predictions(cfg, params, tokens, objective.train_positions)
    return token_losses(logits, targets, objective.label_smoothing).mean()


def eval_counts(
    cfg: HookedTransformerConfig,
    params: Params,
    sequence: Int[Array, " seq"],
    eval_positions: tuple[int, ...],
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """The summed loss of a sequence's predicted tokens, and how many of them are right."""
    logits, targets = predictions(cfg, params, sequence[None], eval_positions)
    return token_losses(logits, targets).sum(), (logits.argmax(-1) == targets).sum()

"""The loss and the accuracy of next-token predictions, as TransformerLens defines them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from jax_revinc.compilation.numerical_settings import keeps_precision
from revinc.errors import UserError


@keeps_precision
def lm_cross_entropy_loss(
    logits: Float[Array, "*batch pos d_vocab_out"],
    tokens: Int[Array, "*batch pos"],
    attention_mask: Int[Array, "*batch pos"] | Bool[Array, "*batch pos"] | None = None,
    per_token: bool = False,
) -> Float[Array, ""] | Float[Array, "*batch pos-1"]:
    """The cross-entropy in nats of every next token: of each if `per_token`, else the mean.

    Args:
        logits: the model's logits [batch, pos, d_vocab_out].
        tokens: the tokens that it was fed [batch, pos]; the first is not predicted.
        attention_mask: false where there is padding [batch, pos]. A prediction from padding, or of
            padding, has a loss of 0 and does not count in the mean.
        per_token: return the loss of each token [batch, pos - 1].

    Raises:
        UserError: for a mask of another shape than the tokens.
    """
    log_probs = jax.nn.log_softmax(logits[..., :-1, :], axis=-1)
    tokens = jnp.asarray(tokens)
    losses = -jnp.take_along_axis(log_probs, tokens[..., 1:, None], axis=-1)[..., 0]
    if attention_mask is None:
        return losses if per_token else losses.mean()
    if attention_mask.shape != tokens.shape:
        raise UserError(
            f"attention_mask must have the shape of the tokens, {list(tokens.shape)}, not "
            f"{list(attention_mask.shape)}"
        )
    seen = jnp.asarray(attention_mask, bool)
    counted = seen[..., :-1] & seen[..., 1:]
    losses = jnp.where(counted, losses, 0.0)
    return losses if per_token else losses.sum() / counted.sum()


@keeps_precision
def lm_accuracy(
    logits: Float[Array, "batch pos d_vocab_out"],
    tokens: Int[Array, "batch pos"],
    per_token: bool = False,
) -> Float[Array, ""] | Bool[Array, "batch pos-1"]:
    """Whether every next token is the likeliest: of each if `per_token`, else the share of them.

    Args:
        logits: the model's logits [batch, pos, d_vocab_out].
        tokens: the tokens that it was fed [batch, pos]; the first is not predicted.
        per_token: return a bool for each token [batch, pos - 1].
    """
    right = jnp.argmax(logits, axis=-1)[:, :-1] == jnp.asarray(tokens)[:, 1:]
    wide_enough = jnp.promote_types(logits.dtype, jnp.float32)
    return right if per_token else right.mean(dtype=wide_enough)

"""Checks of token ids and positions, before a model sees them."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int

from revinc import HookedTransformerConfig, UserError
from revinc.validation import require_ints

Tokens: TypeAlias = Int[Array, "batch pos"] | Int[np.ndarray, "batch pos"]


def check_sequences(cfg: HookedTransformerConfig, sequences: Any) -> Int[Array, "batch seq"]:
    """Check sequences of up to ``n_ctx + 1`` tokens, of which the last is predicted but not fed."""
    return check_tokens(cfg, sequences, cfg.n_ctx + 1)


def check_tokens(
    cfg: HookedTransformerConfig,
    tokens: Any,
    longest: int | None = None,
    from_end: bool = False,
) -> Int[Array, "batch pos"]:
    """Check token ids, and return them as [batch, pos] of JAX's default integer type.

    A shorter integer type could overflow.

    Args:
        cfg: the model's config.
        tokens: ids [batch, pos] or [pos]; traced ids are not checked for their range.
        longest: the most tokens a sequence may have; n_ctx by default.
        from_end: whether negative ids count from the end of the vocabulary.

    Raises:
        UserError: for a wrong shape or type, or an id outside the vocabulary.
    """
    if isinstance(tokens, str) or (
        isinstance(tokens, list) and tokens and isinstance(tokens[0], str)
    ):
        raise UserError(
            "text can't be tokenized: toy models have no tokenizer; give token ids [batch, pos]"
        )
    if not isinstance(tokens, jax.core.Tracer):
        try:
            tokens = np.asarray(tokens)
        except (TypeError, ValueError):
            raise UserError(
                "tokens must be an array of token ids, or a list of sequences of equal length"
            ) from None
    if tokens.ndim == 1:
        tokens = tokens[None]
    if tokens.ndim != 2 or not tokens.size:
        kind = "" if tokens.size else ", and not be empty"
        raise UserError(f"tokens must have shape [batch, pos]{kind}, not {list(tokens.shape)}")
    if not np.issubdtype(tokens.dtype, np.integer):
        raise UserError(f"tokens must be integers, not {tokens.dtype}")
    if tokens.shape[1] > (longest or cfg.n_ctx):
        raise UserError(
            f"sequences of {tokens.shape[1]} tokens are longer than n_ctx={cfg.n_ctx}, the model's "
            "context"
        )
    check_range(tokens, cfg.d_vocab, "d_vocab", from_end)
    if isinstance(tokens, np.ndarray):
        return jnp.asarray(tokens.astype(jax.dtypes.canonicalize_dtype(int), copy=False))
    return jnp.asarray(tokens) if tokens.dtype == np.int32 else jnp.asarray(tokens).astype(int)


def check_predicted(predicted: Any, length: int) -> tuple[int, ...]:
    """Check the positions whose tokens a model predicts in sequences of `length`, and return them.

    Raises:
        UserError: if there are none, or one is the first or after the last.
    """
    positions = require_ints("predicted", predicted)
    if not positions or not all(1 <= position < length for position in positions):
        raise UserError(
            f"predicted must hold the positions of the tokens to predict, at least one and each in "
            f"1..{length - 1}, not {positions}"
        )
    return positions


def require_array(what: str, value: Any) -> None:
    """Raise a UserError unless `value` is a JAX or numpy array."""
    if not isinstance(value, Array | np.ndarray):
        raise UserError(f"{what} must be an array, not {type(value).__name__}")


def check_range(tokens: Any, size: int, field: str, from_end: bool = False) -> None:
    """Check that token ids are below `size`. Traced ids are not checked.

    Args:
        tokens: token ids.
        size: how many there are.
        field: the field of the config that says so.
        from_end: whether negative ids count from the end, as in an index.

    Raises:
        UserError: for an id out of range.
    """
    if isinstance(tokens, jax.core.Tracer) or not tokens.size:
        return
    low, high = int(tokens.min()), int(tokens.max())
    least = -size if from_end else 0
    if low < least or high >= size:
        found = low if low < least else high
        or_negative = f", or in {least}..-1 to count from the end" if from_end else ""
        raise UserError(
            f"token ids must lie in 0..{size - 1} ({field}={size}){or_negative}; found {found}"
        )

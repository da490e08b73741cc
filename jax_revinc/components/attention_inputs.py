"""The inputs from which attention computes queries, keys and values: shared, or one per head."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jax_revinc.hooks.taps import Tap
from revinc import HookedTransformerConfig

Input = Float[Array, "batch pos d_model"] | Float[Array, "batch pos n_heads d_model"]
Inputs = tuple[Input, Input, Input]
Normalize = Callable[[Input], Input]
AttentionInputs = Callable[[Float[Array, "batch pos d_model"], Normalize, Tap], Inputs]


@cache
def make_attention_inputs(cfg: HookedTransformerConfig) -> AttentionInputs:
    """Make the function from the residual stream to normalised inputs of queries, keys and values.

    TransformerLens runs the norm three times; here an input that the three share is normalised
    once.
    """

    def shared(resid: Array, normalize: Normalize, tap: Tap) -> Inputs:
        normalized = normalize(resid)
        return normalized, normalized, normalized

    def by_head(resid: Array, normalize: Normalize, tap: Tap) -> Inputs:
        return shared(tap("hook_attn_in", broadcast_heads(resid, cfg.n_heads)), normalize, tap)

    def split(resid: Array, normalize: Normalize, tap: Tap) -> Inputs:
        if cfg.use_attn_in:  # hooked but, as in TransformerLens, not used
            tap("hook_attn_in", broadcast_heads(resid, cfg.n_heads))
        q = tap("hook_q_input", broadcast_heads(resid, cfg.n_heads))
        k = tap("hook_k_input", broadcast_heads(resid, cfg.n_kv_heads))
        v = tap("hook_v_input", broadcast_heads(resid, cfg.n_kv_heads))
        return normalize(q), normalize(k), normalize(v)

    if cfg.use_split_qkv_input:
        return split
    return by_head if cfg.use_attn_in else shared


def broadcast_heads(
    x_BPM: Float[Array, "batch pos d_model"], n_heads: int
) -> Float[Array, "batch pos n_heads d_model"]:
    """Repeat an input along a new axis of heads."""
    batch, length, d_model = x_BPM.shape
    return jnp.broadcast_to(x_BPM[:, :, None], (batch, length, n_heads, d_model))


def with_positions(inputs: Inputs, pos_BPM: Float[Array, "batch pos d_model"] | None) -> Inputs:
    """Add positional embeddings to the inputs of queries and keys (shortformer only)."""
    if pos_BPM is None:
        return inputs
    q, k, v = inputs
    pos = pos_BPM if q.ndim == pos_BPM.ndim else pos_BPM[:, :, None]
    return q + pos, k + pos, v

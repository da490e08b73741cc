"""The steps that make attention scores: rotations, soft caps, biases and masks.

Equal configs get the same function objects, so models of one config share compiled programs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from jax_revinc.components.positions import Positions, Wave
from jax_revinc.hooks.taps import Tap
from revinc import HookedTransformerConfig

PerHead = Float[Array, "batch pos n_heads d_head"]
Scores = Float[Array, "batch n_heads query key"]
Rotation = Callable[[PerHead, PerHead, Positions, Tap], tuple[PerHead, PerHead]]


@cache
def make_rotation(cfg: HookedTransformerConfig) -> Rotation:
    """Make the function that rotates queries and keys by position; the identity if not rotary."""
    if cfg.positional_embedding_type != "rotary":
        return lambda q_BPHE, k_BPHE, positions, _: (q_BPHE, k_BPHE)
    angles_PR = rotary_angles(cfg)

    def rotation(
        q_BPHE: PerHead, k_BPHE: PerHead, positions: Positions, tap: Tap
    ) -> tuple[PerHead, PerHead]:
        of_queries = positions.query_waves(angles_PR, q_BPHE.shape[1])
        of_keys = positions.key_waves(angles_PR, k_BPHE.shape[1])
        turned_q, turned_k = rotate(cfg, q_BPHE, *of_queries), rotate(cfg, k_BPHE, *of_keys)
        return tap("hook_rot_q", turned_q), tap("hook_rot_k", turned_k)

    return rotation


def rotary_angles(cfg: HookedTransformerConfig) -> Float[np.ndarray, "n_ctx rotary_dim"]:
    """The angle, in radians, that each dimension is rotated by at each position.

    Su et al. 2021, arXiv:2104.09864, eq. 15.
    """
    assert cfg.rotary_dim is not None
    n_pairs = cfg.rotary_dim // 2
    wavelengths = cfg.rotary_base ** (np.arange(n_pairs) / n_pairs)
    in_order = np.repeat(wavelengths, 2) if cfg.rotary_adjacent_pairs else np.tile(wavelengths, 2)
    return np.arange(cfg.n_ctx)[:, None] / in_order


def rotate(
    cfg: HookedTransformerConfig, x_BPHE: PerHead, cos_BP1R: Wave, sin_BP1R: Wave
) -> PerHead:
    """The queries or keys `x` with their first ``rotary_dim`` dimensions rotated, in pairs."""
    turned, left = jnp.split(x_BPHE, [cos_BP1R.shape[-1]], axis=-1)
    if cfg.rotary_adjacent_pairs:
        first, second = turned[..., ::2], turned[..., 1::2]
        quarter = jnp.stack([-second, first], axis=-1).reshape(turned.shape)
    else:
        first, second = jnp.split(turned, 2, axis=-1)
        quarter = jnp.concatenate([-second, first], axis=-1)
    cos, sin = (jnp.asarray(wave, x_BPHE.dtype) for wave in (cos_BP1R, sin_BP1R))
    return jnp.concatenate([turned * cos + quarter * sin, left], axis=-1)


@cache
def make_bias(cfg: HookedTransformerConfig) -> Callable[[Scores], Scores]:
    """Make the function that adds alibi's distance penalty to scores; identity without alibi."""
    if cfg.positional_embedding_type != "alibi":
        return lambda scores_BHQK: scores_BHQK
    slopes_H = alibi_slopes(cfg.n_heads)

    def bias(scores_BHQK: Scores) -> Scores:
        n_queries, n_keys = scores_BHQK.shape[-2:]
        queries = np.arange(n_keys)[-n_queries:]  # cached keys have no queries
        distance_QK = np.minimum(np.arange(n_keys)[None] - queries[:, None], 0)
        penalty_HQK = slopes_H[:, None, None] * distance_QK.astype(np.float32)
        return scores_BHQK + jnp.asarray(penalty_HQK, scores_BHQK.dtype)

    return bias


def alibi_slopes(n_heads: int) -> Float[np.ndarray, " n_heads"]:
    """Alibi's penalty per position of distance: powers of 2^(-8/n), one for each head.

    They are float32 even if the model is float64, as in TransformerLens. (Press et al. 2022,
    arXiv:2108.12409.)
    """
    start = np.float32(2 ** (-8 / n_heads))
    return start * start ** np.arange(n_heads, dtype=np.float32)


@cache
def make_mask(
    cfg: HookedTransformerConfig, layer: int
) -> Callable[[int, int], Bool[np.ndarray, "query key"]]:
    """Make the function that returns a layer's mask [query, key]: True where a query sees a key."""

    def everything(n_queries: int, n_keys: int) -> Bool[np.ndarray, "query key"]:
        return np.ones((n_queries, n_keys), bool)

    def earlier(n_queries: int, n_keys: int) -> Bool[np.ndarray, "query key"]:
        return np.tri(n_queries, n_keys, dtype=bool)

    def within_window(n_queries: int, n_keys: int) -> Bool[np.ndarray, "query key"]:
        too_early = np.tri(n_queries, n_keys, -(cfg.window_size or 0), dtype=bool)
        return earlier(n_queries, n_keys) & ~too_early

    if cfg.attention_dir == "bidirectional":
        return everything
    is_local = cfg.attn_types is not None and cfg.attn_types[layer] == "local"
    return within_window if is_local else earlier


@cache
def make_soft_cap(cap: float | None) -> Callable[[Array], Array]:
    """Make the function ``cap * tanh(x / cap)``; the identity if there is no cap."""
    return (lambda x: x) if cap is None else (lambda x: cap * jnp.tanh(x / cap))

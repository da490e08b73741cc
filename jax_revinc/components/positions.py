"""Where the tokens of a forward pass stand: after padding, after cached tokens, or at 0, 1, 2, ..."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from jax_revinc.components.key_value_cache import TransformerLensKeyValueCache

PerHead = Float[Array, "batch pos n_heads d_head"]
Visible = Callable[[int, int], Bool[np.ndarray, "query key"]]
Wave = Float[Array, "batch pos 1 width"] | Float[np.ndarray, "batch pos 1 width"]
Waves = tuple[Wave, Wave]


def waves(angles: Float[np.ndarray, "*rest width"]) -> tuple[np.ndarray, np.ndarray]:
    """The cosines and the sines of angles in radians."""
    return np.cos(angles), np.sin(angles)


class Positions:
    """Consecutive positions, the same in every sequence of the batch.

    Args:
        cache: keys and values of the tokens before these. The new ones are appended to it.
    """

    def __init__(self, cache: TransformerLensKeyValueCache | None = None) -> None:
        self.cache = cache
        self.attention_mask: Int[Array, "batch offset_pos"] | None = None
        self.offset = 0 if cache is None else cache.n_positions

    def embed(
        self, W_pos: nnx.Param[Array], batch: int, length: int
    ) -> Float[Array, "batch pos d_model"]:
        """The positional embeddings of new tokens [batch, length]."""
        W_pos_PM = W_pos[self.offset : self.offset + length]
        return jnp.broadcast_to(W_pos_PM, (batch, *W_pos_PM.shape))

    def query_waves(self, angles: Float[np.ndarray, "n_ctx width"], length: int) -> Waves:
        """The cosines and sines of a table of angles, at each of the `length` new tokens."""
        return waves(angles[None, self.offset : self.offset + length, None])

    def key_waves(self, angles: Float[np.ndarray, "n_ctx width"], length: int) -> Waves:
        """The cosines and sines of a table of angles, at `length` tokens, cached ones included."""
        return waves(angles[None, :length, None])

    def append(self, layer: int, k_BPHE: PerHead, v_BPHE: PerHead) -> tuple[PerHead, PerHead]:
        """The keys and values of a layer, with the cached ones before them."""
        if self.cache is None:
            return k_BPHE, v_BPHE
        return self.cache[layer].append(k_BPHE, v_BPHE)

    def visible(self, mask: Visible, scores_BHQK: Array, is_causal: bool) -> Any:
        """Which keys each new token sees: a layer's mask [query, key] or [batch, 1, query, key].

        Args:
            mask: makes the layer's mask from the numbers of queries and keys.
            scores_BHQK: the attention scores.
            is_causal: whether the layer sees no later position.
        """
        n_queries, n_keys = scores_BHQK.shape[-2:]
        return mask(self.offset + n_queries, n_keys)[self.offset :]


FROM_ZERO = Positions()
"""The positions of sequences without padding and without cached tokens."""


class PaddedPositions(Positions):
    """The positions of padded sequences: each counts from its first token that is no padding.

    Args:
        attention_mask: 1 for tokens, 0 for padding, cached tokens included.
        cache: keys and values of the tokens before these.
    """

    def __init__(
        self,
        attention_mask: Int[Array, "batch offset_pos"],
        cache: TransformerLensKeyValueCache | None = None,
    ) -> None:
        super().__init__(cache)
        self.attention_mask = attention_mask
        self.is_token_BP = attention_mask != 0
        counted_BP = jnp.cumsum(self.is_token_BP.astype(int), axis=1) - 1
        self.position_BP = jnp.maximum(counted_BP, 0)

    def embed(
        self, W_pos: nnx.Param[Array], batch: int, length: int
    ) -> Float[Array, "batch pos d_model"]:
        is_token_BP = self.is_token_BP[:, self.offset :]
        return jnp.where(is_token_BP[..., None], W_pos[self.position_BP[:, self.offset :]], 0)

    def query_waves(self, angles: Float[np.ndarray, "n_ctx width"], length: int) -> Waves:
        cos, sin = self.key_waves(angles, length)
        return cos[:, self.offset :], sin[:, self.offset :]

    def key_waves(self, angles: Float[np.ndarray, "n_ctx width"], length: int) -> Waves:
        cos, sin = (jnp.asarray(wave)[self.position_BP][:, :, None] for wave in waves(angles))
        return cos, sin

    def visible(self, mask: Visible, scores_BHQK: Array, is_causal: bool) -> Any:
        """As of `Positions`; as in TransformerLens, a bidirectional layer sees padding too."""
        visible_QK = super().visible(mask, scores_BHQK, is_causal)
        return visible_QK & self.is_token_BP[:, None, None, :] if is_causal else visible_QK

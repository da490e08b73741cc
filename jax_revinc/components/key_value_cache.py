"""The keys and values of earlier tokens, so that a forward pass can go on after them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.compilation.numerical_settings import numerics
from revinc import HookedTransformerConfig

PerHead = Float[Array, "batch pos n_heads d_head"]


@jax.tree_util.register_dataclass
@dataclass
class TransformerLensKeyValueCacheEntry:
    """The keys and values of one layer.

    Args:
        past_keys, past_values: [batch, pos, n_key_value_heads, d_head].
        frozen: keep these as they are when a forward pass goes on after them.
    """

    past_keys: PerHead
    past_values: PerHead
    frozen: bool = dataclasses.field(default=False, metadata={"static": True})

    def append(self, new_keys: PerHead, new_values: PerHead) -> tuple[PerHead, PerHead]:
        """All keys and all values, the new ones last; they are kept unless the entry is frozen."""
        keys = jnp.concatenate([self.past_keys, new_keys], axis=1)
        values = jnp.concatenate([self.past_values, new_values], axis=1)
        if not self.frozen:
            self.past_keys, self.past_values = keys, values
        return keys, values


@jax.tree_util.register_dataclass
@dataclass
class TransformerLensKeyValueCache:
    """The keys and values of all layers: the ``past_kv_cache`` of a forward pass, as in 3.9.

    A forward pass appends those of its tokens in place. It is a pytree, so a jitted function may
    take one and return it.

    Args:
        entries: one `TransformerLensKeyValueCacheEntry` for each layer.
        previous_attention_mask: 1 for tokens, 0 for padding, of all tokens so far.
        frozen: keep everything as it is when a forward pass goes on after it.
    """

    entries: list[TransformerLensKeyValueCacheEntry]
    previous_attention_mask: Int[Array, "batch pos"]
    frozen: bool = dataclasses.field(default=False, metadata={"static": True})

    @classmethod
    def init_cache(
        cls,
        cfg: HookedTransformerConfig,
        device: object = None,
        batch_size: int = 1,
    ) -> TransformerLensKeyValueCache:
        """An empty cache.

        Args:
            cfg: the model's config.
            device: without effect, as JAX places arrays itself.
            batch_size: the number of sequences.
        """
        with numerics(cfg):
            shape = (batch_size, 0, cfg.n_kv_heads, cfg.d_head)
            empty = jnp.zeros(shape, cfg.dtype)
            entries = [TransformerLensKeyValueCacheEntry(empty, empty) for _ in range(cfg.n_layers)]
            return cls(entries, jnp.zeros((batch_size, 0), jnp.int32))

    @property
    def n_positions(self) -> int:
        """The number of positions that are cached."""
        return int(self.entries[0].past_keys.shape[1])

    def freeze(self) -> None:
        """Keep everything as it is when a forward pass goes on after it."""
        self._set_frozen(True)

    def unfreeze(self) -> None:
        """Append the keys and values of forward passes again."""
        self._set_frozen(False)

    def _set_frozen(self, frozen: bool) -> None:
        self.frozen = frozen
        for entry in self.entries:
            entry.frozen = frozen

    def become(self, other: TransformerLensKeyValueCache) -> None:
        """Take over the keys, values and mask of another cache."""
        self.entries, self.previous_attention_mask = other.entries, other.previous_attention_mask

    def append_attention_mask(
        self, attention_mask: Int[Array, "batch new_pos"]
    ) -> Int[Array, "batch pos"]:
        """The mask of all tokens, the new ones last; it is kept unless the cache is frozen."""
        new = jnp.asarray(attention_mask).astype(jnp.int32)
        mask = jnp.concatenate([self.previous_attention_mask, new], axis=1)
        if not self.frozen:
            self.previous_attention_mask = mask
        return mask

    def __getitem__(self, layer: int) -> TransformerLensKeyValueCacheEntry:
        return self.entries[layer]

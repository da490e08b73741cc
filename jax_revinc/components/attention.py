"""Multi-head attention, with keys and values for every head or shared by groups of heads."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from jax_revinc.compilation.numerical_settings import keeps_precision
from jax_revinc.components.attention_inputs import Input
from jax_revinc.components.attention_scores import (
    make_bias,
    make_mask,
    make_rotation,
    make_soft_cap,
)
from jax_revinc.components.component import Component
from jax_revinc.components.params import Params
from jax_revinc.components.positions import FROM_ZERO, Positions
from jax_revinc.hooks.taps import Tap, identity
from jax_revinc.weights.factored_matrix import FactoredMatrix
from revinc import HookedTransformerConfig

PerHead = Float[Array, "batch pos n_heads d_head"]


class Attention(Component):
    """Multi-head attention; the hook ``hook_attn_scores`` sees -inf where scores are masked."""

    def __init__(self, cfg: HookedTransformerConfig, layer: int, params: Params) -> None:
        self.layer = layer
        self.is_causal = cfg.attention_dir == "causal"
        self.scale = (cfg.attn_scale or 1.0) * (
            layer + 1 if cfg.scale_attn_by_inverse_layer_idx else 1
        )
        self.rotation = make_rotation(cfg)
        self.soft_cap = make_soft_cap(cfg.attn_scores_soft_cap)
        self.bias = make_bias(cfg)
        self.mask = make_mask(cfg, layer)
        self.write = write_each if cfg.use_attn_result else write_together
        self.W_Q = nnx.Param(params["W_Q"])
        self.W_O = nnx.Param(params["W_O"])
        self.b_Q = nnx.Param(params["b_Q"])
        self.b_O = nnx.Param(params["b_O"])
        self.take_keys_and_values(params)

    def take_keys_and_values(self, params: Params) -> None:
        """Set the parameters of keys and values: ``W_K``, ``W_V``, ``b_K`` and ``b_V``."""
        self.W_K = nnx.Param(params["W_K"])
        self.W_V = nnx.Param(params["W_V"])
        self.b_K = nnx.Param(params["b_K"])
        self.b_V = nnx.Param(params["b_V"])

    def __call__(
        self,
        query_input: Input,
        key_input: Input,
        value_input: Input,
        positions: Positions = FROM_ZERO,
        tap: Tap = identity,
    ) -> Float[Array, "batch pos d_model"]:
        q_BPHE = tap("hook_q", project_heads(query_input, self.W_Q, self.b_Q))
        k_BPHE, v_BPHE = self.keys_and_values(key_input, value_input, tap)
        k_BPHE, v_BPHE = positions.append(self.layer, k_BPHE, v_BPHE)
        q_BPHE, k_BPHE = self.rotation(q_BPHE, k_BPHE, positions, tap)
        k_BPHE, v_BPHE = self.repeat_groups(k_BPHE), self.repeat_groups(v_BPHE)

        scores_BHQK = jnp.einsum("bqhe,bkhe->bhqk", q_BPHE, k_BPHE) / self.scale
        scores_BHQK = self.bias(self.soft_cap(scores_BHQK))
        visible = positions.visible(self.mask, scores_BHQK, self.is_causal)
        scores_BHQK = tap("hook_attn_scores", jnp.where(visible, scores_BHQK, -jnp.inf))

        pattern_BHQK = jax.nn.softmax(scores_BHQK, axis=-1)
        # If a hook makes all scores of a query -inf, it attends to nothing, as in TransformerLens.
        pattern_BHQK = jnp.where(jnp.isnan(pattern_BHQK), 0.0, pattern_BHQK)
        pattern_BHQK = tap("hook_pattern", pattern_BHQK)

        z_BPHE = tap("hook_z", jnp.einsum("bhqk,bkhe->bqhe", pattern_BHQK, v_BPHE))
        return self.write(z_BPHE, self.W_O, tap) + self.b_O

    def keys_and_values(
        self, key_input: Input, value_input: Input, tap: Tap
    ) -> tuple[PerHead, PerHead]:
        """The keys and values: one for every head, or for every group that shares them."""
        k_BPHE = tap("hook_k", project_heads(key_input, self.W_K, self.b_K))
        return k_BPHE, tap("hook_v", project_heads(value_input, self.W_V, self.b_V))

    def repeat_groups(self, x_BPHE: PerHead) -> PerHead:
        """The keys or values, with one entry for every query head."""
        return x_BPHE

    @property
    def QK(self) -> FactoredMatrix:
        """``W_Q @ W_K.T`` of every head [n_heads, d_model, d_model]."""
        return FactoredMatrix(self.W_Q[...], self.W_K[...].mT)

    @property
    def OV(self) -> FactoredMatrix:
        """``W_V @ W_O`` of every head [n_heads, d_model, d_model]."""
        return FactoredMatrix(self.W_V[...], self.W_O[...])


def repeat_param(name: str) -> Any:
    """Make a property: the parameter `name` of each group of heads, repeated for every head."""
    repeat = keeps_precision(jnp.repeat)
    return property(lambda self: repeat(getattr(self, name)[...], self.group_size, axis=0))


class UngroupedQueryAttention(Attention):
    """Grouped-query attention whose hooks see keys and values repeated for every query head.

    Groups of query heads share keys and values. As in TransformerLens the groups' parameters
    are `_W_K` and so on, and `W_K` repeats them for every head.
    (Ainslie et al. 2023, arXiv:2305.13245.)
    """

    W_K = repeat_param("_W_K")
    W_V = repeat_param("_W_V")
    b_K = repeat_param("_b_K")
    b_V = repeat_param("_b_V")

    def __init__(self, cfg: HookedTransformerConfig, layer: int, params: Params) -> None:
        self.group_size = cfg.n_heads // (cfg.n_key_value_heads or cfg.n_heads)
        super().__init__(cfg, layer, params)

    def take_keys_and_values(self, params: Params) -> None:
        self._W_K = nnx.Param(params["_W_K"])
        self._W_V = nnx.Param(params["_W_V"])
        self._b_K = nnx.Param(params["_b_K"])
        self._b_V = nnx.Param(params["_b_V"])


class GroupedQueryAttention(UngroupedQueryAttention):
    """Grouped-query attention whose hooks see keys and values once for every group of heads."""

    def keys_and_values(
        self, key_input: Input, value_input: Input, tap: Tap
    ) -> tuple[PerHead, PerHead]:
        k_BPHE = tap("hook_k", project_heads(key_input, self._W_K, self._b_K))
        return k_BPHE, tap("hook_v", project_heads(value_input, self._W_V, self._b_V))

    def repeat_groups(self, x_BPHE: PerHead) -> PerHead:
        return jnp.repeat(x_BPHE, self.group_size, axis=2)


def make_attention(cfg: HookedTransformerConfig, layer: int, params: Params) -> Attention:
    """Make the attention module of one layer, of the class that the config asks for."""
    if cfg.n_key_value_heads is None:
        return Attention(cfg, layer, params)
    ungrouped = cfg.ungroup_grouped_query_attention
    return (UngroupedQueryAttention if ungrouped else GroupedQueryAttention)(cfg, layer, params)


def project_heads(
    x: Input,
    W_HME: Float[Array, "n_heads d_model d_head"] | nnx.Param[Array],
    b_HE: Float[Array, "n_heads d_head"] | nnx.Param[Array],
) -> PerHead:
    """``x @ W + b`` for every head, where all heads share an input or each has its own."""
    axes = "bpm" if x.ndim == 3 else "bphm"
    return jnp.einsum(f"{axes},hme->bphe", x, W_HME) + b_HE


def write_together(
    z_BPHE: PerHead, W_O_HEM: nnx.Param[Array], tap: Tap
) -> Float[Array, "batch pos d_model"]:
    """The sum of the outputs of an attention layer's heads, computed in one product."""
    return jnp.einsum("bphe,hem->bpm", z_BPHE, W_O_HEM)


def write_each(
    z_BPHE: PerHead, W_O_HEM: nnx.Param[Array], tap: Tap
) -> Float[Array, "batch pos d_model"]:
    """The sum of the outputs of an attention layer's heads, each seen by ``hook_result`` first."""
    return tap("hook_result", jnp.einsum("bphe,hem->bphm", z_BPHE, W_O_HEM)).sum(2)

"""The transformer's parts. Attribute names are TransformerLens', so paths are its parameter names.

Shape suffixes in the maths: B batch, P position, Q query position, K key position, H head, M d_model,
E d_head, F d_mlp, V d_vocab.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.hooks import Tap, scoped
from revinc import HookedTransformerConfig

Params = Mapping[str, Array]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "silu": jax.nn.silu,
}


def within(params: Params, prefix: str) -> dict[str, Array]:
    """The parameters below `prefix`, by their names there."""
    start = f"{prefix}."
    return {name.removeprefix(start): p for name, p in params.items() if name.startswith(start)}


class Embed(nnx.Module):
    """Token ids to vectors."""

    def __init__(self, params: Params) -> None:
        self.W_E = nnx.Param(params["W_E"])

    def __call__(self, tokens_BP: Int[Array, "batch pos"]) -> Float[Array, "batch pos d_model"]:
        return self.W_E[tokens_BP]


class PosEmbed(nnx.Module):
    """One learned vector per position, the same for every sequence."""

    def __init__(self, params: Params) -> None:
        self.W_pos = nnx.Param(params["W_pos"])

    def __call__(self, tokens_BP: Int[Array, "batch pos"]) -> Float[Array, "batch pos d_model"]:
        batch, length = tokens_BP.shape
        W_pos_PM = self.W_pos[:length]
        return jnp.broadcast_to(W_pos_PM, (batch, *W_pos_PM.shape))


class LayerNormPre(nnx.Module):
    """Centres and normalises; its gain and bias, if it had any, are folded into other weights."""

    def __init__(self, cfg: HookedTransformerConfig) -> None:
        self.eps = cfg.eps

    def __call__(self, x: Float[Array, "... d_model"], tap: Tap) -> Float[Array, "... d_model"]:
        x = x - x.mean(-1, keepdims=True)
        scale = tap("hook_scale", jnp.sqrt((x**2).mean(-1, keepdims=True) + self.eps))
        return tap("hook_normalized", x / scale)


class LayerNorm(LayerNormPre):
    """Centres, normalises (that is what the hooks see), then applies gain `w` and bias `b`."""

    def __init__(self, cfg: HookedTransformerConfig, params: Params) -> None:
        super().__init__(cfg)
        self.w = nnx.Param(params["w"])
        self.b = nnx.Param(params["b"])

    def __call__(self, x: Float[Array, "... d_model"], tap: Tap) -> Float[Array, "... d_model"]:
        return super().__call__(x, tap) * self.w + self.b


class NoNorm(nnx.Module):
    """The identity that stands where a norm would."""

    def __call__(self, x: Float[Array, "... d_model"], tap: Tap) -> Float[Array, "... d_model"]:
        return x


def make_norm(cfg: HookedTransformerConfig, params: Params) -> LayerNormPre | NoNorm:
    """The norm that ``cfg.normalization_type`` names."""
    if cfg.normalization_type == "LN":
        return LayerNorm(cfg, params)
    return LayerNormPre(cfg) if cfg.normalization_type == "LNPre" else NoNorm()


class Attention(nnx.Module):
    """Causal multi-head attention. Masked scores are -inf, as their hook shows."""

    def __init__(self, cfg: HookedTransformerConfig, params: Params) -> None:
        self.scale = cfg.d_head**0.5
        self.W_Q = nnx.Param(params["W_Q"])
        self.W_K = nnx.Param(params["W_K"])
        self.W_V = nnx.Param(params["W_V"])
        self.W_O = nnx.Param(params["W_O"])
        self.b_Q = nnx.Param(params["b_Q"])
        self.b_K = nnx.Param(params["b_K"])
        self.b_V = nnx.Param(params["b_V"])
        self.b_O = nnx.Param(params["b_O"])

    def __call__(
        self, x_BPM: Float[Array, "batch pos d_model"], tap: Tap
    ) -> Float[Array, "batch pos d_model"]:
        q_BPHE = tap("hook_q", project_heads(x_BPM, self.W_Q, self.b_Q))
        k_BPHE = tap("hook_k", project_heads(x_BPM, self.W_K, self.b_K))
        v_BPHE = tap("hook_v", project_heads(x_BPM, self.W_V, self.b_V))

        scores_BHQK = jnp.einsum("bqhe,bkhe->bhqk", q_BPHE, k_BPHE) / self.scale
        visible_QK = jnp.tril(jnp.ones(scores_BHQK.shape[-2:], bool))
        scores_BHQK = tap("hook_attn_scores", jnp.where(visible_QK, scores_BHQK, -jnp.inf))

        pattern_BHQK = jax.nn.softmax(scores_BHQK, axis=-1)
        # A query that a hook made blind (all scores -inf) attends to nothing, as in TransformerLens.
        pattern_BHQK = jnp.where(jnp.isnan(pattern_BHQK), 0.0, pattern_BHQK)
        pattern_BHQK = tap("hook_pattern", pattern_BHQK)

        z_BPHE = tap("hook_z", jnp.einsum("bhqk,bkhe->bqhe", pattern_BHQK, v_BPHE))
        return jnp.einsum("bphe,hem->bpm", z_BPHE, self.W_O) + self.b_O


def project_heads(
    x_BPM: Float[Array, "batch pos d_model"],
    W_HME: Float[Array, "heads d_model d_head"] | nnx.Param[Array],
    b_HE: Float[Array, "heads d_head"] | nnx.Param[Array],
) -> Float[Array, "batch pos heads d_head"]:
    """Every head's affine view of the residual stream."""
    return jnp.einsum("bpm,hme->bphe", x_BPM, W_HME) + b_HE


class MLP(nnx.Module):
    """One hidden layer."""

    def __init__(self, cfg: HookedTransformerConfig, params: Params) -> None:
        self.act_fn = ACTIVATIONS[cfg.act_fn]
        self.W_in = nnx.Param(params["W_in"])
        self.b_in = nnx.Param(params["b_in"])
        self.W_out = nnx.Param(params["W_out"])
        self.b_out = nnx.Param(params["b_out"])

    def __call__(
        self, x_BPM: Float[Array, "batch pos d_model"], tap: Tap
    ) -> Float[Array, "batch pos d_model"]:
        pre_BPF = tap("hook_pre", x_BPM @ self.W_in + self.b_in)
        post_BPF = tap("hook_post", self.act_fn(pre_BPF))
        return post_BPF @ self.W_out + self.b_out


class AttentionBlock(nnx.Module):
    """Attention and its skip connection: the whole of a block in an attention-only model."""

    def __init__(self, cfg: HookedTransformerConfig, params: Params) -> None:
        self.ln1 = make_norm(cfg, within(params, "ln1"))
        self.attn = Attention(cfg, within(params, "attn"))

    def attend(
        self, resid_BPM: Float[Array, "batch pos d_model"], tap: Tap
    ) -> Float[Array, "batch pos d_model"]:
        resid_BPM = tap("hook_resid_pre", resid_BPM)
        # TransformerLens runs ln1 three times, for q, k and v, on this one input.
        normalized_BPM = self.ln1(resid_BPM, scoped(tap, "ln1"))
        attn_out_BPM = tap("hook_attn_out", self.attn(normalized_BPM, scoped(tap, "attn")))
        return resid_BPM + attn_out_BPM

    def __call__(
        self, resid_BPM: Float[Array, "batch pos d_model"], tap: Tap
    ) -> Float[Array, "batch pos d_model"]:
        return tap("hook_resid_post", self.attend(resid_BPM, tap))


class TransformerBlock(AttentionBlock):
    """Attention, then an MLP, each with its skip connection."""

    def __init__(self, cfg: HookedTransformerConfig, params: Params) -> None:
        super().__init__(cfg, params)
        self.ln2 = make_norm(cfg, within(params, "ln2"))
        self.mlp = MLP(cfg, within(params, "mlp"))

    def __call__(
        self, resid_BPM: Float[Array, "batch pos d_model"], tap: Tap
    ) -> Float[Array, "batch pos d_model"]:
        resid_BPM = tap("hook_resid_mid", self.attend(resid_BPM, tap))
        normalized_BPM = self.ln2(resid_BPM, scoped(tap, "ln2"))
        mlp_out_BPM = tap("hook_mlp_out", self.mlp(normalized_BPM, scoped(tap, "mlp")))
        return tap("hook_resid_post", resid_BPM + mlp_out_BPM)


class Unembed(nnx.Module):
    """Vectors to logits."""

    def __init__(self, params: Params) -> None:
        self.W_U = nnx.Param(params["W_U"])
        self.b_U = nnx.Param(params["b_U"])

    def __call__(
        self, resid_BPM: Float[Array, "batch pos d_model"], tap: Tap
    ) -> Float[Array, "batch pos d_vocab_out"]:
        resid_BPM = tap("hook_in", resid_BPM)
        return tap("hook_out", resid_BPM @ self.W_U + self.b_U)

"""Transformer blocks: attention and, in most, an MLP after or beside it."""

from __future__ import annotations

from jax import Array
from jaxtyping import Float

from jax_revinc.components.attention import make_attention
from jax_revinc.components.attention_inputs import make_attention_inputs, with_positions
from jax_revinc.components.component import Component
from jax_revinc.components.mlp import make_mlp
from jax_revinc.components.norms import NORMS
from jax_revinc.components.params import Params, within
from jax_revinc.components.positions import FROM_ZERO, Positions
from jax_revinc.hooks.taps import Tap, identity, optional_tap, scoped
from revinc import HookedTransformerConfig

Resid = Float[Array, "batch pos d_model"]


class AttentionBlock(Component):
    """A block of an attention-only model: attention and its skip connection."""

    def __init__(self, cfg: HookedTransformerConfig, layer: int, params: Params) -> None:
        self.attention_inputs = make_attention_inputs(cfg)
        self.ln1 = NORMS[cfg.normalization_type](cfg.eps, within(params, "ln1"))
        self.attn = make_attention(cfg, layer, within(params, "attn"))

    def __call__(
        self,
        resid_BPM: Resid,
        pos_BPM: Resid | None = None,
        positions: Positions = FROM_ZERO,
        tap: Tap = identity,
    ) -> Resid:
        """The residual stream after this transformer block.

        Args:
            resid_BPM: the residual stream before it.
            pos_BPM: positional embeddings for queries and keys alone, if any (shortformer).
            positions: where the tokens stand.
            tap: sees, and may replace, every activation.
        """
        resid_BPM = tap("hook_resid_pre", resid_BPM)
        return tap("hook_resid_post", resid_BPM + self.attend(resid_BPM, pos_BPM, positions, tap))

    def attend(
        self, resid_BPM: Resid, pos_BPM: Resid | None, positions: Positions, tap: Tap
    ) -> Resid:
        """The output of the attention, which is added to the residual stream."""
        inputs = self.attention_inputs(resid_BPM, lambda x: self.ln1(x, scoped(tap, "ln1")), tap)
        out_BPM = self.attn(*with_positions(inputs, pos_BPM), positions, scoped(tap, "attn"))
        return tap("hook_attn_out", out_BPM)


class TransformerBlock(AttentionBlock):
    """Attention, then an MLP, each with its skip connection."""

    def __init__(self, cfg: HookedTransformerConfig, layer: int, params: Params) -> None:
        super().__init__(cfg, layer, params)
        self.tap_mlp_in = optional_tap(cfg.use_hook_mlp_in, "hook_mlp_in")
        self.ln2 = NORMS[cfg.normalization_type](cfg.eps, within(params, "ln2"))
        self.mlp = make_mlp(cfg, within(params, "mlp"))

    def __call__(
        self,
        resid_BPM: Resid,
        pos_BPM: Resid | None = None,
        positions: Positions = FROM_ZERO,
        tap: Tap = identity,
    ) -> Resid:
        resid_BPM = tap("hook_resid_pre", resid_BPM)
        attn_out_BPM = self.attend(resid_BPM, pos_BPM, positions, tap)
        resid_BPM = tap("hook_resid_mid", resid_BPM + attn_out_BPM)
        return tap("hook_resid_post", resid_BPM + self.feed_forward(resid_BPM, tap))

    def feed_forward(self, resid_BPM: Resid, tap: Tap) -> Resid:
        """The output of the MLP, which is added to the residual stream."""
        normalized_BPM = self.ln2(self.tap_mlp_in(tap, resid_BPM), scoped(tap, "ln2"))
        return tap("hook_mlp_out", self.mlp(normalized_BPM, scoped(tap, "mlp")))


class ParallelBlock(TransformerBlock):
    """Attention and an MLP that read the same residual stream, as in GPT-J and GPT-NeoX."""

    def __call__(
        self,
        resid_BPM: Resid,
        pos_BPM: Resid | None = None,
        positions: Positions = FROM_ZERO,
        tap: Tap = identity,
    ) -> Resid:
        resid_BPM = tap("hook_resid_pre", resid_BPM)
        attn_out_BPM = self.attend(resid_BPM, pos_BPM, positions, tap)
        return tap("hook_resid_post", resid_BPM + attn_out_BPM + self.feed_forward(resid_BPM, tap))


def make_block(cfg: HookedTransformerConfig, layer: int, params: Params) -> AttentionBlock:
    """Make the transformer block of one layer, of the class that the config asks for."""
    if cfg.attn_only:
        return AttentionBlock(cfg, layer, params)
    return (ParallelBlock if cfg.parallel_attn_mlp else TransformerBlock)(cfg, layer, params)

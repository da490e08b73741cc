"""What comes before a layer: its index, and which attention layers and MLPs write into its input."""

from __future__ import annotations

from revinc import HookedTransformerConfig, UserError
from revinc.validation import require_index


def fed_layer(cfg: HookedTransformerConfig, layer: int | None, mlp_input: bool = False) -> int:
    """Check a layer's index and return it counted from 0; the unembedding is layer n_layers.

    Raises:
        UserError: if there is no such layer, or it has no MLP and `mlp_input` asks for one.
    """
    at_end = layer is None or layer == -1
    fed = require_index("layer", cfg.n_layers if at_end else layer, cfg.n_layers + 1)
    if mlp_input and (cfg.attn_only or fed == cfg.n_layers):
        where = "an attention-only model" if cfg.attn_only else "the unembedding"
        raise UserError(f"mlp_input asks for the input to an MLP, but {where} has no MLP")
    return fed


def mlp_stream(cfg: HookedTransformerConfig) -> str | None:
    """Where MLPs read the residual stream: "resid_mid", or "resid_pre" if parallel to attention."""
    if cfg.attn_only:
        return None
    return "resid_pre" if cfg.parallel_attn_mlp else "resid_mid"


def n_attentions_before(cfg: HookedTransformerConfig, fed: int, mlp_input: bool) -> int:
    """The number of attention layers that write into the input of layer `fed`, or of its MLP."""
    return fed + (mlp_input and not cfg.parallel_attn_mlp)

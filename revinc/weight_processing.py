"""Other weights of the same model, easier to read: TransformerLens' processing, as pure functions on state dicts.

Each returns a new dict, of numpy arrays or of JAX's, also traced ones, so that populations can be mapped over. The
model computes the same logits with it; with `center_unembed` the same log probabilities.

Where TransformerLens 3.9 changes what a model computes, this does not follow it: 3.9 folds a norm into the wrong axis of
``W_in`` where d_mlp equals d_model, and of ``W_U`` where d_vocab_out does; it centres what an RMS norm reads
(``final_rms``) and what a soft cap bends; it drops the bias of a norm before a gated MLP, and scales positions that
shortformer adds behind one. Here such a norm keeps its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from revinc.errors import UserError
from revinc.model_config import HookedTransformerConfig
from revinc.weights import parameter_shapes

Weights = Mapping[str, Any]
Step = Callable[[Weights, HookedTransformerConfig], dict[str, Any]]

FOLDED = {"LN": "LNPre", "RMS": "RMSPre"}
"""The type of a norm whose weights are folded into what reads it."""

CENTRING = ("LN", "LNPre")


def process_weights(
    state_dict: Weights,
    cfg: HookedTransformerConfig,
    fold_ln: bool = True,
    center_writing_weights: bool = True,
    center_unembed: bool = True,
    fold_value_biases: bool = True,
) -> tuple[dict[str, Any], HookedTransformerConfig]:
    """All steps in TransformerLens' order, but for those that `cfg` rules out: see `obstacles`.

    Returns:
        The state dict and its config. Norms have no weights any more if those of all could be folded.
    """
    asked = {
        "fold_layer_norm": fold_ln,
        "fold_value_biases": fold_value_biases,  # before centring, so that b_O is centred with it
        "center_writing_weights": center_writing_weights,
        "center_unembed": center_unembed,
    }
    weights = dict(state_dict)
    for name, is_asked in asked.items():
        if is_asked and not obstacles(cfg)[name]:
            weights = STEPS[name](weights, cfg)
    norms = {name for name in weights if name.endswith((".w", ".b"))}
    if fold_ln and norms and norms <= weights_of_folded_norms(cfg):
        cfg = cfg.replace(normalization_type=FOLDED[cfg.normalization_type or ""])
    return {name: weights[name] for name in parameter_shapes(cfg)}, cfg


def weights_of_folded_norms(cfg: HookedTransformerConfig) -> set[str]:
    """The gains and biases that `fold_layer_norm` folds."""
    return {f"{norm}.{letter}" for norm in readers_of_norms(cfg) for letter in "wb"}


def obstacles(cfg: HookedTransformerConfig) -> dict[str, str]:
    """For every step, why it would change what a model of `cfg` computes; "" if it does not."""
    folding = centring = capped = ""
    if cfg.normalization_type not in FOLDED:
        folding = f"normalization_type={cfg.normalization_type!r} has no weights to fold"
    if cfg.normalization_type not in CENTRING or cfg.final_rms:
        centring = "norms that do not centre what they read would notice"
    if cfg.output_logits_soft_cap is not None:
        capped = (
            "output_logits_soft_cap bends logits, so a constant added to all makes a difference"
        )
    return {
        "fold_layer_norm": folding,
        "center_writing_weights": centring,
        "center_unembed": capped,
        "fold_value_biases": "",
    }


def require_harmless(step: str, cfg: HookedTransformerConfig) -> None:
    """Raise a UserError if a step would change what a model of `cfg` computes."""
    if obstacle := obstacles(cfg)[step]:
        raise UserError(f"{step} would change this model: {obstacle}")


def fold_layer_norm(state_dict: Weights, cfg: HookedTransformerConfig) -> dict[str, Any]:
    """Gains and biases of norms, moved into what reads them; what a layer norm's reader takes is centred too.

    These norms keep gains of 1 and biases of 0. Two can't be folded and stay as they are: ln1 with shortformer, which
    adds positions behind it, and a layer norm before a gated MLP, whose gate has no bias to take over the norm's.

    Raises:
        UserError: if no norm has weights.
    """
    require_harmless("fold_layer_norm", cfg)
    weights = dict(state_dict)
    for norm, readers in readers_of_norms(cfg).items():
        gain = weights[f"{norm}.w"][:, None]
        shift = weights.get(f"{norm}.b")
        weights[f"{norm}.w"] = gain[:, 0] * 0 + 1
        for weight, bias in readers:
            if shift is not None:
                weights[bias] = weights[bias] + (shift[:, None] * weights[weight]).sum(-2)
            scaled = gain * weights[weight]
            weights[weight] = scaled if shift is None else scaled - scaled.mean(-2, keepdims=True)
        if shift is not None:
            weights[f"{norm}.b"] = shift * 0
    return weights


def readers_of_norms(cfg: HookedTransformerConfig) -> dict[str, list[tuple[str, str]]]:
    """For every norm that can be folded, the weights that read it, and the biases added to what they make of it."""
    _ = "" if cfg.n_key_value_heads is None else "_"
    names = ("W_Q", "b_Q"), (f"{_}W_K", f"{_}b_K"), (f"{_}W_V", f"{_}b_V")
    gate = [("mlp.W_gate", "")] if cfg.gated_mlp else []
    in_block = {
        "ln1": [(f"attn.{weight}", f"attn.{bias}") for weight, bias in names],
        "ln2": [("mlp.W_in", "mlp.b_in"), *gate],
        "mlp.ln": [("mlp.W_out", "mlp.b_out")],
    }
    if cfg.positional_embedding_type == "shortformer":
        del in_block["ln1"]
    if cfg.gated_mlp and cfg.normalization_type == "LN":
        del in_block["ln2"]
    readers = {
        f"blocks.{layer}.{norm}": [(f"blocks.{layer}.{w}", f"blocks.{layer}.{b}") for w, b in pairs]
        for layer in range(cfg.n_layers)
        for norm, pairs in in_block.items()
    }
    readers["ln_final"] = [("unembed.W_U", "unembed.b_U")]
    shapes = parameter_shapes(cfg)
    return {norm: pairs for norm, pairs in readers.items() if f"{norm}.w" in shapes}


def center_writing_weights(state_dict: Weights, cfg: HookedTransformerConfig) -> dict[str, Any]:
    """What is written to the residual stream, without its mean over the stream's dimensions, which no norm sees.

    Raises:
        UserError: if a norm would.
    """
    require_harmless("center_writing_weights", cfg)
    writers = ["embed.W_E", ".attn.W_O", ".attn.b_O", ".mlp.W_out", ".mlp.b_out"]
    if cfg.has_positions_in_stream:
        writers.append("pos_embed.W_pos")
    return {
        name: weight - weight.mean(-1, keepdims=True) if name.endswith(tuple(writers)) else weight
        for name, weight in state_dict.items()
    }


def center_unembed(state_dict: Weights, cfg: HookedTransformerConfig) -> dict[str, Any]:
    """``W_U`` and ``b_U`` without their mean over the logits, to which softmax is blind.

    Raises:
        UserError: if a soft cap comes between.
    """
    require_harmless("center_unembed", cfg)
    centred = {
        name: state_dict[name] - state_dict[name].mean(-1, keepdims=True)
        for name in ("unembed.W_U", "unembed.b_U")
    }
    return {**state_dict, **centred}


def fold_value_biases(state_dict: Weights, cfg: HookedTransformerConfig) -> dict[str, Any]:
    """``b_V`` moved into ``b_O``: patterns add up to 1, so a head always writes its bias as it is."""
    weights = dict(state_dict)
    name = "b_V" if cfg.n_key_value_heads is None else "_b_V"
    for layer in range(cfg.n_layers):
        attn = f"blocks.{layer}.attn"
        b_V_HE, W_O_HEM = weights[f"{attn}.{name}"], weights[f"{attn}.W_O"]
        group_size = cfg.n_heads // len(b_V_HE)
        for_every_head = b_V_HE[:, None].repeat(group_size, 1).reshape(cfg.n_heads, cfg.d_head)
        written_M = (for_every_head[..., None] * W_O_HEM).sum((0, 1))
        weights[f"{attn}.b_O"] = weights[f"{attn}.b_O"] + written_M
        weights[f"{attn}.{name}"] = b_V_HE * 0
    return weights


STEPS: dict[str, Step] = {
    "fold_layer_norm": fold_layer_norm,
    "center_writing_weights": center_writing_weights,
    "center_unembed": center_unembed,
    "fold_value_biases": fold_value_biases,
}

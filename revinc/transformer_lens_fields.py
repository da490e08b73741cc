"""Conversion between the model config of TransformerLens 3.9 and that of jax-revinc."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from revinc.errors import UserError, shown
from revinc.validation import plain

WITHOUT_EFFECT: dict[str, Any] = {
    # devices, downloads and bookkeeping
    "device": None,
    "n_devices": 1,
    "n_params": None,  # computed
    "model_name": "custom",
    "original_architecture": None,
    "tokenizer_name": None,
    "trust_remote_code": False,
    "from_checkpoint": False,
    "checkpoint_index": None,
    "checkpoint_label_type": None,
    "checkpoint_value": None,
    "quantization_method": None,
    # text
    "default_prepend_bos": True,
    "tokenizer_prepends_bos": None,
    "decoder_start_token_id": None,
    # initial weights that are not drawn, and embeddings that only T5 ties
    "init_weights": True,
    "tie_word_embeddings": False,
    # methods that are switched off
    "train_seq_length": None,
    "norm_topk_prob": False,
    "uses_rms_norm": False,
    "layer_norm_folding": False,
    "relative_attention_max_distance": None,
    "relative_attention_num_buckets": None,
    "NTK_by_parts_low_freq_factor": 1.0,
    "NTK_by_parts_high_freq_factor": 4.0,
    "NTK_by_parts_factor": 8.0,
    "NTK_original_ctx_len": 8192,
    "yarn_factor": 1.0,
    "yarn_attention_factor": 1.0,
    "yarn_beta_fast": 32.0,
    "yarn_beta_slow": 1.0,
    "yarn_original_max_position_embeddings": 4096,
    "yarn_truncate": True,
    "yarn_global_attn_only": False,
}
"""Fields of 3.9, with their defaults, that do not change a model that is implemented here."""

NOT_IMPLEMENTED: dict[str, Any] = {
    "load_in_4bit": False,
    "use_qk_norm": False,
    "clip_qkv": None,
    "use_logn_attn": False,
    "use_dynamic_ntk_rope": False,
    "use_NTK_by_parts_rope": False,
    "use_yarn_rope": False,
    "rotary_base_local": None,
    "rotary_scaling_factor": 1.0,
    "use_attention_sinks": False,
    "use_normalization_before_and_after": False,
    "post_embedding_ln": False,
    "num_experts": None,
    "experts_per_token": None,
}
"""Fields of 3.9 that must have this value, their default."""

NOT_STORED = WITHOUT_EFFECT | NOT_IMPLEMENTED
"""The value that a config shows for each field of 3.9 that it does not store."""

OTHER_LAYERS = ("OlmoeForCausalLM", "Olmo2ForCausalLM", "Olmo3ForCausalLM")
"""Values of ``original_architecture`` for which 3.9 builds layers that are not implemented here."""

NOT_SET: dict[str, Callable[[float], bool]] = {
    "n_heads": lambda number: number == -1,
    "d_vocab_out": lambda number: number == -1,
    "attn_scale": lambda number: number == -1,
    "initializer_range": lambda number: number < 0,
    "attn_scores_soft_cap": lambda number: number <= 0,
    "output_logits_soft_cap": lambda number: number <= 0,
}
"""Whether a number means "not set" in 3.9, for each field that has such numbers."""


def in_our_words(fields: dict[str, Any]) -> dict[str, Any]:
    """Convert model config fields of TransformerLens 3.9 to jax-revinc's; "not set" becomes None.

    Args:
        fields: values by name, of either config; ours stay as they are.

    Raises:
        UserError: for fields of 3.9 that are not implemented here.
    """
    if not isinstance(fields, Mapping):
        raise UserError(f"the fields of a model config must be a dict, not {shown(fields)}")
    fields = {name: plain(value) for name, value in fields.items()}
    refused = [
        f"{name}={shown(fields[name])}"
        for name, default in NOT_IMPLEMENTED.items()
        if name in fields and not _same(fields[name], default)
    ]
    if any(_same(fields.get("original_architecture"), name) for name in OTHER_LAYERS):
        refused.append(f"original_architecture={fields['original_architecture']!r}")
    if refused:
        raise UserError(
            f"the model config has values that are not implemented: {', '.join(refused)}; leave "
            "them out to make a model without them"
        )
    if _same(fields.get("d_vocab"), -1):
        raise UserError(
            "d_vocab=-1 stands for the vocabulary of a tokenizer, which models here do not have; "
            "set d_vocab to the number of token ids"
        )
    ours = {name: value for name, value in fields.items() if name not in NOT_STORED}
    ours |= {name: None for name, value in ours.items() if is_not_set(name, value)}
    if isinstance(ours.get("dtype"), str):
        ours["dtype"] = ours["dtype"].removeprefix("torch.")
    if ours.get("act_fn", "") is None and _same(ours.get("attn_only"), True):
        del ours["act_fn"]
    rotary = _same(ours.get("positional_embedding_type"), "rotary")
    if rotary and _same(ours.get("rotary_dim"), 0):
        ours |= {"positional_embedding_type": "none", "rotary_dim": None}
    return ours


def is_not_set(name: str, value: Any) -> bool:
    """Whether a field's value is a number that means "not set" in 3.9."""
    return name in NOT_SET and isinstance(value, int | float) and NOT_SET[name](value)


def in_their_words(fields: dict[str, Any]) -> dict[str, Any]:
    """Convert jax-revinc's model config fields to TransformerLens', where -1 marks "not set"."""
    return {
        name: -1.0 if value is None and name in NOT_SET else value for name, value in fields.items()
    }


def _same(value: Any, wanted: Any) -> bool:
    """Whether a value, which may be of any type, is None or equals a wanted number or text."""
    return isinstance(value, bool | int | float | str | None) and value == wanted

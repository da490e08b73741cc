"""Conversion between the model config of TransformerLens 3.9 and that of jax-revinc."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from revinc.errors import UserError, shown
from revinc.validation import plain

WITHOUT_EFFECT = frozenset(
    {
        # devices, downloads and bookkeeping
        "device", "n_params", "model_name", "tokenizer_name", "trust_remote_code",
        "from_checkpoint", "checkpoint_index", "checkpoint_label_type", "checkpoint_value", "quantization_method",
        # text
        "default_prepend_bos", "tokenizer_prepends_bos", "decoder_start_token_id",
        # initial weights that are not drawn, and embeddings that only T5 ties
        "init_weights", "tie_word_embeddings",
        # methods that are switched off
        "train_seq_length", "norm_topk_prob", "uses_rms_norm", "layer_norm_folding",
        "relative_attention_max_distance", "relative_attention_num_buckets",
        "NTK_by_parts_low_freq_factor", "NTK_by_parts_high_freq_factor", "NTK_by_parts_factor",
        "NTK_original_ctx_len", "yarn_factor", "yarn_attention_factor", "yarn_beta_fast",
        "yarn_beta_slow",
        "yarn_original_max_position_embeddings", "yarn_truncate", "yarn_global_attn_only",
    }
)  # fmt: skip
"""Fields of 3.9 that do not change a model that is implemented here."""

NOT_IMPLEMENTED: dict[str, Any] = {
    "original_architecture": None,
    "n_devices": 1,
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

UNSET_BELOW_ZERO = ("n_heads", "d_vocab_out", "initializer_range", "attn_scale")
"""Fields whose negative values mean "not set" in 3.9."""

OFF_UP_TO_ZERO = ("attn_scores_soft_cap", "output_logits_soft_cap")
"""Bounds that 3.9 applies only above zero."""


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
        if fields.get(name, default) != default
    ]
    if refused:
        raise UserError(
            f"the model config has values that are not implemented: {', '.join(refused)}"
        )
    left_out = WITHOUT_EFFECT | NOT_IMPLEMENTED.keys()
    ours = {name: value for name, value in fields.items() if name not in left_out}
    numbers = {name for name, value in ours.items() if isinstance(value, int | float)}
    for name in numbers.intersection(UNSET_BELOW_ZERO):
        ours[name] = None if ours[name] < 0 else ours[name]  # NaN is for the config to refuse
    for name in numbers.intersection(OFF_UP_TO_ZERO):
        ours[name] = None if ours[name] <= 0 else ours[name]
    if ours.get("act_fn", "") is None and ours.get("attn_only"):
        del ours["act_fn"]
    if ours.get("positional_embedding_type") == "rotary" and ours.get("rotary_dim") == 0:
        ours |= {"positional_embedding_type": "none", "rotary_dim": None}
    return ours


def in_their_words(fields: dict[str, Any]) -> dict[str, Any]:
    """Convert jax-revinc's model config fields to TransformerLens', where -1 marks "not set"."""
    numbers = (*UNSET_BELOW_ZERO, *OFF_UP_TO_ZERO)
    return {
        name: -1.0 if value is None and name in numbers else value for name, value in fields.items()
    }

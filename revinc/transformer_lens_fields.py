"""The config that TransformerLens 3.9 prints, in the words of ours: what is unset, without effect, or not implemented."""

from __future__ import annotations

from typing import Any

from revinc.errors import UserError

WITHOUT_EFFECT = frozenset(
    {
        # of devices, downloads and bookkeeping
        "device", "n_params", "model_name", "tokenizer_name", "trust_remote_code", "from_checkpoint",
        "checkpoint_index", "checkpoint_label_type", "checkpoint_value", "quantization_method",
        # of text
        "default_prepend_bos", "tokenizer_prepends_bos", "decoder_start_token_id",
        # of initial weights that are never drawn, and of word embeddings that only T5 ties
        "init_weights", "tie_word_embeddings",
        # of methods that are switched off
        "train_seq_length", "norm_topk_prob", "uses_rms_norm", "layer_norm_folding",
        "relative_attention_max_distance", "relative_attention_num_buckets",
        "NTK_by_parts_low_freq_factor", "NTK_by_parts_high_freq_factor", "NTK_by_parts_factor",
        "NTK_original_ctx_len", "yarn_factor", "yarn_attention_factor", "yarn_beta_fast", "yarn_beta_slow",
        "yarn_original_max_position_embeddings", "yarn_truncate", "yarn_global_attn_only",
    }
)  # fmt: skip
"""Fields of 3.9 that change nothing about a model of a config that is implemented here."""

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
"""Fields of 3.9 that are refused unless they have this value, their default."""

UNSET_BELOW_ZERO = ("n_heads", "d_vocab_out", "initializer_range", "attn_scale")
"""Fields whose negative values mean "not set" in 3.9."""

OFF_UP_TO_ZERO = ("attn_scores_soft_cap", "output_logits_soft_cap")
"""Bounds that 3.9 does not apply unless they are above zero."""


def in_our_words(fields: dict[str, Any]) -> dict[str, Any]:
    """`fields`, of 3.9's config or ours, without 3.9's fields that have no effect and with None for "not set".

    Raises:
        UserError: for fields of 3.9 that are not implemented here.
    """
    refused = [
        f"{name}={fields[name]!r}"
        for name, default in NOT_IMPLEMENTED.items()
        if fields.get(name, default) != default
    ]
    if refused:
        raise UserError(f"not implemented: {', '.join(refused)}")
    left_out = WITHOUT_EFFECT | NOT_IMPLEMENTED.keys()
    ours = {name: plain(value) for name, value in fields.items() if name not in left_out}
    for name in UNSET_BELOW_ZERO:
        if ours.get(name) is not None and ours[name] < 0:
            ours[name] = None
    for name in OFF_UP_TO_ZERO:
        if ours.get(name) is not None and ours[name] <= 0:
            ours[name] = None
    if ours.get("act_fn", "") is None and ours.get("attn_only"):
        del ours["act_fn"]
    if ours.get("positional_embedding_type") == "rotary" and ours.get("rotary_dim") == 0:
        ours |= {"positional_embedding_type": "none", "rotary_dim": None}
    return ours


def in_their_words(fields: dict[str, Any]) -> dict[str, Any]:
    """`fields` of our config as TransformerLens takes them: numbers below zero for "not set" and "off"."""
    numbers = (*UNSET_BELOW_ZERO, *OFF_UP_TO_ZERO)
    return {
        name: -1.0 if value is None and name in numbers else value for name, value in fields.items()
    }


def plain(value: Any) -> Any:
    """A number without numpy's type, a torch dtype by its name; anything else as it is."""
    if str(value).startswith("torch.float"):
        return str(value).removeprefix("torch.")
    return value.item() if hasattr(value, "item") else value

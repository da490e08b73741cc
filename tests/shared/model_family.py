"""The family of models: named cases, and random valid configs of TransformerLens 3.9's."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from revinc import HookedTransformerConfig, TrainConfig, UserError
from revinc.model_config import ACT_FNS, INIT_MODES, NORMALIZATION_TYPES
from revinc.tasks import Induction

BASE = {"n_layers": 2, "d_model": 6, "d_head": 4, "n_heads": 2, "d_mlp": 7, "d_vocab": 5}
BASE |= {"n_ctx": 8, "dtype": "float64"}

GROUPED = {"n_heads": 4, "n_key_value_heads": 2, "ungroup_grouped_query_attention": False}
ALL_HOOKS = dict.fromkeys(
    ("use_attn_result", "use_split_qkv_input", "use_hook_mlp_in", "use_hook_tokens"), True
)
LOCAL = {"use_local_attn": True, "window_size": 3, "attn_types": ("local", "global")}

CASES = {
    "tutorial": {"d_model": 4, "d_head": 2, "n_heads": 1, "d_mlp": 4},
    **{f"act_fn {name}": {"act_fn": name} for name in ACT_FNS if name != "relu"},
    "gated": {"gated_mlp": True, "act_fn": "silu"},
    "attention only": {"attn_only": True},
    **{
        f"norm {name}": {"normalization_type": name, "final_rms": False}
        for name in NORMALIZATION_TYPES
    },
    "RMS and solu_ln": {"normalization_type": "RMS", "act_fn": "solu_ln"},
    "no norm and solu_ln": {"normalization_type": None, "act_fn": "solu_ln"},
    "final RMS": {"final_rms": True, "normalization_type": "LN"},
    "final RMS of LNPre": {"final_rms": True, "normalization_type": "LNPre"},
    "large eps": {"eps": 0.5},
    "rotary": {
        "positional_embedding_type": "rotary",
        "rotary_dim": None,
        "rotary_adjacent_pairs": False,
    },
    "rotary, part of a head": {
        "positional_embedding_type": "rotary",
        "rotary_dim": 2,
        "rotary_adjacent_pairs": False,
    },
    "rotary, adjacent pairs": {
        "positional_embedding_type": "rotary",
        "rotary_adjacent_pairs": True,
        "rotary_base": 100,
    },
    "shortformer": {"positional_embedding_type": "shortformer", "use_attn_in": False},
    "shortformer by head": {"positional_embedding_type": "shortformer", "use_attn_in": True},
    "alibi": {"positional_embedding_type": "alibi", "n_heads": 3, "attention_dir": "causal"},
    "no positions": {"positional_embedding_type": "none"},
    "grouped": GROUPED | {"use_split_qkv_input": False},
    "grouped, one group": {"n_heads": 3, "n_key_value_heads": 1},
    "grouped, ungrouped": GROUPED | {"ungroup_grouped_query_attention": True, "use_attn_in": True},
    "grouped, all hooks": GROUPED | ALL_HOOKS,
    "grouped and rotary": GROUPED | {"positional_embedding_type": "rotary"},
    "bidirectional": {"attention_dir": "bidirectional"},
    "bidirectional alibi": {
        "attention_dir": "bidirectional",
        "positional_embedding_type": "alibi",
    },
    "parallel": {"parallel_attn_mlp": True, "use_hook_mlp_in": True},
    "no attention scale": {"use_attn_scale": False},
    "attention scale": {"attn_scale": 0.7, "scale_attn_by_inverse_layer_idx": True},
    "soft caps": {"attn_scores_soft_cap": 1.5, "output_logits_soft_cap": 0.8},
    "local": LOCAL,
    "local, grouped, rotary, parallel, gated, RMS": LOCAL
    | GROUPED
    | {"positional_embedding_type": "rotary", "normalization_type": "RMS"}
    | {"parallel_attn_mlp": True, "gated_mlp": True, "act_fn": "gelu_new"},
    "attention input by head": {"use_attn_in": True, "use_split_qkv_input": False},
    "all hooks": ALL_HOOKS | {"use_attn_in": True},
    "other output vocabulary": {"d_vocab_out": 3},
    "odd sizes": {"d_model": 9, "d_head": 3},
}
"""Fields beside those of `BASE`. A default is spelled out where a case is about its absence, so
that no other case is combined with it that has another value."""


def case(name: str, **more) -> HookedTransformerConfig:
    """The config of a named case."""
    return HookedTransformerConfig(**BASE | (CASES | COMBINED)[name] | more)


OF_MLPS = {"d_mlp", "act_fn", "gated_mlp", "parallel_attn_mlp", "use_hook_mlp_in"}


def can_combine(one: dict, other: dict) -> bool:
    """Whether a model can have the fields of two cases, and each field has its effect in it."""
    both = one | other
    if any(one[field] != other[field] for field in one.keys() & other.keys()):
        return False
    if both.get("attn_only") and OF_MLPS & both.keys():
        return False
    if "eps" in both and both.get("normalization_type", "LN") is None:
        return False
    try:
        HookedTransformerConfig(**BASE | both)
    except UserError:
        return False
    return True


def combine(cases: dict[str, dict]) -> dict[str, dict]:
    """Few models that have the fields of all cases, by the joined names of the cases of each."""
    combined: list[tuple[list[str], dict]] = []
    for name, fields in cases.items():
        for names, together in combined:
            if can_combine(together, fields):
                names.append(name)
                together.update(fields)
                break
        else:
            combined.append(([name], dict(fields)))
    return {", ".join(names): together for names, together in combined}


COMBINED = {"tutorial": CASES["tutorial"]}
COMBINED |= combine({name: fields for name, fields in CASES.items() if name != "tutorial"})
"""The models for tests that take long: each case is part of one of them."""
ALONE_AND_COMBINED = [
    *COMBINED,
    *(pytest.param(name, marks=pytest.mark.slow) for name in CASES if name not in COMBINED),
]
"""For tests that take a second a model: each case combined with others, and among the slow tests alone."""


def recipe(model: HookedTransformerConfig, **fields) -> TrainConfig:
    """A recipe that trains `model`: one that sees every token that it is fed is asked for the last, which it is not."""
    if model.attention_dir == "bidirectional":
        fields = {"task": Induction(length=2, n_symbols=4), "batch_size": 8} | fields
    return TrainConfig(model=model, **fields)


SIZES = (
    {"d_model": 6, "d_head": 4, "n_heads": 2, "d_mlp": 7, "d_vocab_out": 3},
    {"d_model": 8, "d_head": 2, "n_heads": 4, "d_mlp": 8, "d_vocab_out": 5},
    {"d_model": 5, "d_head": 6, "n_heads": 1, "d_mlp": 3, "d_vocab_out": 5},
)


@st.composite
def configs(draw) -> HookedTransformerConfig:
    """Any valid float64 config; of few sizes, so that compiled operations are met again."""

    def choose(*options):
        return draw(st.sampled_from(options))

    fields = {
        **draw(st.sampled_from(SIZES)),
        "n_layers": choose(1, 2, 3),
        "d_vocab": 5,
        "n_ctx": choose(8, 11),
        "dtype": "float64",
        "normalization_type": choose(*NORMALIZATION_TYPES),
        "eps": choose(1e-5, 0.1),
        "positional_embedding_type": choose("standard", "rotary", "shortformer", "alibi", "none"),
        "attention_dir": choose("causal", "bidirectional"),
        "attn_only": choose(False, False, True),
        "use_attn_scale": choose(True, True, False),
        "scale_attn_by_inverse_layer_idx": choose(False, True),
        "attn_scores_soft_cap": choose(None, 2.0),
        "output_logits_soft_cap": choose(None, 3.0),
        "use_attn_result": choose(False, True),
        "use_hook_tokens": choose(False, True),
        "init_mode": choose(*INIT_MODES),
    }
    if fields["use_attn_scale"]:
        fields["attn_scale"] = choose(None, 1.3)
    if fields["normalization_type"] is not None:
        fields["final_rms"] = choose(False, True)
    if fields["positional_embedding_type"] == "rotary":
        fields["rotary_dim"] = choose(None, 2)
        fields["rotary_base"] = choose(10000.0, 50.0)
        fields["rotary_adjacent_pairs"] = choose(False, True)
    if fields["attention_dir"] == "causal" and choose(False, True):
        fields["use_local_attn"] = True
        fields["window_size"] = choose(1, 3)
        fields["attn_types"] = tuple(choose("global", "local") for _ in range(fields["n_layers"]))
    if not fields["attn_only"]:
        fields["gated_mlp"] = choose(False, True)
        fields["act_fn"] = choose(
            *(a for a in ACT_FNS if a != "solu_ln" or not fields["gated_mlp"])
        )
        fields["parallel_attn_mlp"] = choose(False, True)
        fields["use_hook_mlp_in"] = choose(False, True)
    divisors = [n for n in (1, 2, 4) if fields["n_heads"] % n == 0]
    fields["n_key_value_heads"] = choose(None, *divisors)
    if fields["n_key_value_heads"] is not None:
        fields["ungroup_grouped_query_attention"] = choose(False, True)
    shares_heads = fields["n_key_value_heads"] not in (None, fields["n_heads"])
    shares_heads = shares_heads and not fields["ungroup_grouped_query_attention"]
    if not (shares_heads and fields["positional_embedding_type"] == "shortformer"):
        fields["use_split_qkv_input"] = choose(False, True)
    if not shares_heads or fields.get("use_split_qkv_input"):
        fields["use_attn_in"] = choose(False, True)
    return HookedTransformerConfig(**fields)

"""Which configs are valid, what an invalid one says, and what of TransformerLens' own is understood."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from model_family import BASE, CASES, GROUPED, case, configs

from revinc import HookedTransformerConfig, TrainConfig, UserError
from revinc.transformer_lens_fields import NOT_IMPLEMENTED, OFF_UP_TO_ZERO, UNSET_BELOW_ZERO

LOCAL = {"use_local_attn": True, "window_size": 2, "attn_types": ("local", "global")}
ROTARY = {"positional_embedding_type": "rotary"}

INVALID = {
    "rotary_dim": [
        {"rotary_dim": 2},
        ROTARY | {"rotary_dim": 3},
        ROTARY | {"rotary_dim": 6},
        ROTARY | {"d_head": 3},
        ROTARY | {"rotary_dim": 0},
    ],
    "rotary_base": [{"rotary_base": 7.0}, ROTARY | {"rotary_base": 0}],
    "rotary_adjacent_pairs": [{"rotary_adjacent_pairs": True}],
    "gated_mlp": [
        {"gated_mlp": True, "attn_only": True},
        {"gated_mlp": True, "act_fn": "solu_ln"},
        {"gated_mlp": 1},
    ],
    "parallel_attn_mlp": [{"parallel_attn_mlp": True, "attn_only": True}],
    "use_hook_mlp_in": [{"use_hook_mlp_in": True, "attn_only": True}],
    "n_key_value_heads": [
        {"n_key_value_heads": 3},
        {"n_key_value_heads": 0},
        {"n_key_value_heads": 4},
        GROUPED | {"use_attn_in": True},
    ],
    "ungroup_grouped_query_attention": [
        {"ungroup_grouped_query_attention": True},
        GROUPED | {"use_split_qkv_input": True, "positional_embedding_type": "shortformer"},
    ],
    "window_size": [{"window_size": 2}, LOCAL | {"window_size": None}, LOCAL | {"window_size": 0}],
    "attn_types": [
        {"attn_types": ("local", "local")},
        LOCAL | {"attn_types": None},
        LOCAL | {"attn_types": ("local",)},
        LOCAL | {"attn_types": ("local", "sparse")},
    ],
    "use_local_attn": [LOCAL | {"attention_dir": "bidirectional"}],
    "attn_scale": [{"attn_scale": 2.0, "use_attn_scale": False}, {"attn_scale": -2.0}],
    "final_rms": [{"final_rms": True, "normalization_type": None}],
    "output_logits_soft_cap": [{"output_logits_soft_cap": 0.0}],
}


@pytest.mark.parametrize(
    ("field", "fields"), [(field, fields) for field, many in INVALID.items() for fields in many]
)
def test_what_can_not_be_computed_or_has_no_effect_is_refused_by_name(field, fields):
    with pytest.raises(UserError, match=rf"\b{field}\b"):
        HookedTransformerConfig(**BASE | fields)


@pytest.mark.parametrize("name", CASES)
def test_named_cases_go_round(name):
    cfg = case(name)
    assert HookedTransformerConfig.from_dict(cfg.to_dict()) == cfg
    assert cfg.replace() == cfg
    assert hash(cfg.replace()) == hash(cfg)


@settings(max_examples=200)
@given(cfg=configs())
def test_random_configs_go_round(cfg):
    assert HookedTransformerConfig.from_dict(cfg.to_dict()) == cfg


def test_derived_fields_follow():
    cfg = HookedTransformerConfig(**BASE)
    assert cfg.replace(d_head=9).attn_scale == 3.0
    assert cfg.replace(use_attn_scale=False).attn_scale is None
    assert cfg.replace(positional_embedding_type="rotary").rotary_dim == cfg.d_head
    assert cfg.replace(init_mode="kaiming_uniform").initializer_range == 1.0
    assert cfg.replace(init_mode="kaiming_uniform").replace(init_mode="gpt2") == cfg


@pytest.mark.parametrize("field", NOT_IMPLEMENTED)
def test_a_field_of_transformer_lens_that_is_not_implemented_is_refused_unless_it_is_off(field):
    off = {field: NOT_IMPLEMENTED[field]}
    assert HookedTransformerConfig.from_dict(BASE | off) == HookedTransformerConfig(**BASE)
    with pytest.raises(UserError, match=rf"not implemented: {field}=7"):
        HookedTransformerConfig.from_dict(BASE | {field: 7})


def test_an_unknown_field_is_refused_with_near_names():
    with pytest.raises(UserError, match=r"no field 'windows_size'.*window_size"):
        HookedTransformerConfig.from_dict(BASE | {"windows_size": 3})


def test_a_runs_model_has_no_seed_of_its_own(tutorial):
    with pytest.raises(UserError, match=r"seed=3.*init_seed"):
        TrainConfig(model=tutorial.model.replace(seed=3))


@pytest.mark.parametrize("field", ["attn_types", "window_size", "rotary_dim", "attn_scale"])
@pytest.mark.parametrize("value", [[[], []], "x", {}, True])
def test_a_value_of_another_type_is_refused_even_where_it_would_have_no_effect(field, value):
    with pytest.raises(UserError, match=rf"\b{field}\b"):
        HookedTransformerConfig.from_dict(BASE | {field: value, "use_attn_scale": False})


@pytest.mark.parametrize("fields", [None, 5, [], "text", [("n_layers", 1)]])
def test_fields_that_are_no_dict_are_refused(fields):
    with pytest.raises(UserError, match="must be a dict"):
        HookedTransformerConfig.from_dict(fields)


def test_sizes_are_bounded_whether_given_or_derived():
    with pytest.raises(UserError, match="n_layers must be below 1024, not 10000000"):
        HookedTransformerConfig(**BASE | {"n_layers": 10**7})
    with pytest.raises(UserError, match=r"d_mlp must be below 2\*\*31"):
        HookedTransformerConfig(**BASE | {"d_model": 2**30, "d_mlp": None})
    with pytest.raises(UserError, match=r"d_vocab must be below 2\*\*31, not 1000.* \.\.\. 0000"):
        HookedTransformerConfig(**BASE | {"d_vocab": 10**400})


@pytest.mark.parametrize("field", [*UNSET_BELOW_ZERO, *OFF_UP_TO_ZERO])
def test_nan_is_not_taken_for_a_field_that_is_not_set(field):
    fields = HookedTransformerConfig(**BASE).to_dict()
    with pytest.raises(UserError, match=f"{field} must be"):
        HookedTransformerConfig.from_dict(fields | {field: float("nan")})


def test_a_config_prints_as_the_call_that_makes_it():
    cfg = HookedTransformerConfig(n_layers=1, d_model=8, d_head=4, n_ctx=5, d_vocab=3, eps=1e-3)
    assert "eps=0.001" in repr(cfg)
    assert "normalization_type" not in repr(cfg)
    assert eval(repr(cfg), {"HookedTransformerConfig": HookedTransformerConfig}) == cfg

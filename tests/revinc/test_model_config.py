"""Which configs are valid, what an invalid one says, and what of TransformerLens' own is understood."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from model_family import BASE, CASES, GROUPED, case, configs

from revinc import HookedTransformerConfig, TrainConfig, UserError
from revinc.transformer_lens_fields import NOT_IMPLEMENTED, NOT_SET, OTHER_LAYERS, WITHOUT_EFFECT

LOCAL = {"use_local_attn": True, "window_size": 2, "attn_types": ("local", "global")}
ROTARY = {"positional_embedding_type": "rotary"}

INVALID = {
    "rotary_dim": [
        {"rotary_dim": 2},
        ROTARY | {"rotary_dim": 3},
        ROTARY | {"rotary_dim": 6},
        ROTARY | {"d_head": 3},
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
    "d_vocab": [{"d_vocab": -1}, {"d_vocab": 0}],
    "n_heads": [{"n_heads": 0}, {"n_heads": -2}],
    "dtype": [{"dtype": "bfloat16"}, {"dtype": None}, {"dtype": float}],
    "act_fn": [{"act_fn": None}, {"act_fn": "tanh"}],
    "original_architecture": [{"original_architecture": name} for name in OTHER_LAYERS],
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
    assert HookedTransformerConfig(**BASE | off) == HookedTransformerConfig(**BASE)
    for value in (7, "x", [1, 2], np.ones(2)):
        with pytest.raises(UserError, match=rf"not implemented: {field}=.*leave them out"):
            HookedTransformerConfig(**BASE | {field: value})


@pytest.mark.parametrize("field", sorted(WITHOUT_EFFECT))
def test_an_argument_of_transformer_lens_without_effect_is_accepted_and_not_stored(field):
    plain = HookedTransformerConfig(**BASE)
    for value in (None, True, 3, "mine", [1.5], object()):
        assert HookedTransformerConfig(**BASE | {field: value}) == plain


def test_what_means_not_set_is_derived():
    fields = dict.fromkeys(NOT_SET, -1) | {"d_mlp": None}
    given = HookedTransformerConfig(**BASE | {"d_model": 8} | fields)
    left_out = {name: value for name, value in BASE.items() if name not in fields}
    assert given == HookedTransformerConfig(**left_out | {"d_model": 8})
    assert (given.n_heads, given.d_mlp, given.d_vocab_out, given.attn_scale) == (2, 32, 5, 2.0)
    assert given.attn_scores_soft_cap is None
    assert given.replace(n_heads=np.int8(-1), d_head=2).n_heads == 4


def test_numbers_and_dtypes_of_any_type_are_plain_in_the_config():
    plain = HookedTransformerConfig(**BASE | {"dtype": "float64", "eps": 0.5})
    for dtype in (np.float64, np.dtype("f8"), "torch.float64"):
        fields = {name: np.int16(v) for name, v in BASE.items() if name != "dtype"}
        fields |= {"eps": np.float16(0.5), "dtype": dtype, "attn_only": np.False_}
        cfg = HookedTransformerConfig(**fields)
        assert cfg == plain
        assert {type(value) for value in cfg.to_dict().values()} <= {
            int,
            float,
            bool,
            str,
            type(None),
        }


def test_attention_alone_needs_no_activation_function():
    given = HookedTransformerConfig(**BASE | {"attn_only": True, "act_fn": None})
    assert given == HookedTransformerConfig(**BASE | {"attn_only": True})


def test_rotations_of_no_dimensions_are_no_positions():
    given = HookedTransformerConfig(**BASE | ROTARY | {"rotary_dim": 0})
    assert given == HookedTransformerConfig(**BASE | {"positional_embedding_type": "none"})


def test_a_vocabulary_that_a_tokenizer_would_set_is_refused_with_what_to_do():
    for value in (-1, np.int64(-1), -1.0):
        with pytest.raises(UserError, match=r"d_vocab=-1 .*tokenizer.*set d_vocab to"):
            HookedTransformerConfig(**BASE | {"d_vocab": value})


def test_values_without_a_name_are_refused_with_what_to_do():
    with pytest.raises(UserError, match=r"by name only.*field=value"):
        HookedTransformerConfig(2, 6, 8, 4)


def test_a_config_is_unwrapped_from_what_stands_for_one():
    cfg = HookedTransformerConfig(**BASE)

    class Theirs:
        d_model = 6

        def to_dict(self):
            return BASE | {"device": "cuda", "window_size": 3, "n_params": 7}

    assert HookedTransformerConfig.unwrap(cfg) is cfg
    assert HookedTransformerConfig.unwrap(cfg.to_dict()) == cfg
    assert HookedTransformerConfig.unwrap(Theirs()) == cfg
    for nothing in (None, "gpt2", HookedTransformerConfig, [1], TrainConfig):
        with pytest.raises(UserError, match="must be a HookedTransformerConfig, or a dict"):
            HookedTransformerConfig.unwrap(nothing)


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


@pytest.mark.parametrize("field", NOT_SET)
def test_nan_is_not_taken_for_a_field_that_is_not_set(field):
    fields = HookedTransformerConfig(**BASE).to_dict()
    with pytest.raises(UserError, match=f"{field} must be"):
        HookedTransformerConfig.from_dict(fields | {field: float("nan")})


def test_a_config_prints_as_the_call_that_makes_it():
    cfg = HookedTransformerConfig(n_layers=1, d_model=8, d_head=4, n_ctx=5, d_vocab=3, eps=1e-3)
    assert "eps=0.001" in repr(cfg)
    assert "normalization_type" not in repr(cfg)
    assert eval(repr(cfg), {"HookedTransformerConfig": HookedTransformerConfig}) == cfg

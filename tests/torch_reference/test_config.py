"""Configs of TransformerLens 3.9 are understood: every field of theirs is ours, refused, or proven to have no effect."""

import dataclasses
import inspect

import numpy as np
import pytest
import torch
from model_family import BASE, CASES, GROUPED, case

from revinc import HookedTransformerConfig as OurConfig
from revinc import UserError
from revinc.transformer_lens_fields import NOT_IMPLEMENTED, NOT_STORED, WITHOUT_EFFECT
from torch_reference import adapter
from torch_reference.installed_transformer_lens import WORLD

if WORLD != "3.9":
    pytest.skip("of 3.9", allow_module_level=True)

from transformer_lens import HookedTransformer, HookedTransformerConfig

FIELDS = {field.name for field in dataclasses.fields(HookedTransformerConfig)}
OURS = {field.name for field in dataclasses.fields(OurConfig)}

OTHERWISE = {
    "n_params": 7,
    "model_name": "mine",
    "original_architecture": "GPT2LMHeadModel",
    "trust_remote_code": True,
    "from_checkpoint": True,
    "checkpoint_index": 3,
    "checkpoint_label_type": "step",
    "checkpoint_value": 5,
    "quantization_method": "mxfp4",
    "default_prepend_bos": False,
    "tokenizer_prepends_bos": True,
    "decoder_start_token_id": 1,
    "tie_word_embeddings": True,
    "train_seq_length": 2,
    "norm_topk_prob": True,
    "uses_rms_norm": True,
    "layer_norm_folding": True,
    "relative_attention_max_distance": 3,
    "relative_attention_num_buckets": 3,
    "NTK_by_parts_low_freq_factor": 2.0,
    "NTK_by_parts_high_freq_factor": 2.0,
    "NTK_by_parts_factor": 2.0,
    "NTK_original_ctx_len": 2,
    "yarn_factor": 2.0,
    "yarn_attention_factor": 2.0,
    "yarn_beta_fast": 2.0,
    "yarn_beta_slow": 2.0,
    "yarn_original_max_position_embeddings": 2,
    "yarn_truncate": False,
    "yarn_global_attn_only": True,
}
"""A value of each field without effect that is not its default, where one can be given without a tokenizer or a GPU."""

NOT_TRIED = {"device", "n_devices", "tokenizer_name", "init_weights"}

ANYTHING = [None, True, False, -1, 0, 2, 1.5, -1.0, "x", "cpu", [1], ["global"], {}, object()]
ANYTHING += [np.float32(2), np.int8(1), np.ones(3), torch.tensor(2), torch.float32, torch.ones(2)]

ROTARY_GROUPED = GROUPED | {"positional_embedding_type": "rotary", "gated_mlp": True}


def theirs(**fields):
    return HookedTransformerConfig(**BASE | {"dtype": torch.float64, "device": "cpu"} | fields)


def test_every_field_of_theirs_has_its_place():
    assert {*OURS, *WITHOUT_EFFECT, *NOT_IMPLEMENTED} >= FIELDS
    assert not OURS & (WITHOUT_EFFECT.keys() | NOT_IMPLEMENTED.keys())
    assert OTHERWISE.keys() | NOT_TRIED == WITHOUT_EFFECT.keys()
    assert OURS <= FIELDS


def test_what_is_not_stored_shows_their_default():
    defaults = {field.name: field.default for field in dataclasses.fields(HookedTransformerConfig)}
    assert {name: defaults[name] for name in NOT_STORED} == NOT_STORED
    ours = OurConfig(**BASE)
    assert all(getattr(ours, name) == NOT_STORED[name] for name in NOT_STORED.keys() - {"n_params"})


@pytest.mark.parametrize("name", inspect.signature(HookedTransformerConfig).parameters)
def test_every_argument_of_theirs_has_an_effect_or_none_or_is_refused_by_name(name):
    default = inspect.signature(HookedTransformerConfig).parameters[name].default
    if default is not inspect.Parameter.empty and name != "d_vocab":
        OurConfig(**BASE | {"d_model": 8, name: default})
    for value in ANYTHING:
        refusal = refusal_of(name, value)
        assert refusal is None or name in refusal, value
        assert refusal is None or name not in WITHOUT_EFFECT, value


def refusal_of(name, value):
    """What our config says against a value of an argument, or None if it takes it."""
    try:
        OurConfig(**BASE | {"d_model": 8, name: value})
    except UserError as refused:
        return str(refused)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float])
def test_a_dtype_of_torch_is_a_dtype_here(dtype):
    assert OurConfig(**BASE | {"dtype": dtype}).dtype == str(dtype).removeprefix("torch.")


def test_their_config_stands_for_ours():
    cfg = theirs(act_fn="relu", seed=3)
    assert OurConfig.unwrap(cfg) == OurConfig(**BASE, seed=3)


@pytest.mark.parametrize("fields", [{}, {"attn_only": True}, GROUPED | {"gated_mlp": True}])
def test_weights_are_counted_as_theirs(fields):
    assert OurConfig(**BASE | fields).n_params == theirs(**fields).n_params


@pytest.mark.parametrize("field", OTHERWISE)
def test_what_is_ignored_has_no_effect(field):
    tokens = torch.arange(8)[None] % 5
    fields = ROTARY_GROUPED | {"act_fn": "relu", "seed": 0}
    usual, other = (
        HookedTransformer(theirs(**fields | more)) for more in ({}, {field: OTHERWISE[field]})
    )
    assert torch.equal(usual(tokens), other(tokens))
    assert adapter.our_config(other.cfg) == adapter.our_config(usual.cfg)


@pytest.mark.parametrize("name", CASES)
def test_what_they_print_is_understood(name):
    ours = case(name)
    printed = adapter.make_model(ours).cfg.to_dict()
    assert OurConfig.from_dict(dict(printed)) == ours


def test_what_has_no_effect_beside_the_others_is_ignored():
    cfg = theirs(
        act_fn="relu",
        use_attn_scale=False,
        attn_scale=3.0,
        window_size=4,
        rotary_base=50,
        n_key_value_heads=None,
        ungroup_grouped_query_attention=True,
    )
    assert adapter.our_config(cfg) == OurConfig(**BASE, use_attn_scale=False)


def test_attention_alone_needs_no_activation():
    cfg = theirs(act_fn=None, attn_only=True, d_mlp=None)
    assert adapter.our_config(cfg) == OurConfig(**BASE | {"attn_only": True, "d_mlp": None})


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"init_mode": "xavier_normal"},
        {"d_head": 9, "n_heads": 1},
        {"d_model": 8, "n_heads": None, "d_mlp": None, "d_vocab_out": None},
        {"d_model": 30, "d_head": 5, "d_vocab_out": 7, "normalization_type": "LNPre"},
        {"initializer_range": 0.02, "normalization_type": None, "eps": 1e-6},
        {"positional_embedding_type": "rotary", "attn_only": True},
    ],
)
def test_values_that_they_derive_are_ours(given):
    ours = OurConfig(**BASE | given)
    fields = {name: value for name, value in (BASE | given).items() if value is not None}
    printed = HookedTransformerConfig(**fields | {"dtype": torch.float64, "act_fn": "relu"})
    for name, value in ours.to_dict().items():
        if value is not None and name != "dtype":
            assert getattr(printed, name) == value, name

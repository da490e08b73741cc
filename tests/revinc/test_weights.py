from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from revinc import UserError
from revinc.weights import (
    check_state_dict,
    load_state_dict,
    parameter_shapes,
    read_safetensors,
    save_state_dict,
)

VARIANTS = [
    {},
    {"normalization_type": "LNPre"},
    {"normalization_type": None},
    {"attn_only": True},
    {"attn_only": True, "normalization_type": None, "n_layers": 1},
    {"n_heads": 3, "d_head": 2, "d_mlp": 7, "d_model": 5, "d_vocab_out": 6, "n_ctx": 11},
]


@pytest.mark.parametrize("changes", VARIANTS)
def test_names_and_shapes_are_those_of_transformer_lens(tutorial, changes):
    transformer_lens = pytest.importorskip("transformer_lens")
    cfg = tutorial.model.replace(**changes)
    fields = cfg.to_dict()
    del fields["dtype"]
    theirs = transformer_lens.HookedTransformer(transformer_lens.HookedTransformerConfig(**fields))
    parameters = {name: tuple(p.shape) for name, p in theirs.named_parameters()}
    assert parameter_shapes(cfg) == parameters
    # Its state dict holds buffers besides; the check leaves exactly them out.
    ours = check_state_dict(cfg, theirs.state_dict())
    assert {name: array.shape for name, array in ours.items()} == parameters


def test_the_tutorials_model_has_285_parameters(tutorial):
    assert sum(np.prod(shape) for shape in parameter_shapes(tutorial.model).values()) == 285


def test_the_check_lists_every_problem_at_once(tutorial, random_weights):
    weights = random_weights(tutorial.model)
    del weights["embed.W_E"], weights["blocks.1.attn.b_K"]
    weights["blocks.2.mlp.W_in"] = np.zeros((4, 4))
    weights["unembed.W_U"] = np.zeros((5, 4))
    weights["ln_final.w"] = np.ones(4, int)
    with pytest.raises(UserError) as caught:
        check_state_dict(tutorial.model, weights, source="file.safetensors")
    for problem in (
        "file.safetensors",
        "missing embed.W_E",
        "missing blocks.1.attn.b_K",
        "unexpected blocks.2.mlp.W_in",
        "unembed.W_U has shape [5, 4] instead of [4, 5]",
        "ln_final.w holds int64",
    ):
        assert problem in str(caught.value)


def test_the_check_casts_to_the_config_and_puts_in_order(tutorial, random_weights):
    wide = random_weights(tutorial.model.replace(dtype="float64"))
    backwards = dict(reversed(wide.items()))
    checked = check_state_dict(tutorial.model, backwards)
    assert list(checked) == list(parameter_shapes(tutorial.model))
    for name, array in checked.items():
        assert array.dtype == np.float32
        assert np.array_equal(array, wide[name].astype(np.float32))


@settings(deadline=None, max_examples=20)
@given(dtype=st.sampled_from(["float32", "float64"]), seed=st.integers(0, 1000))
def test_a_file_gives_back_every_bit(tutorial, random_weights, tmp_path_factory, dtype, seed):
    cfg = tutorial.model.replace(dtype=dtype)
    weights = random_weights(cfg, seed)
    weights["ln_final.b"][:] = [-0.0, 5e-324, np.inf, np.nan]
    file = tmp_path_factory.mktemp("bits") / "weights.safetensors"
    save_state_dict(file, weights)
    loaded = load_state_dict(file, cfg)
    assert list(loaded) == list(weights)
    for name, array in weights.items():
        assert loaded[name].dtype == array.dtype
        assert loaded[name].tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "array",
    [np.array(7), np.array(2.5), np.zeros((0, 3)), np.arange(6.0).reshape(2, 3).T],
    ids=["integer scalar", "float scalar", "empty", "transposed"],
)
def test_any_shape_and_layout_comes_back_as_it_was(tmp_path, array):
    save_state_dict(tmp_path / "file", {"x": array})
    loaded = read_safetensors(tmp_path / "file")["x"]
    assert (loaded.dtype, loaded.shape) == (array.dtype, array.shape)
    assert np.array_equal(loaded, array)


def test_a_missing_file_is_named(tmp_path, tutorial):
    with pytest.raises(UserError, match=r"nowhere\.safetensors does not exist"):
        load_state_dict(tmp_path / "nowhere.safetensors", tutorial.model)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_file_cut_anywhere_is_refused(tutorial, random_weights, tmp_path_factory, data):
    whole = save(random_weights(tutorial.model))
    n_bytes = data.draw(st.integers(0, len(whole) - 1))
    file = tmp_path_factory.mktemp("cut") / "weights.safetensors"
    file.write_bytes(whole[:n_bytes])
    with pytest.raises(UserError, match="truncated"):
        load_state_dict(file, tutorial.model)


@settings(deadline=None, max_examples=60)
@given(contents=st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(tutorial, tmp_path_factory, contents):
    file = tmp_path_factory.mktemp("bytes") / "weights.safetensors"
    file.write_bytes(contents)
    with pytest.raises(UserError, match=r"weights\.safetensors"):
        load_state_dict(file, tutorial.model)


@pytest.mark.parametrize(
    "contents",
    [b"", pickle.dumps({"embed.W_E": [1.0]}), b"PK\x03\x04 a zip, as torch saves", b"hello\n" * 20],
    ids=["empty", "pickle", "torch", "text"],
)
def test_a_foreign_file_is_refused(tutorial, tmp_path, contents):
    file = tmp_path / "weights.safetensors"
    file.write_bytes(contents)
    with pytest.raises(UserError, match=r"weights\.safetensors.*another format"):
        load_state_dict(file, tutorial.model)


def test_another_models_file_is_refused_by_its_differences(tutorial, random_weights, tmp_path):
    file = tmp_path / "weights.safetensors"
    save_state_dict(file, random_weights(tutorial.model.replace(n_layers=1, d_mlp=8)))
    with pytest.raises(UserError, match=r"missing blocks\.1\.ln1\.w.*W_in has shape \[4, 8\]"):
        load_state_dict(file, tutorial.model)


def test_a_folder_is_no_weights_file(tutorial, tmp_path):
    with pytest.raises(UserError, match=str(tmp_path)):
        load_state_dict(tmp_path, tutorial.model)

from __future__ import annotations

import json
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from revinc import UserError
from revinc.weights import (
    check_finite,
    check_state_dict,
    incompatible_keys,
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


@settings(max_examples=20)
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


@settings(max_examples=60)
@given(data=st.data())
def test_a_file_cut_anywhere_is_refused(tutorial, random_weights, tmp_path_factory, data):
    whole = save(random_weights(tutorial.model))
    n_bytes = data.draw(st.integers(0, len(whole) - 1))
    file = tmp_path_factory.mktemp("cut") / "weights.safetensors"
    file.write_bytes(whole[:n_bytes])
    with pytest.raises(UserError, match="truncated"):
        load_state_dict(file, tutorial.model)


@settings(max_examples=60)
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


def write_safetensors(path, header, data=b"", n_bytes=None):
    """A file with any header, whose length may be said wrongly."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if n_bytes is None else n_bytes) + text + data)
    return path


def of_type(dtype, n_bytes, shape):
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": [0, n_bytes]}}


LYING_FILES = {
    "a header of 10 GB": (b"{}", 10 * 2**30),
    "a header of 2**63 bytes": (b"{}", 2**63),
    "no header": (b"", 0),
    "a deep header": (b'{"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}", None),
    "a header that is a list": (b"[]", None),
    "not UTF-8": (b'{"\xff": {}}', None),
    "more data than there is": (of_type("F32", 4000, [1000]), None),
    "a shape that overflows": (of_type("F32", 4, [2**40, 2**40]), None),
    "a negative shape": (of_type("F32", 4, [-1]), None),
    "a type of no name": (of_type("F99", 4, [1]), None),
    "an offset that is missing": ({"x": {"dtype": "F32", "shape": [1]}}, None),
}


@pytest.mark.parametrize(("header", "n_bytes"), LYING_FILES.values(), ids=LYING_FILES)
def test_a_header_that_lies_is_refused(tmp_path, header, n_bytes, refuses_in_one_line):
    path = write_safetensors(tmp_path / "file", header, b"\0" * 4, n_bytes)
    with refuses_in_one_line(UserError, path, "truncated or of another format"):
        read_safetensors(path)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "C64", "F4"])
def test_a_type_that_numpy_lacks_is_named(tmp_path, dtype, refuses_in_one_line):
    n_bytes = {"C64": 16, "F4": 1}.get(dtype, 2)
    path = write_safetensors(tmp_path / "file", of_type(dtype, n_bytes, [2]), b"\0" * n_bytes)
    with refuses_in_one_line(UserError, path, f"x as {dtype}", "float32"):
        read_safetensors(path)


def test_bfloat16_is_read_as_float32(tmp_path):
    numbers = np.array([1.0, -2.5, 0.0, 3.0e38, np.inf], np.float32)
    halves = (numbers.view(np.uint32) >> 16).astype("<u2")
    path = write_safetensors(tmp_path / "file", of_type("BF16", 10, [5]), halves.tobytes())
    loaded = read_safetensors(path)["x"]
    assert loaded.dtype == np.float32
    np.testing.assert_allclose(loaded, numbers, rtol=2**-7)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_floats_are_cast_by_the_check(tutorial, random_weights, dtype):
    narrow_type = np.float16 if dtype == "float16" else pytest.importorskip("ml_dtypes").bfloat16
    weights = random_weights(tutorial.model)
    narrow = {name: array.astype(narrow_type) for name, array in weights.items()}
    for name, array in check_state_dict(tutorial.model, narrow).items():
        assert array.dtype == np.float32
        assert np.array_equal(array, narrow[name].astype(np.float32))


def test_a_huge_file_is_refused_by_its_shapes_before_it_is_read(tutorial, tmp_path):
    n_bytes = 2**42
    path = write_safetensors(tmp_path / "file", of_type("F32", n_bytes, [2**40]))
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size + n_bytes)  # a hole, which takes no room
    with pytest.raises(UserError, match="does not fit the config"):
        load_state_dict(path, tutorial.model)


@pytest.mark.parametrize("value", [None, "text", [[1.0], [1.0, 2.0]], {"a": 1.0}, len], ids=repr)
def test_what_is_no_array_is_named(tutorial, random_weights, value):
    weights = random_weights(tutorial.model) | {"unembed.b_U": value, 5: value}
    with pytest.raises(UserError, match=r"unexpected 5.*unembed\.b_U holds"):
        check_state_dict(tutorial.model, weights)


def test_a_check_that_is_not_strict_returns_what_fits(tutorial, random_weights):
    weights = random_weights(tutorial.model)
    missing = weights.pop("unembed.b_U")
    others = {"extra": "text", "blocks.0.attn.mask": np.ones(3, bool), 5: None}
    checked = check_state_dict(tutorial.model, weights | others, strict=False)
    assert list(checked) == list(weights)
    keys = incompatible_keys(tutorial.model, weights | others)
    assert keys.missing_keys == ["unembed.b_U"]
    assert keys.unexpected_keys == ["extra", 5]
    with pytest.raises(UserError, match=r"embed\.W_E has shape \[5\] instead of"):
        check_state_dict(tutorial.model, weights | {"embed.W_E": missing}, strict=False)
    with pytest.raises(UserError, match=r"embed\.W_E holds int64"):
        check_state_dict(tutorial.model, {"embed.W_E": np.ones((5, 4), int)}, strict=False)


def test_a_message_about_many_problems_stays_short(tutorial):
    with pytest.raises(UserError, match=r"and \d+ more") as caught:
        check_state_dict(tutorial.model.replace(n_layers=1000), {})
    assert len(str(caught.value)) < 1000


def test_values_that_are_not_finite_are_counted_by_tensor(
    tutorial, random_weights, refuses_in_one_line
):
    weights = random_weights(tutorial.model)
    check_finite(weights)
    weights["unembed.W_U"][:] = np.nan
    weights["embed.W_E"][0, 0] = -np.inf
    with refuses_in_one_line(
        UserError,
        "the file can't be used",
        "unembed.W_U holds 20 values that are NaN or infinite",
        "embed.W_E holds 1 value that is NaN or infinite",
    ):
        check_finite(weights, "the file")


def test_a_value_beyond_float32_becomes_infinite_and_is_told(tutorial, random_weights):
    weights = random_weights(tutorial.model.replace(dtype="float64"))
    weights["embed.W_E"][0, 0] = 1e300
    with pytest.raises(UserError, match=r"embed\.W_E holds 1 value that is"):
        check_finite(check_state_dict(tutorial.model, weights))

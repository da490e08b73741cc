"""Weights of torch come in: as tensors, as Parameters, and from files that are never run."""

import pickle
import re

import numpy as np
import pytest
import torch

from jax_revinc import HookedTransformer, HookedTransformerConfig, UserError
from parity import load_torch, to_torch
from revinc.weights import check_state_dict
from torch_reference.installed_transformer_lens import WORLD

CFG = HookedTransformerConfig(n_layers=1, d_model=4, d_head=2, d_vocab=5, n_ctx=3, dtype="float64")
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture
def tensors(random_weights):
    return {name: torch.tensor(weight) for name, weight in random_weights(CFG).items()}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", [torch.Tensor.clone, torch.nn.Parameter])
def test_tensors_of_torch_are_weights(tensors, dtype, kind):
    narrow = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    checked = check_state_dict(CFG, {name: kind(tensor) for name, tensor in narrow.items()})
    for name, tensor in narrow.items():
        np.testing.assert_array_equal(checked[name], tensor.double().numpy())
        assert checked[name].dtype == np.float64


def test_a_tensor_without_values_is_named(tensors):
    tensors["unembed.b_U"] = torch.empty(5, device="meta")
    with pytest.raises(UserError, match=r"unembed\.b_U holds"):
        check_state_dict(CFG, tensors)


@pytest.mark.skipif(WORLD != "3.9", reason="4.x has other names")
def test_a_models_own_parameters_are_loaded_into_ours(tensors):
    theirs = to_torch(HookedTransformer(CFG, params={k: t.numpy() for k, t in tensors.items()}))
    model = HookedTransformer(CFG)
    assert model.load_state_dict(dict(theirs.named_parameters())) == ([], [])
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(model.state_dict()[name], tensor)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_gives_back_its_weights(tensors, tmp_path, dtype, zipped):
    narrow = {name: torch.nn.Parameter(tensor.to(dtype)) for name, tensor in tensors.items()}
    torch.save(narrow, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    weights = load_torch(str(tmp_path / "w.pt"))
    assert all(type(weight) is np.ndarray for weight in weights.values())
    model = HookedTransformer(CFG, params=weights)
    for name, tensor in narrow.items():
        np.testing.assert_array_equal(model.state_dict()[name], tensor.detach().double().numpy())


def test_what_is_nested_stays_nested(tensors, tmp_path):
    checkpoint = {"model": tensors, "losses": [0.5, torch.tensor(2)], "step": 7, "name": "mine"}
    torch.save(checkpoint, tmp_path / "w.pth")
    read = load_torch(tmp_path / "w.pth")
    assert (read["losses"], read["step"], read["name"]) == ([0.5, 2], 7, "mine")
    with pytest.raises(UserError, match=r"give checkpoint\['model'\]"):
        check_state_dict(CFG, read)
    assert check_state_dict(CFG, read["model"])


def test_a_file_that_would_run_code_is_not_run(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(
        UserError, match=r"module\.pt holds torch\.nn\.modules\.linear\.Linear.*save"
    ):
        load_torch(tmp_path / "module.pt")

    class Runs:
        def __reduce__(self):
            return (tmp_path / "ran").write_text, ("it ran",)

    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Runs(), protocol=2))
    with pytest.raises(UserError, match=r"evil\.pt"):
        load_torch(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("contents", [b"", b"hello\n" * 20, b"PK\x03\x04 half a zip", b"\x80\x02."])
def test_a_file_of_another_format_is_refused_in_a_sentence(tmp_path, contents):
    (tmp_path / "w.pt").write_bytes(contents)
    with pytest.raises(UserError, match=r"w\.pt is damaged, or no file of torch\.save$"):
        load_torch(tmp_path / "w.pt")


def test_a_cut_file_is_refused(tensors, tmp_path):
    path = tmp_path / "w.pt"
    torch.save(tensors, path)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(UserError, match="is damaged"):
        load_torch(path)


def test_what_numpy_has_no_array_for_is_refused(tmp_path):
    torch.save({"x": torch.eye(3).to_sparse()}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"w\.pt holds a tensor that numpy has no array for"):
        load_torch(tmp_path / "w.pt")


def test_a_path_without_a_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.pt does not exist"):
        load_torch(tmp_path / "nowhere.pt")
    with pytest.raises(UserError, match=re.escape(f"{tmp_path} is no file")):
        load_torch(tmp_path)
    with pytest.raises(UserError, match="path must be a path, not 5"):
        load_torch(5)

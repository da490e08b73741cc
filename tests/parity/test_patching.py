"""Activation patching gives `transformer_lens.patching`'s numbers, in its shapes."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jax_revinc import HookedTransformer, HookedTransformerConfig
from jax_revinc.analysis import patching
from parity import to_torch
from torch_reference.installed_transformer_lens import WORLD

if WORLD != "3.9":
    pytest.skip("transformer_lens.patching is 3.9's", allow_module_level=True)

import transformer_lens.patching as reference

SMALL = {"d_model": 4, "d_head": 2, "d_vocab": 5, "n_ctx": 4, "dtype": "float64"}
CONFIGS = {
    "tutorial": {"n_layers": 2, "n_heads": 1, "d_mlp": 4},
    "attention only": {"n_layers": 2, "attn_only": True},
    "LNPre": {"n_layers": 1, "normalization_type": "LNPre"},
    "grouped": {"n_layers": 2, "n_heads": 4, "n_key_value_heads": 2, "d_model": 8, "d_mlp": 4},
}
BY_POSITION = ("get_act_patch_block_every", "get_act_patch_attn_head_by_pos_every")
FUNCTIONS = sorted(name for name in dir(reference) if name.startswith("get_act_patch_"))


@pytest.fixture(autouse=True)
def double_precision_in_silence(monkeypatch):
    """Without a progress bar; and the reference keeps its results in torch's default type."""
    monkeypatch.setattr(reference, "tqdm", lambda rows: rows)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more only get in each other's way on arrays this small
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(threads)


def metric(logits):
    """Uneven in position and token, so that no two sites are alike, and not linear."""
    weights = np.cos(np.arange(np.prod(logits.shape[1:]))).reshape(logits.shape[1:])
    if isinstance(logits, torch.Tensor):
        return (torch.tanh(logits) * torch.as_tensor(weights)).sum((1, 2)).mean()
    return (jnp.tanh(logits) * weights).sum((1, 2)).mean()


def assert_same_patching(ours, names, tokens):
    clean, corrupted = tokens
    theirs = to_torch(ours)
    _, cache = ours.run_with_cache(clean)
    with torch.no_grad():
        _, their_cache = theirs.run_with_cache(torch.tensor(clean))
        for name in names:
            expected = getattr(reference, name)(
                theirs, torch.tensor(corrupted), their_cache, metric
            ).numpy()
            found = np.asarray(getattr(patching, name)(ours, corrupted, cache, metric))
            assert found.dtype == np.float64
            assert found.shape == expected.shape, name
            assert np.ptp(expected) > 1e-3, name
            assert np.abs(found - expected).max() <= 1e-10 * np.abs(expected).max(), name


def test_every_function_of_transformer_lens_is_here():
    ours = [name for name in dir(patching) if name.startswith("get_act_patch_")]
    assert sorted(ours) == FUNCTIONS


@pytest.mark.slow
def test_every_function_gives_the_same_on_a_model_of_two_heads_and_no_norm(random_weights):
    cfg = HookedTransformerConfig(**SMALL, n_layers=1, normalization_type=None)
    ours = HookedTransformer(cfg, params=random_weights(cfg, seed=3))
    tokens = np.random.default_rng(0).integers(0, 5, size=(2, 4, 3))
    assert_same_patching(ours, FUNCTIONS, tokens)


@pytest.mark.parametrize("fields", CONFIGS.values(), ids=CONFIGS)
def test_a_random_model_is_patched_alike(fields, random_weights):
    cfg = HookedTransformerConfig(**SMALL | fields)
    ours = HookedTransformer(cfg, params=random_weights(cfg, seed=1))
    blocks = "get_act_patch_attn_out" if cfg.attn_only else "get_act_patch_block_every"
    tokens = np.random.default_rng(0).integers(0, 5, size=(2, 3, 4))
    heads = ["get_act_patch_attn_head_by_pos_every", "get_act_patch_attn_head_all_pos_every"]
    assert_same_patching(ours, [blocks, *heads], tokens)


def test_a_trained_model_is_patched_alike(short_run):
    trained = short_run.model()
    ours = HookedTransformer(trained.cfg.replace(dtype="float64"), params=trained.state_dict())
    sequences = short_run.config.task.sequences()[:, :-1]
    assert_same_patching(ours, BY_POSITION, (sequences[::16], sequences[5::16]))

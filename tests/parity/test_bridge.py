"""Weights move both ways, and the model on the other side computes the same."""

import numpy as np
import pytest
import torch
from flax import nnx

from jax_revinc import HookedTransformer, HookedTransformerConfig, TrainConfig, UserError
from parity import from_torch, to_torch
from torch_reference import adapter
from torch_reference.installed_transformer_lens import WORLD

CONFIGS = {
    "tutorial": {"n_layers": 2, "d_model": 4, "d_head": 2, "n_heads": 1, "d_mlp": 4},
    "many heads, gelu": {"n_layers": 1, "d_model": 6, "d_head": 3, "n_heads": 4, "act_fn": "gelu"},
    "LNPre, silu": {
        "n_layers": 1,
        "d_model": 8,
        "d_head": 4,
        "normalization_type": "LNPre",
        "act_fn": "silu",
    },
    "no norm, gelu_new": {
        "n_layers": 2,
        "d_model": 4,
        "d_head": 4,
        "normalization_type": None,
        "act_fn": "gelu_new",
    },
    "attention only": {"n_layers": 3, "d_model": 4, "d_head": 2, "attn_only": True},
    "other output vocabulary": {"n_layers": 1, "d_model": 4, "d_head": 2, "d_vocab_out": 3},
    "large eps": {"n_layers": 1, "d_model": 4, "d_head": 2, "eps": 0.5},
}


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS)
def cfg(request):
    return HookedTransformerConfig(d_vocab=5, n_ctx=9, dtype="float64", **request.param)


@pytest.fixture
def tokens():
    return np.random.default_rng(0).integers(0, 5, size=(7, 8))


def assert_same_model(ours, theirs, tokens):
    logits, cache = ours.run_with_cache(tokens)
    their_logits, their_cache = theirs.run_with_cache(torch.tensor(tokens))
    np.testing.assert_allclose(logits, their_logits.detach(), rtol=0, atol=1e-12)
    assert set(cache) == set(adapter.in_3_9(ours.cfg, their_cache))
    otherwise = tuple(d.name for d in adapter.KNOWN_DIFFERENCES if d.level == "L1")
    for name, activation in cache.items():
        if not name.endswith(otherwise):
            np.testing.assert_allclose(
                activation, their_cache[name].detach(), rtol=0, atol=1e-12, err_msg=name
            )


def test_our_model_is_the_same_in_transformer_lens(cfg, tokens):
    ours = HookedTransformer(cfg, rngs=nnx.Rngs(1))
    assert_same_model(ours, to_torch(ours), tokens)


def test_transformer_lens_model_is_the_same_here(cfg, tokens):
    theirs = adapter.make_model(cfg, seed=2)
    # Fresh biases and gains are zeros and ones; noise makes every parameter matter.
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.3 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
            )
    assert_same_model(from_torch(theirs), theirs, tokens)


def test_a_round_trip_changes_no_bit(cfg):
    ours = HookedTransformer(cfg, rngs=nnx.Rngs(3))
    back = from_torch(to_torch(ours))
    assert back.cfg == ours.cfg
    for name, weight in ours.state_dict().items():
        np.testing.assert_array_equal(back.state_dict()[name], weight)


def test_a_config_that_is_not_implemented_is_refused_by_name():
    given = {"n_layers": 1, "d_model": 4, "d_head": 2, "d_vocab": 5, "n_ctx": 9, "n_heads": 2}
    more = {
        "3.9": {"use_qk_norm": True, "clip_qkv": 3.0},
        "4.x": {"use_attn_scale": False, "gated_mlp": True},
    }
    with pytest.raises(UserError) as refused:
        from_torch(upstream_model(given | {"act_fn": "relu"} | more[WORLD]))
    for field, value in more[WORLD].items():
        assert f"{field}={value}" in str(refused.value)


def upstream_model(fields):
    """A model made by TransformerLens' own means."""
    if WORLD == "3.9":
        import transformer_lens

        return transformer_lens.HookedTransformer(
            transformer_lens.HookedTransformerConfig(**fields)
        )
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    return TransformerBridge.boot_native(TransformerBridgeConfig(**fields))


def test_a_users_own_model_opens_here(tokens):
    fields = {"n_layers": 1, "d_model": 4, "d_head": 2, "d_vocab": 5, "n_ctx": 9, "n_heads": 2}
    theirs = upstream_model(fields | {"act_fn": "relu", "d_mlp": 16, "d_vocab_out": 5})
    np.testing.assert_allclose(
        from_torch(theirs)(tokens), theirs(torch.tensor(tokens)).detach(), rtol=0, atol=1e-5
    )


def test_a_config_from_there_trains_here(tokens):
    fields = {"n_layers": 1, "d_model": 4, "d_head": 2, "d_vocab": 5, "n_ctx": 9, "n_heads": 2}
    theirs = upstream_model(fields | {"act_fn": "relu", "d_mlp": 16, "seed": 3})
    cfg = from_torch(theirs).cfg
    assert cfg.seed is None
    assert TrainConfig(model=cfg).model == cfg

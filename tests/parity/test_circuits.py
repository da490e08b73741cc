"""Circuits and composition scores are TransformerLens 3.9's, of random and trained models."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformer_lens

from jax_revinc import HookedTransformer, HookedTransformerConfig
from jax_revinc.analysis import circuits
from parity import to_torch
from torch_reference.installed_transformer_lens import WORLD

pytestmark = pytest.mark.skipif(WORLD != "3.9", reason="only 3.9 has these methods")

CONFIGS = {
    "one head": {"n_heads": 1, "d_head": 2},
    "two heads": {"n_heads": 2, "d_head": 3, "n_layers": 3, "d_vocab_out": 3},
    "attention only": {"attn_only": True, "d_head": 2},
    "LNPre, wide heads": {"normalization_type": "LNPre", "d_head": 6, "n_heads": 2},
    "no norm": {"normalization_type": None, "d_head": 2},
}


@pytest.fixture(scope="module")
def pair(random_weights, short_run):
    """A function from a name to (ours, theirs, theirs with norms folded), in float64."""

    @functools.cache
    def make(name):
        if name == "trained":
            cfg = short_run.config.model.replace(dtype="float64")
            ours = HookedTransformer(cfg, params=short_run.state_dict())
        else:
            sizes = {"n_layers": 2, "d_model": 4, "d_vocab": 5, "n_ctx": 9, "dtype": "float64"}
            cfg = HookedTransformerConfig(**sizes | CONFIGS[name])
            ours = HookedTransformer(cfg, params=random_weights(cfg))
        theirs = to_torch(ours)
        return ours, theirs, with_folded_norms(theirs) if cfg.normalization_type == "LN" else theirs

    return make


def with_folded_norms(theirs):
    """Their folding alone (`process_weights_` would round to float32 on the way)."""
    weights = theirs.fold_layer_norm(theirs.state_dict())
    folded = transformer_lens.HookedTransformer(replace(theirs.cfg, normalization_type="LNPre"))
    folded.load_state_dict({name: weights[name] for name in folded.state_dict()})
    return folded


every_model = pytest.mark.parametrize("name", [*CONFIGS, "trained"])


def assert_same(ours, theirs):
    ours, theirs = np.asarray(ours), theirs.detach().numpy()
    assert ours.dtype == np.float64
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1e-10 * np.abs(theirs).max()


@every_model
def test_qk_circuit(pair, name):
    ours, _, folded = pair(name)
    token_token, token_position, position_token, position_position = circuits.qk_circuit(ours)
    top = np.concatenate([token_token, token_position], axis=-1)
    bottom = np.concatenate([position_token, position_position], axis=-1)
    full = folded.W_E_pos @ folded.QK @ folded.W_E_pos.T
    assert_same(np.concatenate([top, bottom], axis=-2), full.AB)


@every_model
def test_ov_circuit_and_direct_path(pair, name):
    ours, _, folded = pair(name)
    assert_same(circuits.ov_circuit(ours), (folded.W_E @ folded.OV @ folded.W_U).AB)
    assert_same(circuits.direct_path(ours), folded.W_E @ folded.W_U)


@every_model
def test_mlp_map(pair, name):
    ours, theirs, folded = pair(name)
    if ours.cfg.attn_only:
        pytest.skip("no MLPs")
    for layer, block in enumerate(theirs.blocks):
        written = block.mlp(block.ln2(theirs.W_E[None]))[0]
        assert_same(circuits.mlp_map(ours)[layer], written @ folded.W_U)


@every_model
@pytest.mark.parametrize("mode", ["Q", "K", "V"])
def test_composition_scores(pair, name, mode):
    ours, theirs, folded = pair(name)
    assert_same(circuits.all_composition_scores(ours, mode), theirs.all_composition_scores(mode))
    assert_same(
        circuits.all_composition_scores(circuits.fold_layer_norm(ours), mode),
        folded.all_composition_scores(mode),
    )


@every_model
def test_svd(pair, name):
    ours, _, folded = pair(name)
    U, S, V = map(np.asarray, circuits.svd(ours, circuits.ov_circuit(ours)))
    their_U, their_S, their_V = (folded.W_E @ folded.OV @ folded.W_U).svd()
    rank = their_S.shape[-1]
    assert_same(S[..., :rank], their_S)
    assert S[..., rank:].max(initial=0) <= 1e-10 * S.max()
    for ours_, theirs in ((U, their_U), (V, their_V)):
        theirs = theirs.detach().numpy()
        signs = np.sign((ours_[..., :rank] * theirs).sum(-2, keepdims=True))
        np.testing.assert_allclose(ours_[..., :rank] * signs, theirs, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", CONFIGS)
def test_folding_norms_gives_their_weights(pair, name):
    ours, _, folded = pair(name)
    theirs = dict(folded.named_parameters())
    for weight, param in circuits.fold_layer_norm(ours).params.items():
        assert_same(param, theirs[weight])


def test_their_folding_goes_wrong_where_d_mlp_is_d_model(pair, tokens):
    """They then take W_in's rows for its columns. The tutorial's model is such a one; ours stays the same."""
    ours, theirs, folded = pair("trained")
    assert ours.cfg.d_mlp == ours.cfg.d_model
    logits = theirs(torch.as_tensor(np.array(tokens)))
    assert_same(circuits.fold_layer_norm(ours)(tokens), logits)
    assert (folded(torch.as_tensor(np.array(tokens))) - logits).abs().max() > 0.01

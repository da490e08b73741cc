"""Where numbers are extreme, gradients are finite wherever TransformerLens' are, and the same."""

import jax
import numpy as np
import pytest
import torch

from jax_revinc import HookedTransformer, HookedTransformerConfig, numerics
from parity import to_torch
from revinc.weights import parameter_shapes
from torch_reference.installed_transformer_lens import WORLD

pytestmark = pytest.mark.skipif(WORLD != "3.9", reason="4.x has parts of its own in these models")

CFG = HookedTransformerConfig(
    n_layers=2, d_model=4, d_head=2, n_heads=2, d_mlp=3, d_vocab=5, n_ctx=4, dtype="float64"
)
TOKENS = np.random.default_rng(0).integers(0, 5, size=(3, 4))
SCORES = "blocks.1.attn.hook_attn_scores"


def blind(scores, hook):
    """The third query sees no key."""
    if isinstance(scores, torch.Tensor):
        scores[:, :, 2] = -torch.inf
        return scores
    return scores.at[:, :, 2].set(-np.inf)


def constant_embedding(weights):
    """Every residual stream but what attention and MLPs add is the same number in all dimensions."""
    names = ("embed.W_E", "pos_embed.W_pos")
    return weights | {name: np.full_like(weights[name], 0.5) for name in names}


def large_scores(weights):
    """Of 1e5 and more."""
    names = [name for name in weights if name.endswith("W_Q")]
    return weights | {name: 1e5 * weights[name] for name in names}


def unchanged(weights):
    return weights


CASES = {
    "a blind query": (CFG, unchanged, [(SCORES, blind)]),
    "zero variance": (CFG, constant_embedding, []),
    "zero variance, RMS": (CFG.replace(normalization_type="RMS"), constant_embedding, []),
    "large scores": (CFG, large_scores, []),
    "large scores, capped": (CFG.replace(attn_scores_soft_cap=5.0), large_scores, []),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_finite_and_those_of_transformer_lens(random_weights, name):
    cfg, change, hooks = CASES[name]
    model = HookedTransformer(cfg, params=change(random_weights(cfg)))
    theirs = to_torch(model)
    with theirs.hooks(fwd_hooks=hooks):
        loss = theirs(torch.tensor(TOKENS), return_type="loss")
    loss.backward()
    expected = {n: p.grad for n, p in theirs.named_parameters() if n in parameter_shapes(cfg)}

    def our_loss(params):
        ours = HookedTransformer(cfg, params=params)
        return ours.run_with_hooks(TOKENS, return_type="loss", fwd_hooks=hooks)

    with numerics(cfg):
        value, found = jax.value_and_grad(our_loss)(model.params)
    assert float(value) == pytest.approx(loss.item(), rel=1e-12)
    largest = max(float(grad.abs().max()) for grad in expected.values())
    for parameter, grad in expected.items():
        assert torch.isfinite(grad).all(), parameter
        np.testing.assert_allclose(found[parameter], grad, rtol=1e-9, atol=1e-10 * largest)

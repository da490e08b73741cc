"""A model that is sure of the right tokens is judged as strictly as any other, and no more so.

Its loss is near 0, or 0, and so is the loss's gradient: differences of numbers near each other, without digits.
"""

from dataclasses import replace

import numpy as np
import pytest

from jax_revinc import HookedTransformer, HookedTransformerConfig, TrainConfig
from parity import jax_side, to_torch, training_levels
from parity.inputs import UNLIKELY_LOSSES, Inputs
from parity.jax_side import JaxSide
from parity.model_levels import check_level
from parity.model_pair import Pair
from revinc.weights import parameter_shapes
from torch_reference.installed_transformer_lens import WORLD

of_3_9 = pytest.mark.skipif(
    WORLD != "3.9", reason="4.x has no gradient of b_U, and no bridge can be copied"
)

CFG = HookedTransformerConfig(
    n_layers=2, d_model=8, d_head=4, n_heads=2, d_mlp=8, d_vocab=5, n_ctx=9
)
SURENESS = {"loss of 1e-9": 25, "loss of 0": 100}
"""How many times as large the unembedding of random weights is made; a token is what they hold most likely."""


@pytest.fixture(scope="module")
def pairs():
    def pair(factor):
        rng = np.random.default_rng(0)
        weights = {
            name: rng.normal(0, 0.5, shape).astype(np.float32)
            for name, shape in parameter_shapes(CFG).items()
        }
        weights["unembed.W_U"] *= np.float32(factor)
        ours = HookedTransformer(CFG, params=weights)
        tokens = np.random.default_rng(1).integers(0, 5, (64, 9))
        tokens[:, -1] = np.asarray(ours(tokens[:, :-1]))[:, -1].argmax(-1)
        return Pair(ours, to_torch(ours), Inputs(tokens, (8,)))

    return {name: pair(factor) for name, factor in SURENESS.items()}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ["L1", "L2"])
@pytest.mark.parametrize("sureness", SURENESS)
def test_a_sure_model_passes(pairs, sureness, name, dtype):
    level = check_level(name, pairs[sureness], dtype)
    assert level.passed, level.failures


def test_the_losses_are_as_small_as_their_names_say(pairs):
    losses = {
        (name, dtype): pair.jax_side(dtype).forward()["losses"].max()
        for name, pair in pairs.items()
        for dtype in ("float64", "float32")
    }
    assert 1e-11 < losses["loss of 1e-9", "float64"] < 1e-8
    assert losses["loss of 1e-9", "float32"] == losses["loss of 0", "float64"] == 0


@pytest.mark.parametrize("sureness", SURENESS)
@pytest.mark.parametrize(
    "weight",
    ["blocks.0.attn.W_V", "unembed.W_U", "embed.W_E", pytest.param("unembed.b_U", marks=of_3_9)],
)
def test_a_weights_gradient_off_by_a_millionth_fails(pairs, monkeypatch, sureness, weight):
    gradients = JaxSide.gradients

    def spoiled(side):
        found = gradients(side)
        return found | {weight: (1 + 1e-6) * found[weight]}

    monkeypatch.setattr(JaxSide, "gradients", spoiled)
    level = check_level("L2", pairs[sureness], "float64")
    assert [row.name for row in level.failures] == [weight]


@pytest.mark.parametrize("sureness", SURENESS)
def test_a_loss_off_by_a_millionth_fails(pairs, monkeypatch, sureness):
    right = jax_side.token_losses
    monkeypatch.setattr(jax_side, "token_losses", lambda *of: (1 + 1e-6) * right(*of))
    forward, backward = (check_level(name, pairs[sureness], "float64") for name in ("L1", "L2"))
    assert UNLIKELY_LOSSES in {row.name for row in forward.failures}
    assert len(backward.failures) > 20


@of_3_9
def test_the_walk_of_a_torch_run_is_not_moved_by_its_jittered_steps(monkeypatch):
    """And where the loss is far from 0, a jittered step is within rounding."""
    cfg = training_levels.in_float64(replace(TrainConfig(), steps=9))
    monkeypatch.setattr(training_levels, "JITTERED_EVERY", 1)
    often = training_levels.torch_trajectory(cfg)
    monkeypatch.setattr(training_levels, "JITTERED_EVERY", 10)
    once = training_levels.torch_trajectory(cfg)
    for name, array in once.items():
        if not name.startswith("jitter/"):
            np.testing.assert_array_equal(often[name], array)
        elif "b_K" not in name:
            assert often[name].max() < 1e-12, name
    assert often["jitter/unembed.W_U"].max() > 0

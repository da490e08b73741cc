from __future__ import annotations

import math

import jax
import numpy as np
import pytest
from scipy import stats

from jax_revinc import HookedTransformer, numerics
from jax_revinc.weights.init import init_params
from revinc.weights import parameter_shapes

pytestmark = pytest.mark.optimized

FALSE_ALARM = 1e-9
"""Chance that the statistical test fails on a perfect generator (its seed is fixed besides)."""


@pytest.fixture(scope="module")
def draw():
    """Initial weights as numpy, from a jitted draw."""
    jitted = jax.jit(init_params, static_argnums=0)

    def draw_(cfg, seed=0):
        with numerics(cfg):
            params = jitted(cfg, jax.random.key(seed))
        return {name: np.asarray(param) for name, param in params.items()}

    return draw_


@pytest.mark.parametrize("changes", [{}, {"initializer_range": 0.02}])
def test_weights_are_normal_with_the_configs_deviation(tutorial, draw, changes):
    cfg = tutorial.model.replace(d_model=48, d_head=16, n_heads=3, d_mlp=64, d_vocab=50, **changes)
    matrices = {name: w for name, w in draw(cfg).items() if ".W_" in name}
    assert len(matrices) == 3 + 6 * cfg.n_layers
    together = np.concatenate([w.ravel() for w in matrices.values()])
    samples = [*matrices.values(), together]
    tail = FALSE_ALARM / (3 * len(samples)) / 2
    for w in samples:
        z = w.ravel().astype(np.float64) / cfg.initializer_range
        assert abs(z.mean()) < stats.norm.isf(tail) / math.sqrt(z.size)
        chi2 = stats.chi2(z.size)
        assert chi2.ppf(tail) < (z**2).sum() < chi2.isf(tail)
        assert stats.kstest(z, "norm").pvalue > 2 * tail


def test_different_weights_are_different_draws(tutorial, draw):
    values = np.concatenate(
        [w.ravel() for name, w in draw(tutorial.model).items() if ".W_" in name]
    )
    assert len(np.unique(values)) == len(values)


@pytest.mark.parametrize("norm", ["LN", "LNPre", None])
def test_biases_are_zero_and_norm_gains_one(tutorial, draw, norm):
    cfg = tutorial.model.replace(normalization_type=norm)
    weights = draw(cfg)
    assert {name: w.shape for name, w in weights.items()} == parameter_shapes(cfg)
    for name, w in weights.items():
        if ".b" in name:
            assert not w.any(), name
        elif name.endswith(".w"):
            assert (w == 1).all(), name


def test_a_float64_model_starts_from_the_float32_numbers(tutorial, draw):
    narrow = draw(tutorial.model, 7)
    wide = draw(tutorial.model.replace(dtype="float64"), 7)
    for name in narrow:
        assert narrow[name].dtype == np.float32
        assert wide[name].dtype == np.float64
        assert np.array_equal(narrow[name], wide[name])


def test_seeds_decide(tutorial, draw):
    draws = [draw(tutorial.model, seed)["embed.W_E"].tobytes() for seed in range(5)]
    assert len(set(draws)) == 5
    assert draw(tutorial.model, 3)["embed.W_E"].tobytes() == draws[3]


def test_the_model_draws_with_the_given_rngs(tutorial):
    from flax import nnx

    def embedding(seed):
        return np.asarray(HookedTransformer(tutorial.model, rngs=nnx.Rngs(seed)).embed.W_E)

    assert np.array_equal(embedding(0), embedding(0))
    assert not np.array_equal(embedding(0), embedding(1))

"""Every model that a config can ask for is TransformerLens': names, activations, gradients, interventions."""

import math

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_family import CASES, case, configs

from jax_revinc import HookedTransformer, TrainConfig, UserError
from parity.bridge import from_torch, to_torch
from parity.comparison import compare_tensors, gap, largest
from parity.model_levels import check_level, check_names, measure
from parity.pair import Pair
from parity.question import Question
from parity.training_levels import check_optimizer
from revinc.weights import final_normalization_type
from torch_reference.installed import WORLD

of_3_9 = pytest.mark.skipif(WORLD != "3.9", reason="4.x implements only a part of the family")

QUESTION = Question(np.random.default_rng(0).integers(0, 3, size=(6, 9)), (3, 8))
FORWARD, BACKWARD = 1e-12, 1e-10
SMALL = 1e-4
"""A gradient smaller than this share of the level's largest is a difference of larger numbers, such as
the gradient of b_K, to which softmax is nearly blind: its rounding counts against that share."""


def random_pair(cfg, random_weights, seed=0):
    """A model with random weights, and its copy in TransformerLens.

    Matrices halve lengths, on average: else a model without norms may come to scores in the thousands and
    logits far beyond their cap, whose derivatives have no digits left.
    """
    weights = {
        name: 0.5 * w / math.sqrt(w.shape[-2] if w.ndim > 1 else 2)
        for name, w in random_weights(cfg, seed).items()
    }
    ours = HookedTransformer(cfg, params=weights)
    return Pair(ours, to_torch(ours), QUESTION)


def worst(pair, level, least_share=0.0):
    """The largest error of a level's tensors, over each tensor's largest value (a share of the level's at least)."""
    mine, truth = measure(level, pair, "float64")
    assert mine.keys() == truth.keys()
    assert all(row.same_infinities for row in compare_tensors(mine, truth))
    scales = {name: largest(tensor) for name, tensor in truth.items()}
    least = least_share * max(scales.values())
    return max(gap(mine[n], truth[n]).max() / (max(scales[n], least) or 1.0) for n in truth)


def agree(pair):
    """What float64 promises of names, activations and gradients."""
    with jax.disable_jit():  # a program that runs once costs more to compile than to interpret
        names = check_names(pair)
        assert names.passed, names.remarks
        assert worst(pair, "L1") < FORWARD
        assert worst(pair, "L2", SMALL) < BACKWARD


@of_3_9
@pytest.mark.parametrize("name", CASES)
def test_a_named_model_is_the_same_model(random_weights, name):
    pair = random_pair(case(name), random_weights)
    agree(pair)
    assert from_torch(pair.theirs).cfg == pair.ours.cfg


@pytest.mark.skipif(WORLD == "3.9", reason="of 4.x")
@pytest.mark.parametrize("name", CASES)
def test_4_x_makes_the_same_model_or_says_that_it_has_none(random_weights, name):
    from torch_reference.transformer_bridge import IMPLEMENTED

    if any(getattr(case(name), field) not in known for field, known in IMPLEMENTED.items()):
        with pytest.raises(UserError, match=r"has no model as 3\.9's with \w+="):
            random_pair(case(name), random_weights)
        return
    pair = random_pair(case(name), random_weights)
    assert from_torch(pair.theirs).cfg == pair.ours.cfg
    # Its RMS norms with gains compute in float32, whatever the model's type.
    in_float32 = "RMS" in (
        pair.ours.cfg.normalization_type,
        final_normalization_type(pair.ours.cfg),
    )
    with jax.disable_jit():
        for level in ("L1", "L2"):
            rows = check_level(level, pair, "float64").rows
            assert all(row.passed for row in rows if row.known)
            errors = [row.error for row in rows if not row.known]
            assert max(errors) < (1e-6 if in_float32 else FORWARD)


@of_3_9
@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_named_model_passes_every_level_in_both_precisions(random_weights, name):
    pair = random_pair(case(name), random_weights)
    for dtype in ("float64", "float32"):
        for level in ("L1", "L2", "L3"):
            found = check_level(level, pair, dtype)
            assert found.passed, found.remarks
        if pair.ours.cfg.d_vocab_out == pair.ours.cfg.d_vocab:
            step = check_optimizer(TrainConfig(model=case(name, dtype="float32")), dtype)
            assert step.passed, step.remarks


ANY_MODEL = {"cfg": configs(), "seed": st.integers(0, 2**32 - 1)}
UNHURRIED = settings(deadline=None, suppress_health_check=list(HealthCheck))


@of_3_9
@settings(UNHURRIED, max_examples=24)
@given(**ANY_MODEL)
def test_any_model_is_the_same_model(random_weights, cfg, seed):
    agree(random_pair(cfg, random_weights, seed))


@of_3_9
@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))  # of five hundred, side by side
@settings(UNHURRIED, max_examples=50)
@given(**ANY_MODEL)
def test_any_of_many_models_is_the_same_model(random_weights, part, cfg, seed):
    agree(random_pair(cfg, random_weights, seed))

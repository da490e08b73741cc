"""Every model that a config can ask for is TransformerLens': names, activations, gradients, interventions."""

import json
import math

import jax
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_family import ALONE_AND_COMBINED, CASES, COMBINED, case, configs

from jax_revinc import HookedTransformer, TrainConfig, UserError, train
from parity.__main__ import make_parser
from parity.bridge import from_torch, to_torch
from parity.check import compare
from parity.comparison import gap, largest
from parity.inputs import Inputs
from parity.model_levels import check_level, check_names, measure
from parity.model_pair import Pair
from revinc.command_errors import run_command
from revinc.tasks import ModularAddition, ReverseIncrement
from revinc.weights import final_normalization_type
from torch_reference import adapter
from torch_reference.installed_transformer_lens import WORLD

of_3_9 = pytest.mark.skipif(WORLD != "3.9", reason="4.x implements only a part of the family")

INPUTS = Inputs(np.random.default_rng(0).integers(0, 3, size=(6, 9)), (3, 8))
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
    return Pair(ours, to_torch(ours), INPUTS)


def worst(pair, level, least_share=0.0):
    """The largest error of a level's tensors, over each tensor's largest value (a share of the level's at least)."""
    mine, truth = measure(level, pair, "float64")
    assert mine.keys() == truth.keys()
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
@pytest.mark.parametrize("name", ALONE_AND_COMBINED)
def test_a_named_model_is_the_same_model(random_weights, name):
    pair = random_pair(case(name, **layers_for(name)), random_weights)
    agree(pair)
    assert from_torch(pair.theirs).cfg == pair.ours.cfg


@pytest.mark.skipif(WORLD == "3.9", reason="of 4.x")
@pytest.mark.parametrize("name", CASES)
def test_4_x_makes_the_same_model_or_says_that_it_has_none(random_weights, name):
    from torch_reference.transformer_lens_4 import IMPLEMENTED

    if any(getattr(case(name), field) not in known for field, known in IMPLEMENTED.items()):
        with pytest.raises(UserError, match=r"can't compute a model with \w+="):
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


def float32_run(name, random_weights, folder, **more):
    """A run of a named case, trained for two steps in float32 from random weights."""
    cfg = case(name, dtype="float32", **more)
    # What sees its answers is not trained on them, so a model without a causal mask has one answer, at the end.
    causal = cfg.attention_dir == "causal"
    task = ReverseIncrement(n_symbols=3) if causal else ModularAddition(modulus=3)
    recipe = TrainConfig(model=cfg, task=task, steps=2, batch_size=4)
    weights = random_pair(cfg, random_weights).ours.state_dict()
    return train(recipe, folder / "run", init=weights, engine="xla").path


def checked(run, *flags):
    """The exit status of the command on a run, and what it kept."""
    status = run_command(make_parser(), ["check", str(run), *flags])
    return status, json.loads((run / "parity.json").read_text())


def layers_for(name):
    """A second layer only where layers differ: it doubles what is computed and compiled."""
    cfg = case(name)
    differ = cfg.use_local_attn or cfg.scale_attn_by_inverse_layer_idx
    return {} if differ else {"n_layers": 1}


@of_3_9
@pytest.mark.slow
@pytest.mark.parametrize("name", COMBINED)
def test_the_command_passes_a_float32_run_of_a_named_model(random_weights, tmp_path, name):
    run = float32_run(name, random_weights, tmp_path, **layers_for(name))
    status, found = checked(run, "--levels", "L0", "L1", "L2", "L3", "L4")
    assert status == 0, [level["remarks"] for level in found["levels"]]
    assert len(found["levels"]) == 9


@of_3_9
@pytest.mark.parametrize("name", ["alibi", "grouped and rotary"])
def test_what_a_float32_model_derives_from_its_config_is_no_bug(random_weights, tmp_path, name):
    run = float32_run(name, random_weights, tmp_path, n_layers=1)
    status, found = checked(run, "--levels", "L1")
    assert status == 0, [level["remarks"] for level in found["levels"]]
    assert [level["dtype"] for level in found["levels"]] == ["float64", "float32"]


ROTARY = case("rotary, part of a head", n_layers=1, dtype="float32")


def agrees_with_its_copy_here(theirs):
    """Whether a model of TransformerLens' and ours with its weights agree in float64."""
    ours = from_torch(theirs)
    return compare(ours, theirs, INPUTS.tokens, ["L1"], dtypes=["float64"]).passed


@of_3_9
@pytest.mark.parametrize("made_in", ["float32", "float64"])
@pytest.mark.parametrize("cast_to", [torch.float32, torch.float64])
def test_a_rotary_model_agrees_whatever_it_was_made_in_and_cast_to(made_in, cast_to):
    theirs = adapter.make_model(ROTARY.replace(dtype=made_in)).to(cast_to, print_details=False)
    assert agrees_with_its_copy_here(theirs)


@of_3_9
def test_rotary_tables_that_somebody_changed_are_a_difference():
    theirs = adapter.make_model(ROTARY)
    theirs.blocks[0].attn.rotary_cos[3, 0] += 1e-5
    assert not agrees_with_its_copy_here(theirs)


@of_3_9
@pytest.mark.parametrize("name", CASES)
def test_no_model_keeps_other_floats_than_weights_and_rotary_tables(name):
    """What else were kept would have to be made anew in another precision too."""
    model = adapter.make_model(case(name))
    model(torch.zeros(1, 4, dtype=torch.long))
    kept = {n.split(".")[-1] for n, buffer in model.named_buffers() if buffer.is_floating_point()}
    assert kept <= {"rotary_sin", "rotary_cos", "IGNORE"}
    assert all(b.isneginf() for n, b in model.named_buffers() if n.endswith("IGNORE"))


ANY_MODEL = {"cfg": configs(), "seed": st.integers(0, 2**32 - 1)}
UNHURRIED = settings(deadline=None, suppress_health_check=list(HealthCheck))


@of_3_9
@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))  # five hundred models in ten parts
@settings(UNHURRIED, max_examples=50)
@given(**ANY_MODEL)
def test_any_of_many_models_is_the_same_model(random_weights, part, cfg, seed):
    agree(random_pair(cfg, random_weights, seed))

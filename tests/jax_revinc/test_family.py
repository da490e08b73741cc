"""What is asked of any model of the family: its parts add up, its programs are shared, its run can be read."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest
from model_family import ALONE_AND_COMBINED, CASES, case

from jax_revinc import HookedTransformer, TrainConfig, numerics, train
from jax_revinc.analysis import attribution
from jax_revinc.analysis.claims import claims

TOKENS = np.random.default_rng(0).integers(0, 5, size=(3, 8))
UNLIKE = (
    "attention only",
    "norm None",
    "norm RMS",
    "rotary",
    "shortformer by head",
    "alibi",
    "grouped, all hooks",
    "parallel",
    "gated",
    "soft caps",
)
"""Cases that have other activations or parameters than the tutorial's model."""


def random_model(cfg, random_weights, seed=0):
    return HookedTransformer(cfg, params=random_weights(cfg, seed))


@pytest.mark.parametrize("name", ALONE_AND_COMBINED)
def test_what_components_write_adds_up(random_weights, name):
    model = random_model(case(name), random_weights)
    with numerics(model.cfg), jax.disable_jit():
        _, cache = model.run_with_cache(TOKENS)
        stream = cache["resid_post", -1]
        for parts in (
            attribution.decompose_resid(model, cache),
            attribution.get_full_resid_decomposition(model, cache, expand_neurons=False),
        ):
            np.testing.assert_allclose(parts.sum(0), stream, rtol=0, atol=1e-11)
        scaled = attribution.apply_ln_to_stack(model, cache, parts)
        normalized = stream if "ln_final.hook_scale" not in cache else cache["normalized"]
        np.testing.assert_allclose(scaled.sum(0), normalized, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", CASES)
def test_models_of_one_config_share_their_programs(random_weights, name):
    one, other = (random_model(case(name), random_weights, seed) for seed in (0, 1))
    assert jax.tree.structure(one) == jax.tree.structure(other)


@pytest.fixture
def forgetting():
    """Programs are forgotten after the test: those of all models would be too many for one process to map."""
    yield
    jax.clear_caches()


@pytest.mark.slow
@pytest.mark.usefixtures("forgetting")
@pytest.mark.parametrize("name", UNLIKE)
def test_a_run_of_any_model_can_be_trained_and_read(run_cli, tmp_path, name):
    cfg = TrainConfig(model=case(name).replace(dtype="float32"), steps=20, eval_every=10)
    train(replace(cfg, snapshots=(10,)), tmp_path)
    for command in (
        ["report"],
        ["inspect", "--layer", "1", "--sample", "0", "3"],
        ["inspect", "--tables", "ablation", "patching"],
    ):
        outcome = run_cli(command[0], tmp_path, *command[1:])
        assert outcome.status == 0, outcome.err
    assert (tmp_path / "report.html").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.usefixtures("forgetting")
@pytest.mark.parametrize("name", UNLIKE)
def test_the_claims_can_be_put_to_any_model(tutorial, random_weights, name):
    model = random_model(case(name), random_weights)
    found = claims(model, tutorial.task)
    assert found.sentences(model.cfg)
    assert np.isfinite(jax.tree.leaves(found)[0]).all()

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from jax_revinc import UserError
from jax_revinc.engines import FusedPopulation, XlaPopulation
from jax_revinc.engines.fused import dag
from jax_revinc.population import load
from jax_revinc.training import draw_weights
from revinc.dataset import make_dataset, many_batches

from .populations import FLAGS, RECIPE, WIDTH, bits

RUNS = [
    dataclasses.replace(RECIPE, lr=3e-2, init_seed=5),
    dataclasses.replace(RECIPE, weight_decay=0.5, data_seed=6),
    dataclasses.replace(RECIPE, split="random", split_seed=7),
]


@pytest.fixture(scope="module")
def engine():
    try:
        return FusedPopulation(RECIPE, WIDTH)
    except UserError as why:
        if "compiler" not in str(why):
            raise
        pytest.skip(str(why))


def trained(engine, runs, cuts=(0, 20, 40)):
    initial = [draw_weights(run) for run in runs]
    state = engine.start(runs, {name: np.stack([w[name] for w in initial]) for name in initial[0]})
    datasets, losses = [make_dataset(run) for run in runs], []
    for start, stop in itertools.pairwise(cuts):
        state, some = engine.advance(state, many_batches(datasets, start, stop))
        losses.append(some)
    return engine.weights(state), np.concatenate(losses, axis=1), engine.evaluate(state)


def test_it_trains_as_xla_does(engine):
    _, losses, metrics = trained(engine, RUNS)
    _, expected, expected_metrics = trained(XlaPopulation(RECIPE, WIDTH), RUNS)
    np.testing.assert_allclose(losses, expected, rtol=2e-3)
    for name in ("train_loss", "holdout_loss"):
        np.testing.assert_allclose(metrics[name], expected_metrics[name], rtol=2e-3)


def test_what_becomes_of_a_model_depends_on_no_other_and_on_no_cut(engine):
    weights, losses, _ = trained(engine, RUNS)
    for place, run in enumerate(RUNS):
        alone, alone_losses, _ = trained(engine, [run], cuts=(0, 7, 20, 40))
        assert bits({n: w[0] for n, w in alone.items()}) == bits(
            {n: w[place] for n, w in weights.items()}
        )
        assert alone_losses[0].tobytes() == losses[place].tobytes()


def test_it_says_what_it_is(engine):
    assert engine.identity["name"] == "fused"
    assert engine.identity["width"] == str(WIDTH)
    assert int(engine.identity["lanes"]) in (4, 8, 16)
    assert engine.identity["compiler"]


def test_a_model_that_can_not_be_fused_is_refused(monkeypatch):
    monkeypatch.setattr(dag, "MOST_NODES", 1000)
    wider = dataclasses.replace(RECIPE, model=RECIPE.model.replace(d_mlp=5))
    with pytest.raises(UserError, match="more than 1000 scalar operations"):
        FusedPopulation(wider, WIDTH)


def test_a_population_goes_on_with_the_engine_it_began_with(engine, run_cli, tmp_path):
    command = ("population", "--out", tmp_path / "store")
    assert run_cli(*command, "--engine", "fused", "--seeds", 2, *FLAGS).status == 0
    assert load(tmp_path / "store").config == RECIPE
    assert run_cli(*command, "--resume", "--seeds", 3).status == 0
    assert load(tmp_path / "store").engine == engine.identity
    refused = run_cli(*command, "--resume", "--seeds", 4, "--engine", "xla")
    assert refused.status == 2
    assert "can't go on with it" in refused.err[-1]

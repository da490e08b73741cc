"""What the fused engine promises beyond what every engine of populations does (engines/test_population.py)."""

from __future__ import annotations

import dataclasses
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from fused_examples import require_compiler
from populations import FLAGS, RECIPE, WIDTH, bits, outcomes

from jax_revinc.engines import make_population_engine
from jax_revinc.engines.fused import build, graph, spec
from jax_revinc.engines.fused.errors import NotFusible
from jax_revinc.engines.fused.toolchain import cpu_features, lane_width
from jax_revinc.engines.fused_engine import fused_programs
from jax_revinc.population import load
from jax_revinc.training import draw_weights
from revinc.dataset import make_dataset, rows_of_runs

pytestmark = pytest.mark.optimized

LANES = lane_width("float32")
WIDER = 2 * LANES + 3
"""Models of three blocks, the last of which is not full."""


@pytest.fixture(scope="module", autouse=True)
def _compiler():
    require_compiler()


def runs(n, recipe=RECIPE):
    return [dataclasses.replace(recipe, init_seed=i, data_seed=100 + i) for i in range(n)]


def trained(engine, runs, cuts=(0, 20, 40)):
    """The weights, losses and metrics of runs."""
    initial = [draw_weights(run) for run in runs]
    data, losses = [make_dataset(run) for run in runs], []
    state = engine.start(data, {name: np.stack([w[name] for w in initial]) for name in initial[0]})
    for start, stop in itertools.pairwise(cuts):
        state, some = engine.advance(state, rows_of_runs(data, start, stop))
        losses.append(some)
    return engine.weights(state), np.concatenate(losses, axis=1), engine.evaluate(state)


def test_it_trains_as_xla_does():
    """Losses part slowly, by rounding, which training amplifies."""
    found, expected = (
        trained(make_population_engine(RECIPE, name, WIDTH), runs(WIDTH))
        for name in ("fused", "xla")
    )
    np.testing.assert_allclose(found[1], expected[1], rtol=2e-3)
    for name in ("train_loss", "holdout_loss"):
        np.testing.assert_allclose(found[2][name], expected[2][name], rtol=2e-3)


def test_neither_lane_nor_block_changes_a_bit():
    engine = make_population_engine(RECIPE, "fused", WIDER)
    weights, losses, _ = trained(engine, runs(WIDER))
    backwards, backward_losses, _ = trained(engine, runs(WIDER)[::-1], cuts=(0, 7, 20, 40))
    assert bits(weights) == bits({name: w[::-1] for name, w in backwards.items()})
    assert losses.tobytes() == backward_losses[::-1].tobytes()
    alone, alone_losses, _ = trained(
        make_population_engine(RECIPE, "fused", WIDTH), runs(WIDER)[-1:]
    )
    assert bits({n: w[0] for n, w in alone.items()}) == bits({n: w[-1] for n, w in weights.items()})
    assert alone_losses[0].tobytes() == losses[-1].tobytes()


ON_CORES = """
import os, sys
os.sched_setaffinity(0, map(int, sys.argv[1].split(",")))
from jax_revinc.__main__ import main
del sys.argv[1]
sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores can't be chosen here")
def test_neither_threads_nor_devices_change_a_bit(tmp_path):
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) == 1:
        pytest.skip("there is one core")
    found = []
    for used, devices in ((cores[:1], 1), (cores, 1), (cores, 3)):
        store = tmp_path / f"{len(used)}-{devices}"
        flags = [*FLAGS, "--engine", "fused", "--seeds", WIDER + 1, "--width", WIDER]
        flags += ["--devices", devices, "--out", store]
        words = [",".join(map(str, used)), "population", *map(str, flags)]
        subprocess.run([sys.executable, "-c", ON_CORES, *words], check=True)
        found.append(outcomes(store))
    assert found[0] == found[1] == found[2]


@pytest.mark.skipif(not cpu_features() & {"avx2"}, reason="for an x86 that has AVX2")
@pytest.mark.parametrize(
    "cpu",
    [
        pytest.param(("haswell", {"avx2"}), id="haswell", marks=pytest.mark.slow),
        pytest.param(("nehalem", {"sse4_2"}), id="nehalem"),
    ],
)
def test_programs_for_shorter_vectors_train_as_xla_does(monkeypatch, cpu):
    """Those of AVX2, which has eight lanes and products that are added at once, and of SSE, which has neither."""
    march, features = cpu
    recipe = dataclasses.replace(RECIPE, model=RECIPE.model.replace(attn_only=True))
    lanes = lane_width("float32", frozenset(features))
    monkeypatch.setattr(build, "native_flags", lambda: [f"-march={march}"])
    monkeypatch.setattr(spec, "lane_width", lambda _: lanes)
    fused_programs.cache_clear()
    found = trained(make_population_engine(recipe, "fused", lanes + 1), runs(lanes + 1, recipe))
    monkeypatch.undo()
    fused_programs.cache_clear()
    expected = trained(make_population_engine(recipe, "xla", lanes + 1), runs(lanes + 1, recipe))
    np.testing.assert_allclose(found[1], expected[1], rtol=2e-3)
    np.testing.assert_allclose(found[2]["holdout_loss"], expected[2]["holdout_loss"], rtol=2e-3)


def test_a_model_that_can_not_be_fused_is_refused(monkeypatch):
    monkeypatch.setattr(graph, "MOST_NODES", 1000)
    wider = dataclasses.replace(RECIPE, model=RECIPE.model.replace(d_mlp=5))
    with pytest.raises(NotFusible, match="more than 1000 scalar operations"):
        make_population_engine(wider, "fused", WIDTH)


def test_a_population_goes_on_with_the_engine_it_began_with(run_cli, tmp_path):
    command = ("population", "--out", tmp_path / "store")
    assert run_cli(*command, "--seeds", 2, *FLAGS, "--engine", "fused").status == 0
    assert load(tmp_path / "store").config == RECIPE
    assert run_cli(*command, "--resume", "--seeds", 3).status == 0
    engine = load(tmp_path / "store").engine
    assert engine["name"] == "fused"
    assert engine["lanes"] == str(LANES)
    assert engine["compiler"]
    refused = run_cli(*command, "--resume", "--seeds", 4, "--engine", "xla")
    assert refused.status == 2
    assert "can't go on with it" in refused.err[-1]

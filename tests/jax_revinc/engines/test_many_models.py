from __future__ import annotations

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from fused_examples import require_compiler
from populations import RECIPE, WIDTH, bits

from jax_revinc import UserError
from jax_revinc.engines import (
    PROGRAMS,
    JaxPopulation,
    make_engine,
    make_population_engine,
)
from jax_revinc.engines.compiled_programs import make_program_key
from jax_revinc.training import draw_weights
from revinc.dataset import make_dataset, rows_of_runs
from revinc.engine import METRICS
from revinc.tasks import Copy

pytestmark = pytest.mark.optimized

WIDE = dataclasses.replace(RECIPE, model=RECIPE.model.replace(dtype="float64"))


def some_runs(recipe):
    """Three runs that differ in all in which runs of a population may."""
    return [
        dataclasses.replace(recipe, lr=3e-2, init_seed=5),
        dataclasses.replace(recipe, weight_decay=0.5, data_seed=6),
        dataclasses.replace(recipe, split="random", split_seed=7),
    ]


def ending_apart(recipe):
    """Two runs whose rates decay to different ends."""
    decaying = dataclasses.replace(recipe, lr_schedule="cosine", init_seed=5)
    return [decaying, dataclasses.replace(decaying, lr_end=5e-3)]


def begin(engine, runs):
    initial = [draw_weights(run) for run in runs]
    data = [make_dataset(run) for run in runs]
    return engine.start(data, {name: np.stack([w[name] for w in initial]) for name in initial[0]})


def rows(runs, start, stop):
    return rows_of_runs([make_dataset(run) for run in runs], start, stop)


def trained(engine, runs, cuts=(0, 20, 40)):
    """What becomes of each run: weights, losses and metrics, as bytes."""
    state, losses = begin(engine, runs), []
    for start, stop in itertools.pairwise(cuts):
        state, some = engine.advance(state, rows(runs, start, stop))
        losses.append(some)
    losses, measured = np.concatenate(losses, axis=1), engine.evaluate(state)
    weights = engine.weights(state)
    return [
        (
            {name: array[i].tobytes() for name, array in weights.items()},
            losses[i].tobytes(),
            {name: values[i] for name, values in measured.items()},
        )
        for i in range(len(runs))
    ]


def compiled(engine):
    """How many versions XLA has compiled of each of an engine's programs."""
    key, programs = make_program_key(engine.cfg), PROGRAMS[engine.identity["name"]]
    functions = programs(key, many=True)
    each = (functions.start, functions.advance, functions.count)
    here = [getattr(function, "elsewhere", function) for function in each]  # not on a GPU
    return [getattr(function, "func", function)._cache_size() for function in here]


@pytest.fixture(scope="module", params=PROGRAMS)
def engine(request):
    if request.param == "fused":
        require_compiler()
    return make_population_engine(RECIPE, request.param, WIDTH)


@pytest.fixture(scope="module")
def alone(engine):
    """What becomes of each of `some_runs`, without the others."""
    return [trained(engine, [run])[0] for run in some_runs(RECIPE)]


def test_a_start_holds_the_weights_given(engine):
    runs = some_runs(RECIPE)
    stacked = engine.weights(begin(engine, runs))
    for i, run in enumerate(runs):
        assert bits({n: w[i] for n, w in stacked.items()}) == bits(draw_weights(run))


@pytest.mark.slow
@pytest.mark.parametrize("differing", [some_runs, ending_apart])
@pytest.mark.parametrize("kind", PROGRAMS)
def test_each_run_is_trained_as_by_an_engine_of_its_own(kind, differing):
    runs = differing(WIDE)
    engine = make_population_engine(runs[0], kind, WIDTH)
    state, losses = begin(engine, runs), []
    for start in (0, 20, 40):
        state, some = engine.advance(state, rows(runs, start, start + 20))
        losses.append(some)
    losses, measured, weights = np.hstack(losses), engine.evaluate(state), engine.weights(state)
    assert list(measured) == list(METRICS)
    for i, run in enumerate(runs):
        own = make_engine(run, kind)
        own_state, own_losses = own.start(draw_weights(run)), []
        for start in (0, 20, 40):
            own_state, some = own.advance(own_state, rows([run], start, start + 20)[0])
            own_losses.append(some)
        np.testing.assert_allclose(losses[i], np.concatenate(own_losses), rtol=0, atol=1e-10)
        for name, w in own.weights(own_state).items():
            # The gradient of b_K is rounding noise, and Adam divides by its size.
            tolerance = 1e-6 if name.endswith("b_K") else 1e-9
            np.testing.assert_allclose(weights[name][i], w, rtol=0, atol=tolerance, err_msg=name)
        for name, value in own.evaluate(own_state).items():
            assert measured[name][i] == pytest.approx(value, rel=1e-10)
    assert len(set(losses[:, -1])) == len(runs)


def test_neither_place_nor_neighbours_nor_their_number_change_a_bit(engine, alone):
    first, second, third = some_runs(RECIPE)
    fourth = dataclasses.replace(RECIPE, init_seed=99, lr=1e-4)
    assert trained(engine, [first, second, third]) == alone
    assert trained(engine, [third, first, fourth, second])[:2] == [alone[2], alone[0]]
    assert trained(engine, [fourth, fourth, fourth, second])[3] == alone[1]


def test_a_run_that_diverges_does_not_change_its_neighbours(engine, alone):
    hopeless = dataclasses.replace(RECIPE, lr=1e30)
    first, broken, third = trained(engine, [some_runs(RECIPE)[0], hopeless, some_runs(RECIPE)[2]])
    assert (first, third) == (alone[0], alone[2])
    assert np.isnan(broken[2]["train_loss"])


@pytest.mark.parametrize("cuts", [(0, 7, 20, 40), (0, 1, 2, 20, 39, 40)], ids=str)
def test_cutting_the_steps_does_not_change_a_bit(engine, alone, cuts):
    assert trained(engine, some_runs(RECIPE), cuts) == alone


def test_other_rates_splits_seeds_and_numbers_of_runs_compile_nothing(engine, alone):
    before = compiled(engine)
    assert min(before) > 0
    other = dataclasses.replace(RECIPE, lr=0.3, weight_decay=0.2, split="random", split_seed=3)
    trained(engine, [other])
    again = make_population_engine(other, engine.identity["name"], WIDTH)
    trained(again, [other, RECIPE])
    assert compiled(engine) == before


def test_metrics_are_of_each_runs_own_split(engine):
    runs = [dataclasses.replace(RECIPE, split="random", split_seed=seed) for seed in (1, 2)]
    measured = engine.evaluate(begin(engine, runs))
    for i, run in enumerate(runs):
        own = make_engine(run)
        for name, value in own.evaluate(own.start(draw_weights(run))).items():
            assert measured[name][i] == pytest.approx(value, rel=1e-5)
    assert measured["holdout_loss"][0] != measured["holdout_loss"][1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", PROGRAMS)
def test_of_a_drawn_task_every_run_sees_its_own_examples(kind):
    model = WIDE.model.replace(n_ctx=16, d_vocab=9)
    recipe = dataclasses.replace(WIDE, task=Copy(length=8), model=model)
    runs = [dataclasses.replace(recipe, data_seed=seed, split_seed=9 - seed) for seed in (1, 2, 3)]
    engine = make_population_engine(recipe, kind, WIDTH)
    together = trained(engine, runs)
    assert trained(engine, runs[1:2], cuts=(0, 3, 20, 40)) == together[1:2]
    for run, (weights, losses, measured) in zip(runs, together, strict=True):
        own = make_engine(run, kind)
        state, own_losses = own.start(draw_weights(run)), []
        for start in (0, 20):
            state, some = own.advance(state, make_dataset(run).rows(start, start + 20))
            own_losses.append(some)
        np.testing.assert_allclose(
            np.frombuffer(losses), np.concatenate(own_losses), rtol=0, atol=1e-10
        )
        w_u = np.frombuffer(weights["unembed.W_U"]).reshape(4, 9)
        np.testing.assert_allclose(w_u, own.weights(state)["unembed.W_U"], rtol=0, atol=1e-9)
        for name, value in own.evaluate(state).items():
            assert measured[name] == pytest.approx(value, rel=1e-10)


def test_identity_names_the_width_and_what_runs(engine):
    assert engine.identity["width"] == str(WIDTH)
    by_default = make_population_engine(RECIPE, engine.identity["name"])
    assert by_default.width == int(by_default.identity["width"]) > 1
    assert engine.identity["name"] in PROGRAMS
    assert isinstance(engine, JaxPopulation)
    assert engine.identity["jax"] == jax.__version__
    assert jax.devices()[0].platform in engine.device


@pytest.mark.parametrize("width", [0, -1])
def test_a_width_below_one_is_refused(width):
    with pytest.raises(UserError, match="width must be at least 1"):
        make_population_engine(RECIPE, width=width)

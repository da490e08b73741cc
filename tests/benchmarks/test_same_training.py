import dataclasses

import numpy as np
import pytest

from benchmarks.contenders.jax_population import Population
from benchmarks.contenders.jax_single import CompiledLoop, StepByStep
from benchmarks.contenders.torch_ensemble import CompiledEnsemble, EagerEnsemble
from benchmarks.contenders.torch_module import Eager
from benchmarks.contenders.transformer_lens import TutorialLoop
from benchmarks.entrants import Field
from benchmarks.same_training import FIRST_STEPS, AnotherTraining, find_truth, first_batches
from revinc import UserError

WIDTH = 3


@pytest.fixture(scope="module")
def field(tutorial, tmp_path_factory):
    return Field(tutorial, WIDTH, tmp_path_factory.mktemp("field"), judged=2)


def losses_of(trainer, field, width, cfg=None):
    trainer.start({name: array[:width] for name, array in field.weights.items()})
    return trainer.advance(first_batches(cfg or field.cfg, list(range(width))))


@pytest.mark.parametrize(
    ("make", "width"),
    [
        (TutorialLoop, 1),
        (Eager, 1),
        (lambda cfg, width, threads: CompiledEnsemble(cfg, width, threads, compiled=False), 1),
        (lambda cfg, width, threads: CompiledEnsemble(cfg, width, threads, compiled=False), WIDTH),
        (EagerEnsemble, WIDTH),
        (lambda cfg, width, threads: CompiledLoop(cfg, width), 1),
        (lambda cfg, width, threads: StepByStep(cfg, width), 1),
    ],
    ids=["tutorial", "eager", "step", "steps", "ensemble", "loop", "step by step"],
)
def test_contenders_are_the_same_training(make, width, field):
    losses = losses_of(make(field.cfg, width, threads=1), field, width)
    assert losses.shape == (width, FIRST_STEPS)
    assert field.truth(()).share_used(losses[:2]) < 1


def test_a_population_is_the_same_training(field, monkeypatch):
    # The tests' JAX has looked for its devices already.
    monkeypatch.setattr("benchmarks.contenders.jax_population.use_cpu_devices", lambda n: None)
    losses = losses_of(Population(field.cfg, WIDTH), field, WIDTH)
    assert field.truth(()).share_used(losses[:2]) < 1


def test_models_are_shared_out_evenly(tutorial, monkeypatch):
    monkeypatch.setattr("benchmarks.contenders.jax_population.use_cpu_devices", lambda n: None)
    monkeypatch.setattr("jax.local_devices", lambda: ["first", "second"])
    with pytest.raises(UserError, match="shared out evenly"):
        Population(tutorial, 3, devices=2)


def test_the_truth_is_what_transformer_lens_computes_in_float64(field):
    wide = dataclasses.replace(field.cfg, model=field.cfg.model.replace(dtype="float64"))
    theirs = losses_of(TutorialLoop(wide, 1, threads=1), field, 1)
    np.testing.assert_allclose(theirs[0], field.truth(()).losses[0], rtol=1e-11)


@pytest.mark.parametrize(
    "other",
    [{"weight_decay": 0.0}, {"lr": 1.001e-2}, {"b2": 0.998}, {"data_seed": 1}],
    ids=lambda other: next(iter(other)),
)
def test_another_recipe_is_another_training(field, other):
    cfg = dataclasses.replace(field.cfg, **other)
    trainer = Eager(cfg)
    trainer.start({name: array[:1] for name, array in field.weights.items()})
    losses = trainer.advance(first_batches(cfg, [cfg.data_seed]))
    with pytest.raises(AnotherTraining, match="the impostor is another training: at step"):
        field.truth(()).check("the impostor", losses)


def test_losses_that_are_no_numbers_are_another_training(field):
    losses = field.truth(()).losses.copy()
    losses[1, 7] = np.nan
    with pytest.raises(AnotherTraining, match="at step 7 the loss of model 1 is nan"):
        field.truth(()).check("the impostor", losses)


def test_a_frozen_parameter_is_told_from_a_trained_one(field):
    frozen = find_truth(field.cfg, field.weights, ("unembed.b_U",), judged=1)
    assert frozen.share_used(field.truth(()).losses[:1]) > 100


def test_the_plain_module_refuses_what_it_does_not_implement(tutorial):
    cfg = dataclasses.replace(tutorial, model=tutorial.model.replace(act_fn="gelu"))
    with pytest.raises(UserError, match="relu"):
        Eager(cfg)

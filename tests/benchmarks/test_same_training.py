import dataclasses

import numpy as np
import pytest

from benchmarks.contender import Contender
from benchmarks.contenders.jax_population import PopulationTrainer
from benchmarks.contenders.jax_single import CompiledLoop, StepByStep
from benchmarks.contenders.torch_ensemble import CompiledEnsemble, EagerEnsemble
from benchmarks.contenders.torch_module import Eager
from benchmarks.contenders.transformer_lens import TutorialLoop
from benchmarks.entrants import Race
from benchmarks.same_training import FIRST_STEPS, AnotherTraining, find_truth, first_batches
from benchmarks.worker import Session
from revinc import UserError

WIDTH = 3


@pytest.fixture(scope="module")
def race(tutorial, tmp_path_factory):
    return Race(tutorial, WIDTH, tmp_path_factory.mktemp("race"), judged=2)


def losses_of(trainer, race, width, cfg=None):
    trainer.start({name: array[:width] for name, array in race.weights.items()})
    return trainer.advance(first_batches(cfg or race.cfg, list(range(width))))


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
def test_contenders_are_the_same_training(make, width, race):
    losses = losses_of(make(race.cfg, width, threads=1), race, width)
    assert losses.shape == (width, FIRST_STEPS)
    assert race.truth(()).share_used(losses[:2]) < 1


def test_a_population_is_the_same_training(race, monkeypatch):
    # The tests' JAX has looked for its devices already.
    monkeypatch.setattr("benchmarks.contenders.jax_population.use_cpu_devices", lambda n: None)
    losses = losses_of(PopulationTrainer(race.cfg, WIDTH), race, WIDTH)
    assert race.truth(()).share_used(losses[:2]) < 1


def test_models_are_shared_out_evenly(tutorial, monkeypatch):
    monkeypatch.setattr("benchmarks.contenders.jax_population.use_cpu_devices", lambda n: None)
    monkeypatch.setattr("jax.local_devices", lambda: ["first", "second"])
    with pytest.raises(UserError, match="shared out evenly"):
        PopulationTrainer(tutorial, 3, devices=2)


def test_the_truth_is_what_transformer_lens_computes_in_float64(race):
    wide = dataclasses.replace(race.cfg, model=race.cfg.model.replace(dtype="float64"))
    theirs = losses_of(TutorialLoop(wide, 1, threads=1), race, 1)
    np.testing.assert_allclose(theirs[0], race.truth(()).losses[0], rtol=1e-11)


@pytest.mark.parametrize(
    "other",
    [{"weight_decay": 0.0}, {"lr": 1.001e-2}, {"b2": 0.998}, {"data_seed": 1}],
    ids=lambda other: next(iter(other)),
)
def test_another_recipe_is_another_training(race, other):
    cfg = dataclasses.replace(race.cfg, **other)
    trainer = Eager(cfg)
    trainer.start({name: array[:1] for name, array in race.weights.items()})
    losses = trainer.advance(first_batches(cfg, [cfg.data_seed]))
    with pytest.raises(AnotherTraining, match="the impostor is another training: at step"):
        race.truth(()).check("the impostor", losses)


def test_losses_that_are_no_numbers_are_another_training(race):
    losses = race.truth(()).losses.copy()
    losses[1, 7] = np.nan
    with pytest.raises(AnotherTraining, match="at step 7 the loss of model 1 is nan"):
        race.truth(()).check("the impostor", losses)


def test_a_frozen_parameter_is_told_from_a_trained_one(race):
    frozen = find_truth(race.cfg, race.weights, ("unembed.b_U",), judged=1)
    assert frozen.share_used(race.truth(()).losses[:1]) > 100


@pytest.mark.parametrize("optimizer", ["adamw", "lion"])
def test_what_the_plain_module_can_not_train_is_judged_by_others(tutorial, optimizer, tmp_path):
    model = tutorial.model.replace(act_fn="gelu", attn_only=True)
    cfg = dataclasses.replace(tutorial, model=model, optimizer=optimizer, data_seed=5)
    race = Race(cfg, 1, tmp_path, judged=1)
    truth = race.truth(())
    contender = Contender("a", "A", "benchmarks.contenders.jax_single:StepByStep", "jax")
    session = Session()
    job = race.job(contender).to_dict()
    losses = session.answer("first", job=job, n_steps=FIRST_STEPS, n_losses=1)["losses"]
    assert truth.check("A", np.array(losses)) <= 1
    with pytest.raises(AnotherTraining):
        truth.check("A", np.array(losses) * 1.01)

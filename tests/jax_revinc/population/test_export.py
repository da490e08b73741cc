"""A model that is taken out of a population is a run: the same weights, metrics and config."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from populations import RECIPE, WIDTH

from jax_revinc import Run, UserError, train
from jax_revinc.plots import training as figures
from jax_revinc.population import train_population
from jax_revinc.population.export_model import best_model, export_model
from jax_revinc.training import draw_weights
from revinc.engine import METRICS
from revinc.sweep import sweep


@pytest.fixture(scope="module")
def population(tmp_path_factory):
    out = tmp_path_factory.mktemp("populations") / "whole"
    models = sweep(RECIPE, {"lr": [1e-3, 1e-2]}, seeds=range(3))
    return train_population(RECIPE, models, out, width=WIDTH, engine="xla")


@pytest.fixture
def exported(population, tmp_path):
    return export_model(population, 4, tmp_path / "run")


def test_weights_metrics_and_config_are_the_models_own(population, exported):
    assert exported.config == population.run_config(4)
    for name, weight in exported.state_dict().items():
        np.testing.assert_array_equal(weight, population.params([4])[name][0])
    assert exported.metrics["step"].tolist() == population.steps.tolist()
    for metric in METRICS:
        np.testing.assert_array_equal(exported.metrics[metric], population.curves(metric)[4])
    initial = draw_weights(exported.config)
    for name, weight in exported.state_dict(step=0).items():
        np.testing.assert_array_equal(weight, initial[name])


def test_it_says_where_it_comes_from_and_invents_no_losses(population, exported):
    assert exported.is_exported
    assert (exported.engine["population"], exported.engine["model"]) == ("whole", "4")
    with pytest.raises(UserError, match="which keeps no losses of batches"):
        exported.losses  # noqa: B018
    names = [trace.name for trace in figures.loss(exported).data]
    assert names == ["train", "holdout"]


def test_it_is_not_resumed_but_may_be_replaced(population, exported):
    with pytest.raises(UserError, match="was taken from a population and can't be resumed"):
        train(exported.config, exported.path, resume=True)
    with pytest.raises(UserError, match="already holds a run"):
        export_model(population, 1, exported.path)
    again = export_model(population, 1, exported.path, overwrite=True)
    assert again.engine["model"] == "1"
    assert Run.load(exported.path).config == population.run_config(1)


def test_the_best_has_the_highest_accuracy_then_the_lowest_loss(population, monkeypatch):
    table = population.metrics.copy()
    table["holdout_accuracy"] = [0.5, 1.0, 1.0, 1.0, 0.2, 1.0]
    table["holdout_loss"] = [0.0, 0.3, 0.1, 0.1, 0.9, 0.01]
    table["diverged_at"] = [None, None, None, None, None, 7]
    monkeypatch.setitem(vars(population), "metrics", table)
    assert best_model(population) == 2
    with pytest.raises(UserError, match=r"model 5 of .* has diverged"):
        export_model(population, 5, "nowhere")


@pytest.mark.parametrize(
    ("flags", "phrase"),
    [
        (["--model", "99"], "has no model 99, but 6 models"),
        (["--model", "-1"], "has no model -1"),
        (["--model", "1", "--best"], "not allowed with argument"),
        ([], "one of the arguments --model --best is required"),
    ],
)
def test_what_there_is_not_is_refused(run_cli, population, tmp_path, flags, phrase):
    outcome = run_cli("export", population.path, *flags, "--out", tmp_path / "run")
    assert outcome.status == 2
    assert phrase in outcome.err[-1]
    assert not (tmp_path / "run").exists()


def test_the_command_says_what_to_do_next(run_cli, population, tmp_path):
    outcome = run_cli("export", population.path, "--best", "--out", tmp_path / "run")
    assert outcome.status == 0
    best = best_model(population)
    assert outcome.out.startswith(f"Model {best} of {population.path} is the run")
    assert f"jax-revinc report {tmp_path / 'run'}" in outcome.out
    assert json.loads((tmp_path / "run/config.json").read_text())["engine"]["model"] == str(best)


@pytest.mark.slow
def test_page_inspect_and_parity_work_on_it(run_cli, exported):
    from parity import check

    for command in ("report", "inspect"):
        assert run_cli(command, exported.path).status == 0
    assert "population whole, model 4" in (exported.path / "report.html").read_text()
    assert check(exported, ["L0", "L1", "L2", "L4"]).passed


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.parametrize("lanes", [None, 4, 8, 16], ids=lambda lanes: f"{lanes} lanes")
def test_the_best_of_the_tutorials_models_solves_it_whatever_the_rounding(
    lanes, tutorial, tmp_path, monkeypatch
):
    from jax_revinc.engines.fused import spec
    from jax_revinc.engines.fused_engine import fused_programs

    if lanes:
        monkeypatch.setattr(spec, "lane_width", lambda _: lanes)
    fused_programs.cache_clear()
    models = sweep(tutorial, seeds=range(128))
    engine = "fused" if lanes else "xla"
    population = train_population(tutorial, models, tmp_path / "store", engine=engine)
    fused_programs.cache_clear()
    run = export_model(population, best_model(population), tmp_path / "run")
    assert run.metrics["holdout_accuracy"].iloc[-1] == 1
    assert dataclasses.replace(run.config, init_seed=0, data_seed=0, split_seed=0) == tutorial

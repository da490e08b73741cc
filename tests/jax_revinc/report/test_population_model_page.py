"""The page of one model of a population is that of the run into which the model is exported."""

from __future__ import annotations

import pytest
from pages import pictures_of, text_of
from populations import RECIPE, WIDTH

from jax_revinc.population import train_population
from jax_revinc.population.export_model import export_model
from jax_revinc.report.page import report_page
from revinc.sweep import sweep

SOUND, DIVERGED = 0, 3
"""The numbers of a model that learns, and of one that does not."""


@pytest.fixture(scope="module")
def population(tmp_path_factory):
    out = tmp_path_factory.mktemp("populations") / "whole"
    models = sweep(RECIPE, {"lr": [1e-2, 1e30]}, seeds=range(2))
    population = train_population(RECIPE, models, out, width=WIDTH, engine="xla")
    assert population.metrics["diverged_at"].notna()[[SOUND, DIVERGED]].tolist() == [False, True]
    return population


def test_it_is_the_page_of_the_exported_run_in_the_folder_of_the_population(
    run_cli, population, tmp_path
):
    before = {file.name for file in population.path.iterdir()}
    outcome = run_cli("report", population.path, "--model", SOUND)
    assert (outcome.status, outcome.err) == (0, [])
    page = population.path / f"model-{SOUND}.html"
    assert outcome.out == f"Page to open: {page}\n"
    assert {file.name for file in population.path.iterdir()} == before | {page.name}
    html = page.read_text(encoding="utf-8")
    of_run = report_page(export_model(population, SOUND, tmp_path / "run"))
    assert pictures_of(html) == pictures_of(of_run)
    assert f"population whole, model {SOUND}" in text_of(html)
    assert f"jax-revinc · population whole · model {SOUND}" in text_of(html)


@pytest.mark.parametrize(
    ("words", "phrase"),
    [
        (["--model", "99"], "has no model 99, but 4 models"),
        (["--model", str(DIVERGED)], "has diverged"),
        (["elsewhere", "--model", str(SOUND)], "--model N takes a population alone"),
        ([], "is a population; name one of its models by --model N"),
    ],
)
def test_what_has_no_page_is_refused(run_cli, population, words, phrase):
    before = {file.name for file in population.path.iterdir()}
    outcome = run_cli("report", population.path, *words)
    assert outcome.status == 2
    assert phrase in outcome.err[-1]
    assert {file.name for file in population.path.iterdir()} == before


def test_a_run_has_no_models_to_choose(run_cli, short_run):
    outcome = run_cli("report", short_run.path, "--model", 0)
    assert outcome.status == 2
    assert "population" in outcome.err[-1]

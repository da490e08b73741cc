"""The judge of populations passes what is one distribution, names what is not, and says what it can see."""

import dataclasses
import json
import math
import os
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from parity import outcome_comparison, population_level, two_samples
from parity.__main__ import make_parser
from parity.outcome_comparison import (
    QUANTITIES,
    compare_outcomes,
    compare_quantity,
    quantity_distributions,
)
from parity.plots import draw
from parity.population_level import (
    STORED,
    check_population,
    require_config,
    run_again,
    train_population,
)
from parity.report import as_json
from revinc import TrainConfig, UserError
from revinc.command_errors import run_command
from revinc.engine import METRICS
from revinc.seed_outcomes import Outcomes, made_by
from torch_reference.installed_transformer_lens import VERSION, WORLD
from torch_reference.train_many_seeds import train_one

CFG = TrainConfig(steps=10, eval_every=10)
FALSE_ALARMS = 0.02


@pytest.fixture(autouse=True)
def fewer_deals(request, monkeypatch):
    if not request.node.get_closest_marker("slow"):
        monkeypatch.setattr(two_samples, "DEALS", 20_000)


@pytest.fixture(scope="module")
def reference():
    """The torch side of a recipe of ten steps: twenty seeds."""
    rows = [train_one(CFG, seed) for seed in range(3, 23)]
    return Outcomes(CFG, pd.DataFrame(rows), made_by("this test", cpu="this one"))


@pytest.fixture(scope="module")
def passed(reference, tmp_path_factory):
    path = tmp_path_factory.mktemp("reference") / "reference.parquet"
    reference.save(path)
    return check_population(CFG, path)


def test_the_same_program_passes(passed):
    assert passed.passed, passed.failures
    assert passed.dtype == "float32"
    names = [row.name for row in passed.rows]
    again = [f"seed {seed} run again" for seed in (3, 12, 22)]
    assert names == [*again, *(quantity.name for quantity in QUANTITIES)]


def test_rows_have_the_same_headings_and_json_can_hold_them(passed):
    assert len({tuple(row.cells()) for row in passed.rows}) == 1
    assert all(isinstance(cell, str) for row in passed.rows for cell in row.cells().values())
    json.dumps([as_json(row) for row in passed.rows], allow_nan=False)


def test_the_remarks_say_where_both_sides_come_from(passed):
    theirs, ours, *_ = passed.remarks
    assert theirs.startswith(
        "torch: 20 seeds, 3 to 22, stored; made by this test with cpu this one"
    )
    assert f"transformer-lens {VERSION}" in theirs
    assert ours.startswith("JAX: 20 seeds, 23 to 42")


def changed(outcomes, index=0, made_by=None, **columns):
    """The outcomes with something else in the row of an index, or in the record."""
    table = outcomes.table.copy()
    for column, value in columns.items():
        table.at[index, column] = value
    record = outcomes.made_by | (made_by or {})
    return dataclasses.replace(outcomes, table=table, made_by=record)


SPOILED = {
    "all off by 0.1%": lambda losses: losses * 1.001,
    "the last off by 0.1%": lambda losses: np.append(losses[:-1], 1.001 * losses[-1]),
    "one not a number": lambda losses: np.append(np.nan, losses[1:]),
    "in another order": lambda losses: losses[::-1],
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_stored_losses_that_are_not_this_programs_fail(reference, spoil):
    spoiled = changed(reference, losses=spoil(reference.table["losses"][0]))
    row = run_again(spoiled, 0)
    assert not row.passed
    assert row.cells()["verdict"] == "FAIL"


@pytest.mark.parametrize("changes", [{"lr": 1.01e-2}, {"weight_decay": 1e-4}, {"b2": 0.99}])
def test_losses_of_another_recipe_fail(reference, changes):
    other = train_one(dataclasses.replace(CFG, **changes), 3)
    assert not run_again(changed(reference, losses=other["losses"]), 0).passed


def test_a_level_that_fails_so_says_what_may_have_changed(reference, tmp_path):
    old = changed(reference, losses=reference.table["losses"][0] + 1, made_by={"torch": "1.0"})
    old.save(tmp_path / "reference")
    level = check_population(CFG, tmp_path / "reference")
    assert [row.name for row in level.failures] == ["seed 3 run again"]
    assert f"torch 1.0 (here {metadata.version('torch')})" in level.remarks[-1]


def test_losses_that_another_rounding_made_pass(reference):
    losses = reference.table["losses"][0]
    noise = np.random.default_rng(0).choice([-1, 1], len(losses)) * np.finfo(np.float32).eps
    row = run_again(changed(reference, losses=losses * (1 + noise)), 0)
    assert row.passed
    assert 0 < row.apart < 1e-6


def test_the_other_worlds_reference_is_known_not_to_run_again(reference):
    other = {"transformer-lens": {"3.9": "4.3.0", "4.x": "3.9.0"}[WORLD]}
    assert not run_again(changed(reference, made_by=other), 0).passed, "they agree, unexpectedly"
    shifted = changed(reference, made_by=other, losses=reference.table["losses"][0] + 0.1)
    row = run_again(shifted, 0)
    assert row.passed
    assert row.cells()["verdict"] == "differs, as known"


def test_another_recipe_is_refused_with_what_differs(reference):
    with pytest.raises(UserError, match=r"lr: 0\.02 here, 0\.01 there") as refused:
        require_config(dataclasses.replace(CFG, lr=0.02), reference, Path("file"))
    assert "python -m torch_reference population" in str(refused.value)


def test_neither_seeds_nor_snapshots_are_part_of_the_recipe(reference):
    cfg = dataclasses.replace(CFG, init_seed=5, data_seed=6, split_seed=7, snapshots=(1, 2, 3))
    require_config(cfg, reference, Path("file"))


def test_too_few_seeds_are_refused(reference, tmp_path):
    dataclasses.replace(reference, table=reference.table[1:]).save(tmp_path / "reference")
    said = "has outcomes of 19 seeds, and parity level L7 needs at least 20"
    with pytest.raises(UserError, match=said):
        check_population(CFG, tmp_path / "reference")


@pytest.mark.parametrize("package", ["torch", "transformer-lens"])
def test_a_reference_that_does_not_name_its_packages_is_refused(reference, tmp_path, package):
    record = {name: said for name, said in reference.made_by.items() if name != package}
    dataclasses.replace(reference, made_by=record).save(tmp_path / "reference")
    with pytest.raises(
        UserError, match=f"does not say which version of {package} made its outcomes"
    ):
        check_population(CFG, tmp_path / "reference")


@pytest.mark.parametrize("damage", [lambda b: b[:-40], lambda b: b[: len(b) // 2], lambda _: b""])
def test_a_damaged_stored_reference_gets_one_sentence(tmp_path, monkeypatch, capsys, damage):
    damaged = tmp_path / "stored.parquet"
    damaged.write_bytes(damage(STORED.read_bytes()))
    monkeypatch.setattr(population_level, "STORED", damaged)
    assert run_command(make_parser(), ["check", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        f"python -m parity: {damaged} holds no training outcomes that can be read: "
    )
    assert said.count("\n") == 1


def test_a_missing_reference_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no training outcomes that can be read"):
        check_population(CFG, tmp_path / "none.parquet")


@pytest.mark.parametrize("n_cores", [1, 2])
def test_every_seed_is_its_own_run(monkeypatch, n_cores):
    monkeypatch.setattr(os, "cpu_count", lambda: n_cores)
    several = train_population(CFG, [7, 5]).table
    (alone,) = train_population(CFG, [5]).table.to_dict("records")
    assert several["seed"].tolist() == [7, 5]
    for column in ("losses", *METRICS):
        np.testing.assert_array_equal(several[column][1], alone[column])


# What the tests tell apart, on JAX populations of short runs.

SHORT = TrainConfig(steps=200, eval_every=100)
N = 40


@pytest.fixture(scope="module")
def short():
    return train_population(SHORT, range(N))


@pytest.fixture
def failed(short, monkeypatch):
    """A function that gives the names of the tests that tell a recipe from the short runs', by other seeds."""
    monkeypatch.setattr(two_samples.TwoSamples, "detectable", lambda *_: None)

    def failed_(**changes):
        other = train_population(dataclasses.replace(SHORT, **changes), range(N, 2 * N))
        return {row.name for row in compare_outcomes(short, other, FALSE_ALARMS) if not row.passed}

    return failed_


@pytest.mark.slow
def test_other_seeds_of_the_same_recipe_pass(failed):
    assert not failed()


@pytest.mark.slow
def test_another_learning_rate_fails(failed):
    names = failed(lr=4e-3)
    assert names
    assert "loss before training" not in names


@pytest.mark.slow
def test_other_initial_weights_fail(failed, monkeypatch):
    draw = population_level.draw_weights

    def wider(cfg):
        return {name: 1.5 * w if ".W_" in name else w for name, w in draw(cfg).items()}

    monkeypatch.setattr(population_level, "draw_weights", wider)
    assert "loss before training" in failed(steps=100)


# How often they cry wolf, on invented populations.


INVENTED = TrainConfig(steps=40, eval_every=10)


def invented(rng, n):
    """Curves that rise to a ceiling, which for half of the runs is 1."""
    ceilings = {
        split: np.where(rng.random(n) < 0.5, 1.0, rng.uniform(0.4, 1, n).round(1))
        for split in ("train", "holdout")
    }
    rise = rng.choice([0.25, 0.5, 1.0], n)
    time = np.arange(5)
    columns = {
        f"{split}_accuracy": [
            c * np.minimum(1, r * time) for c, r in zip(ceiling, rise, strict=True)
        ]
        for split, ceiling in ceilings.items()
    }
    losses = {f"{split}_loss": list(rng.normal(2, 0.05, (n, 5))) for split in ceilings}
    table = pd.DataFrame({"seed": range(n), **columns, **losses})
    return Outcomes(INVENTED, table, {})


def test_a_level_cries_wolf_no_oftener_than_it_says(monkeypatch):
    monkeypatch.setattr(two_samples, "DEALS", 400)
    monkeypatch.setattr(two_samples.TwoSamples, "detectable", lambda *_: None)
    monkeypatch.setattr(outcome_comparison, "confidence_interval", lambda *_: (0.0, 0.0))
    rng = np.random.default_rng(0)
    repetitions, false_alarms = 150, 0.2
    alarms = 0
    for _ in range(repetitions):
        rows = compare_outcomes(invented(rng, 60), invented(rng, 80), false_alarms)
        alarms += not all(row.passed for row in rows)
    assert alarms <= stats.binom.ppf(0.999, repetitions, false_alarms)
    assert alarms >= stats.binom.ppf(0.001, repetitions, false_alarms / 4), "it is no judge"


# The figures.


def test_a_figure_is_the_share_of_seeds_that_got_so_far():
    rng = np.random.default_rng(0)
    theirs, ours = invented(rng, 50), invented(rng, 70)
    drawn = {name: draw(found) for name, found in quantity_distributions(theirs, ours).items()}
    assert list(drawn) == [q.name for q in QUANTITIES if not q.name.startswith("seeds")]
    figure = drawn["steps to 95% holdout"]
    assert [trace.name for trace in figure.data] == ["torch, 50 seeds", "JAX, 70 seeds"]
    for trace, outcomes in zip(figure.data, (theirs, ours), strict=True):
        reached = outcomes.curves("holdout_accuracy") >= 0.95
        for step, share in zip(trace.x, trace.y, strict=True):
            assert share == pytest.approx(reached[:, : int(step) // 10 + 1].any(1).mean(), abs=1e-4)


# The stored reference.


@pytest.fixture(scope="module")
def stored():
    return Outcomes.load(STORED)


def test_the_stored_reference_is_the_tutorials_and_large_enough(stored):
    assert stored.config == TrainConfig()
    assert len(stored.table) >= 200
    assert stored.table["seed"].tolist() == list(range(len(stored.table)))
    assert stored.made_by["command"].startswith("python -m torch_reference population")
    assert stored.made_by["transformer-lens"].startswith("3.9")
    assert stored.curves("losses").shape == (len(stored.table), 100)
    assert np.isfinite(stored.curves("train_loss")).all()


@pytest.mark.slow
def test_one_half_of_torchs_seeds_passes_for_the_other(stored):
    halves = (stored.table[stored.table["seed"] % 2 == parity] for parity in (0, 1))
    rows = compare_outcomes(
        *(dataclasses.replace(stored, table=half) for half in halves), population_level.FALSE_ALARMS
    )
    assert all(row.passed for row in rows), rows


def test_it_says_what_it_can_see(monkeypatch, stored):
    monkeypatch.setattr(two_samples, "DEALS", 100_000)
    threshold = population_level.FALSE_ALARMS / len(QUANTITIES)
    named = {quantity.name: quantity for quantity in QUANTITIES}

    solved = compare_quantity(named["seeds at 100% holdout"], stored, stored, threshold)
    assert solved.p == 1
    assert solved.seen_below < solved.torch_low < solved.torch < solved.torch_high
    assert solved.torch_high < solved.seen_above < solved.torch + 0.2

    slow = compare_quantity(named["steps to 95% holdout"], stored, stored, threshold)
    assert slow.seen_below < slow.torch_low < slow.torch < slow.torch_high
    assert math.isinf(slow.seen_above)
    assert slow.cells()["would be seen"].endswith(" or never")


@pytest.mark.slow
def test_jax_ends_as_torch_does():
    level = check_population(TrainConfig())
    assert level.passed, level.failures
    assert len(level.rows) == 3 + len(QUANTITIES)


@pytest.mark.slow
def test_jax_by_another_recipe_does_not(stored):
    other = train_population(dataclasses.replace(TrainConfig(), lr=5e-3), range(256, 512))
    assert not all(
        row.passed for row in compare_outcomes(stored, other, population_level.FALSE_ALARMS)
    )

"""The table of many seeds' outcomes: what it keeps of a run, and that its file is whole or refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from revinc import UserError
from revinc.dataset import make_dataset
from revinc.engine import METRICS
from revinc.seed_outcomes import FIRST_LOSSES, Outcomes, made_by, outcome, run_history
from revinc.trainer import Diverged

from .conftest import AddingEngine


def a_table(cfg, weights, seeds=(3, 5)):
    rows = [
        outcome(seed, run_history(make_dataset(cfg), AddingEngine(), weights)) for seed in seeds
    ]
    return Outcomes(cfg, pd.DataFrame(rows), made_by("a command", cpu="abacus"))


@pytest.fixture
def outcomes(cfg, weights):
    return a_table(cfg, weights)


@pytest.fixture
def file(outcomes, tmp_path):
    outcomes.save(tmp_path / "outcomes.parquet")
    return tmp_path / "outcomes.parquet"


@pytest.mark.parametrize("steps", [60, 70, 10])
def test_curves_are_those_of_the_run_at_its_evaluations(cfg, weights, steps):
    cfg = dataclasses.replace(cfg, steps=steps, snapshots=())
    outcomes = a_table(cfg, weights)
    metrics = run_history(make_dataset(cfg), AddingEngine(), weights).metric_columns
    np.testing.assert_array_equal(outcomes.steps, metrics["step"])
    for metric in METRICS:
        np.testing.assert_array_equal(outcomes.curves(metric), [metrics[metric]] * 2)
        np.testing.assert_array_equal(outcomes.final(metric), [metrics[metric][-1]] * 2)


def test_only_the_first_losses_are_kept(cfg, weights):
    longer = dataclasses.replace(cfg, steps=FIRST_LOSSES + 20)
    for config, kept in ((cfg, 60), (longer, FIRST_LOSSES)):
        history = run_history(make_dataset(config), AddingEngine(), weights)
        losses = outcome(0, history)["losses"]
        np.testing.assert_array_equal(losses, history.loss_columns["loss"][:kept])


def test_a_run_that_diverges_has_no_outcome(cfg, weights):
    with pytest.raises(Diverged, match="at step 37"):
        run_history(make_dataset(cfg), AddingEngine(losses={37: np.nan}), weights)


def test_the_file_gives_back_what_was_saved(outcomes, file):
    back = Outcomes.load(file)
    assert back.config == outcomes.config
    assert back.made_by == outcomes.made_by
    assert back.made_by["cpu"] == "abacus"
    assert back.table["seed"].tolist() == [3, 5]
    for column in ("losses", *METRICS):
        np.testing.assert_array_equal(back.curves(column), outcomes.curves(column))


def test_a_full_disk_leaves_the_old_file(outcomes, file, full_disk):
    before = file.read_bytes()
    with full_disk(n_bytes=100), pytest.raises(OSError, match="File too large"):
        outcomes.save(file)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def truncate(file, outcomes):
    file.write_bytes(file.read_bytes()[:-100])


def empty(file, outcomes):
    file.write_bytes(b"")


def spoil(file, outcomes):
    whole = file.read_bytes()
    file.write_bytes(whole[:100] + bytes(2000) + whole[2100:])


def remove(file, outcomes):
    file.unlink()


def make_folder(file, outcomes):
    file.unlink()
    file.mkdir()


def replace_by_another_programs(file, outcomes):
    outcomes.table.to_parquet(file)


def lose_a_column(file, outcomes):
    table = outcomes.table.drop(columns="train_loss")
    dataclasses.replace(outcomes, table=table).save(file)


def replace_by_a_later_versions(file, outcomes):
    class Later:
        def to_dict(self):
            config = outcomes.config.to_dict()
            return config | {"train": config["train"] | {"lookahead": 0.5}}

    dataclasses.replace(outcomes, config=Later()).save(file)


DAMAGES = {
    truncate: "Parquet",
    empty: "Parquet",
    spoil: "",
    remove: "No such file",
    make_folder: "directory",
    replace_by_another_programs: "the file of training outcomes lacks these columns or entries: config, made_by",
    lose_a_column: "the file of training outcomes lacks these columns or entries: train_loss",
    replace_by_a_later_versions: "no field 'lookahead'",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_file_gets_one_sentence(outcomes, file, damage, refuses_in_one_line):
    damage(file, outcomes)
    with refuses_in_one_line(
        UserError, file, "holds no training outcomes that can be read", DAMAGES[damage]
    ):
        Outcomes.load(file)


def without_an_end(numbers):
    return numbers[:-1]


WRONG_ROWS = {
    "a seed twice": ("seed", lambda _: 3),
    "a seed below 0": ("seed", lambda _: -1),
    "a loss that is NaN": ("losses", lambda numbers: numbers * np.nan),
    "a metric that is infinite": ("holdout_loss", lambda numbers: numbers + np.inf),
    "too few losses": ("losses", without_an_end),
    "too few evaluations": ("train_accuracy", without_an_end),
    "words": ("train_loss", lambda numbers: numbers.astype(str)),
    "nothing": ("train_loss", lambda _: None),
}


@pytest.mark.parametrize(("column", "wrong"), WRONG_ROWS.values(), ids=WRONG_ROWS)
def test_rows_that_no_run_makes_are_refused_by_name(outcomes, file, column, wrong):
    table = outcomes.table.copy()
    table[column] = [
        wrong(value) if row or column == "train_loss" else value
        for row, value in enumerate(table[column])
    ]
    dataclasses.replace(outcomes, table=table).save(file)
    with pytest.raises(UserError, match="holds no training outcomes that can be read: ") as refused:
        Outcomes.load(file)
    assert column in str(refused.value)


@pytest.mark.parametrize("record", [None, [], "a command", {}, {"command": 3}])
def test_a_file_that_does_not_say_what_made_it_is_refused(outcomes, file, record):
    dataclasses.replace(outcomes, made_by=record).save(file)
    with pytest.raises(UserError, match="does not name the command that made it"):
        Outcomes.load(file)

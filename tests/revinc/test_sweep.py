from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from revinc import UserError
from revinc.config import SEEDS
from revinc.sweep import IDENTITY, new_models, run_of, shared_differences, sweep


def points(models):
    return [tuple(row) for row in models[list(IDENTITY)].itertuples(index=False)]


def test_a_sweep_of_nothing_is_the_recipe_itself(tutorial):
    assert points(sweep(tutorial)) == [(0.01, 0.01, 0.0, "prefix", 0, 0, 0)]


def test_seeds_without_axes_of_their_own_go_together(tutorial):
    models = sweep(tutorial, seeds=range(2, 5))
    assert models[list(SEEDS)].to_numpy().tolist() == [[2] * 3, [3] * 3, [4] * 3]
    models = sweep(tutorial, {"data_seed": [7, 9]}, seeds=[2, 3])
    assert models[list(SEEDS)].to_numpy().tolist() == [[2, 7, 2], [2, 9, 2], [3, 7, 3], [3, 9, 3]]


def test_axes_are_crossed_and_the_seeds_come_first(tutorial):
    models = sweep(tutorial, {"split": ["random", "prefix"], "lr": [0.1, 0.2]}, seeds=[5, 6])
    assert points(models)[:4] == [
        (0.1, 0.01, 0.0, "random", 5, 5, 5),
        (0.1, 0.01, 0.0, "prefix", 5, 5, 5),
        (0.2, 0.01, 0.0, "random", 5, 5, 5),
        (0.2, 0.01, 0.0, "prefix", 5, 5, 5),
    ]
    assert len(set(points(models))) == len(models) == 8


def test_the_order_in_which_axes_are_named_does_not_matter(tutorial):
    axes = {"weight_decay": [0, 1], "lr": [0.1, 0.2], "init_seed": [1, 2]}
    assert points(sweep(tutorial, axes)) == points(sweep(tutorial, dict(reversed(axes.items()))))


def test_values_may_be_numpys_or_one_alone(tutorial):
    models = sweep(
        tutorial, {"init_seed": np.arange(2), "lr": np.array([0.1, 0.2]), "split": "random"}
    )
    assert models.equals(
        sweep(tutorial, {"init_seed": [0, 1], "lr": [0.1, 0.2], "split": ["random"]})
    )
    assert points(sweep(tutorial, seeds=np.arange(2))) == points(sweep(tutorial, seeds=[0, 1]))


def test_what_has_no_axis_is_the_recipes(tutorial):
    cfg = dataclasses.replace(tutorial, lr=0.5, split="random", data_seed=3)
    (point,) = points(sweep(cfg, {"weight_decay": [0.25]}))
    assert point == (0.5, 0.25, 0.0, "random", 0, 3, 0)


@pytest.mark.parametrize(
    ("axes", "seeds", "phrase"),
    [
        ({"steps": [1, 2]}, None, "steps can't be swept; choose from lr"),
        ({"lr": []}, None, "lr has no values"),
        ({}, [], "seeds has no values"),
        ({"lr": [1e-3, 0.001]}, None, "lr has 0.001 more than once"),
        ({}, [1, 2, 1], "seeds has 1 more than once"),
        ({"lr": [0.1, -1.0]}, None, "lr must be"),
        ({"split": ["prefix", "sufix"]}, None, "unknown split 'sufix'"),
        ({"data_seed": [0.5]}, None, "data_seed must be an integer"),
        ({}, [0, 0.5, 1], "seeds must be an integer, not 0.5"),
        ({}, 5.5, "seeds must be an integer, not 5.5"),
        ({"lr": [[0.1]]}, None, "lr must be a number"),
        ({"lr": {0.1}}, None, "lr must be a tuple of values"),
        ({"lr": [10**400]}, None, "lr must be a finite number"),
        ({}, range(-1, 3), "init_seed must be at least 0"),
        ({}, [0, 2**32], "init_seed must be below"),
        ({name: [0] for name in SEEDS}, [1, 2], "all have values of their own"),
        ({}, range(10**12), "1,000,000,000,000 models are too many; a population has at most"),
        ({"data_seed": range(10**30)}, None, "models are too many"),
        ({"data_seed": range(5000), "init_seed": range(5000)}, None, "25,000,000 models are too"),
    ],
)
def test_a_sweep_that_means_nothing_is_refused(tutorial, axes, seeds, phrase, refuses_in_one_line):
    with refuses_in_one_line(UserError, phrase):
        sweep(tutorial, axes, seeds)


def test_new_models_are_those_not_known_in_order_and_once(tutorial):
    known = sweep(tutorial, seeds=[3, 1])
    asked = sweep(tutorial, {"lr": [0.01, 0.5]}, seeds=[0, 1])
    again = pd.concat([asked, asked])
    assert points(new_models(again, known)) == [
        (0.01, 0.01, 0.0, "prefix", 0, 0, 0),
        (0.5, 0.01, 0.0, "prefix", 0, 0, 0),
        (0.5, 0.01, 0.0, "prefix", 1, 1, 1),
    ]
    assert not len(new_models(known, known))
    assert points(new_models(known, known.iloc[:0])) == points(known)


def test_the_run_of_a_model_has_its_rates_split_and_seeds_and_the_rest_of_the_recipe(tutorial):
    cfg = dataclasses.replace(tutorial, steps=77)
    models = sweep(cfg, {"lr": [0.25], "split": ["random"], "split_seed": [9]}, seeds=[4])
    expected = dataclasses.replace(
        cfg, lr=0.25, split="random", init_seed=4, data_seed=4, split_seed=9
    )
    assert run_of(cfg, models.iloc[0]) == expected
    assert run_of(cfg, models.to_dict("records")[0]) == expected
    assert run_of(cfg, models.iloc[0]).to_dict() == expected.to_dict()


def test_recipes_differ_by_what_models_of_one_population_share(tutorial):
    same = dataclasses.replace(tutorial, lr=0.5, split="random", init_seed=5, weight_decay=0.0)
    assert shared_differences(tutorial, same) == []
    other = dataclasses.replace(same, steps=70, model=tutorial.model.replace(d_mlp=8))
    assert shared_differences(tutorial, other) == [
        "d_mlp: 4 here, 8 there",
        "steps: 4000 here, 70 there",
    ]

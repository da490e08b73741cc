"""When the models of a population were at their best, and what is said of those that lost it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from populations import RECIPE

from jax_revinc.population.best_evaluations import best_table, lost_sentences
from jax_revinc.population.shards import DIVERGED
from revinc.best_evaluation import best_evaluation

STEPS = np.array([0, 10, 20])
INDEX = pd.Index([3, 4, 7, 9], name="model")
ACCURACY = np.array([[0.2, 1, 0.4], [0.2, 1, 1], [0.2, 0.5, 0.4], [np.nan] * 3])
LOSS = np.array([[2, 1, 3], [2, 1, 0.5], [2, 1, 1], [np.nan] * 3])


def test_a_row_tells_when_a_model_was_at_its_best_and_whether_it_lost_that():
    table = best_table(INDEX, STEPS, ACCURACY, LOSS, solved=1.0)
    assert table.index.equals(INDEX)
    assert table["best_step"].tolist() == [10, 20, 10, pd.NA]
    np.testing.assert_array_equal(table["best_holdout_accuracy"], [1, 1, 0.5, np.nan])
    assert table["lost_it"].tolist() == [True, False, False, False]


def test_the_task_decides_what_is_solved():
    table = best_table(INDEX, STEPS, ACCURACY, LOSS, solved=0.5)
    assert table["lost_it"].tolist() == [True, False, True, False]


def test_a_sentence_counts_models_that_were_right_and_those_that_lost_it():
    table = best_table(INDEX, STEPS, ACCURACY, LOSS, solved=1.0)
    (sentence,) = lost_sentences(table, 1.0)
    assert sentence == (
        "50.0% [15.0 .. 85.0] reached 100% of the holdout at some evaluation (2), and "
        "25.0% [4.6 .. 69.9] reached it and had lost it again by the last one (1)."
    )
    assert lost_sentences(table.loc[[4, 7]], 1.0) == []


def test_a_population_reads_it_from_its_curves(small):
    best, accuracy = small.best, small.curves("holdout_accuracy")
    assert best.index.equals(small.metrics.index)
    at = best_evaluation(accuracy, small.curves("holdout_loss"))
    for row, (evaluation, model) in enumerate(zip(at, best.to_dict("records"), strict=True)):
        if np.isnan(accuracy[row, 0]):
            assert model["best_step"] is pd.NA
            continue
        assert model["best_step"] == RECIPE.eval_every * evaluation
        assert model["best_holdout_accuracy"] == np.nanmax(accuracy[row])
    diverged = small.metrics[DIVERGED].notna()
    assert 0 < diverged.sum() < len(best)
    assert not best["lost_it"][small.metrics["holdout_accuracy"] >= 1].any()

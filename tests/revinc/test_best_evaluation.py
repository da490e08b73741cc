"""Which evaluation is the best, and which trainings lost what they had learned."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from revinc.best_evaluation import best_evaluation, has_lost_it, merit

LEVELS = [0.0, 0.5, 1.0]
"""Few values, so that many are equal."""

EVALUATIONS = st.lists(
    st.fixed_dictionaries(
        {"holdout_accuracy": st.sampled_from(LEVELS), "holdout_loss": st.sampled_from(LEVELS)}
    ),
    min_size=1,
    max_size=8,
)


def curves(evaluations):
    names = ("holdout_accuracy", "holdout_loss")
    return [np.array([each[name] for each in evaluations]) for name in names]


@given(EVALUATIONS)
def test_the_best_is_the_earliest_of_the_greatest_merit(evaluations):
    best = int(best_evaluation(*curves(evaluations)))
    merits = list(map(merit, evaluations))
    assert merits[best] == max(merits)
    assert max(merits) not in merits[:best]


@given(st.lists(EVALUATIONS, min_size=1, max_size=5), st.sampled_from(LEVELS[1:]))
def test_models_side_by_side_are_judged_as_each_alone(models, solved):
    shortest = min(map(len, models))
    alone = [curves(evaluations[:shortest]) for evaluations in models]
    accuracy, loss = (np.stack(of) for of in zip(*alone, strict=True))
    np.testing.assert_array_equal(
        best_evaluation(accuracy, loss), [best_evaluation(*each) for each in alone]
    )
    np.testing.assert_array_equal(
        has_lost_it(accuracy, solved), [has_lost_it(each, solved) for each, _ in alone]
    )


@given(EVALUATIONS, st.sampled_from(LEVELS[1:]))
def test_only_what_was_solved_and_is_no_longer_has_lost_it(evaluations, solved):
    accuracy, loss = curves(evaluations)
    best = accuracy[best_evaluation(accuracy, loss)]
    assert has_lost_it(accuracy, solved) == (best >= solved > accuracy[-1])


HISTORIES = {
    "solved at last": ([0.2, 1.0, 0.4, 1.0], False),
    "never solved": ([0.2, 0.99, 0.4], False),
    "solved only at last": ([0.2, 1.0], False),
    "solved from the start": ([1.0, 1.0], False),
    "lost at last": ([0.2, 1.0, 0.99], True),
    "lost long before": ([1.0, 0.2, 0.3], True),
    "diverged when it was solved": ([0.2, 1.0, np.nan], True),
    "diverged before": ([0.2, np.nan, np.nan], False),
    "diverged at once": ([np.nan, np.nan], False),
}


@pytest.mark.parametrize(("accuracy", "lost"), HISTORIES.values(), ids=HISTORIES)
def test_a_training_that_lost_the_holdout_has_lost_it(accuracy, lost):
    assert has_lost_it(np.array(accuracy), 1.0) == lost


def test_a_divergence_is_never_the_best():
    accuracy, loss = np.array([0.2, 0.4, np.nan]), np.array([2.0, 1.0, np.nan])
    assert best_evaluation(accuracy, loss) == 1
    assert best_evaluation(accuracy * np.nan, loss * np.nan) == 0

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from revinc.batch_schedule import draw_batches

FALSE_ALARM = 1e-9
"""Chance that a statistical test below fails on a perfect generator (its seed is fixed besides)."""

TRAIN_ROWS = np.arange(200)
seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=100)
@given(data=st.data(), seed=seeds)
def test_a_batch_is_a_subset_of_the_training_rows_without_repeats(data, seed):
    rows = data.draw(st.lists(st.integers(0, 2**20), min_size=1, max_size=60, unique=True))
    batch_size = data.draw(st.integers(1, len(rows)))
    batches = draw_batches(seed, np.array(rows), batch_size, 0, 20)
    assert batches.shape == (20, batch_size)
    assert batches.dtype == np.int32
    for batch in batches.tolist():
        assert len(set(batch)) == batch_size
        assert set(batch) <= set(rows)


@settings(max_examples=100)
@given(
    seed=seeds,
    batch_size=st.integers(1, 40),
    start=st.integers(0, 60),
    length=st.integers(0, 60),
)
def test_any_stretch_can_be_drawn_by_itself(seed, batch_size, start, length):
    whole = draw_batches(seed, TRAIN_ROWS, batch_size, 0, 120)
    stretch = draw_batches(seed, TRAIN_ROWS, batch_size, start, start + length)
    assert np.array_equal(stretch, whole[start : start + length])


@settings(max_examples=50)
@given(seed=seeds, n_train=st.integers(1, 50))
def test_a_batch_of_the_whole_split_is_a_permutation_of_it(seed, n_train):
    rows = np.arange(n_train) * 3 + 1
    for batch in draw_batches(seed, rows, n_train, 0, 5):
        assert sorted(batch) == rows.tolist()


def test_seeds_give_different_schedules():
    schedules = {draw_batches(seed, TRAIN_ROWS, 16, 0, 4).tobytes() for seed in range(100)}
    assert len(schedules) == 100


def test_every_subset_is_equally_likely():
    # Steps are independent, so Pearson's statistic over the 20 subsets has 19 degrees of freedom.
    n_steps = 40_000
    batches = np.sort(draw_batches(1, np.arange(6), 3, 0, n_steps), axis=1)
    counts = Counter(map(tuple, batches.tolist()))
    observed = [counts[subset] for subset in combinations(range(6), 3)]
    assert sum(observed) == n_steps
    assert stats.chisquare(observed).pvalue > FALSE_ALARM


def test_rows_and_pairs_are_equally_likely_at_the_tutorials_size():
    # Every count is binomial; Bonferroni over all of them and both tails.
    n_steps, n, size = 20_000, len(TRAIN_ROWS), 16
    member = np.zeros((n_steps, n), np.float32)
    np.put_along_axis(member, draw_batches(2, TRAIN_ROWS, size, 0, n_steps), 1, axis=1)
    together = (member.T @ member).astype(int)
    row_counts = np.diag(together)
    pair_counts = together[np.triu_indices(n, k=1)]
    for counts, probability in [
        (row_counts, size / n),
        (pair_counts, size * (size - 1) / (n * (n - 1))),
    ]:
        expected = stats.binom(n_steps, probability)
        tail = FALSE_ALARM / 2 / (2 * len(counts))
        assert expected.cdf(counts.min()) > tail
        assert expected.sf(counts.max() - 1) > tail


def test_the_schedule_is_the_same_on_every_machine():
    # As computed by a pure-Python Philox 4x64-10 and Floyd's algorithm, written from the papers.
    assert draw_batches(0, TRAIN_ROWS, 16, 0, 2).tolist() == [
        [156, 162, 165, 123, 115, 188, 12, 71, 126, 32, 55, 134, 79, 3, 152, 146],
        [161, 75, 139, 64, 148, 181, 106, 32, 74, 128, 176, 169, 157, 132, 95, 100],
    ]


def test_a_batch_of_the_whole_split_is_the_split_in_order():
    rows = np.arange(0, 4000, 3)
    assert np.array_equal(draw_batches(0, rows, len(rows), 5, 7), np.stack([rows, rows]))

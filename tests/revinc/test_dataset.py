from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revinc import PRESETS, TrainConfig, UserError
from revinc.dataset import make_dataset, rows_of_runs
from revinc.engine import MOST_TOKENS, chunk_capacity
from revinc.tasks import SAMPLE, Copy
from revinc.trainer import boundaries


def test_the_tutorial_trains_on_the_first_200_of_256(tutorial):
    data = make_dataset(tutorial)
    assert data.train_rows.tolist() == list(range(200))
    assert data.holdout_rows.tolist() == list(range(200, 256))
    assert np.array_equal(data.tokens, tutorial.task.sequences())
    assert data.eval_positions == (5, 6, 7, 8)


@settings(max_examples=50)
@given(
    split=st.sampled_from(["prefix", "random"]),
    n_train=st.integers(16, 255),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_splits_are_disjoint_and_complete(tutorial, split, n_train, seed):
    cfg = dataclasses.replace(tutorial, split=split, train_fraction=n_train / 256, split_seed=seed)
    data = make_dataset(cfg)
    assert len(data.train_rows) == cfg.n_train == n_train
    assert np.all(data.train_mask ^ data.holdout_mask)
    assert sorted([*data.train_rows, *data.holdout_rows]) == list(range(256))


def test_the_random_split_follows_its_own_seed_alone(tutorial):
    def train_rows(**changes):
        return make_dataset(dataclasses.replace(tutorial, **changes)).train_rows.tolist()

    first = train_rows(split="random", split_seed=7)
    assert first == train_rows(split="random", split_seed=7, init_seed=1, data_seed=2)
    assert first != train_rows(split="random", split_seed=8)
    assert first != list(range(200))


def test_the_prefix_split_has_no_seed(tutorial):
    other = dataclasses.replace(tutorial, split_seed=5)
    assert np.array_equal(make_dataset(other).train_mask, make_dataset(tutorial).train_mask)


@pytest.mark.parametrize("row", [0, 128, 255])
def test_the_random_split_holds_out_every_row_sometimes(tutorial, row):
    # Each seed holds a row out with probability 56/256: never in 200 seeds has chance 4e-22.
    held_out = [
        make_dataset(dataclasses.replace(tutorial, split="random", split_seed=seed)).holdout_mask[
            row
        ]
        for seed in range(200)
    ]
    assert 0 < sum(held_out) < 200


# Tasks that are drawn

DRAWN = TrainConfig(
    model=PRESETS["tutorial"].model.replace(n_ctx=16, d_vocab=9), task=Copy(length=8), batch_size=4
)


def seen(data, start, stop):
    """The sequences that a run trains on."""
    tokens, rows = data.examples(data.rows(start, stop))
    return tokens[rows]


@settings(max_examples=30)
@given(start=st.integers(0, 2**40), length=st.integers(1, 9), seed=st.integers(0, 2**32 - 1))
def test_any_stretch_of_a_drawn_run_can_be_had_by_itself(start, length, seed):
    data = make_dataset(dataclasses.replace(DRAWN, data_seed=seed))
    whole = seen(data, start, start + 9)
    assert whole.shape == (9, 4, 17)
    assert np.array_equal(seen(data, start + 9 - length, start + 9), whole[9 - length :])
    # And in whatever order it is asked for.
    tokens, rows = data.examples(data.rows(start, start + 9)[::-1, ::-1])
    assert np.array_equal(tokens[rows], whole[::-1, ::-1])


def test_a_drawn_run_meets_every_example_once_beyond_32_bits_too():
    data = make_dataset(DRAWN)
    assert data.rows(0, 3).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert data.rows(2**40, 2**40 + 1)[0, 0] == 2**42


def test_it_is_evaluated_on_what_it_trains_on_and_on_what_the_split_seed_draws():
    data = make_dataset(DRAWN)
    assert len(data.train_rows) == len(data.holdout_rows) == SAMPLE
    first = seen(data, 0, SAMPLE // 4).reshape(SAMPLE, -1)
    assert np.array_equal(data.tokens[data.train_rows], first)
    assert not np.array_equal(data.tokens[data.holdout_rows], first)

    def splits(**seeds):
        other = make_dataset(dataclasses.replace(DRAWN, **seeds))
        return [
            np.array_equal(other.tokens[rows], data.tokens[rows])
            for rows in (data.train_rows, data.holdout_rows)
        ]

    assert splits(data_seed=1) == [False, True]
    assert splits(split_seed=1) == [True, False]
    assert splits(init_seed=1) == [True, True]


def test_many_runs_have_the_batches_that_each_has_alone(tutorial):
    for runs in (
        [dataclasses.replace(tutorial, data_seed=seed, split="random") for seed in (1, 2)],
        [dataclasses.replace(DRAWN, data_seed=seed) for seed in (1, 2)],
    ):
        datasets = [make_dataset(run) for run in runs]
        together = rows_of_runs(datasets, 3, 5)
        for batches, data in zip(together, datasets, strict=True):
            assert np.array_equal(batches, data.rows(3, 5))


@pytest.mark.parametrize("changes", [{"split": "random"}, {"train_fraction": 0.5}], ids=str)
def test_a_split_of_what_is_drawn_is_refused(changes):
    with pytest.raises(UserError, match=f"{next(iter(changes))}=.* has no effect"):
        dataclasses.replace(DRAWN, **changes)


def test_chunks_of_a_drawn_run_hold_no_more_tokens_than_they_may():
    big = dataclasses.replace(DRAWN, batch_size=1000, eval_every=1000)
    assert chunk_capacity(big) == MOST_TOKENS // 17_000
    assert max(np.diff(boundaries(big))) <= chunk_capacity(big)
    assert chunk_capacity(dataclasses.replace(big, batch_size=MOST_TOKENS)) == 1
    assert chunk_capacity(dataclasses.replace(DRAWN, eval_every=1000)) == 1000

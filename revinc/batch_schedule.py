"""The schedule of batches: which examples each update trains on, drawn from a seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from revinc.philox import WORDS_PER_COUNT, philox_words, unit_interval


def draw_batches(
    seed: int,
    train_rows: Int[np.ndarray, " n_train"],
    batch_size: int,
    start: int,
    stop: int,
) -> Int[np.ndarray, "steps batch"]:
    """Draw the batches of updates `start` to `stop` (exclusive), as row numbers of sequences.

    A batch depends on the seed and the number of its update alone, so any part of the schedule can
    be drawn by itself.

    Args:
        seed: the data seed.
        train_rows: the rows of the training split.
        batch_size: examples per update.
        start: the first update.
        stop: the update after the last.
    """
    return draw_many_batches([seed], [train_rows], batch_size, start, stop)[0]


def draw_many_batches(
    seeds: Sequence[int],
    train_rows: Sequence[Int[np.ndarray, " n_train"]],
    batch_size: int,
    start: int,
    stop: int,
) -> Int[np.ndarray, "runs steps batch"]:
    """Draw the batches of many runs at once, as row numbers; `draw_batches` draws one run's.

    Each run has its own seed and training split; the splits are of one size. Each batch is a
    uniform subset without replacement, drawn by Floyd's algorithm (Bentley and Floyd, CACM 30(9),
    1987), all runs and steps at once. A batch of the whole split is the split in its order.
    """
    n_train, n_steps = len(train_rows[0]), stop - start
    if batch_size == n_train:
        return np.stack([np.tile(of_run.astype(np.int32), (n_steps, 1)) for of_run in train_rows])
    counts_per_step = -(-batch_size // WORDS_PER_COUNT)
    words_per_step = counts_per_step * WORDS_PER_COUNT
    first, n_words = start * counts_per_step, n_steps * words_per_step
    words = np.stack([philox_words(seed, "batches", first, n_words) for seed in seeds])
    drawn = words.reshape(len(seeds), n_steps, words_per_step)[..., :batch_size]
    uniform = unit_interval(np.ascontiguousarray(np.moveaxis(drawn, -1, 0)))

    chosen = np.empty(uniform.shape, dtype=np.int32)  # [batch, runs, steps]: one slot at a time
    for slot, last in enumerate(range(n_train - batch_size, n_train)):
        candidate = (uniform[slot] * (last + 1)).astype(np.int32)
        taken = (chosen[:slot] == candidate).any(axis=0)
        chosen[slot] = np.where(taken, last, candidate)
    batches = np.ascontiguousarray(np.moveaxis(chosen, 0, -1))
    rows = zip(train_rows, batches, strict=True)
    return np.stack([of_run.astype(np.int32)[which] for of_run, which in rows])


def next_batches(batch_size: int, start: int, stop: int) -> Int[np.ndarray, "steps batch"]:
    """The batches of updates `start` to `stop` (exclusive), taking examples 0, 1, ... in turn."""
    return np.arange(start * batch_size, stop * batch_size).reshape(-1, batch_size)

"""Which examples each step sees, from a seed alone: every framework and engine draws the same."""

from __future__ import annotations

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
    """The sequences that updates `start` to `stop` (exclusive) train on, as int32 row numbers.

    Each batch is a uniform subset without replacement, drawn by Floyd's algorithm (Bentley and
    Floyd, CACM 30(9), 1987), all steps at once. A step's batch depends on `seed` and its own number
    only, so any stretch of the schedule can be drawn by itself.
    """
    n_train, n_steps = len(train_rows), stop - start
    counts_per_step = -(-batch_size // WORDS_PER_COUNT)
    words = philox_words(
        seed, "batches", start * counts_per_step, n_steps * counts_per_step * WORDS_PER_COUNT
    )
    uniform = unit_interval(
        words.reshape(n_steps, counts_per_step * WORDS_PER_COUNT)[:, :batch_size]
    )

    chosen = np.full((n_steps, batch_size), -1, dtype=np.int32)
    for slot, last in enumerate(range(n_train - batch_size, n_train)):
        candidate = (uniform[:, slot] * (last + 1)).astype(np.int32)
        taken = (chosen == candidate[:, None]).any(axis=1)
        chosen[:, slot] = np.where(taken, last, candidate)
    return train_rows.astype(np.int32)[chosen]

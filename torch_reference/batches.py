"""A second, independent implementation of how a run's batches are drawn, in plain Python.

The engines of both frameworks share `revinc.dataset`, `revinc.batch_schedule` and `revinc.philox`. This
module uses none of them, so that training torch on its sequences shows a fault in them. Both draw
from numpy's Philox.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import cast

import numpy as np
from jaxtyping import Int

from revinc import TrainConfig
from revinc.tasks import DrawnTask

WORDS = 4
"""Words that Philox makes at once. Every draw begins with the first word of a block."""


def sequences_of_every_step(cfg: TrainConfig) -> Int[np.ndarray, "steps batch seq"]:
    """The token ids of every batch of a run."""
    return drawn_sequences(cfg) if cfg.task.is_drawn else listed_sequences(cfg)


def drawn_sequences(cfg: TrainConfig) -> Int[np.ndarray, "steps batch seq"]:
    """The batches of a task whose examples are generated at random, from the data seed."""
    task = cast(DrawnTask, cfg.task)
    stream = random_words(cfg.data_seed, "examples")
    words = [in_blocks(stream, task.n_words) for _ in range(cfg.steps * cfg.batch_size)]
    drawn = task.draw(np.array(words, dtype=np.uint64))
    return drawn.reshape(cfg.steps, cfg.batch_size, -1)


def listed_sequences(cfg: TrainConfig) -> Int[np.ndarray, "steps batch seq"]:
    """The batches of a task with a fixed list of examples: random subsets of the training split."""
    rows = training_split(cfg)
    stream = random_words(cfg.data_seed, "batches")
    batches = [draw_batch(stream, rows, cfg.batch_size) for _ in range(cfg.steps)]
    return cfg.task.sequences()[np.array(batches)]


def training_split(cfg: TrainConfig) -> list[int]:
    """The row numbers of the training split, ascending: the first rows, or ones drawn at random."""
    rows = list(range(len(cfg.task.sequences())))
    if cfg.split == "random":
        words = in_blocks(random_words(cfg.split_seed, "split"), len(rows))
        rows = sorted(rows, key=words.__getitem__)
    return sorted(rows[: cfg.n_train])


def draw_batch(stream: Iterator[int], rows: list[int], batch_size: int) -> list[int]:
    """Draw a uniform subset of rows by Floyd's algorithm (Bentley and Floyd, CACM 30(9), 1987).

    A batch of all rows is the rows in their order.
    """
    if batch_size == len(rows):
        return rows
    chosen: list[int] = []
    lasts = range(len(rows) - batch_size, len(rows))
    for last, word in zip(lasts, in_blocks(stream, batch_size), strict=True):
        uniform = (word >> 11) / 2**53
        candidate = int(uniform * (last + 1))
        chosen.append(last if candidate in chosen else candidate)
    return [rows[which] for which in chosen]


def random_words(seed: int, stream: str) -> Iterator[int]:
    """An endless stream of uniform random 64-bit integers (words), from a seed and a name."""
    key = np.random.SeedSequence([seed, *stream.encode()]).generate_state(2, np.uint64)
    generator = np.random.Philox(key=key)
    while True:
        yield int(generator.random_raw())


def in_blocks(stream: Iterator[int], n_words: int) -> list[int]:
    """Take `n_words` integers from a random stream, and skip the rest of the last block of four."""
    n_blocks = -(-n_words // WORDS)
    return list(islice(stream, n_blocks * WORDS))[:n_words]

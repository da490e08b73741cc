"""A task's sequences, split into a training and a holdout set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from revinc.config import TrainConfig
from revinc.philox import philox_words
from revinc.tasks import predicted_positions


@dataclass(frozen=True, eq=False)
class Dataset:
    """All sequences of a task, each in one of two splits, and the positions whose token is asked for."""

    tokens: Int[np.ndarray, "n_sequences seq"]
    train_mask: Bool[np.ndarray, " n_sequences"]
    predicted: tuple[int, ...]

    @property
    def holdout_mask(self) -> Bool[np.ndarray, " n_sequences"]:
        return ~self.train_mask

    @property
    def train_rows(self) -> Int[np.ndarray, " n_train"]:
        """Indices of the training sequences, ascending."""
        return np.flatnonzero(self.train_mask)

    @property
    def holdout_rows(self) -> Int[np.ndarray, " n_holdout"]:
        """Indices of the holdout sequences, ascending."""
        return np.flatnonzero(self.holdout_mask)


def make_dataset(cfg: TrainConfig) -> Dataset:
    """The dataset of a run: ``prefix`` trains on the first sequences, ``random`` on a seeded draw."""
    tokens = cfg.task.sequences()
    order = np.arange(len(tokens))
    if cfg.split == "random":
        words = philox_words(cfg.split_seed, "split", start=0, n_words=len(tokens))
        order = np.argsort(words, kind="stable")
    train_mask = np.zeros(len(tokens), dtype=bool)
    train_mask[order[: cfg.n_train]] = True
    return Dataset(tokens=tokens, train_mask=train_mask, predicted=predicted_positions(cfg.task))

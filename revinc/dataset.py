"""The dataset of a run: its training and evaluation sequences, made from its config alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from revinc.batch_schedule import draw_many_batches, next_batches
from revinc.config import TrainConfig
from revinc.errors import UserError
from revinc.philox import philox_words
from revinc.tasks import SAMPLE, draw_examples, eval_positions

Rows = Int[np.ndarray, "*batches"]
Tokens = Int[np.ndarray, "n_sequences seq"]


@dataclass(frozen=True, eq=False)
class Dataset(ABC):
    """The examples that a run trains and is evaluated on, the same for every framework and engine.

    Attributes:
        cfg: the training config.
        tokens: the sequences of an evaluation.
        train_mask: which of them are of the training split; the others are of the holdout split.
    """

    cfg: TrainConfig
    tokens: Tokens
    train_mask: Bool[np.ndarray, " n_sequences"]

    @abstractmethod
    def rows(self, start: int, stop: int) -> Int[np.ndarray, "steps batch"]:
        """The numbers of the examples in each batch, for updates `start` to `stop` (exclusive).

        They depend on nothing that came before, so any part of a run can be had by itself.
        """

    @abstractmethod
    def examples(self, rows: Rows) -> tuple[Tokens, Rows]:
        """An array of sequences, and for each example number in `rows` the index of its sequence.

        Their shapes depend on the shape of `rows` alone, so that they need one program only.

        Returns:
            The sequences, and the places (int32), which have the shape of `rows`.
        """

    @property
    def eval_positions(self) -> tuple[int, ...]:
        """The positions of the tokens to predict when a split is evaluated."""
        return eval_positions(self.cfg.task)

    @property
    def holdout_mask(self) -> Bool[np.ndarray, " n_sequences"]:
        """A mask of the sequences in `tokens` that belong to the holdout split."""
        return ~self.train_mask

    @property
    def train_rows(self) -> Int[np.ndarray, " n_train"]:
        """Indices in `tokens` of the training sequences, ascending."""
        return np.flatnonzero(self.train_mask)

    @property
    def holdout_rows(self) -> Int[np.ndarray, " n_holdout"]:
        """Indices in `tokens` of the holdout sequences, ascending."""
        return np.flatnonzero(self.holdout_mask)


class ListedDataset(Dataset):
    """The dataset of a task that lists all its sequences; an example's number is its index."""

    def rows(self, start: int, stop: int) -> Int[np.ndarray, "steps batch"]:
        return rows_of_runs([self], start, stop)[0]

    def examples(self, rows: Rows) -> tuple[Tokens, Rows]:
        return self.tokens, rows


class DrawnDataset(Dataset):
    """The dataset of a task with too many sequences to list, which are drawn from the data seed.

    The training split of an evaluation is the first examples of the training; the holdout split is
    as many, drawn from the split seed.
    """

    def rows(self, start: int, stop: int) -> Int[np.ndarray, "steps batch"]:
        return next_batches(self.cfg.batch_size, start, stop)

    def examples(self, rows: Rows) -> tuple[Tokens, Rows]:
        first = int(rows.min())
        block = drawn_for_training(self.cfg, first, int(rows.max()) + 1)
        places = np.arange(rows.size, dtype=np.int32).reshape(rows.shape)
        return block[(rows - first).ravel()], places


def make_dataset(cfg: TrainConfig) -> Dataset:
    """Make the dataset of a run from its training config.

    Its training split is the first sequences (``prefix``) or seeded ones (``random``).
    """
    if cfg.task.is_drawn:
        holdout = _drawn(cfg, cfg.split_seed, "holdout", 0, SAMPLE)
        tokens = np.concatenate([drawn_for_training(cfg, 0, SAMPLE), holdout])
        return DrawnDataset(cfg, tokens, np.arange(len(tokens)) < SAMPLE)
    tokens = cfg.task.sequences()
    order = np.arange(len(tokens))
    if cfg.split == "random":
        words = philox_words(cfg.split_seed, "split", start=0, n_words=len(tokens))
        order = np.argsort(words, kind="stable")
    train_mask = np.zeros(len(tokens), dtype=bool)
    train_mask[order[: cfg.n_train]] = True
    return ListedDataset(cfg, tokens, train_mask)


def drawn_for_training(cfg: TrainConfig, start: int, stop: int) -> Tokens:
    """Draw training examples `start` to `stop` (exclusive) of a task with too many to list them."""
    return _drawn(cfg, cfg.data_seed, "examples", start, stop)


def _drawn(cfg: TrainConfig, seed: int, stream: str, start: int, stop: int) -> Tokens:
    tokens = draw_examples(cfg.task, seed, stream, start, stop)
    targets = tokens[:, list(cfg.train_positions)]
    for row, place in np.argwhere(targets >= cfg.model.d_vocab_out)[:1]:
        raise UserError(
            f"the model has d_vocab_out={cfg.model.d_vocab_out} outputs, too few to predict token "
            f"{targets[row, place]}, the answer of task {cfg.task.name} in example {start + row} "
            f"of its {stream}; set d_vocab_out to at least {targets.max() + 1}"
        )
    return tokens


def rows_of_runs(
    datasets: Sequence[Dataset], start: int, stop: int
) -> Int[np.ndarray, "runs steps batch"]:
    """The numbers of the examples in each batch of many runs, for updates `start` to `stop` - 1.

    The runs differ in hyperparameters, seeds and split alone. For listed tasks the batches of all
    runs are drawn at once.
    """
    if isinstance(datasets[0], DrawnDataset):
        return np.stack([data.rows(start, stop) for data in datasets])
    seeds = [data.cfg.data_seed for data in datasets]
    rows = [data.train_rows for data in datasets]
    return draw_many_batches(seeds, rows, datasets[0].cfg.batch_size, start, stop)

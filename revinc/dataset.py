"""What a run trains on and is evaluated on, made from its config alone: every framework and engine has the same."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from revinc.config import TrainConfig
from revinc.philox import philox_words
from revinc.schedule import draw_many_batches, next_batches
from revinc.tasks import SAMPLE, draw_examples, predicted_positions

Rows = Int[np.ndarray, "*batches"]
Tokens = Int[np.ndarray, "n_sequences seq"]


@dataclass(frozen=True, eq=False)
class Dataset(ABC):
    """The examples of a run.

    Attributes:
        cfg: of the run.
        tokens: the sequences of an evaluation.
        train_mask: which of them are of the training split; the others are of the holdout.
    """

    cfg: TrainConfig
    tokens: Tokens
    train_mask: Bool[np.ndarray, " n_sequences"]

    @abstractmethod
    def batches(self, start: int, stop: int) -> Int[np.ndarray, "steps batch"]:
        """The examples that updates `start` to `stop` (exclusive) train on, by number.

        Any stretch of a run can be had by itself.
        """

    @abstractmethod
    def examples(self, batches: Rows) -> tuple[Tokens, Rows]:
        """Sequences, and where among them each example of `batches` is (int32).

        The shapes depend on that of `batches` alone, not on its numbers.
        """

    @property
    def predicted(self) -> tuple[int, ...]:
        """The positions whose token is asked for."""
        return predicted_positions(self.cfg.task)

    @property
    def holdout_mask(self) -> Bool[np.ndarray, " n_sequences"]:
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
    """All sequences of a task, each in one of two splits. The number of an example is its row."""

    def batches(self, start: int, stop: int) -> Int[np.ndarray, "steps batch"]:
        return many_batches([self], start, stop)[0]

    def examples(self, batches: Rows) -> tuple[Tokens, Rows]:
        return self.tokens, batches


class DrawnDataset(Dataset):
    """Examples of a task that is too large to list, drawn as they are asked for: by number, from the data seed.

    It is evaluated on the first examples of the training, and on as many that are drawn from the split seed.
    """

    def batches(self, start: int, stop: int) -> Int[np.ndarray, "steps batch"]:
        return next_batches(self.cfg.batch_size, start, stop)

    def examples(self, batches: Rows) -> tuple[Tokens, Rows]:
        first = int(batches.min())
        block = drawn_for_training(self.cfg, first, int(batches.max()) + 1)
        rows = np.arange(batches.size, dtype=np.int32).reshape(batches.shape)
        return block[(batches - first).ravel()], rows


def make_dataset(cfg: TrainConfig) -> Dataset:
    """The dataset of a run: ``prefix`` trains on the first sequences, ``random`` on a seeded draw."""
    if cfg.task.is_drawn:
        holdout = draw_examples(cfg.task, cfg.split_seed, "holdout", 0, SAMPLE)
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
    """Examples `start` to `stop` (exclusive) of those that a run of a drawn task trains on."""
    return draw_examples(cfg.task, cfg.data_seed, "examples", start, stop)


def many_batches(
    datasets: Sequence[Dataset], start: int, stop: int
) -> Int[np.ndarray, "runs steps batch"]:
    """`Dataset.batches` of runs of one recipe, that differ in seeds and split. Of listed tasks all are drawn at once."""
    if isinstance(datasets[0], DrawnDataset):
        return np.stack([data.batches(start, stop) for data in datasets])
    seeds = [data.cfg.data_seed for data in datasets]
    rows = [data.train_rows for data in datasets]
    return draw_many_batches(seeds, rows, datasets[0].cfg.batch_size, start, stop)

"""Engines: the interface between a training run and the program that executes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int

from revinc.config import TrainConfig
from revinc.dataset import Dataset
from revinc.weights import StateDict

METRICS = ("train_loss", "holdout_loss", "train_accuracy", "holdout_accuracy")
"""The metrics of an evaluation: mean cross-entropy (nats) and share of right answers by split."""

EVALUATED_AT_ONCE = 1024
"""The most sequences that an evaluation holds in memory together."""

LONGEST_CHUNK = 1000
"""The most steps of a chunk, so that progress, checkpoints and Ctrl-C need not wait."""

MOST_TOKENS = 2**18
"""The most tokens that are drawn at once for a chunk of a drawn task, if a batch has no more."""


def longest_chunk(cfg: TrainConfig) -> int:
    """The most steps of a training between two pauses.

    In a pause it shows its progress, writes a checkpoint or stops after Ctrl-C.
    """
    if not cfg.task.is_drawn:
        return LONGEST_CHUNK
    tokens_per_step = cfg.batch_size * cfg.task.sequences().shape[1]
    return max(1, min(LONGEST_CHUNK, MOST_TOKENS // tokens_per_step))


def chunk_capacity(cfg: TrainConfig) -> int:
    """The largest number of steps that one call of an engine's `advance` trains."""
    return min(cfg.eval_every, cfg.steps, longest_chunk(cfg))


def evaluation_steps(cfg: TrainConfig) -> list[int]:
    """The steps after which both splits are evaluated: 0, ``eval_every``, ... and the last."""
    return sorted({*range(0, cfg.steps, cfg.eval_every), cfg.steps})


class Engine(Protocol):
    """An object that trains and evaluates the model of one run.

    An engine draws nothing at random: it is given the initial weights, and each batch as numbers of
    examples (see `revinc.dataset.Dataset.examples`). A state is opaque to the caller, and `advance`
    may destroy the one it is given.

    Attributes:
        identity: what a resume must share for its bits to be equal, such as the engine's ``name``.
        device: the device it runs on, in words.
    """

    identity: dict[str, str]
    device: str

    def start(self, weights: StateDict) -> Any:
        """The engine's state before the first update, with the given initial weights."""

    def advance(
        self, state: Any, rows: Int[np.ndarray, "steps batch"]
    ) -> tuple[Any, Float[np.ndarray, " steps"]]:
        """Train on each batch in turn: returns the new state and the losses before each update.

        Args:
            state: the state to go on from.
            rows: the numbers of each batch's examples; at most `chunk_capacity` steps.
        """

    def evaluate(self, state: Any) -> dict[str, float]:
        """The loss and accuracy on both splits, as a dict with keys such as ``train_loss``."""

    def weights(self, state: Any) -> StateDict:
        """The model's weights in a state of the engine, by their TransformerLens names."""

    def to_arrays(self, state: Any) -> dict[str, np.ndarray]:
        """Copy a state to arrays by name: everything that the next updates depend on."""

    def from_arrays(self, arrays: dict[str, np.ndarray]) -> Any:
        """Restore a state, bit for bit, from the arrays that `to_arrays` returned."""


class PopulationEngine(Protocol):
    """An object that trains and evaluates the models of many runs side by side.

    The runs have one training config, except for hyperparameters, split and seeds. The result of a
    model depends neither on the other models, nor on its place, nor on their number.

    Attributes:
        identity: like `Engine.identity`, plus the `width`.
        device: the device it runs on, in words.
        width: the most models that it trains side by side.
    """

    identity: dict[str, str]
    device: str
    width: int

    def start(self, data: Sequence[Dataset], weights: StateDict) -> Any:
        """The engine's state before the first update, with the given initial weights.

        Args:
            data: the dataset of each run, with its config.
            weights: the initial weights, with a leading axis of models.
        """

    def advance(
        self, state: Any, rows: Int[np.ndarray, "models steps batch"]
    ) -> tuple[Any, Float[np.ndarray, "models steps"]]:
        """Train each model on its batches: returns the new state, and losses before each update."""

    def evaluate(self, state: Any) -> dict[str, Float[np.ndarray, " models"]]:
        """Every model's loss and accuracy on both splits: arrays by names like ``train_loss``."""

    def weights(self, state: Any) -> StateDict:
        """All models' weights by TransformerLens names, stacked on a leading axis of models."""

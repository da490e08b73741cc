"""What an engine is: the seam between a training run and the program that executes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int

from revinc.config import TrainConfig
from revinc.weights import StateDict

METRICS = ("train_loss", "holdout_loss", "train_accuracy", "holdout_accuracy")
"""What an evaluation measures over the predicted tokens of each split: mean cross-entropy (nats), share right."""

LONGEST_CHUNK = 1000
"""Steps that no chunk exceeds, for progress, checkpoints and Ctrl-C."""


MOST_TOKENS = 2**18
"""Tokens that are drawn at once for a run of a task that is drawn, unless a single batch has more."""


def longest_chunk(cfg: TrainConfig) -> int:
    """Steps after which control returns to the driver at the latest."""
    if not cfg.task.is_drawn:
        return LONGEST_CHUNK
    tokens_per_step = cfg.batch_size * cfg.task.sequences().shape[1]
    return max(1, min(LONGEST_CHUNK, MOST_TOKENS // tokens_per_step))


def chunk_capacity(cfg: TrainConfig) -> int:
    """The most steps that `Engine.advance` is asked for at once."""
    return min(cfg.eval_every, cfg.steps, longest_chunk(cfg))


def evaluation_steps(cfg: TrainConfig) -> list[int]:
    """The steps after which both splits are evaluated: 0, ``eval_every``, ... and the last."""
    return sorted({*range(0, cfg.steps, cfg.eval_every), cfg.steps})


class Engine(Protocol):
    """Executes one run. A state is opaque to its caller; `advance` may consume the one it is given.

    Everything random is drawn before: an engine sees initial weights and the examples of every batch, by number.
    What they are, `revinc.dataset.Dataset.examples` says.
    """

    identity: dict[str, str]
    """What a resume must share for its bits to be the same, such as the engine's name and platform."""

    device: str
    """The device it runs on, in words."""

    def start(self, weights: StateDict) -> Any:
        """The state before the first update."""

    def advance(
        self, state: Any, batches: Int[np.ndarray, "steps batch"]
    ) -> tuple[Any, Float[np.ndarray, " steps"]]:
        """One update per row of `batches`, and each batch's loss before its update."""

    def evaluate(self, state: Any) -> dict[str, float]:
        """The values of `METRICS` over both splits."""

    def weights(self, state: Any) -> StateDict:
        """The weights, by their TransformerLens names."""

    def to_arrays(self, state: Any) -> dict[str, np.ndarray]:
        """A copy of everything that the next updates depend on."""

    def from_arrays(self, arrays: dict[str, np.ndarray]) -> Any:
        """The inverse of `to_arrays`, bit for bit."""


class PopulationEngine(Protocol):
    """Executes many runs of one recipe side by side, that differ in rates, split and seeds alone.

    What becomes of a model depends on no other, on its place, or on how many run.
    """

    identity: dict[str, str]
    """As an engine's, with the `width`."""

    device: str
    """The device it runs on, in words."""

    width: int
    """The most models that it trains side by side."""

    def start(self, runs: Sequence[TrainConfig], weights: StateDict) -> Any:
        """The state before the first update, from weights with a model axis first."""

    def advance(
        self, state: Any, batches: Int[np.ndarray, "models steps batch"]
    ) -> tuple[Any, Float[np.ndarray, "models steps"]]:
        """One update of every model per step, and each batch's loss before its update."""

    def evaluate(self, state: Any) -> dict[str, Float[np.ndarray, " models"]]:
        """The values of `METRICS` over both splits."""

    def weights(self, state: Any) -> StateDict:
        """The weights, by their TransformerLens names, with a model axis first."""

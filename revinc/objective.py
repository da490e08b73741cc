"""The objective: the loss that training minimises, in any framework."""

from __future__ import annotations

from typing import NamedTuple

from revinc.config import TrainConfig


class Objective(NamedTuple):
    """The training loss: the mean cross-entropy of the tokens at `train_positions`.

    Evaluations never smooth labels.

    Attributes:
        train_positions: the positions of the tokens; each is predicted at the position before it.
        label_smoothing: the share of each target's probability that is spread over all outputs.
    """

    train_positions: tuple[int, ...]
    label_smoothing: float = 0.0


def make_objective(cfg: TrainConfig) -> Objective:
    """Make the training loss of a run from its config."""
    return Objective(cfg.train_positions, cfg.label_smoothing)

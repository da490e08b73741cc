"""What training minimises, in any framework."""

from __future__ import annotations

from typing import NamedTuple

from revinc.config import TrainConfig


class Objective(NamedTuple):
    """The mean cross-entropy of some tokens of every sequence. Evaluations never smooth their labels.

    Attributes:
        predicted: the positions of the tokens; each is predicted at the position before it.
        label_smoothing: the share of every target's probability that is spread evenly over all outputs.
    """

    predicted: tuple[int, ...]
    label_smoothing: float = 0.0


def make_objective(cfg: TrainConfig) -> Objective:
    """The objective of a run."""
    return Objective(cfg.trained_positions, cfg.label_smoothing)

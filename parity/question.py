"""What both models are asked: tokens, the positions whose loss counts, and the edits of an intervention."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Question:
    """What both models are asked about.

    Attributes:
        tokens: whole sequences; the models are fed all but the last token.
        predicted: the positions whose token's loss counts; never the first.
    """

    tokens: Int[np.ndarray, "batch seq"]
    predicted: tuple[int, ...]


@dataclass(frozen=True)
class Edit:
    """What an intervention does to the finite entries of an activation.

    They become ``keep * activation + other * (the activation on the next input) + add * direction``,
    where the direction is a fixed vector along the last axis.
    """

    name: str
    keep: float = 0.0
    other: float = 0.0
    add: float = 0.0


EDITS = (
    Edit("zero"),
    Edit("replace by another input's", other=1.0),
    Edit("scale", keep=1.7),
    Edit("add a vector", keep=1.0, add=1.0),
)


def direction(width: int) -> np.ndarray:
    """The vector that an intervention adds, float32 numbers in [-1, 1]."""
    return np.cos(np.arange(1, width + 1, dtype=np.float64)).astype(np.float32)

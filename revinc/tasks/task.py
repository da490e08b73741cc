"""What a task is: sequences, and which of their tokens must be predicted."""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np
from jaxtyping import Bool, Int


class Task(Protocol):
    """A finite next-token task. Implementations are frozen dataclasses, so they hash and print."""

    name: ClassVar[str]

    def __hash__(self) -> int: ...

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The label of every token id, in order."""

    @property
    def position_labels(self) -> tuple[str, ...]:
        """The name of every position of a sequence, such as BOS, x0, ..., y3."""

    def sequences(self) -> Int[np.ndarray, "n_sequences seq"]:
        """All sequences, as int32 token ids."""

    def loss_mask(self) -> Bool[np.ndarray, " seq"]:
        """True at the tokens that must be predicted (each from the positions before it)."""

    @property
    def sources(self) -> tuple[int, ...]:
        """For every predicted token in order, the position of the token that decides it.

        Empty if no answer hangs on a single token.
        """

    @property
    def answers(self) -> tuple[int, ...]:
        """For every token id that can stand at a source, the token id that answers it. Empty like `sources`."""


def predicted_positions(task: Task) -> tuple[int, ...]:
    """The positions whose token must be predicted; each is predicted at the position before it."""
    return tuple(np.flatnonzero(task.loss_mask()).tolist())


def reading_cells(task: Task) -> list[tuple[int, int]]:
    """(row, column) of an attention pattern where a head that fetches the token of an answer would look.

    In the tutorial's task: y0..y3 are predicted at rows 4..7 from x3..x0, at columns 4..1.
    """
    rows = [position - 1 for position in predicted_positions(task)]
    return list(zip(rows, task.sources, strict=True)) if task.sources else []

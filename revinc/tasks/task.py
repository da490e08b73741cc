"""What a task is: sequences, and which of their tokens must be predicted."""

from __future__ import annotations

import functools
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, cast

import numpy as np
from jaxtyping import Bool, Int, UInt64

from revinc.errors import UserError
from revinc.philox import WORDS_PER_COUNT, philox_words

SAMPLE = 1024
"""Examples of a drawn task that stand for it: in the analysis, and in an evaluation of each split."""


def _kept(sequences: Callable[[Any], np.ndarray]) -> Callable[[Any], np.ndarray]:
    """A task's method `sequences`, but that each task's are made once, and as they have to be."""

    @functools.lru_cache(maxsize=8)  # tasks are small, frozen values
    @functools.wraps(sequences)
    def kept(task: Any) -> np.ndarray:
        made = np.asarray(sequences(task))
        if made.ndim != 2 or not made.size or made.dtype.kind not in "iu":
            raise UserError(
                f"task {task.name} must have sequences of token ids, [n_sequences, seq], "
                f"not {made.dtype} {list(made.shape)}"
            )
        tokens = np.array(made, dtype=np.int32, order="C")
        tokens.flags.writeable = False
        return tokens

    return kept


class Task(ABC):
    """A next-token task, whose sequences are all listed. Those that are drawn derive from `DrawnTask`.

    Tasks are frozen dataclasses, so they hash, compare and print. A task without a `name` of its own is known
    by where its class can be imported from: ``module:Class``.
    """

    name: ClassVar[str]

    def __init_subclass__(cls) -> None:
        cls.name = vars(cls).get("name", f"{cls.__module__}:{cls.__qualname__}")
        if "sequences" in vars(cls):
            cls.sequences = _kept(cls.sequences)  # type: ignore[method-assign, assignment]

    @property
    @abstractmethod
    def vocabulary(self) -> tuple[str, ...]:
        """The label of every token id, in order."""

    @abstractmethod
    def sequences(self) -> Int[np.ndarray, "n_sequences seq"]:
        """All sequences, as token ids. They are made once, and kept as int32 that can't be changed."""

    @abstractmethod
    def loss_mask(self) -> Bool[np.ndarray, " seq"]:
        """True at the tokens that must be predicted (each from the positions before it)."""

    @property
    def is_drawn(self) -> bool:
        """Whether there are too many sequences to list, so that training draws them as it goes on."""
        return False

    @property
    def solved(self) -> float:
        """The share of right answers on the holdout from which a model counts as having solved the task."""
        return 0.99 if self.is_drawn else 1.0

    @property
    def title(self) -> str:
        """The task as a headline."""
        words = re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", self.name.rpartition(":")[2])
        return words.capitalize()

    @property
    def description(self) -> str:
        """What the model is asked for, in a sentence or two."""
        asked = [self.position_labels[position] for position in predicted_positions(self)]
        return (
            f"Each sequence holds {', '.join(self.position_labels)}. "
            f"The model predicts {', '.join(asked)}."
        )

    @property
    def position_labels(self) -> tuple[str, ...]:
        """The name of every position of a sequence, such as BOS, x0, ..., y3."""
        return tuple(map(str, range(len(self.loss_mask()))))

    @property
    def sources(self) -> tuple[int, ...]:
        """For every predicted token in order, the position of the token that decides it.

        Empty if no answer hangs on a single token.
        """
        return ()

    @property
    def answers(self) -> tuple[int, ...]:
        """For every token id that can stand at a source, the token id that answers it. Empty like `sources`."""
        return ()


class DrawnTask(Task):
    """A task with too many sequences to list: an example is a function of random words, and has a number.

    Training goes through the examples of its data seed by their numbers, and meets each once. The holdout is
    drawn likewise, from the split seed; it may by chance hold an example of the training.
    """

    @property
    def is_drawn(self) -> bool:
        return True

    @property
    @abstractmethod
    def n_words(self) -> int:
        """How many random words an example takes."""

    @abstractmethod
    def draw(self, words: UInt64[np.ndarray, "n n_words"]) -> Int[np.ndarray, "n seq"]:
        """The examples that rows of uniform 64-bit words make: token ids, each row's from its own words alone."""

    def sequences(self) -> Int[np.ndarray, "n_sequences seq"]:
        """A sample, always the same, that stands for the task where it is analysed."""
        return draw_examples(self, 0, "sample", 0, SAMPLE)


def example_words(
    task: DrawnTask, seed: int, stream: str, start: int, stop: int
) -> UInt64[np.ndarray, "n n_words"]:
    """The random words of examples `start` to `stop` (exclusive) of a named stream of `seed`."""
    counts = -(-task.n_words // WORDS_PER_COUNT)
    n = stop - start
    words = philox_words(seed, stream, start * counts, n * counts * WORDS_PER_COUNT)
    return words.reshape(n, counts * WORDS_PER_COUNT)[:, : task.n_words]


def draw_examples(
    task: Task, seed: int, stream: str, start: int, stop: int
) -> Int[np.ndarray, "n seq"]:
    """Examples `start` to `stop` (exclusive) of a stream of a task that is drawn, as int32 token ids."""
    drawn = cast(DrawnTask, task)
    return drawn.draw(example_words(drawn, seed, stream, start, stop)).astype(np.int32)


def predicted_positions(task: Task) -> tuple[int, ...]:
    """The positions whose token must be predicted; each is predicted at the position before it."""
    return tuple(np.flatnonzero(task.loss_mask()).tolist())


def reading_cells(task: Task) -> list[tuple[int, int]]:
    """(row, column) of an attention pattern where a head that fetches the token of an answer would look.

    In the tutorial's task: y0..y3 are predicted at rows 4..7 from x3..x0, at columns 4..1.
    """
    rows = [position - 1 for position in predicted_positions(task)]
    return list(zip(rows, task.sources, strict=True)) if task.sources else []

"""The base classes of tasks: sequences of tokens, and which of them must be predicted."""

from __future__ import annotations

import dataclasses
import functools
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, cast

import numpy as np
from jaxtyping import Bool, Int, UInt64

from revinc.philox import WORDS_PER_COUNT, philox_words
from revinc.tasks import task_parts
from revinc.tasks.task_parts import refuse, telling, token_ids
from revinc.validation import plain

SAMPLE = 1024
"""The number of examples that represent a drawn task in the analysis and in evaluations."""


def _cache(sequences: Callable[[Any], np.ndarray]) -> Callable[[Any], np.ndarray]:
    """Decorate a task's method `sequences`: check its result, and keep it for later calls."""

    @functools.lru_cache(maxsize=8)  # tasks are small, frozen values
    @functools.wraps(sequences)
    def cached(task: Any) -> np.ndarray:
        with telling(task.name, "sequences()"):
            made = sequences(task)
        tokens = token_ids(task, made, "sequences()")
        tokens.flags.writeable = False
        return tokens

    return cached


class Task(ABC):
    """The base class of next-token tasks that list all sequences; `DrawnTask` is for larger ones.

    Tasks are frozen dataclasses, so they hash, compare and print. The `name` of a task that does
    not set one is ``module:Class``, from which its class can be imported.
    """

    name: ClassVar[str]

    def __init_subclass__(cls) -> None:
        cls.name = vars(cls).get("name", f"{cls.__module__}:{cls.__qualname__}")
        if "sequences" in vars(cls):
            cls.sequences = _cache(cls.sequences)  # type: ignore[method-assign, assignment]

    def __post_init__(self) -> None:
        """Convert fields that are NumPy scalars to Python's; subclasses' checks call this first."""
        for field in dataclasses.fields(cast(Any, self)):
            object.__setattr__(self, field.name, plain(getattr(self, field.name)))

    @property
    @abstractmethod
    def vocabulary(self) -> tuple[str, ...]:
        """The label of every token id, in order."""

    @abstractmethod
    def sequences(self) -> Int[np.ndarray, "n_sequences seq"]:
        """All sequences as token ids: read-only int32, made once."""

    @abstractmethod
    def loss_mask(self) -> Bool[np.ndarray, " seq"]:
        """A mask over positions: True where the token must be predicted from those before it."""

    @property
    def is_drawn(self) -> bool:
        """Whether examples are drawn at random, because there are too many sequences to list."""
        return False

    @property
    def solved(self) -> float:
        """The accuracy on the holdout split at which a model counts as having solved the task."""
        return 0.99 if self.is_drawn else 1.0

    @property
    def title(self) -> str:
        """The title of the task on a page."""
        words = re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", self.name.rpartition(":")[2])
        return words.capitalize()

    @property
    def description(self) -> str:
        """A description of the task in a sentence or two."""
        asked = [self.position_labels[position] for position in eval_positions(self)]
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
        """For each predicted token in order, the position of the one token that decides it.

        Empty if answers depend on more than one token.
        """
        return ()

    @property
    def answers(self) -> tuple[int, ...]:
        """At index i, the token id to predict if token i decides the answer; empty if unknown."""
        return ()


class DrawnTask(Task):
    """The base class of tasks with too many sequences to list: examples are drawn at random.

    Examples are numbered. Training uses the examples of the data seed in order, each once. The
    holdout is drawn from the split seed; by chance it may hold an example of the training.
    """

    @property
    def is_drawn(self) -> bool:
        return True

    @property
    @abstractmethod
    def n_words(self) -> int:
        """How many random 64-bit words are needed to draw one example."""

    @abstractmethod
    def draw(self, words: UInt64[np.ndarray, "n n_words"]) -> Int[np.ndarray, "n seq"]:
        """Make one example, as token ids, from each row of random 64-bit words alone."""

    def sequences(self) -> Int[np.ndarray, "n_sequences seq"]:
        """A fixed sample of sequences that represents the task in the analysis."""
        return draw_examples(self, 0, "sample", 0, SAMPLE)


def example_words(
    task: DrawnTask, seed: int, stream: str, start: int, stop: int
) -> UInt64[np.ndarray, "n n_words"]:
    """The random words from which examples `start` to `stop` (exclusive) of a stream are made."""
    n_words = task_parts.n_words(task)
    counts = -(-n_words // WORDS_PER_COUNT)
    n = stop - start
    words = philox_words(seed, stream, start * counts, n * counts * WORDS_PER_COUNT)
    return words.reshape(n, counts * WORDS_PER_COUNT)[:, :n_words]


def draw_examples(
    task: Task, seed: int, stream: str, start: int, stop: int
) -> Int[np.ndarray, "n seq"]:
    """Draw examples of a `DrawnTask` from a seed, as int32 token ids.

    Args:
        task: a `DrawnTask`.
        seed: the seed of the random words.
        stream: the name of one of the seed's streams.
        start: the number of the first example.
        stop: the number after the last example.

    Raises:
        UserError: if the task draws anything but sequences of its vocabulary.
    """
    drawn = cast(DrawnTask, task)
    return drawn_ids(drawn, example_words(drawn, seed, stream, start, stop), stream, start)


def drawn_ids(
    task: DrawnTask, words: UInt64[np.ndarray, "n n_words"], stream: str, first: int = 0
) -> Int[np.ndarray, "n seq"]:
    """Make examples of a task from rows of random words, as checked int32 token ids."""
    if not len(words):
        return np.zeros((0, task_parts.layout(task)[0]), np.int32)
    with telling(task.name, "draw()"):
        made = task.draw(words)
    ids = token_ids(task, made, "draw()", stream, first)
    if len(ids) != len(words):
        refuse(
            task,
            f"its draw() makes {len(ids)} examples of {len(words)} rows of words, not one of each",
        )
    return ids


def eval_positions(task: Task) -> tuple[int, ...]:
    """The positions of the tokens to predict; each is predicted at the position before it."""
    return tuple(np.flatnonzero(task.loss_mask()).tolist())


def reading_cells(task: Task) -> list[tuple[int, int]]:
    """The cells (row, column) of an attention pattern where a token that decides an answer is read.

    In the tutorial's task, y0..y3 are predicted at rows 4..7 from x3..x0, at columns 4..1.
    """
    rows = [position - 1 for position in eval_positions(task)]
    return list(zip(rows, task.sources, strict=True)) if task.sources else []

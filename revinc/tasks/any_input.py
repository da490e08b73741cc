"""The base class of tasks whose input may be any sequence of symbols; each has one answer."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Int, UInt64

from revinc.philox import unit_interval
from revinc.tasks.task import SAMPLE, DrawnTask, example_words
from revinc.validation import require_int

MOST_LISTED = 2**20
"""The largest number of inputs that are listed; if there are more, examples are drawn."""

LONGEST = 1024
MOST_SYMBOLS = 4096


class AnyInput(DrawnTask):
    """The base class of tasks ``[BOS, x0 .. x(L-1), y0 .. y(L-1)]``: a rule gives y for any x.

    Up to 2**20 inputs are listed, in the order of ``itertools.product``. If there are more,
    examples are drawn, all equally likely.

    Raises:
        UserError: for a size below 1, above 1024 tokens of input or above 4096 symbols.
    """

    symbols_field: ClassVar[str] = "n_symbols"
    """The name of the field with the number of symbols."""

    @property
    @abstractmethod
    def length(self) -> int:
        """The number of input tokens in a sequence. Subclasses make it a field."""

    @property
    @abstractmethod
    def n_symbols(self) -> int:
        """The number n of symbols, 0 .. n-1, that an input can hold. Subclasses make it a field."""

    @abstractmethod
    def answer(self, inputs: Int[np.ndarray, "n length"]) -> Int[np.ndarray, "n length"]:
        """The answers y to the inputs x, row by row."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, fewest, most in (("length", 1, LONGEST), (self.symbols_field, 2, MOST_SYMBOLS)):
            require_int(field, getattr(self, field), at_least=fewest, at_most=most)

    @property
    def is_drawn(self) -> bool:
        return self.n_symbols**self.length > MOST_LISTED

    @property
    def vocabulary(self) -> tuple[str, ...]:
        return (*map(str, range(self.n_symbols)), "BOS")

    @property
    def position_labels(self) -> tuple[str, ...]:
        inputs = [f"x{i}" for i in range(self.length)]
        outputs = [f"y{i}" for i in range(self.length)]
        return ("BOS", *inputs, *outputs)

    @property
    def description(self) -> str:
        return (
            f"After BOS come the tokens {span('x', self.length)}, each one of 0 to "
            f"{self.n_symbols - 1}. The model predicts {span('y', self.length)}: {self.rule}."
        )

    @property
    @abstractmethod
    def rule(self) -> str:
        """The answer y in words, such as "the same tokens in the same order"."""

    def loss_mask(self) -> Bool[np.ndarray, " seq"]:
        return np.arange(1 + 2 * self.length) > self.length

    def sequences(self) -> Int[np.ndarray, "n_sequences seq"]:
        return self._completed(self._sample() if self.is_drawn else self._every_input())

    @property
    def n_words(self) -> int:
        return self.length

    def draw(self, words: UInt64[np.ndarray, "n n_words"]) -> Int[np.ndarray, "n seq"]:
        return self._completed(self._inputs(words))

    def _inputs(self, words: UInt64[np.ndarray, "n n_words"]) -> Int[np.ndarray, "n length"]:
        return (unit_interval(words) * self.n_symbols).astype(np.int32)

    def _every_input(self) -> Int[np.ndarray, "n_sequences length"]:
        numbers = np.arange(self.n_symbols**self.length)[:, None]
        places = self.n_symbols ** np.arange(self.length)[::-1]
        return (numbers // places % self.n_symbols).astype(np.int32)

    def _sample(self) -> Int[np.ndarray, "n_sequences length"]:
        # Every input comes with its n_symbols - 1 cyclic shifts, with which the analysis pairs it.
        n_rounds = max(1, SAMPLE // self.n_symbols)
        firsts = self._inputs(example_words(self, 0, "sample", 0, n_rounds))
        shifts = np.arange(self.n_symbols, dtype=np.int32)[:, None, None]
        return ((firsts + shifts) % self.n_symbols).reshape(-1, self.length)

    def _completed(self, inputs: Int[np.ndarray, "n length"]) -> Int[np.ndarray, "n seq"]:
        bos = np.full((len(inputs), 1), self.n_symbols, dtype=np.int32)
        return np.concatenate([bos, inputs, self.answer(inputs)], axis=1, dtype=np.int32)


def span(letter: str, length: int) -> str:
    """The names of numbered positions, such as ``x0 … x3``, or ``x0`` if there is one."""
    return f"{letter}0" if length == 1 else f"{letter}0 … {letter}{length - 1}"

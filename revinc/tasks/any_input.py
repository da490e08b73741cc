"""What tasks have in common whose answers follow from an input of any symbols."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from jaxtyping import Bool, Int, UInt64

from revinc.errors import UserError
from revinc.philox import unit_interval
from revinc.tasks.task import SAMPLE, DrawnTask, example_words
from revinc.validation import require_int

MOST_LISTED = 2**20
LONGEST = 1024
MOST_SYMBOLS = 4096


class AnyInput(DrawnTask):
    """``[BOS, x0 .. x(L-1), y0 .. y(L-1)]`` where x is any sequence of symbols, and y follows from it.

    Up to 2**20 inputs are all listed, in the order of ``itertools.product``. More are drawn, each as likely.

    Raises:
        UserError: for a size below 1, above 1024 tokens of input or above 4096 symbols.
    """

    @property
    @abstractmethod
    def length(self) -> int:
        """Input tokens of a sequence. A subclass makes it a field."""

    @property
    @abstractmethod
    def n_symbols(self) -> int:
        """Symbols, 0 .. n-1, that inputs are made of. A subclass makes it a field."""

    @abstractmethod
    def answer(self, inputs: Int[np.ndarray, "n length"]) -> Int[np.ndarray, "n length"]:
        """The symbols y of every input x."""

    def __post_init__(self) -> None:
        for field, fewest, most in (("length", 1, LONGEST), ("n_symbols", 2, MOST_SYMBOLS)):
            size = getattr(self, field)
            require_int(field, size, at_least=fewest)
            if size > most:
                raise UserError(f"{field} must be at most {most}, not {size}")

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
            f"After BOS come the tokens {span('x', self.length)}, each one of 0 to {self.n_symbols - 1}. "
            f"The model predicts {span('y', self.length)}: {self.rule}."
        )

    @property
    @abstractmethod
    def rule(self) -> str:
        """What y is, in words."""

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
        # With an input comes that of all the next symbols, and so on round: the analysis asks for such partners.
        n_rounds = max(1, SAMPLE // self.n_symbols)
        firsts = self._inputs(example_words(self, 0, "sample", 0, n_rounds))
        shifts = np.arange(self.n_symbols, dtype=np.int32)[:, None, None]
        return ((firsts + shifts) % self.n_symbols).reshape(-1, self.length)

    def _completed(self, inputs: Int[np.ndarray, "n length"]) -> Int[np.ndarray, "n seq"]:
        bos = np.full((len(inputs), 1), self.n_symbols, dtype=np.int32)
        return np.concatenate([bos, inputs, self.answer(inputs)], axis=1, dtype=np.int32)


def span(letter: str, length: int) -> str:
    """``x0 … x3``, or ``x0`` alone."""
    return f"{letter}0" if length == 1 else f"{letter}0 … {letter}{length - 1}"

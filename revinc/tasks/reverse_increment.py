"""The tutorial's task, of any length and modulus."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Int

from revinc.errors import UserError
from revinc.fields import described
from revinc.validation import require_bool, require_int


@dataclass(frozen=True, kw_only=True)
class ReverseIncrement:
    """``[BOS, x0 .. x(L-1), y0 .. y(L-1)]`` where y is x reversed, plus `shift`, modulo `n_symbols`.

    The defaults are the tutorial's task: 256 sequences of 9 tokens, BOS = 4. Sequences come in the
    order of ``itertools.product``.

    Raises:
        UserError: for a size below 1, or more than 2**20 sequences.
    """

    name: ClassVar[str] = "reverse_increment"

    length: int = described(4, help="input tokens of a sequence")
    n_symbols: int = described(4, help="symbols, 0 .. n-1, that inputs and outputs are made of")
    shift: int = described(1, help="added to every symbol, modulo n-symbols")
    reverse: bool = described(True, help="whether the outputs come in reversed order")

    def __post_init__(self) -> None:
        require_int("length", self.length, at_least=1)
        require_int("n_symbols", self.n_symbols, at_least=2)
        require_int("shift", self.shift)
        require_bool("reverse", self.reverse)
        if self.length * math.log2(self.n_symbols) > 20:
            raise UserError(
                f"n_symbols={self.n_symbols} ** length={self.length} is more than 2**20 sequences; "
                "this task lists them all, so choose a smaller length or n_symbols"
            )

    @property
    def vocabulary(self) -> tuple[str, ...]:
        return (*map(str, range(self.n_symbols)), "BOS")

    @property
    def position_labels(self) -> tuple[str, ...]:
        inputs = [f"x{i}" for i in range(self.length)]
        outputs = [f"y{i}" for i in range(self.length)]
        return ("BOS", *inputs, *outputs)

    @functools.lru_cache(maxsize=8)  # noqa: B019 - instances are small, frozen values
    def sequences(self) -> Int[np.ndarray, "n_sequences seq"]:
        inputs = np.array(
            list(itertools.product(range(self.n_symbols), repeat=self.length)), dtype=np.int32
        )
        outputs = (inputs + self.shift % self.n_symbols) % self.n_symbols
        if self.reverse:
            outputs = outputs[:, ::-1]
        bos = np.full((len(inputs), 1), self.n_symbols, dtype=np.int32)
        sequences = np.concatenate([bos, inputs, outputs], axis=1)
        sequences.flags.writeable = False
        return sequences

    def loss_mask(self) -> Bool[np.ndarray, " seq"]:
        return np.arange(1 + 2 * self.length) > self.length

    @property
    def sources(self) -> tuple[int, ...]:
        positions = tuple(range(1, self.length + 1))
        return positions[::-1] if self.reverse else positions

    @property
    def answers(self) -> tuple[int, ...]:
        return tuple((symbol + self.shift) % self.n_symbols for symbol in range(self.n_symbols))

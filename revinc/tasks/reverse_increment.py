"""The tutorial's task, reverse the input and add a number, for any length and number of symbols."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from revinc.config_fields import checks_names, described, hold_plain_values
from revinc.tasks.any_input import AnyInput


@checks_names
@dataclass(frozen=True, kw_only=True)
class ReverseIncrement(AnyInput):
    """The tutorial's task: ``[BOS, x0 .. x(L-1), y0 .. y(L-1)]``, y being x reversed plus `shift`.

    The sum is modulo `n_symbols`. The defaults are the tutorial's: 256 sequences of 9 tokens,
    BOS = 4. Examples are listed or drawn as `AnyInput` says.

    Raises:
        UserError: for a field of another type, or a size that `AnyInput` refuses.
    """

    name: ClassVar[str] = "reverse_increment"

    length: int = described(4, help="input tokens of a sequence")
    n_symbols: int = described(4, help="number of symbols, 0 .. n-1, of inputs and outputs")
    shift: int = described(
        1, help="added to every symbol, modulo n_symbols", at_least=-(10**30), at_most=10**30
    )
    reverse: bool = described(True, help="whether the outputs come in reversed order")

    def __post_init__(self) -> None:
        hold_plain_values(self)
        super().__post_init__()

    @property
    def title(self) -> str:
        verb = "Reverse" if self.reverse else "Copy"
        added = self.shift % self.n_symbols
        return f"{verb} and add {added}" if added else verb

    @property
    def rule(self) -> str:
        order = "in reverse order" if self.reverse else "in the same order"
        added = self.shift % self.n_symbols
        change = f", each plus {added} modulo {self.n_symbols}" if added else ""
        return f"the same tokens {order}{change}"

    def answer(self, inputs: Int[np.ndarray, "n length"]) -> Int[np.ndarray, "n length"]:
        outputs = (inputs + self.shift % self.n_symbols) % self.n_symbols
        return outputs[:, ::-1] if self.reverse else outputs

    @property
    def sources(self) -> tuple[int, ...]:
        positions = tuple(range(1, self.length + 1))
        return positions[::-1] if self.reverse else positions

    @property
    def answers(self) -> tuple[int, ...]:
        return tuple((symbol + self.shift) % self.n_symbols for symbol in range(self.n_symbols))

"""Running sums, of which parity is the one modulo 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from revinc.fields import described
from revinc.tasks.any_input import AnyInput
from revinc.validation import require_int


@dataclass(frozen=True, kw_only=True)
class CumulativeSum(AnyInput):
    """``[BOS, x0 .. x(L-1), y0 .. y(L-1)]`` where yi is x0 + .. + xi modulo `modulus`: parity, if it is 2.

    Listed or drawn as `AnyInput` says.

    Raises:
        UserError: for a modulus below 2, or a size that `AnyInput` refuses.
    """

    name: ClassVar[str] = "cumulative_sum"

    length: int = described(8, help="tokens that are added up")
    modulus: int = described(2, help="numbers, 0 .. modulus-1, that they are; 2 makes it parity")

    def __post_init__(self) -> None:
        require_int("modulus", self.modulus, at_least=2)
        super().__post_init__()

    @property
    def n_symbols(self) -> int:
        return self.modulus

    @property
    def title(self) -> str:
        return "Parity" if self.modulus == 2 else f"Cumulative sum modulo {self.modulus}"

    @property
    def rule(self) -> str:
        return f"the sum of the tokens up to each, modulo {self.modulus}"

    def answer(self, inputs: Int[np.ndarray, "n length"]) -> Int[np.ndarray, "n length"]:
        return inputs.cumsum(axis=1) % self.modulus

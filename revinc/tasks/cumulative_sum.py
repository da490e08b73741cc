"""The task of running sums modulo a number; with modulus 2 it is bit parity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from revinc.config_fields import checks_names, described
from revinc.tasks.any_input import AnyInput


@checks_names
@dataclass(frozen=True, kw_only=True)
class CumulativeSum(AnyInput):
    """Running sums: ``[BOS, x0 .. x(L-1), y0 .. y(L-1)]`` where yi is x0 + .. + xi mod `modulus`.

    Examples are listed or drawn as `AnyInput` says.

    Raises:
        UserError: for a modulus below 2, or a size that `AnyInput` refuses.
    """

    name: ClassVar[str] = "cumulative_sum"
    symbols_field: ClassVar[str] = "modulus"

    length: int = described(8, help="tokens to add up")
    modulus: int = described(2, help="number of symbols, 0 .. modulus-1; 2 makes it parity")

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

"""The task of repeating the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from revinc.config_fields import checks_names, described
from revinc.tasks.any_input import AnyInput


@checks_names
@dataclass(frozen=True, kw_only=True)
class Copy(AnyInput):
    """Repeating the input: ``[BOS, x0 .. x(L-1), y0 .. y(L-1)]`` where y is x.

    Examples are listed or drawn as `AnyInput` says.

    Raises:
        UserError: for a size that `AnyInput` refuses.
    """

    name: ClassVar[str] = "copy"

    length: int = described(4, help="tokens to copy")
    n_symbols: int = described(8, help="number of symbols, 0 .. n-1")

    @property
    def rule(self) -> str:
        return "the same tokens in the same order"

    def answer(self, inputs: Int[np.ndarray, "n length"]) -> Int[np.ndarray, "n length"]:
        return inputs

    @property
    def sources(self) -> tuple[int, ...]:
        return tuple(range(1, self.length + 1))

    @property
    def answers(self) -> tuple[int, ...]:
        return tuple(range(self.n_symbols))

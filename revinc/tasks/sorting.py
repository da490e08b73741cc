"""The task of sorting the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from revinc.config_fields import checks_names, described
from revinc.tasks.any_input import AnyInput


@checks_names
@dataclass(frozen=True, kw_only=True)
class Sort(AnyInput):
    """Sorting: ``[BOS, x0 .. x(L-1), y0 .. y(L-1)]`` where y is x sorted, the smallest first.

    Examples are listed or drawn as `AnyInput` says.

    Raises:
        UserError: for a size that `AnyInput` refuses.
    """

    name: ClassVar[str] = "sort"

    length: int = described(4, help="tokens to sort")
    n_symbols: int = described(8, help="number of symbols, 0 .. n-1")

    @property
    def rule(self) -> str:
        return "the same tokens, the smallest first"

    def answer(self, inputs: Int[np.ndarray, "n length"]) -> Int[np.ndarray, "n length"]:
        return np.sort(inputs, axis=1)

"""The task of repeated random tokens, which forms induction heads (Olsson et al., 2022,
arXiv:2209.11895).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Int

from revinc.config_fields import checks_names, described, hold_plain_values
from revinc.tasks.any_input import AnyInput


@checks_names
@dataclass(frozen=True, kw_only=True)
class Induction(AnyInput):
    """Repeated tokens: ``[BOS, x0 .. x(L-1), y0 .. y(L-1)]`` where y is x, and y1 .. are predicted.

    Every answer is the token that followed an earlier occurrence of the token before it. Examples
    are listed or drawn as `AnyInput` says.

    Raises:
        UserError: for a length below 2, or a size that `AnyInput` refuses.
    """

    name: ClassVar[str] = "induction"

    length: int = described(8, help="random tokens, which come twice", at_least=2)
    n_symbols: int = described(16, help="number of symbols, 0 .. n-1")

    def __post_init__(self) -> None:
        hold_plain_values(self)
        super().__post_init__()

    @property
    def rule(self) -> str:
        return "the same tokens again. The first of them is given"

    def answer(self, inputs: Int[np.ndarray, "n length"]) -> Int[np.ndarray, "n length"]:
        return inputs

    def loss_mask(self) -> Bool[np.ndarray, " seq"]:
        return np.arange(1 + 2 * self.length) > self.length + 1

    @property
    def sources(self) -> tuple[int, ...]:
        return tuple(range(2, self.length + 1))

    @property
    def answers(self) -> tuple[int, ...]:
        return tuple(range(self.n_symbols))

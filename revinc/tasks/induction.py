"""Repeated random tokens, on which induction heads show (Olsson et al., 2022, arXiv:2209.11895)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Int

from revinc.fields import described
from revinc.tasks.any_input import AnyInput
from revinc.validation import require_int


@dataclass(frozen=True, kw_only=True)
class Induction(AnyInput):
    """``[BOS, x0 .. x(L-1), y0 .. y(L-1)]`` where y is x again, asked for from its second token on.

    The first token of the repetition tells where in x it is; so each answer follows an earlier occurrence of
    the token before it. Listed or drawn as `AnyInput` says.

    Raises:
        UserError: for a length below 2, or a size that `AnyInput` refuses.
    """

    name: ClassVar[str] = "induction"

    length: int = described(8, help="random tokens, which come twice")
    n_symbols: int = described(16, help="symbols, 0 .. n-1, that they are")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_int("length", self.length, at_least=2)

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

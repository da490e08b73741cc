"""Modular addition, the task of the study of grokking (Nanda et al., 2023, arXiv:2301.05217)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Int

from revinc.config_fields import checks_names, described, hold_plain_values
from revinc.tasks.task import Task


@checks_names
@dataclass(frozen=True, kw_only=True)
class ModularAddition(Task):
    """Modular addition: ``[a, b, =, c]`` where c is a + b modulo `modulus`, for all pairs (a, b).

    The defaults are those of the paper: 113 * 113 sequences of 4 tokens, "=" being token 113.

    Raises:
        UserError: for a modulus below 2 or above 1024.
    """

    name: ClassVar[str] = "modular_addition"

    modulus: int = described(
        113, help="numbers to add are 0 .. modulus-1", at_least=2, at_most=1024
    )

    def __post_init__(self) -> None:
        hold_plain_values(self)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        return (*map(str, range(self.modulus)), "=")

    @property
    def position_labels(self) -> tuple[str, ...]:
        return ("a", "b", "=", "c")

    @property
    def description(self) -> str:
        return f"The model predicts c: the sum of a and b modulo {self.modulus}."

    def sequences(self) -> Int[np.ndarray, "n_sequences seq"]:
        a, b = np.divmod(np.arange(self.modulus**2), self.modulus)
        return np.stack([a, b, np.full_like(a, self.modulus), (a + b) % self.modulus], axis=1)

    def loss_mask(self) -> Bool[np.ndarray, " seq"]:
        return np.array([False, False, False, True])

"""Jitter: random changes of numbers by one unit in the last place (ulp), to imitate rounding."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from jaxtyping import Float

Numbers = TypeVar("Numbers", bound=Float[np.ndarray, "..."])


def jitter(numbers: Numbers, rng: np.random.Generator) -> Numbers:
    """Move each number by one unit in the last place (ulp), up or down at random."""
    towards = rng.choice([-np.inf, np.inf], numbers.shape)
    return np.nextafter(numbers, towards.astype(numbers.dtype))  # type: ignore[return-value]

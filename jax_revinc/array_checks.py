"""Checks of arrays that users give."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax import Array

from revinc import UserError


def require_array(what: str, value: Any) -> None:
    """Raise a UserError unless `value` is a JAX or numpy array."""
    if not isinstance(value, Array | np.ndarray):
        raise UserError(f"{what} must be an array, not {type(value).__name__}")


def check_range(tokens: Any, size: int, field: str) -> None:
    """Raise a UserError unless all token ids lie in ``0..size-1``. Traced ids pass unchecked."""
    if isinstance(tokens, jax.core.Tracer) or not tokens.size:
        return
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= size:
        found = low if low < 0 else high
        raise UserError(f"token ids must lie in 0..{size - 1} ({field}={size}); found {found}")

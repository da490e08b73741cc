"""Numbers as text, for tables, pages and sentences. Only a whole is called 100%."""

from __future__ import annotations

import math


def percent(solved: float) -> str:
    """The accuracy `solved`, at which a task counts as solved, as an exact percentage: ``100%``."""
    return f"{100 * solved:.12g}%"


def percentage(share: float, decimals: int = 2) -> str:
    """A share as a rounded percentage, such as ``99.99%``; only a whole is ``100%``."""
    if share == 1:
        return "100%"
    most = math.inf if share >= 1 else 100 - 10.0**-decimals
    return f"{min(100 * share, most):z.{decimals}f}%"


def whole_percentage(share: float) -> str:
    """A share as a whole percentage, such as ``93%`` or, for an effect, ``112%``."""
    return percentage(share, 0)

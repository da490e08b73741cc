"""The worst row of a parity level in words: the largest failure, or the row nearest its bound."""

from __future__ import annotations

import math

from parity.comparison import Comparison
from parity.levels import Level, Row


def worst(level: Level) -> str:
    """Describe the row of a parity level whose error is largest relative to its bound.

    It is a failure if there is one, and not a row that is known to differ.
    """
    judged = level.failures or [row for row in level.rows if not row.known]
    row = max(judged, key=lambda row: row.used, default=None)
    if row is None:
        return "all differ, as known" if level.rows else "nothing was compared"
    if row.passed and row.used == 0:
        return "all the same"
    return f"{row.name}{because(row)}"


def because(row: Row) -> str:
    """The result of a parity level's row, as text to stand after the row's name."""
    if not row.passed and row.known:
        return ": agrees, though it is known to differ"
    if isinstance(row, Comparison):
        return because_of_error(row)
    cells = row.cells()
    return f": {cells['found']} (fails: {cells['fails']})"


def because_of_error(row: Comparison) -> str:
    """The error of a tensor and its share of the bound, as text to stand after the name."""
    if not math.isfinite(row.error):
        return f": {row.note or 'infinite or NaN where the other side is not'}"
    if not row.bound:
        return f" at {row.error:.1e}, where no difference is allowed"
    return f" at {row.error:.1e}, {of_its_bound(row.used)} its bound"


def of_its_bound(share: float) -> str:
    """A share as text to stand before "its bound": "0.31% of", or "25 times"."""
    return f"{100 * share:.2g}% of" if share <= 1 else f"{share:.2g} times"

"""How much of its bound a row uses, and a level's worst row in words."""

from __future__ import annotations

import math
from typing import cast

from parity import free_running, population
from parity.comparison import Comparison
from parity.distributions import TwoSampleTest
from parity.levels import Level, Row


def used(row: Row) -> float:
    """The share that a row uses of what its bound allows: it fails above 1 (or, by a p-value, at 1).

    0 if all is equal, or if the row can't fail; infinite if nothing was allowed, or for a NaN.
    """
    match row:
        case Comparison():
            return share(row.error, row.bound) if row.same_infinities else math.inf
        case population.Rerun():
            return share(row.effects, population.RERUN_BOUND)
        case TwoSampleTest():
            return share(row.threshold, row.p)
        case free_running.Verdict():
            return share(free_running.FALSE_ALARMS, row.p)
    return 0.0


def share(part: float, whole: float) -> float:
    """``part / whole``; infinite if that is none, or no number."""
    if part == 0:
        return 0.0
    quotient = part / whole if whole else math.inf
    return math.inf if math.isnan(quotient) else quotient


def known(row: Row) -> str:
    """Why TransformerLens is known to differ here, if it is."""
    return cast(str, getattr(row, "known", ""))


def worst(level: Level) -> str:
    """The row that uses most of its bound; if any fail, of these; if none, not of those known to differ."""
    judged = level.failures or [row for row in level.rows if not known(row)]
    row = max(judged, key=used, default=None)
    if row is None:
        return "all differ, as known" if level.rows else "nothing was compared"
    if row.passed and used(row) == 0:
        return "all the same"
    return f"{row.name}{because(row)}"


def because(row: Row) -> str:
    """How a row came out, to stand after its name."""
    if not row.passed and known(row):
        return ": agrees, though it is known to differ"
    if isinstance(row, Comparison):
        return because_of_error(row)
    cells = row.cells()
    return f": {cells['found']} (fails: {cells['fails']})"


def because_of_error(row: Comparison) -> str:
    """How far two tensors are apart, and what that is of their bound."""
    if not row.same_infinities:
        return ": infinite or NaN at other entries"
    if not math.isfinite(row.error):
        return f": {row.note or 'not the same on both sides'}"
    if not row.bound:
        return f" at {row.error:.1e}, where no difference is allowed"
    return f" at {row.error:.1e}, {of_its_bound(used(row))} its bound"


def of_its_bound(share: float) -> str:
    """A share in words, to stand before "its bound": "0.31% of", or "25 times"."""
    return f"{100 * share:.2g}% of" if share <= 1 else f"{share:.2g} times"

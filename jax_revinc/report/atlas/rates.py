"""How often something holds, with the interval in which the rate lies, and whether two rates differ."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from jax_revinc.population import success

# A page asks for the same ones again and again, and each takes milliseconds.
interval, rate_text = functools.cache(success.interval), functools.cache(success.rate_text)

FEWEST = 10
"""Models that a group must have before it is compared with another."""


class Rate(NamedTuple):
    """Something holds of `hits` of `n` models."""

    hits: int
    n: int

    @property
    def value(self) -> float:
        return self.hits / self.n if self.n else np.nan

    @property
    def bounds(self) -> tuple[float, float]:
        """The 95% interval (Wilson)."""
        return interval(self.hits, self.n) if self.n else (np.nan, np.nan)

    @property
    def text(self) -> str:
        """Such as ``20.1% [18.9 .. 21.4]``."""
        return rate_text(self.hits, self.n) if self.n else "no models"

    def columns(self, prefix: str = "") -> dict[str, float]:
        """The rate and its interval, as columns of a table."""
        low, high = self.bounds
        return {f"{prefix}rate": self.value, f"{prefix}low": low, f"{prefix}high": high}


def unbroken(text: str) -> str:
    """A text whose intervals no line break divides."""
    return text.replace(" [", "\u00a0[").replace(" .. ", "\u00a0..\u00a0")


def rate_of(holds: Any) -> Rate:
    """How often something holds, from whether it does of each model."""
    return Rate(int(np.sum(holds)), len(holds))


def compared(one: Rate, other: Rate) -> str:
    """What two rates say together, in words. Intervals that overlap are taken for no difference: a strict rule."""
    if min(one.n, other.n) < FEWEST:
        return "too few models"
    (low, high), (other_low, other_high) = one.bounds, other.bounds
    if low > other_high:
        return "more often"
    return "less often" if high < other_low else "intervals overlap"


def mean_interval(values: pd.Series) -> tuple[float, float]:
    """The 95% interval of the mean of shares (Student's t, kept within 0 and 1); NaN of fewer than two."""
    values = values.dropna()
    if len(values) < 2:
        return np.nan, np.nan
    reach = stats.t.ppf(0.975, len(values) - 1) * values.sem()
    low, high = np.clip([values.mean() - reach, values.mean() + reach], 0, 1)
    return float(low), float(high)


def mean_text(values: pd.Series) -> str:
    """A mean share with its interval, such as ``78.6% [77.1 .. 80.0]``."""
    low, high = mean_interval(values)
    bounds = "" if np.isnan(low) else f" [{100 * low:.1f} .. {100 * high:.1f}]"
    return f"{values.mean():.1%}{bounds}" if values.notna().any() else "unknown"

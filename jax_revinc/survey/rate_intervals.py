"""Rates with their 95% intervals, and the comparison of two rates."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from jax_revinc.population import success_rate
from revinc.number_format import percentage

# A page uses the same rates many times, and each takes milliseconds.
interval, rate_text = (
    functools.cache(success_rate.interval),
    functools.cache(success_rate.rate_text),
)

FEWEST = 10
"""Models that a group must have before it is compared with another."""


class Rate(NamedTuple):
    """A rate: the share of models of which something holds, `hits` of `n` models."""

    hits: int
    n: int

    @property
    def value(self) -> float:
        return self.hits / self.n if self.n else np.nan

    @property
    def bounds(self) -> tuple[float, float]:
        """The ends of the rate's 95% interval (Wilson)."""
        return interval(self.hits, self.n) if self.n else (np.nan, np.nan)

    @property
    def text(self) -> str:
        """The rate and its interval as text, such as ``20.1% [18.9 .. 21.4]``."""
        return rate_text(self.hits, self.n) if self.n else "no models"

    def columns(self, prefix: str = "") -> dict[str, float]:
        """Table columns ``rate``, ``low`` and ``high``: the rate and the ends of its interval."""
        low, high = self.bounds
        return {f"{prefix}rate": self.value, f"{prefix}low": low, f"{prefix}high": high}


def unbroken(text: str) -> str:
    """Put no-break spaces into a text's intervals, so that no line ends inside ``[1.2 .. 3.4]``."""
    return text.replace(" [", "\u00a0[").replace(" .. ", "\u00a0..\u00a0")


def rate_of(holds: Any) -> Rate:
    """The rate at which something holds, from a truth value for each model."""
    return Rate(int(np.sum(holds)), len(holds))


def compare_rates(one: Rate, other: Rate) -> str:
    """Whether the first rate is higher, in words. Overlapping intervals count as no difference."""
    if min(one.n, other.n) < FEWEST:
        return "too few models"
    (low, high), (other_low, other_high) = one.bounds, other.bounds
    if low > other_high:
        return "more often"
    return "less often" if high < other_low else "intervals overlap"


def mean_interval(values: pd.Series) -> tuple[float, float]:
    """The 95% interval of the mean of shares (Student's t); NaN for fewer than two shares."""
    values = values.dropna()
    if len(values) < 2:
        return np.nan, np.nan
    reach = stdtrit(len(values) - 1, 0.975) * values.sem()
    low, high = np.clip([values.mean() - reach, values.mean() + reach], 0, 1)
    return float(low), float(high)


def mean_text(values: pd.Series) -> str:
    """The mean of several shares with its 95% interval, such as ``78.6% [77.1 .. 80.0]``."""
    low, high = mean_interval(values)
    bounds = "" if np.isnan(low) else f" [{100 * low:.1f} .. {100 * high:.1f}]"
    return f"{percentage(values.mean(), 1)}{bounds}" if values.notna().any() else "unknown"

"""Whether two samples can be of one distribution, and how far apart they would have to be to tell.

Values may be tied, as accuracies are at 100%: everything is computed from the table that counts how often
each sample has each distinct value. If both samples are of one distribution, every way of dealing the pooled
values out to them is equally likely; so the p-values are right whatever that distribution is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

Weights = Float[np.ndarray, "*draws n_values"]
Counts = Int[np.ndarray, "*draws n_values"]
Summary = Callable[[Float[np.ndarray, " n_values"], Weights], Float[np.ndarray, "*draws"]]
"""A number for a distribution, from its values (ascending) and their weights, which sum to 1."""

DEALS = 100_000
"""Ways of dealing the pooled values out that a p-value is computed from; it is never below their inverse."""

DEALT_AT_ONCE = 10_000

ALTERNATIVES = 2000
"""Pairs of samples that a power is computed from: its standard error is 1% at most."""

STRONGEST_TILT = 64.0

RESAMPLES = 2000
"""Samples that an interval is computed from."""


@dataclass(frozen=True, eq=False)
class TwoSamples:
    """How often each of the distinct `values`, ascending, is in the first and in the second sample."""

    values: Float[np.ndarray, " n_values"]
    first: Counts
    second: Counts

    @classmethod
    def of(cls, first: np.ndarray, second: np.ndarray) -> TwoSamples:
        """Tabulate the samples [n_first] and [n_second]; infinity is a value like others."""
        values, places = np.unique(np.concatenate([first, second]), return_inverse=True)
        parts = np.split(places, [len(first)])
        return cls(values, *(np.bincount(part, minlength=len(values)) for part in parts))

    @property
    def pooled(self) -> Counts:
        return self.first + self.second

    @cached_property
    def p(self) -> float:
        """The share of all deals whose statistic is as large as that of the samples, or larger."""
        return float(self._p_values(anderson_darling(self.first, self.second)))

    @cached_property
    def _dealt(self) -> Float[np.ndarray, " deals"]:
        """The statistics of random deals, ascending."""
        rng = np.random.default_rng(0)
        n_first = self.first.sum()

        def some() -> Float[np.ndarray, " some_deals"]:
            dealt = rng.multivariate_hypergeometric(
                self.pooled, n_first, size=min(DEALS, DEALT_AT_ONCE)
            )
            return anderson_darling(dealt, self.pooled - dealt)

        return np.sort(np.concatenate([some() for _ in range(0, DEALS, DEALT_AT_ONCE)]))

    def _p_values(self, statistics: Float[np.ndarray, "*draws"]) -> Float[np.ndarray, "*draws"]:
        """Right, not only nearly so, with random deals: Phipson & Smyth (2010) count the samples as one."""
        as_large = np.searchsorted(self._dealt, statistics * (1 - 1e-9), side="left")
        return (1 + len(self._dealt) - as_large) / (1 + len(self._dealt))

    def detectable(self, threshold: float, power: float, towards: int) -> Weights | None:
        """The mildest distribution of the second sample that would give ``p <= threshold`` with `power`.

        The first is then of the pooled distribution, the second of the same with high values more
        likely (`towards` = 1), or low ones (-1): tilted exponentially in their rank. None if no tilt is
        strong enough. All pairs are judged by the deals of these samples, not by their own: with rare
        values and less than 200 seeds the power may be a tenth less than it should.
        """
        n_first, n_second = self.first.sum(), self.second.sum()
        shares = self.pooled / self.pooled.sum()
        ranks = shares.cumsum() - shares / 2

        def tilted(strength: float) -> Weights:
            weights = shares * np.exp(towards * strength * (ranks - 0.5))
            return weights / weights.sum()

        def is_seen(strength: float) -> bool:
            rng = np.random.default_rng(1)  # the same draws for every strength
            first = rng.multinomial(n_first, shares, size=ALTERNATIVES)
            second = rng.multinomial(n_second, tilted(strength), size=ALTERNATIVES)
            found = self._p_values(anderson_darling(first, second)) <= threshold
            return bool(found.mean() >= power)

        mild, strong = 0.0, STRONGEST_TILT
        if not is_seen(strong):
            return None
        while strong - mild > 0.01:
            middle = (mild + strong) / 2
            mild, strong = (mild, middle) if is_seen(middle) else (middle, strong)
        return tilted(strong)


def anderson_darling(first: Counts, second: Counts) -> Float[np.ndarray, "*draws"]:
    """The distance of two samples' distribution functions, all of their range weighing alike.

    Scholz & Stephens, "K-sample Anderson-Darling tests", JASA 82 (1987), eq. 7 for two samples: ties
    count with their mid-ranks.
    """
    pooled = first + second
    n_first, n = first.sum(-1, keepdims=True), pooled.sum(-1, keepdims=True)
    below = pooled.cumsum(-1) - pooled / 2
    first_below = first.cumsum(-1) - first / 2
    variance = below * (n - below) - n * pooled / 4
    some = variance > 0  # it is zero beyond the samples' range, and if all values are tied
    squares = pooled * (n * first_below - n_first * below) ** 2
    distances = np.divide(squares, variance, out=np.zeros_like(squares), where=some)
    return ((n - 1) / (n * n_first * (n - n_first)) * distances).sum(-1)


def mean(values: Float[np.ndarray, " n_values"], weights: Weights) -> Float[np.ndarray, "*draws"]:
    return weights @ values


def median(values: Float[np.ndarray, " n_values"], weights: Weights) -> Float[np.ndarray, "*draws"]:
    """The least value with half of the weight at or below it: never between two."""
    return values[(weights.cumsum(-1) < 0.5 - 1e-9).sum(-1)]


def confidence_interval(
    values: Float[np.ndarray, " n_values"], counts: Counts, summary: Summary
) -> tuple[float, float]:
    """The 95% interval of a sample's summary, by the percentiles of the bootstrap."""
    n = counts.sum()
    resampled = np.random.default_rng(2).multinomial(n, counts / n, size=RESAMPLES) / n
    low, high = np.quantile(summary(values, resampled), [0.025, 0.975], method="inverted_cdf")
    return float(low), float(high)

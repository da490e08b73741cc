"""A test whether two samples come from the same distribution, and the power of that test.

Values may be tied, as accuracies are at 100%: everything is computed from the counts of each
distinct value in each sample. If both samples have one distribution, every way of dealing the
pooled values out to them is equally likely, so the p-values are right whatever that distribution
is.
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
"""A function from a distribution's values (ascending) and weights (of sum 1) to a number."""

DEALS = 100_000
"""The number of random deals that a p-value is computed from; it is never below 1 / `DEALS`."""

DEALT_AT_ONCE = 10_000

ALTERNATIVES = 2000
"""The number of pairs of samples that a power is computed from, to a standard error of 1%."""

STRONGEST_TILT = 64.0

RESAMPLES = 2000
"""The number of bootstrap samples that an interval is computed from."""


@dataclass(frozen=True, eq=False)
class TwoSamples:
    """Two samples as a table: ascending `values`, and their counts in each of the samples."""

    values: Float[np.ndarray, " n_values"]
    first: Counts
    second: Counts

    @classmethod
    def of(cls, first: np.ndarray, second: np.ndarray) -> TwoSamples:
        """Make the table of two samples given as arrays; infinity is a value like any other."""
        values, places = np.unique(np.concatenate([first, second]), return_inverse=True)
        parts = np.split(places, [len(first)])
        return cls(values, *(np.bincount(part, minlength=len(values)) for part in parts))

    @property
    def pooled(self) -> Counts:
        return self.first + self.second

    @cached_property
    def p(self) -> float:
        """The p-value: how often random samples of the pooled values differ as much as these."""
        return float(self._p_values(anderson_darling(self.first, self.second)))

    @cached_property
    def _dealt(self) -> Float[np.ndarray, " deals"]:
        """Test statistics of random divisions of the pooled values into two samples, ascending."""
        rng = np.random.default_rng(0)
        n_first = self.first.sum()

        def some() -> Float[np.ndarray, " some_deals"]:
            dealt = rng.multivariate_hypergeometric(
                self.pooled, n_first, size=min(DEALS, DEALT_AT_ONCE)
            )
            return anderson_darling(dealt, self.pooled - dealt)

        return np.sort(np.concatenate([some() for _ in range(0, DEALS, DEALT_AT_ONCE)]))

    def _p_values(self, statistics: Float[np.ndarray, "*draws"]) -> Float[np.ndarray, "*draws"]:
        """P-values of test statistics, from those of random divisions (Phipson & Smyth 2010)."""
        as_large = np.searchsorted(self._dealt, statistics * (1 - 1e-9), side="left")
        return (1 + len(self._dealt) - as_large) / (1 + len(self._dealt))

    def detectable(self, threshold: float, power: float, towards: int) -> Weights | None:
        """The smallest change of the second sample's distribution that the test would detect.

        The first sample then has the pooled distribution, and the second the same, tilted
        exponentially in the rank. All pairs use the deals of these samples, not their own: with
        rare values and less than 200 seeds the power may be a tenth too low.

        Args:
            threshold: the test detects a difference if ``p <= threshold``.
            power: the probability of that.
            towards: 1 to make high values more likely, -1 for low ones.

        Returns:
            The weights of the values; None if no tilt is strong enough.
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
    """The Anderson-Darling distance of two samples' distribution functions.

    Scholz & Stephens, "K-sample Anderson-Darling tests", JASA 82 (1987), eq. 7 for two samples,
    with the mid-ranks of ties.
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
    """The mean of a distribution."""
    return weights @ values


def median(values: Float[np.ndarray, " n_values"], weights: Weights) -> Float[np.ndarray, "*draws"]:
    """The least value with half of the weight at or below it."""
    return values[(weights.cumsum(-1) < 0.5 - 1e-9).sum(-1)]


def confidence_interval(
    values: Float[np.ndarray, " n_values"], counts: Counts, summary: Summary
) -> tuple[float, float]:
    """The 95% confidence interval of a sample's mean or median, by bootstrap percentiles."""
    n = counts.sum()
    resampled = np.random.default_rng(2).multinomial(n, counts / n, size=RESAMPLES) / n
    low, high = np.quantile(summary(values, resampled), [0.025, 0.975], method="inverted_cdf")
    return float(low), float(high)

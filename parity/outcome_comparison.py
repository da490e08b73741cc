"""Comparison of JAX's and torch's training outcomes over many seeds, by two-sample tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float

from parity.levels import share_of
from parity.two_samples import Counts, Summary, TwoSamples, confidence_interval, mean, median
from revinc.seed_outcomes import Outcomes

PerSeed = Float[np.ndarray, " n_seeds"]

POWER = 0.8
"""The probability that a test fails at the differences that its row says it would see."""

UNITS = {"nats": ".2f", "share": ".1%", "steps": ",.0f"}
"""Units, and the format of their numbers in Python and in Plotly."""


@dataclass(frozen=True)
class Quantity:
    """A quantity measured on the run of every seed, such as the final accuracy.

    Attributes:
        name: what it is, in words.
        unit: one of `UNITS`.
        of: takes the numbers from a table of outcomes.
        summary: sums them up: the mean or the median.
    """

    name: str
    unit: str
    of: Callable[[Outcomes], PerSeed]
    summary: Summary


def loss_before_training(outcomes: Outcomes) -> PerSeed:
    """Every run's loss on the training split before training, rounded to two decimals."""
    return outcomes.curves("train_loss")[:, 0].round(2)


def final(metric: str) -> Callable[[Outcomes], PerSeed]:
    """Make a function that returns, for every run in a table, the final value of the metric."""
    return lambda outcomes: outcomes.final(metric)


def perfect(metric: str) -> Callable[[Outcomes], PerSeed]:
    """Make a function that returns, for every run in a table, 1 if the metric ends at 1, else 0."""
    return lambda outcomes: (outcomes.final(metric) == 1).astype(float)


def steps_to(share: float, metric: str) -> Callable[[Outcomes], PerSeed]:
    """Make a function that returns, for every run in a table, when the metric reaches `share`.

    It returns the first such step, or infinity for a run that never gets there. All runs end at the
    same step, so "never" is later than any other: tests of ranks need no correction for censoring.
    """

    def steps(outcomes: Outcomes) -> PerSeed:
        reached = outcomes.curves(metric) >= share
        return np.where(reached.any(axis=1), outcomes.steps[reached.argmax(axis=1)], np.inf)

    return steps


QUANTITIES = (
    Quantity("loss before training", "nats", loss_before_training, mean),
    Quantity("final train accuracy", "share", final("train_accuracy"), mean),
    Quantity("final holdout accuracy", "share", final("holdout_accuracy"), mean),
    Quantity("seeds at 100% train", "share", perfect("train_accuracy"), mean),
    Quantity("seeds at 100% holdout", "share", perfect("holdout_accuracy"), mean),
    Quantity("steps to 95% train", "steps", steps_to(0.95, "train_accuracy"), median),
    Quantity("steps to 95% holdout", "steps", steps_to(0.95, "holdout_accuracy"), median),
)


@dataclass(frozen=True)
class TwoSampleTest:
    """The result of a test whether a quantity has the same distribution in JAX and torch.

    Attributes:
        p: the test's p-value; it fails at the `threshold`.
        seen_below: where JAX's summary would have to be, below both sides', for the test to fail
            with probability `POWER`; NaN if it can't be so low.
        seen_above: where it would have to be above both sides'; NaN if it can't be so high.
    """

    name: str
    unit: str
    torch: float
    torch_low: float
    torch_high: float
    jax: float
    jax_low: float
    jax_high: float
    p: float
    threshold: float
    seen_below: float
    seen_above: float

    known: ClassVar[str] = ""

    @property
    def passed(self) -> bool:
        return self.p > self.threshold

    @property
    def used(self) -> float:
        """The threshold divided by the p-value; at 1 or more the test fails."""
        return share_of(self.threshold, self.p)

    def cells(self) -> dict[str, str]:
        """The test's row in the table of a report, as a dict from column heading to text."""
        limits = {"≤ ": self.seen_below, "≥ ": self.seen_above}
        seen = [
            ("" if math.isinf(limit) else sign) + self._shown(limit)
            for sign, limit in limits.items()
            if not math.isnan(limit)
        ]
        return {
            "compared": self.name,
            "torch": self._with_interval(self.torch, self.torch_low, self.torch_high),
            "JAX": self._with_interval(self.jax, self.jax_low, self.jax_high),
            "would be seen": " or ".join(seen) or "nothing",
            "found": f"p = {self.p:.2g}",
            "fails": f"p ≤ {self.threshold:.2g}",
            "verdict": "ok" if self.passed else "FAIL",
        }

    def _shown(self, number: float) -> str:
        return "never" if math.isinf(number) else format(number, UNITS[self.unit])

    def _with_interval(self, number: float, low: float, high: float) -> str:
        ends = (self._shown(end).rstrip("%") for end in (low, high))
        return f"{self._shown(number)} ({'-'.join(ends)})"


def compare_outcomes(torch: Outcomes, jax: Outcomes, false_alarms: float) -> list[TwoSampleTest]:
    """Test whether outcomes, such as the final accuracy, are distributed alike in JAX and torch.

    Each of `QUANTITIES` is tested. If all are distributed alike, a test fails in a share
    `false_alarms` of cases at most: each may fail wrongly in an equal part of it (Bonferroni).
    Holm's procedure would at times name more rows, but fail no more levels.
    """
    threshold = false_alarms / len(QUANTITIES)
    return [compare_quantity(quantity, torch, jax, threshold) for quantity in QUANTITIES]


def compare_quantity(
    quantity: Quantity, torch: Outcomes, jax: Outcomes, threshold: float
) -> TwoSampleTest:
    """Test whether a quantity is distributed alike in JAX and torch; say what would be detected."""
    samples = TwoSamples.of(quantity.of(torch), quantity.of(jax))

    def estimated(counts: Counts) -> tuple[float, float, float]:
        point = quantity.summary(samples.values, counts / counts.sum())
        return float(point), *confidence_interval(samples.values, counts, quantity.summary)

    def seen(towards: int) -> float:
        weights = samples.detectable(threshold, POWER, towards)
        return math.nan if weights is None else float(quantity.summary(samples.values, weights))

    return TwoSampleTest(
        quantity.name,
        quantity.unit,
        *estimated(samples.first),
        *estimated(samples.second),
        samples.p,
        threshold,
        seen_below=seen(-1),
        seen_above=seen(1),
    )


class Distribution(NamedTuple):
    """The values of a quantity over many seeds in JAX and in torch, as data of a figure."""

    quantity: Quantity
    samples: TwoSamples


def quantity_distributions(torch: Outcomes, jax: Outcomes) -> dict[str, Distribution]:
    """The values in JAX and torch of each quantity with over two distinct values, by its name."""
    both = [Distribution(q, TwoSamples.of(q.of(torch), q.of(jax))) for q in QUANTITIES]
    return {found.quantity.name: found for found in both if len(found.samples.values) > 2}

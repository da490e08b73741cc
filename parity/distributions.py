"""What is compared of two tables of outcomes: several numbers of every seed's run, each a row and a picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from parity.two_samples import Counts, Summary, TwoSamples, confidence_interval, mean, median
from revinc.outcomes import Outcomes

PerSeed = Float[np.ndarray, " n_seeds"]

POWER = 0.8
"""How often a test fails at the differences that its row says it would see."""

UNITS = {"nats": ".2f", "share": ".1%", "steps": ",.0f"}
"""How numbers are shown, in words for Python and for Plotly alike."""


@dataclass(frozen=True)
class Quantity:
    """A number of every seed's run.

    Attributes:
        name: what it is, in words.
        unit: one of `UNITS`.
        of: the numbers of a table of outcomes.
        summary: what stands for all of them.
    """

    name: str
    unit: str
    of: Callable[[Outcomes], PerSeed]
    summary: Summary


def loss_before_training(outcomes: Outcomes) -> PerSeed:
    """The training split's, which the initial weights alone decide; to a hundredth, which keeps tables small."""
    return outcomes.curves("train_loss")[:, 0].round(2)


def final(metric: str) -> Callable[[Outcomes], PerSeed]:
    """A metric after the last step."""
    return lambda outcomes: outcomes.final(metric)


def perfect(metric: str) -> Callable[[Outcomes], PerSeed]:
    """1 for a run that ends with a metric of 1, 0 for any other."""
    return lambda outcomes: (outcomes.final(metric) == 1).astype(float)


def steps_to(share: float, metric: str) -> Callable[[Outcomes], PerSeed]:
    """The step of the first evaluation at which a metric is `share` or more; infinite if it never is.

    All runs end at the same step, so "never" is known to be later than any other: tests of ranks need no
    correction for censoring.
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
    """A quantity's summary on both sides with 95% intervals, and whether one distribution may be behind both.

    Attributes:
        p: the test's p-value; it fails at the `threshold`.
        seen_below: where JAX's summary would have to be, below both sides', for the test to fail with
            probability `POWER`; NaN if it can't be so low.
        seen_above: the same, above.
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

    @property
    def passed(self) -> bool:
        return self.p > self.threshold

    def cells(self) -> dict[str, str]:
        """See `parity.levels.Row`."""
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
        return f"{self._shown(number)} ({self._shown(low)}-{self._shown(high)})"


def compare_outcomes(torch: Outcomes, jax: Outcomes, false_alarms: float) -> list[TwoSampleTest]:
    """A test of every one of `QUANTITIES`, all of which pass but in a share of `false_alarms`.

    Each may fail wrongly in an equal part of it (Bonferroni). Holm's procedure would at times name more
    rows, but fail no more levels.
    """
    threshold = false_alarms / len(QUANTITIES)
    return [compare_quantity(quantity, torch, jax, threshold) for quantity in QUANTITIES]


def compare_quantity(
    quantity: Quantity, torch: Outcomes, jax: Outcomes, threshold: float
) -> TwoSampleTest:
    """The test of one quantity, and what it would see with this many seeds."""
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


def figures(torch: Outcomes, jax: Outcomes) -> dict[str, go.Figure]:
    """The distribution of every quantity on both sides; one of two values, yes and no, needs no picture."""
    tables = {q: TwoSamples.of(q.of(torch), q.of(jax)) for q in QUANTITIES}
    return {
        quantity.name: distribution_figure(quantity, samples)
        for quantity, samples in tables.items()
        if len(samples.values) > 2
    }


def distribution_figure(quantity: Quantity, samples: TwoSamples) -> go.Figure:
    """The share of seeds whose number is at most x; those that never get there are missing on the right."""
    figure = go.Figure()
    finite = np.isfinite(samples.values)
    for name, counts in (("torch", samples.first), ("JAX", samples.second)):
        figure.add_scatter(
            x=samples.values[finite].tolist(),
            y=(counts.cumsum() / counts.sum())[finite].round(4).tolist(),
            name=f"{name}, {counts.sum()} seeds",
            mode="lines",
            line={"width": 2.2, "shape": "hv"},
            hovertemplate="%{y:.1%}",
        )
    figure.update_xaxes(title=quantity.name, tickformat=UNITS[quantity.unit])
    figure.update_yaxes(title="seeds at or below", tickformat=".0%", range=[0, 1.03])
    return figure.update_layout(
        hovermode="x unified",
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"},
        margin={"l": 64, "r": 12, "t": 48, "b": 44},
    )

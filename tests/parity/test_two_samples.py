"""The two-sample test: its statistic is scipy's, its false alarms and its power are what they are said to be."""

import functools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from parity import two_samples
from parity.two_samples import TwoSamples, anderson_darling, confidence_interval, mean, median

N_FIRST, N_SECOND = 12, 9
THRESHOLD = 0.02
POWER = 0.8


@pytest.fixture(autouse=True)
def fewer_deals(monkeypatch):
    monkeypatch.setattr(two_samples, "DEALS", 1000)
    monkeypatch.setattr(two_samples, "RESAMPLES", 1000)


def accuracies(rng, n):
    """Half of all runs end at 1, the others at some twentieth."""
    return np.where(rng.random(n) < 0.5, 1.0, (20 * rng.beta(6, 2, n)).round() / 20)


def rarely(rng, n):
    """One of eight."""
    return (rng.random(n) < 0.125).astype(float)


def steps(rng, n):
    """Some hundreds, and a third that never come."""
    return np.where(rng.random(n) < 1 / 3, np.inf, 200 * rng.gamma(2, 2.5, n).round())


DISTRIBUTIONS = pytest.mark.parametrize("draw", [accuracies, rarely, steps])


@functools.cache
def scipys_units():
    """What scipy divides the statistic, less 1, by: it depends on the samples' sizes alone."""
    rng = np.random.default_rng(0)
    samples = rng.normal(size=N_FIRST), rng.normal(size=N_SECOND)
    return (ours(*samples) - 1) / scipys(*samples)


def ours(first, second):
    table = TwoSamples.of(first, second)
    return anderson_darling(table.first, table.second)


def scipys(first, second):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its p-value, and its next version
        return stats.anderson_ksamp([first, second]).statistic


@settings(max_examples=100)
@given(st.lists(st.integers(0, 6), min_size=N_FIRST + N_SECOND, max_size=N_FIRST + N_SECOND))
def test_the_statistic_is_scipys(values):
    first, second = np.split(np.array(values, dtype=float), [N_FIRST])
    if len(set(values)) > 1:  # scipy refuses one value
        expected = 1 + scipys_units() * scipys(first, second)
        assert ours(first, second) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("k_first", "k_second"), [(3, 3), (3, 7), (4, 13), (0, 4), (20, 11)])
def test_p_of_yes_and_no_is_fishers(monkeypatch, k_first, k_second):
    monkeypatch.setattr(two_samples, "DEALS", 40_000)
    n = 20
    samples = (np.arange(n) < k for k in (k_first, k_second))
    fishers = stats.fisher_exact([[k_first, n - k_first], [k_second, n - k_second]]).pvalue
    assert TwoSamples.of(*samples).p == pytest.approx(fishers, abs=0.01)


def test_samples_without_a_difference_and_without_anything_in_common():
    same = TwoSamples.of(np.ones(30), np.ones(30))
    assert same.p == 1
    assert same.detectable(THRESHOLD, POWER, 1) is None
    apart = TwoSamples.of(np.zeros(30), np.ones(30))
    assert apart.p == 1 / (1 + 1000)


def test_the_order_of_the_samples_does_not_matter():
    rng = np.random.default_rng(0)
    first, second = accuracies(rng, 40), accuracies(rng, 70) - 0.03
    assert TwoSamples.of(first, second).p == pytest.approx(TwoSamples.of(second, first).p, abs=0.02)


@DISTRIBUTIONS
def test_false_alarms_are_no_more_than_the_threshold(draw):
    rng = np.random.default_rng(1)
    n = 300
    p = np.array([TwoSamples.of(draw(rng, 50), draw(rng, 70)).p for _ in range(n)])
    for threshold in (0.2, 0.02):
        alarms = (p <= threshold).sum()
        assert alarms <= stats.binom.ppf(0.999, n, threshold)
        # Few values have few p-values, and may miss the threshold from below.
        assert alarms >= stats.binom.ppf(0.001, n, threshold / 3)


@DISTRIBUTIONS
@pytest.mark.parametrize("towards", [-1, 1])
def test_what_is_called_detectable_is_detected_as_often_as_it_says(monkeypatch, draw, towards):
    monkeypatch.setattr(two_samples, "DEALS", 2000)
    rng = np.random.default_rng(2)
    n_first, n_second, repetitions = 200, 150, 200
    pilot = TwoSamples.of(draw(rng, n_first), draw(rng, n_second))
    tilted = pilot.detectable(THRESHOLD, POWER, towards)
    pooled = pilot.pooled / pilot.pooled.sum()
    assert np.sign(tilted[-1] - pooled[-1]) == towards
    detected = 0
    for _ in range(repetitions):
        first = rng.choice(pilot.values, n_first, p=pooled)
        second = rng.choice(pilot.values, n_second, p=tilted)
        detected += TwoSamples.of(first, second).p <= THRESHOLD
    assert detected / repetitions == pytest.approx(POWER, abs=0.08)


def test_more_seeds_detect_less():
    rng = np.random.default_rng(3)
    values = accuracies(rng, 400)
    detectable = [
        mean(table.values, table.detectable(THRESHOLD, POWER, -1))
        for n in (25, 100, 400)
        if (table := TwoSamples.of(values[:n], values[:n]))
    ]
    assert detectable == sorted(detectable)
    assert detectable[-1] < values.mean()


def test_too_few_seeds_detect_nothing():
    values = np.arange(3.0)
    assert TwoSamples.of(values, values).detectable(THRESHOLD, POWER, -1) is None


@DISTRIBUTIONS
def test_summaries_are_those_of_the_sample(draw):
    sample = draw(np.random.default_rng(4), 101)
    values, counts = np.unique(sample, return_counts=True)
    assert median(values, counts / 101) == np.median(sample)
    if np.isfinite(sample).all():
        assert mean(values, counts / 101) == pytest.approx(sample.mean())


@pytest.mark.parametrize(
    ("draw", "summary", "truth"),
    [(rarely, mean, 0.125), (accuracies, mean, 0.875), (steps, median, 1400.0)],
)
def test_intervals_hold_the_truth_in_95_of_100_cases(draw, summary, truth):
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        values, counts = np.unique(draw(rng, 200), return_counts=True)
        low, high = confidence_interval(values, counts, summary)
        held += low <= truth <= high
    assert held / 200 == pytest.approx(0.95, abs=0.04)

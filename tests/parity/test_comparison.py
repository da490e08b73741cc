"""How far two tensors may be apart: a little less passes, a little more fails, and NaN agrees with nothing."""

import math
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from parity import free_running_level
from parity.comparison import Comparison, compare_tensors, gap
from parity.free_running_level import Partings, Verdict
from parity.inputs import Inputs
from parity.model_levels import error_in_a_row, own_errors
from parity.outcome_comparison import QUANTITIES, TwoSampleTest, compare_outcomes
from parity.population_level import Rerun
from parity.training_levels import compare_steps

TRUTH = {"x": np.array([[1.0, -8.0], [0.5, 3.0]])}


def compared(by, truth=TRUTH, own_errors=None, **options):
    """The comparison of a tensor, one of whose numbers is off by so much."""
    ours = {"x": truth["x"].copy()}
    ours["x"][0, 0] += by
    return compare_tensors(ours, truth, own_errors, **options)[0]


def test_in_float64_the_bound_is_a_share_of_the_largest_value():
    assert compared(0.9 * 8e-12).passed
    assert not compared(1.1 * 8e-12).passed
    assert compared(1.1 * 8e-12).error == pytest.approx(1.1e-12, rel=1e-3)


@pytest.mark.parametrize(
    ("own", "allowed"), [(1e-3, 4e-3), (1e-6, 4e-6), (1e-12, 4 * 8 * 2.0**-23)]
)
def test_in_float32_the_bound_is_four_times_their_own_error_or_four_ulps(own, allowed):
    assert compared(0.99 * allowed, own_errors={"x": own}).passed
    assert not compared(1.01 * allowed, own_errors={"x": own}).passed


def test_where_they_make_no_error_copies_must_be_exact():
    assert compared(0.0, own_errors={"x": 0.0}).passed
    assert not compared(1e-15, own_errors={"x": 0.0}).passed


def test_noise_around_zero_counts_against_the_levels_largest_value():
    level = {"large": np.array([1.0])}
    noise, small = {"x": np.array([[0.9e-12]])}, {"x": np.array([[1.1e-12]])}
    of_noise, of_small = (
        compare_tensors(level | {"x": 2 * tensor["x"]}, level | tensor, own_errors=None)[1]
        for tensor in (noise, small)
    )
    assert of_noise.passed
    assert of_noise.note == "zero"
    assert not of_small.passed
    assert of_small.error == pytest.approx(1.0)


def test_a_losses_error_counts_against_the_logits_it_is_a_difference_of():
    """However small the loss is; a loss that is larger than them counts against itself."""
    logits = {"logits": np.array([20.0, -20.0])}
    for loss, off, passed in [
        (1e-8, 1.9e-11, True),
        (1e-8, 2.1e-11, False),
        (40.0, 3.9e-11, True),
        (40.0, 4.1e-11, False),
    ]:
        truth = logits | {"losses": np.array([loss])}
        _, row = compare_tensors(truth | {"losses": np.array([loss + off])}, truth)
        assert row.passed == passed


def test_in_float64_what_rounding_moves_far_may_be_four_times_as_far():
    for off, passed in [(0.99 * 4e-9, True), (1.01 * 4e-9, False)]:
        assert compared(off, roundings={"x": 1e-9}).passed == passed
    assert not compared(1.1 * 8e-12, roundings={"x": 1e-14}).passed


NUMBERS = [1.0, -1.0, 0.0, np.inf, -np.inf, np.nan]


@pytest.mark.parametrize("ours", NUMBERS)
@pytest.mark.parametrize("truth", NUMBERS)
def test_numbers_that_are_not_finite_agree_as_equal_infinities_alone(ours, truth):
    apart = gap(np.array([ours]), np.array([truth]))[0]
    if ours == truth:
        assert apart == 0
    elif math.isfinite(ours) and math.isfinite(truth):
        assert apart == abs(ours - truth)
    else:
        assert apart == np.inf
    answer = gap(np.array([ours]), np.array([truth]), nan_is_an_answer=True)[0]
    assert answer == (0 if math.isnan(ours) and math.isnan(truth) else apart)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_tensor_without_anything_finite_fails_though_both_have_it(value):
    nothing = {"x": np.full((2, 2), value)}
    for options in ({}, {"nan_is_an_answer": True}, {"own_errors": {"x": 1.0}}):
        row = compared(0.0, nothing, **options)
        assert not row.passed
        assert row.note == "without a finite number in TransformerLens"


def test_masked_scores_agree_and_a_nan_among_them_does_not():
    masked = {"x": np.array([[1.0, -np.inf], [2.0, 3.0]])}
    assert compared(0.0, masked).passed
    spoiled = {"x": np.array([[1.0, np.nan], [2.0, 3.0]])}
    assert not compared(0.0, spoiled).passed
    assert compared(0.0, spoiled, nan_is_an_answer=True).passed


@pytest.mark.parametrize("error", [np.nan, np.inf])
def test_no_bound_allows_an_error_that_is_no_number(error):
    assert not Comparison("x", (1,), error, bound=np.inf).passed


def sides(gradients):
    """Both sides of a pair, as far as `own_errors` asks them: without any error."""
    side = SimpleNamespace(gradients=lambda: gradients, params={"W": 0})
    side.jittered = lambda seed: nullcontext()
    return SimpleNamespace(
        inputs=Inputs(np.zeros((6, 9), int), (3,)),
        torch_side=lambda dtype: side,
        jax_side=lambda dtype: side,
    )


def test_a_sum_over_tokens_may_be_off_by_what_adding_in_a_row_costs():
    """Of 6 sequences all but the last token are fed: 48 terms of a parameter's gradient, one of an activation's."""
    gradients = {"W": np.array([3.0, -5.0]), "hook": np.array([7.0])}
    errors = own_errors("L2", sides(gradients), gradients)
    assert errors["hook"] == 0
    assert errors["W"] == pytest.approx(5 * 2.0**-24 * math.sqrt(48) / 3)


@pytest.mark.parametrize("n_terms", [50, 2000])
def test_adding_in_a_row_costs_as_much_as_it_says(n_terms):
    terms = np.random.default_rng(0).uniform(0.5, 1.5, (400, n_terms)).astype(np.float32)
    in_a_row = np.zeros(len(terms), np.float32)
    for column in terms.T:
        in_a_row += column
    exact = terms.astype(np.float64).sum(axis=1)
    error = np.sqrt(np.mean(((in_a_row - exact) / exact) ** 2))
    assert error == pytest.approx(error_in_a_row(n_terms), rel=0.4)


@pytest.mark.parametrize(
    ("gradient", "off", "passed"),
    [
        (1.0, 0.9e-12, True),
        (1.0, 1.1e-12, False),
        (0.9e-13, 0.9e-8, True),
        (0.9e-13, 1.1e-8, False),
        (1.1e-13, 0.9e-8, False),
        (1.0, np.nan, False),
    ],
)
def test_a_step_may_be_off_by_rounding_and_by_more_where_the_gradient_is_zero(
    gradient, off, passed
):
    steps = np.zeros((4, 2))
    ours = steps[1:].copy()
    ours[2, 1] += off
    trajectory = {"w": steps, "grad/w": np.full((4, 2), gradient), "jitter/w": np.zeros(2)}
    row = compare_steps("w", {"w": ours}, trajectory)
    assert row.passed == passed
    assert row.worst_index == (2, 1)


@pytest.mark.parametrize(
    ("size", "moved", "off", "passed"),
    [
        (1.0, 1e-9, 3.9e-9, True),
        (1.0, 1e-9, 4.1e-9, False),
        (1.0, 1e-14, 1.1e-12, False),
        (900.0, 0.0, 0.8e-9, True),
        (900.0, 0.0, 1.0e-9, False),
    ],
)
def test_a_step_may_be_off_by_a_share_of_a_large_number_and_by_what_jitter_does(
    size, moved, off, passed
):
    steps = np.zeros((4, 2))
    steps[3, 1] = size
    ours = steps[1:].copy()
    ours[2, 1] += off
    trajectory = {"w": steps, "grad/w": np.ones((4, 2)), "jitter/w": np.array([moved, 0.0])}
    assert compare_steps("w", {"w": ours}, trajectory).passed == passed


@pytest.mark.parametrize(
    ("effects", "passed"), [(99.9, True), (100.1, False), (np.nan, False), (np.inf, False)]
)
def test_stored_losses_may_be_a_hundred_ulps_apart(effects, passed):
    assert Rerun("seed 0", 1e-3, effects).passed == passed


@pytest.mark.parametrize(
    ("p", "passed"), [(0.0049, False), (0.005, False), (0.0051, True), (np.nan, False)]
)
def test_a_test_fails_at_its_threshold(p, passed):
    assert TwoSampleTest("n", "share", *[0.5] * 6, p, 0.005, 0, 1).passed == passed


def test_the_tests_of_a_level_share_its_false_alarms(monkeypatch):
    monkeypatch.setattr("parity.outcome_comparison.compare_quantity", lambda *of_row: of_row[-1])
    thresholds = compare_outcomes(None, None, 0.021)
    assert len(thresholds) == len(QUANTITIES)
    assert thresholds == pytest.approx([0.003] * len(QUANTITIES))


@pytest.mark.parametrize(("p", "passed"), [(0.99e-3, False), (1e-3, False), (1.01e-3, True)])
def test_free_running_fails_at_its_share_of_false_alarms(p, passed):
    assert Verdict(p).passed == passed


def test_a_run_of_ours_to_nan_fails_even_if_all_of_ours_part_alike():
    runs = np.zeros((3, 5))
    runs[:, 2:] = np.nan
    ours = free_running_level.Runs(runs[0], runs[1:], runs[1:])
    theirs = free_running_level.Runs(np.zeros(5), np.zeros((2, 5)), np.zeros((2, 5)))
    cfg = SimpleNamespace(init_seed=0, data_seed=0, steps=5)
    row = free_running_level.find_partings(cfg, ours, theirs)
    assert not row.passed
    assert row.cells()["verdict"] == "NaN in JAX"
    assert Partings("seed 0", 5, 5, {}, {"JAX": [5]}).passed

"""The levels at which two models are compared: names, forward, backward, interventions."""

from __future__ import annotations

import math
from typing import cast

from parity.comparison import Comparison, compare_tensors, gap, largest
from parity.known_differences import with_known_differences
from parity.levels import Level
from parity.pair import Pair
from parity.question import Tensors
from torch_reference import adapter

REALISATIONS = 12
"""How often TransformerLens' own float32 error is measured: on the weights as they are, then with all
of them moved by an ulp. A tensor's largest error often hangs on one ill-conditioned entry. If errors there
are normal, ours exceeds 4 times one of theirs by chance in 16% of cases, 4 times the largest of
twelve in 1 of 70,000."""

UNIT_ROUNDOFF = 2.0**-24
"""The largest relative error of rounding to float32."""

MEASURES = {"L1": "forward", "L2": "gradients", "L3": "interventions"}

NOISE_SHRINKS_BY = 1e6
"""Rounding errors shrink by about 2**29 = 5e8 from float32 to float64; a bug does not shrink."""


def check_names(pair: Pair) -> Level:
    """L0: both sides have the same parameters, of the same shapes, and the same activations.

    Names that are 4.x's own are listed, and count for nothing.
    """
    here = pair.jax_side("float64").shapes()
    there = pair.torch_side("float64").shapes()
    in_3_9 = {name: there[name] for name in adapter.in_3_9(pair.ours.cfg, there)}
    comparisons = []
    for name in in_3_9 | here:
        same = here.get(name) == in_3_9.get(name)
        shape = in_3_9.get(name) or here.get(name) or ()
        comparisons.append(Comparison(name, shape, error=0.0 if same else math.inf, bound=0.0))
    alone = {
        "JAX": here.keys() - there.keys(),
        "TransformerLens": in_3_9.keys() - here.keys(),
        "TransformerLens 4.x": there.keys() - in_3_9.keys(),
    }
    remarks = [
        f"only in {side}: {', '.join(sorted(names))}" for side, names in alone.items() if names
    ]
    return Level("L0", "any", comparisons, remarks)


def check_level(name: str, pair: Pair, dtype: str) -> Level:
    """L1, L2 or L3 in one precision, with a diagnosis if it fails."""
    mine, truth = measure(name, pair, dtype)
    errors = own_errors(name, pair, truth) if dtype == "float32" else None
    level = Level(name, dtype, with_known_differences(name, compare_tensors(mine, truth, errors)))
    if level.failures:
        level.remarks.append(first_divergence(level))
        level.remarks.append(noise_or_bug(level, pair))
    return level


def measure(name: str, pair: Pair, dtype: str) -> tuple[Tensors, Tensors]:
    """Our tensors of a level in `dtype`, and the truth: TransformerLens' in float64, in our order."""
    mine: Tensors = getattr(pair.jax_side(dtype), MEASURES[name])()
    truth: Tensors = getattr(pair.torch_side("float64"), MEASURES[name])()
    return mine, {name: truth[name] for name in [*mine, *truth] if name in truth}


def own_errors(name: str, pair: Pair, truth: Tensors) -> dict[str, float]:
    """How far every tensor of a level may honestly be from the truth in float32.

    TransformerLens' largest error over `REALISATIONS`; for a parameter's gradient, which is a sum over all
    positions of all sequences, at least the error of adding these up in a row. Torch adds pairwise, which
    happens to be more accurate, and XLA as the processor likes.
    """
    narrow, wide = (pair.torch_side(dtype) for dtype in ("float32", "float64"))
    errors = dict.fromkeys(truth, 0.0)
    for seed in range(REALISATIONS):
        result: Tensors = getattr(narrow.nudged(seed) if seed else narrow, MEASURES[name])()
        exact: Tensors = getattr(wide.nudged(seed), MEASURES[name])() if seed else truth
        for tensor in truth:
            error = float(gap(result[tensor], exact[tensor]).max())
            errors[tensor] = max(errors[tensor], error)
    for parameter in truth.keys() & pair.jax_side("float32").params.keys():
        in_a_row = error_in_a_row(pair.question.tokens[:, :-1].size)
        errors[parameter] = max(errors[parameter], in_a_row * largest(truth[parameter]))
    return errors


def error_in_a_row(n_terms: int) -> float:
    """The standard error of a sum of alike terms that are added in a row, as a share of the sum.

    The k-th addition rounds a partial sum of about k / n of the whole, by up to `UNIT_ROUNDOFF` of it, evenly
    distributed: a variance of its square over 3. Over all k they add up to n / 9 of it (Higham and Mary,
    "A new approach to probabilistic rounding error analysis", 2019, on why such errors grow by the root of n).
    """
    return UNIT_ROUNDOFF * math.sqrt(n_terms) / 3


def first_divergence(level: Level) -> str:
    """The first tensor in execution order that differs, and both values where it differs most.

    Gradients are computed from the last activation to the first, parameters' among them.
    """
    failures = cast(list[Comparison], level.failures)
    activations = [row for row in failures if "hook_" in row.name]
    in_order = activations[::-1] if level.name == "L2" else activations
    first = (in_order or failures)[0]
    if not first.worst_index:
        return f"first divergence: {first.name}: {first.note}"
    return (
        f"first divergence: {first.name}{list(first.worst_index)} is {first.ours:.9g} in JAX and "
        f"{first.theirs:.9g} in TransformerLens; what is computed before it agrees"
    )


def noise_or_bug(level: Level, pair: Pair) -> str:
    """What the other precision says about a failure."""
    other_dtype = "float64" if level.dtype == "float32" else "float32"
    measured = measure(level.name, pair, other_dtype)
    others = {row.name: row for row in compare_tensors(*measured)}  # for their errors alone
    worst = max(cast(list[Comparison], level.failures), key=lambda row: row.error)
    errors = (worst.error, others[worst.name].error)
    coarse, fine = errors if level.dtype == "float32" else errors[::-1]
    verdict = "rounding" if coarse > NOISE_SHRINKS_BY * fine else "a bug"
    return f"{worst.name} is off by {coarse:.1e} in float32 and {fine:.1e} in float64: this is {verdict}"

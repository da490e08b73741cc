"""Parity levels L0 to L3, which compare two models: names, forward, backward, interventions."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import cast

import numpy as np

from parity.comparison import Comparison, compare_tensors, gap, largest
from parity.inputs import Tensors
from parity.known_differences import with_known_differences
from parity.levels import Level
from parity.model_pair import Pair
from parity.progress import follow
from parity.torch_side import TorchSide
from torch_reference import adapter

REALISATIONS = 12
"""The number of measurements of TransformerLens' float32 error: once, then with jittered weights.

A tensor's largest error often depends on one ill-conditioned entry. If errors there are normal,
ours exceeds 4 times one of theirs by chance in 16% of cases, 4 times the largest of twelve in 1 of
70,000.
"""

UNIT_ROUNDOFF = 2.0**-24
"""The largest relative error of rounding to float32."""

SEQUENCES = {"L2": 1024, "L3": 64}
"""The most sequences that a parity level looks at; L1 in float64 looks at all.

Every sequence goes through the same formulas, and L1 finds one that is wrong for a few sequences
only. L2 asks after that for the formulas' slopes, L3 for where the model goes on from an edited
activation, which are not a matter of single sequences.
"""

IN_FLOAT32 = 1024
"""The most sequences in float32, where levels ask only for the precision of what float64 compares."""

MEASURES = {"L1": "forward", "L2": "gradients", "L3": "interventions"}

NAN_IS_AN_ANSWER = {"L3"}
"""Levels in which NaN may be right: an edit that sets a norm's scale to 0 divides by it."""

NOISE_SHRINKS_BY = 1e6
"""Rounding errors shrink by about 2**29 = 5e8 from float32 to float64; a bug does not shrink."""


def check_names(pair: Pair) -> Level:
    """Check parity level L0: parameters and activations have the same names and shapes, and no NaN.

    Names that only TransformerLens 4.x has are listed, and ignored.
    """
    here = pair.jax_side("float64").shapes()
    there = pair.torch_side("float64").shapes()
    not_finite = places_not_finite(pair)
    in_3_9 = {name: there[name] for name in adapter.in_3_9(pair.ours.cfg, there)}
    comparisons = []
    for name in in_3_9 | here:
        same = here.get(name) == in_3_9.get(name) and name not in not_finite
        shape = in_3_9.get(name) or here.get(name) or ()
        error, note = 0.0 if same else math.inf, not_finite.get(name, "")
        comparisons.append(Comparison(name, shape, error, bound=0.0, note=note))
    alone = {
        "JAX": here.keys() - there.keys(),
        "TransformerLens": in_3_9.keys() - here.keys(),
        "TransformerLens 4.x": there.keys() - in_3_9.keys(),
    }
    remarks = [
        f"only in {side}: {', '.join(sorted(names))}" for side, names in alone.items() if names
    ]
    remarks += [f"{name} has {what}" for name, what in not_finite.items()]
    return Level("L0", "any", comparisons, remarks)


def places_not_finite(pair: Pair) -> dict[str, str]:
    """For each parameter with NaNs or infinities, by name: how many each framework has, as text."""
    sides: dict[str, Tensors] = {
        "JAX": pair.jax_side("float64").params,
        "TransformerLens": pair.torch_side("float64").weights(),
    }
    counts: dict[str, list[str]] = {}
    for side, weights in sides.items():
        for name, weight in weights.items():
            if n_bad := int(weight.size - np.isfinite(weight).sum()):
                counts.setdefault(name, []).append(f"{n_bad} of {weight.size} in {side}")
    return {name: f"NaN or infinite numbers: {', '.join(of)}" for name, of in counts.items()}


def check_level(name: str, pair: Pair, dtype: str) -> Level:
    """Check parity level L1, L2 or L3 in one precision, with a diagnosis if it fails.

    Where there are many sequences, some levels look at a random sample: see `SEQUENCES`.
    """
    n_sequences = len(pair.inputs.tokens)
    n_looked_at = int(min(n_sequences, most_sequences(name, dtype)))
    pair = pair.on_sample(n_looked_at) if n_looked_at < n_sequences else pair
    mine, truth = measure(name, pair, dtype)
    errors = own_errors(name, pair, truth) if dtype == "float32" else None
    rounding = roundings(pair, truth) if (name, dtype) == ("L2", "float64") else None
    found = compare_tensors(
        mine, truth, errors, roundings=rounding, nan_is_an_answer=name in NAN_IS_AN_ANSWER
    )
    level = Level(name, dtype, with_known_differences(name, found))
    if n_looked_at < n_sequences:
        level.remarks.append(f"on {n_looked_at:,} of {n_sequences:,} sequences, drawn at random")
    if level.failures:
        level.remarks.append(first_divergence(level))
        level.remarks.append(noise_or_bug(level, pair))
    return level


def most_sequences(name: str, dtype: str) -> float:
    """The most sequences that a parity level looks at in a precision."""
    return min(SEQUENCES.get(name, math.inf), IN_FLOAT32 if dtype == "float32" else math.inf)


def measure(name: str, pair: Pair, dtype: str) -> tuple[Tensors, Tensors]:
    """The tensors that a parity level compares: JAX's in `dtype`, TransformerLens' in float64."""
    mine: Tensors = getattr(pair.jax_side(dtype), MEASURES[name])()
    truth: Tensors = getattr(pair.torch_side("float64"), MEASURES[name])()
    return mine, {name: truth[name] for name in [*mine, *truth] if name in truth}


def own_errors(name: str, pair: Pair, truth: Tensors) -> dict[str, float]:
    """The error that TransformerLens itself makes in float32, for every tensor of a parity level.

    It is the largest finite error over `REALISATIONS`. A parameter's gradient is a sum over all
    positions of all sequences: its error counts as at least that of adding them in a row. Torch
    adds pairwise, which happens to be more accurate; XLA's order depends on the processor.
    """
    narrow, wide = (pair.torch_side(dtype) for dtype in ("float32", "float64"))
    errors = dict.fromkeys(truth, 0.0)
    for seed in follow(range(REALISATIONS), f"{name}, float32"):
        result, exact = (measure_jittered(name, side, seed) for side in (narrow, wide))
        for tensor in truth:
            error = largest(gap(result[tensor], exact[tensor], name in NAN_IS_AN_ANSWER))
            errors[tensor] = max(errors[tensor], error)
    for parameter in truth.keys() & pair.jax_side("float32").params.keys():
        in_a_row = error_in_a_row(pair.inputs.tokens[:, :-1].size)
        errors[parameter] = max(errors[parameter], in_a_row * largest(truth[parameter]))
    return errors


def measure_jittered(name: str, side: TorchSide, seed: int) -> Tensors:
    """The tensors of a parity level in TransformerLens, from jittered weights unless `seed` is 0."""
    with side.jittered(seed) if seed else nullcontext():
        tensors: Tensors = getattr(side, MEASURES[name])()
        return tensors


def roundings(pair: Pair, truth: Tensors) -> dict[str, float]:
    """How much rounding to float64 can change each gradient; more where large terms cancel.

    It is the largest change over `REALISATIONS` when every number passed back through a hook is
    jittered. That changes each of the n terms of a parameter's gradient, but their partial sums are
    rounded too. If the terms cancel, the sum of the first k is about sqrt(k) times as large as a
    term, so adding in a row costs more by that: see `error_in_a_row`.
    """
    side, params = pair.torch_side("float64"), pair.jax_side("float64").params
    changes = dict.fromkeys(truth, 0.0)
    for seed in follow(range(REALISATIONS), "L2, float64"):
        jittered = side.gradients(np.random.default_rng(seed))
        for name in truth:
            changes[name] = max(changes[name], largest(gap(jittered[name], truth[name])))
    in_a_row = max(1, error_in_a_row(pair.inputs.tokens[:, :-1].size) / UNIT_ROUNDOFF)
    return {
        name: change * in_a_row if name in params else change for name, change in changes.items()
    }


def error_in_a_row(n_terms: int) -> float:
    """The typical relative error of adding `n_terms` similar float32 numbers one after the other.

    The k-th addition rounds a partial sum of about k / n of the whole, by up to `UNIT_ROUNDOFF` of
    it, evenly distributed: a variance of its square over 3. Over all k they add up to n / 9 of it
    (Higham and Mary, "A new approach to probabilistic rounding error analysis", 2019, on why such
    errors grow by the root of n).
    """
    return UNIT_ROUNDOFF * math.sqrt(n_terms) / 3


def first_divergence(level: Level) -> str:
    """A sentence that names the first tensor in execution order that differs, and its worst entry.

    Gradients are computed from the last activation to the first.
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
    """A sentence that says whether a failure is rounding or a bug, from both precisions' errors."""
    other_dtype = "float64" if level.dtype == "float32" else "float32"
    measured = measure(level.name, pair, other_dtype)
    compared = compare_tensors(*measured, nan_is_an_answer=level.name in NAN_IS_AN_ANSWER)
    others = {row.name: row for row in compared}  # for their errors alone
    worst = max(cast(list[Comparison], level.failures), key=lambda row: row.error)
    errors = (worst.error, others[worst.name].error)
    coarse, fine = errors if level.dtype == "float32" else errors[::-1]
    verdict = "rounding" if coarse > NOISE_SHRINKS_BY * fine else "a bug"
    errors_in_words = f"{coarse:.1e} in float32 and {fine:.1e} in float64"
    return f"{worst.name} is off by {errors_in_words}: this is {verdict}"

"""The levels at which two models are compared: names, forward, backward, interventions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import transformer_lens

from jax_revinc import HookedTransformer
from parity.comparison import Comparison, compare_tensors, gap
from parity.sides import JaxSide, Question, Tensors, TorchSide

REALISATIONS = 12
"""How often TransformerLens' own float32 error is measured: on the weights as they are, then with all
of them moved by an ulp. A tensor's largest error often hangs on one ill-conditioned entry. If errors there
are normal, ours exceeds 4 times one of theirs by chance in 16% of cases, 4 times the largest of
twelve in 1 of 70,000."""

MEASURES = {"L1": "forward", "L2": "gradients", "L3": "interventions"}
TITLES = {
    "L0": "names and shapes",
    "L1": "forward: activations, logits, losses",
    "L2": "backward: gradients of the loss by activation and by parameter",
    "L3": "interventions: logits after four edits at every hook",
    "L4": "optimizer: one AdamW step",
    "L5": "one step of ours from every state of a torch run",
}

NOISE_SHRINKS_BY = 1e6
"""Rounding errors shrink by about 2**29 = 5e8 from float32 to float64; a bug does not shrink."""


@dataclass(frozen=True)
class Level:
    """What one level found in one precision."""

    name: str
    dtype: str
    comparisons: list[Comparison]
    remarks: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        return f"{self.name} {TITLES[self.name]}"

    @property
    def failures(self) -> list[Comparison]:
        return [comparison for comparison in self.comparisons if not comparison.passed]

    @property
    def passed(self) -> bool:
        return not self.failures


def check_names(
    ours: HookedTransformer, theirs: transformer_lens.HookedTransformer, question: Question
) -> Level:
    """Both sides have the same parameters, of the same shapes, and the same activations."""
    here = JaxSide(ours, question, "float64").shapes()
    there = TorchSide(theirs, question, "float64").shapes()
    comparisons = []
    for name in there | here:
        same = here.get(name) == there.get(name)
        shape = there.get(name) or here.get(name) or ()
        comparisons.append(Comparison(name, shape, error=0.0 if same else math.inf, bound=0.0))
    alone = {"JAX": here.keys() - there.keys(), "TransformerLens": there.keys() - here.keys()}
    remarks = [
        f"only in {side}: {', '.join(sorted(names))}" for side, names in alone.items() if names
    ]
    return Level("L0", "any", comparisons, remarks)


def check_level(
    name: str,
    ours: HookedTransformer,
    theirs: transformer_lens.HookedTransformer,
    question: Question,
    dtype: str,
) -> Level:
    """L1, L2 or L3 in one precision, with a diagnosis if it fails."""
    mine, truth = measure(name, ours, theirs, question, dtype)
    errors = own_errors(name, theirs, question, truth) if dtype == "float32" else None
    level = Level(name, dtype, compare_tensors(mine, truth, errors))
    if level.failures:
        level.remarks.append(first_divergence(level))
        level.remarks.append(noise_or_bug(level, ours, theirs, question))
    return level


def measure(
    name: str,
    ours: HookedTransformer,
    theirs: transformer_lens.HookedTransformer,
    question: Question,
    dtype: str,
) -> tuple[Tensors, Tensors]:
    """Our tensors of a level in `dtype`, and the truth: TransformerLens' in float64."""
    mine = getattr(JaxSide(ours, question, dtype), MEASURES[name])()
    return mine, getattr(TorchSide(theirs, question, "float64"), MEASURES[name])()


def own_errors(
    name: str, theirs: transformer_lens.HookedTransformer, question: Question, truth: Tensors
) -> dict[str, float]:
    """TransformerLens' largest float32 error of every tensor of a level, over `REALISATIONS`."""
    narrow, wide = (TorchSide(theirs, question, dtype) for dtype in ("float32", "float64"))
    errors = dict.fromkeys(truth, 0.0)
    for seed in range(REALISATIONS):
        result: Tensors = getattr(narrow.nudged(seed) if seed else narrow, MEASURES[name])()
        exact: Tensors = getattr(wide.nudged(seed), MEASURES[name])() if seed else truth
        for tensor in truth:
            error = float(gap(result[tensor], exact[tensor]).max())
            errors[tensor] = max(errors[tensor], error)
    return errors


def first_divergence(level: Level) -> str:
    """The first tensor in execution order that differs, and both values where it differs most.

    Gradients are computed from the last activation to the first, parameters' among them.
    """
    activations = [c for c in level.failures if "hook_" in c.name]
    in_order = activations[::-1] if level.name == "L2" else activations
    first = (in_order or level.failures)[0]
    return (
        f"first divergence: {first.name}{list(first.worst_index)} is {first.ours:.9g} in JAX and "
        f"{first.theirs:.9g} in TransformerLens; what is computed before it agrees"
    )


def noise_or_bug(
    level: Level,
    ours: HookedTransformer,
    theirs: transformer_lens.HookedTransformer,
    question: Question,
) -> str:
    """What the other precision says about a failure."""
    other_dtype = "float64" if level.dtype == "float32" else "float32"
    measured = measure(level.name, ours, theirs, question, other_dtype)
    others = {row.name: row for row in compare_tensors(*measured)}  # for their errors alone
    worst = max(level.failures, key=lambda comparison: comparison.error)
    pair = (worst.error, others[worst.name].error)
    coarse, fine = pair if level.dtype == "float32" else pair[::-1]
    verdict = "rounding" if coarse > NOISE_SHRINKS_BY * fine else "a bug"
    return f"{worst.name} is off by {coarse:.1e} in float32 and {fine:.1e} in float64: this is {verdict}"

"""Comparison of JAX's tensors with TransformerLens': each tensor's error, and its bound."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from parity.inputs import UNLIKELY_LOSSES, Tensors
from parity.levels import share_of

FLOAT64_BOUND = 1e-12
"""The bound on the normwise error (largest error / largest value) of every float64 tensor."""

FLOAT64_FACTOR = 4.0
"""The bound as a multiple of the effect of rounding, if that is more than `FLOAT64_BOUND`."""

FLOAT32_FACTOR = 4.0
"""The float32 bound as a multiple of TransformerLens' own error from the float64 truth."""

FLOAT32_ULP = 2.0**-23
"""The least own error of TransformerLens that counts: an ulp of the tensor's largest value.

torch sums pairwise and XLA in a row, so either may be off by an ulp. An own error of zero stays
zero: copies must be exact.
"""

MEASURED_ZERO = 1e-12
"""The share of a level's largest value below which a whole tensor is zero, except for rounding.

An example is the gradient of b_K, which softmax ignores. Its error is measured against the level's
largest value.
"""

DIFFERENCES = {"losses": "logits", UNLIKELY_LOSSES: "logits"}
"""Tensors that are differences of another's numbers: a loss is logsumexp minus a logit.

A small difference keeps the rounding of the large numbers, so its error is measured against the
largest of both.
"""

NOTHING_FINITE = "without a finite number in TransformerLens"
"""The note of a tensor that fails because TransformerLens computes no finite number to compare."""


@dataclass(frozen=True)
class Comparison:
    """The comparison of one tensor in JAX and TransformerLens: its error, and the bound on it."""

    name: str
    shape: tuple[int, ...]
    error: float
    bound: float
    worst_index: tuple[int, ...] = ()
    ours: float = 0.0
    theirs: float = 0.0
    note: str = ""
    known: str = ""
    """Why TransformerLens is known to differ here, if it is: then agreement fails."""

    @property
    def passed(self) -> bool:
        """Whether the error is within the bound, or above the bound for a known difference."""
        same = math.isfinite(self.error) and self.error <= self.bound
        return same != bool(self.known)

    @property
    def used(self) -> float:
        """The error divided by the bound; above 1 the comparison fails."""
        return share_of(self.error, self.bound)

    def cells(self) -> dict[str, str]:
        """The tensor's row in the table of a report, as a dict from column heading to text."""
        verdict = "differs, as known" if self.known else "ok"
        return {
            "tensor": f"{self.name} ({self.note})" if self.note else self.name,
            "shape": str(list(self.shape)),
            "error": f"{self.error:.1e}",
            "bound": f"{self.bound:.1e}",
            "verdict": verdict if self.passed else "FAIL",
        }


def compare_tensors(
    ours: Tensors,
    truth: Tensors,
    own_errors: dict[str, float] | None = None,
    *,
    roundings: dict[str, float] | None = None,
    nan_is_an_answer: bool = False,
) -> list[Comparison]:
    """Compare each of TransformerLens' tensors, in `truth`, with JAX's tensor of the same name.

    Args:
        ours: JAX's tensors by name.
        truth: TransformerLens' tensors in float64 by name.
        own_errors: TransformerLens' largest float32 error of each tensor. The bound is then
            `FLOAT32_FACTOR` times as large, so that it scales with the tensor's condition.
        roundings: without `own_errors`, the effect of rounding on each tensor, where it can be
            larger than `FLOAT64_BOUND`, which is the bound otherwise.
        nan_is_an_answer: see `gap`.
    """
    scales = {name: largest(tensor) for name, tensor in truth.items()}
    level = max(scales.values(), default=0.0)
    comparisons = []
    for name in [*truth, *(ours.keys() - truth.keys())]:
        if name not in ours or name not in truth or ours[name].shape != truth[name].shape:
            comparisons.append(incomparable(name, ours.get(name), truth.get(name)))
            continue
        true = truth[name]
        if not np.isfinite(true).any():
            comparisons.append(Comparison(name, true.shape, np.inf, 0.0, note=NOTHING_FINITE))
            continue
        is_zero = scales[name] <= MEASURED_ZERO * level
        of = scales.get(DIFFERENCES.get(name, ""), 0.0)
        scale = (level if is_zero else max(scales[name], of)) or 1.0
        gaps = gap(ours[name], true, nan_is_an_answer)
        worst = np.unravel_index(np.argmax(gaps), gaps.shape)
        comparisons.append(
            Comparison(
                name=name,
                shape=true.shape,
                error=float(gaps[worst] / scale),
                bound=(
                    float32_bound(own_errors[name] / scale)
                    if own_errors
                    else float64_bound((roundings or {}).get(name, 0.0) / scale)
                ),
                worst_index=tuple(map(int, worst)),
                ours=float(ours[name][worst]),
                theirs=float(true[worst]),
                note="zero" if is_zero else "",
            )
        )
    return comparisons


def float64_bound(rounding: float) -> float:
    """The largest error allowed in a float64 tensor that rounding can change by `rounding`."""
    return max(FLOAT64_BOUND, FLOAT64_FACTOR * rounding)


def float32_bound(own_error: float) -> float:
    """The largest error allowed in a float32 tensor: a multiple of TransformerLens' own error."""
    return FLOAT32_FACTOR * max(own_error, FLOAT32_ULP) if own_error else 0.0


def incomparable(name: str, ours: np.ndarray | None, truth: np.ndarray | None) -> Comparison:
    """A failed comparison, of a tensor that one framework lacks or that differs in shape."""
    shape = () if truth is None else truth.shape
    found = "no such tensor" if ours is None else f"shape {list(ours.shape)}"
    wanted = "no such tensor" if truth is None else f"shape {list(shape)}"
    return Comparison(name, shape, np.inf, 0.0, note=f"{found} in JAX, {wanted} in TransformerLens")


def largest(tensor: np.ndarray) -> float:
    """The largest absolute value of a tensor's finite entries."""
    return float(np.abs(tensor[np.isfinite(tensor)]).max(initial=0.0))


def gap(value: np.ndarray, truth: np.ndarray, nan_is_an_answer: bool = False) -> np.ndarray:
    """The absolute difference of two arrays, entry by entry.

    It is 0 for equal infinities and infinite for unequal ones. The difference to a NaN is infinite;
    that of two NaNs is 0 only if `nan_is_an_answer`, for levels at which NaN may be the right
    value.
    """
    with np.errstate(invalid="ignore"):
        difference = np.abs(value.astype(np.float64) - truth)
    same = value == truth
    if nan_is_an_answer:
        same |= np.isnan(value) & np.isnan(truth)
    return np.where(same, 0.0, np.nan_to_num(difference, nan=np.inf, posinf=np.inf))

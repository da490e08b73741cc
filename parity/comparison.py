"""Two tensors, how far they are apart, and how far they may be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from parity.question import Tensors

FLOAT64_BOUND = 1e-12
"""Normwise, on every tensor in float64."""

FLOAT32_FACTOR = 4.0
"""In float32 we may be this many times as far from the float64 truth as TransformerLens is."""

FLOAT32_ULP = 2.0**-23
"""TransformerLens' own error counts as at least an ulp of the tensor's largest value, unless it is zero
(copies must be exact): torch sums pairwise, XLA in a row, and neither owes the other a fraction of an ulp."""

MEASURED_ZERO = 1e-12
"""A tensor whose largest value is this share of its level's largest is a zero and its rounding noise,
such as the gradient of b_K, to which softmax is blind. Its error counts against the level's largest."""


@dataclass(frozen=True)
class Comparison:
    """One tensor on both sides: normwise error and bound, and the entry that differs most."""

    name: str
    shape: tuple[int, ...]
    error: float
    bound: float
    same_infinities: bool = True
    worst_index: tuple[int, ...] = ()
    ours: float = 0.0
    theirs: float = 0.0
    note: str = ""
    known: str = ""
    """Why TransformerLens is known to differ here, if it is: then agreement is what fails."""

    @property
    def passed(self) -> bool:
        """False for a NaN error too."""
        same = self.same_infinities and self.error <= self.bound
        return same != bool(self.known)

    def cells(self) -> dict[str, str]:
        """See `parity.levels.Row`."""
        verdict = "differs, as known" if self.known else "ok"
        return {
            "tensor": f"{self.name} ({self.note})" if self.note else self.name,
            "shape": str(list(self.shape)),
            "error": f"{self.error:.1e}",
            "bound": f"{self.bound:.1e}",
            "verdict": verdict if self.passed else "FAIL",
        }


def compare_tensors(
    ours: Tensors, truth: Tensors, own_errors: dict[str, float] | None = None
) -> list[Comparison]:
    """A comparison for every tensor of `truth`, in its order.

    Without `own_errors` the bound is `FLOAT64_BOUND`. With TransformerLens' own largest float32 errors,
    ours may be `FLOAT32_FACTOR` times as large: a bound that scales with how ill-conditioned each
    tensor is.
    """
    scales = {name: largest(tensor) for name, tensor in truth.items()}
    level = max(scales.values())
    comparisons = []
    for name in [*truth, *(ours.keys() - truth.keys())]:
        if name not in ours or name not in truth or ours[name].shape != truth[name].shape:
            comparisons.append(incomparable(name, ours.get(name), truth.get(name)))
            continue
        true = truth[name]
        is_zero = scales[name] <= MEASURED_ZERO * level
        scale = (level if is_zero else scales[name]) or 1.0
        gaps = gap(ours[name], true)
        worst = np.unravel_index(np.argmax(gaps), gaps.shape)
        comparisons.append(
            Comparison(
                name=name,
                shape=true.shape,
                error=float(gaps[worst] / scale),
                bound=float32_bound(own_errors[name] / scale) if own_errors else FLOAT64_BOUND,
                same_infinities=np.array_equal(
                    infinities(ours[name]), infinities(true), equal_nan=True
                ),
                worst_index=tuple(map(int, worst)),
                ours=float(ours[name][worst]),
                theirs=float(true[worst]),
                note="zero" if is_zero else "",
            )
        )
    return comparisons


def float32_bound(own_error: float) -> float:
    """How far ours may be, normwise, where TransformerLens is this far."""
    return FLOAT32_FACTOR * max(own_error, FLOAT32_ULP) if own_error else 0.0


def incomparable(name: str, ours: np.ndarray | None, truth: np.ndarray | None) -> Comparison:
    """A failure: the tensor is missing on one side, or has another shape there."""
    shape = () if truth is None else truth.shape
    found = "no such tensor" if ours is None else f"shape {list(ours.shape)}"
    wanted = "no such tensor" if truth is None else f"shape {list(shape)}"
    return Comparison(name, shape, np.inf, 0.0, note=f"{found} in JAX, {wanted} in TransformerLens")


def infinities(tensor: np.ndarray) -> np.ndarray:
    """The tensor with its finite entries set to 0."""
    return np.where(np.isfinite(tensor), 0.0, tensor)


def largest(tensor: np.ndarray) -> float:
    """The largest finite absolute value."""
    return float(np.abs(tensor[np.isfinite(tensor)]).max(initial=0.0))


def gap(value: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Absolute differences in float64; 0 where the truth is infinite, NaN counts as infinite."""
    with np.errstate(invalid="ignore"):
        difference = np.abs(value.astype(np.float64) - truth)
    return np.where(np.isfinite(truth), np.nan_to_num(difference, nan=np.inf, posinf=np.inf), 0.0)

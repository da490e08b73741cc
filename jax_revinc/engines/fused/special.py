"""The complementary error function as a series, for the C++ side."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.polynomial import Chebyshev, Polynomial

DEGREES = {"float32": 11, "float64": 27}
"""Of the polynomial: its error is below 2e-8 and 4e-15."""


def smooth_part(u: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
    """log(erfc(z) exp(z^2) / t) at t = 2 / (2 + z) = (1 + u) / 2: smooth on -1 < u <= 1, which is all z >= 0.

    The form is that of Press et al., Numerical Recipes (3rd ed.), section 6.2.2.
    """
    from scipy import special  # slow to import, and rarely needed

    t = (1 + u) / 2
    return np.log(special.erfcx(2 / t - 2) / t)


def complementary_error_function(dtype: np.dtype) -> str:
    """The function's C++. Its relative error is that of the polynomial and, in rounding, of z^2."""
    series = Chebyshev.interpolate(smooth_part, DEGREES[dtype.name])
    coefficients = ", ".join(f"F({c!r})" for c in series.convert(kind=Polynomial).coef.tolist())
    return f"""\
INLINE V complementary_error_function(V x) {{
  constexpr F COEFFICIENTS[] = {{{coefficients}}};
  constexpr int LAST = {DEGREES[dtype.name]};
  const V z = x < F(0) ? -x : x, t = F(2) / (z + F(2)), u = t * F(2) - F(1);
  V series = every(COEFFICIENTS[LAST]);
#pragma GCC unroll 32
  for (int i = LAST - 1; i >= 0; i--) series = series * u + COEFFICIENTS[i];
  const V tail = t * exponential(series - z * z);
  return x < F(0) ? F(2) - tail : tail;
}}"""

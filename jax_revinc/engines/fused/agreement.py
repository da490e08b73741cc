"""Whether a compiled program computes what XLA does."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from jax_revinc.engines.fused.errors import NotFusible


def require_agreement(what: str, found: Any, expected: Any, dtype: npt.DTypeLike) -> None:
    """Compare two trees of arrays, all their numbers together.

    Raises:
        NotFusible: if they differ by more than rounding, in `dtype`.
    """
    error, size = (
        np.sqrt(sum(np.sum(np.square(x, dtype=float)) for x in jax.tree.leaves(tree)))
        for tree in (jax.tree.map(jnp.subtract, found, expected), expected)
    )
    if not error <= 1e4 * np.finfo(dtype).eps * size:
        raise NotFusible(
            f"{what} off by {error / size:.1e} of XLA's, which more than rounding explains"
        )

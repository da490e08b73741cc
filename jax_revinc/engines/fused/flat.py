"""All numbers of a pytree in one array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import Array
from jax.flatten_util import ravel_pytree
from jaxtyping import Float


def flattened(tree: Any) -> tuple[jax.ShapeDtypeStruct, Callable[[Float[Array, " n"]], Any]]:
    """The shape and type that a tree of arrays, or of their shapes and types, is flattened to, and the way back."""
    ways_back = []

    def flatten(tree: Any) -> Array:
        flat, way_back = ravel_pytree(tree)
        ways_back.append(way_back)
        return flat

    return jax.eval_shape(flatten, tree), ways_back[0]

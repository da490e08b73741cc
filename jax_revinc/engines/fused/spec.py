"""The sizes of parameters, examples and SIMD vectors that a C++ program is compiled for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import jax
import numpy as np
from jax import Array
from jaxtyping import Float

from jax_revinc.engines.fused.errors import NotFusible
from jax_revinc.engines.fused.toolchain import lane_width

Unravel = Callable[[Float[Array, " n_params"]], Any]
"""From all parameters in one array to their pytree."""


@dataclass(frozen=True)
class Spec:
    """The sizes of parameters, examples and SIMD vectors that a C++ program is compiled for.

    Attributes:
        params: the parameters: any pytree of float32 or of float64 arrays, or of their shapes and
            types, without an axis of models.
        length: tokens of an example.
        n_tokens: token ids are in ``0 .. n_tokens - 1``. Others are not noticed: their results
            mean nothing.
        many: whether the program computes models side by side, one per lane. Then its arrays have
            an axis of models first, and no model's results depend on another model. Otherwise it
            computes one model, with an example per lane.
        lanes: elements of a vector, a power of two; by default what this CPU's vectors hold.

    Raises:
        NotFusible: if the parameters are of another type or of several, or if JAX's default device
            is not a CPU.
    """

    params: Any
    length: int
    n_tokens: int
    _: KW_ONLY
    many: bool = False
    lanes: int | None = None

    def __post_init__(self) -> None:
        if jax.default_backend() != "cpu":
            raise NotFusible(
                f"JAX runs on {jax.default_backend()}, but the fused engine's programs run only on "
                "the CPU; use the engine xla, or set JAX_PLATFORMS=cpu"
            )
        dtypes = sorted({leaf.dtype.name for leaf in jax.tree.leaves(self.params)})
        if dtypes not in (["float32"], ["float64"]):
            found = " and ".join(dtypes) or "missing"
            raise NotFusible(
                "the fused engine needs parameters that are all float32 or all float64; these are "
                f"{found}"
            )

    @property
    def dtype(self) -> np.dtype:
        """The parameters' type, float32 or float64."""
        return np.dtype(jax.tree.leaves(self.params)[0].dtype)

    @property
    def n_lanes(self) -> int:
        """The number of elements of a SIMD vector."""
        return lane_width(self.dtype) if self.lanes is None else self.lanes

    @property
    def check_shape(self) -> tuple[int, int]:
        """The shape of the token ids on which a compiled program is checked: one example more than
        fits a SIMD vector.
        """
        return self.n_lanes + 1, self.length

    def flatten(self) -> tuple[Spec, Unravel]:
        """Return this spec with all parameters joined in one array, and a function that splits the
        array into the original pytree.
        """
        leaves, structure = jax.tree.flatten(self.params)
        ends = np.cumsum([leaf.size for leaf in leaves])

        def unravel(flat: Float[Array, " n_params"]) -> Any:
            # `ravel_pytree` would give the same function, but it computes on the device to do so.
            parts = (
                flat[end - leaf.size : end].reshape(leaf.shape)
                for leaf, end in zip(leaves, ends, strict=True)
            )
            return jax.tree.unflatten(structure, parts)

        flat = jax.ShapeDtypeStruct((int(ends[-1]),), self.dtype)
        return replace(self, params=flat), unravel

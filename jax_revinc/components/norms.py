"""Norms of the residual stream: layer norm and RMS norm, with and without weights, or none."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from jax_revinc.components.component import Component
from jax_revinc.components.params import Params
from jax_revinc.hooks.taps import Tap, identity


class RMSNormPre(Component):
    """RMS norm without weights: scales to a mean square of 1.

    Zhang and Sennrich 2019, arXiv:1910.07467.
    """

    def __init__(self, eps: float, params: Params) -> None:
        self.eps = eps

    def __call__(
        self, x: Float[Array, "... width"], tap: Tap = identity
    ) -> Float[Array, "... width"]:
        scale = tap("hook_scale", jnp.sqrt((x**2).mean(-1, keepdims=True) + self.eps))
        return tap("hook_normalized", x / scale)


class RMSNorm(RMSNormPre):
    """RMS norm: scales, then applies the gain `w`. Its hooks see the values before the gain."""

    def __init__(self, eps: float, params: Params) -> None:
        super().__init__(eps, params)
        self.w = nnx.Param(params["w"])

    def __call__(
        self, x: Float[Array, "... width"], tap: Tap = identity
    ) -> Float[Array, "... width"]:
        return super().__call__(x, tap) * self.w


class LayerNormPre(RMSNormPre):
    """Layer norm without weights: centres, then scales."""

    def __call__(
        self, x: Float[Array, "... width"], tap: Tap = identity
    ) -> Float[Array, "... width"]:
        return super().__call__(x - x.mean(-1, keepdims=True), tap)


class LayerNorm(LayerNormPre):
    """Layer norm: centres, scales, then applies gain `w` and bias `b`.

    Its hooks see the values before gain and bias.
    """

    def __init__(self, eps: float, params: Params) -> None:
        super().__init__(eps, params)
        self.w = nnx.Param(params["w"])
        self.b = nnx.Param(params["b"])

    def __call__(
        self, x: Float[Array, "... width"], tap: Tap = identity
    ) -> Float[Array, "... width"]:
        return super().__call__(x, tap) * self.w + self.b


class NoNorm(Component):
    """The identity in place of a norm, for models without norms."""

    def __init__(self, eps: float, params: Params) -> None:
        pass

    def __call__(
        self, x: Float[Array, "... width"], tap: Tap = identity
    ) -> Float[Array, "... width"]:
        return x


Norm = RMSNormPre | NoNorm

NORMS: dict[str | None, type[RMSNormPre] | type[NoNorm]] = {
    "LN": LayerNorm,
    "LNPre": LayerNormPre,
    "RMS": RMSNorm,
    "RMSPre": RMSNormPre,
    None: NoNorm,
}
"""The module of every ``normalization_type``."""

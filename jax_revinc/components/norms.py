"""What normalises the residual stream before a component reads it."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from jax_revinc.components.params import Params
from jax_revinc.hooks import Tap


class RMSNormPre(nnx.Module):
    """Scales to a mean square of 1 (Zhang and Sennrich 2019, arXiv:1910.07467); its gain, if it had one, is folded."""

    def __init__(self, eps: float, params: Params) -> None:
        self.eps = eps

    def __call__(self, x: Float[Array, "... width"], tap: Tap) -> Float[Array, "... width"]:
        scale = tap("hook_scale", jnp.sqrt((x**2).mean(-1, keepdims=True) + self.eps))
        return tap("hook_normalized", x / scale)


class RMSNorm(RMSNormPre):
    """Scales (that is what the hooks see), then applies gain `w`."""

    def __init__(self, eps: float, params: Params) -> None:
        super().__init__(eps, params)
        self.w = nnx.Param(params["w"])

    def __call__(self, x: Float[Array, "... width"], tap: Tap) -> Float[Array, "... width"]:
        return super().__call__(x, tap) * self.w


class LayerNormPre(RMSNormPre):
    """Centres, then scales; its gain and bias, if it had any, are folded into other weights."""

    def __call__(self, x: Float[Array, "... width"], tap: Tap) -> Float[Array, "... width"]:
        return super().__call__(x - x.mean(-1, keepdims=True), tap)


class LayerNorm(LayerNormPre):
    """Centres and scales (that is what the hooks see), then applies gain `w` and bias `b`."""

    def __init__(self, eps: float, params: Params) -> None:
        super().__init__(eps, params)
        self.w = nnx.Param(params["w"])
        self.b = nnx.Param(params["b"])

    def __call__(self, x: Float[Array, "... width"], tap: Tap) -> Float[Array, "... width"]:
        return super().__call__(x, tap) * self.w + self.b


class NoNorm(nnx.Module):
    """The identity that stands where a norm would."""

    def __init__(self, eps: float, params: Params) -> None:
        pass

    def __call__(self, x: Float[Array, "... width"], tap: Tap) -> Float[Array, "... width"]:
        return x


Norm = RMSNormPre | NoNorm

NORMS: dict[str | None, type[RMSNormPre] | type[NoNorm]] = {
    "LN": LayerNorm,
    "LNPre": LayerNormPre,
    "RMS": RMSNorm,
    "RMSPre": RMSNormPre,
    None: NoNorm,
}
"""The norm of every ``normalization_type``."""

"""Initial weights, as TransformerLens 3.9 draws them: W_* normal, biases zero, norm gains one."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import PRNGKeyArray

from revinc import HookedTransformerConfig
from revinc.weights import parameter_shapes


def init_params(cfg: HookedTransformerConfig, key: PRNGKeyArray) -> dict[str, Array]:
    """Parameters by name: every ``W_*`` ~ N(0, initializer_range²), 0.8 / sqrt(d_model) by default.

    All weights are one draw in float32, cut up: one small program to compile, and a float64 model
    starts from the very numbers of its float32 twin.
    """
    shapes = parameter_shapes(cfg)
    sizes = [math.prod(shape) for name, shape in shapes.items() if ".W_" in name]
    draw = jax.random.normal(key, (sum(sizes),), jnp.float32) * jnp.float32(cfg.initializer_range)
    pieces = iter(jnp.split(draw, [sum(sizes[:i]) for i in range(1, len(sizes))]))

    def initial(name: str, shape: tuple[int, ...]) -> Array:
        if ".W_" in name:
            return next(pieces).reshape(shape).astype(cfg.dtype)
        return jnp.full(shape, 1.0 if name.endswith(".w") else 0.0, cfg.dtype)

    return {name: initial(name, shape) for name, shape in shapes.items()}

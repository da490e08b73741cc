"""Initial weights, as TransformerLens 3.9 draws them: W_* at random, biases zero, norm gains one."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import PRNGKeyArray

from revinc import HookedTransformerConfig
from revinc.weights import parameter_shapes

Shape = tuple[int, ...]


STANDARD_DEVIATIONS: dict[str, Callable[[int, int], float]] = {
    "gpt2": lambda fan_in, fan_out: 1.0,
    "xavier": lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out)),
    "kaiming": lambda fan_in, fan_out: math.sqrt(2 / fan_in),
}
"""For the first word of an ``init_mode``, a weight's deviation by its inputs and outputs, over ``initializer_range``.

Xavier: Glorot and Bengio 2010, eq. 16. Kaiming: He et al. 2015, eq. 14, whose factor for a ReLU
TransformerLens gives every weight.
"""


def init_params(cfg: HookedTransformerConfig, key: PRNGKeyArray) -> dict[str, Array]:
    """Parameters by name: every ``W_*`` from ``cfg.init_mode``, N(0, initializer_range²) by default.

    All weights are one draw in float32, cut up: one small program to compile, and a float64 model
    starts from the very numbers of its float32 twin.
    """
    shapes = parameter_shapes(cfg)
    mode, _, distribution = cfg.init_mode.partition("_")
    deviation = STANDARD_DEVIATIONS[mode]
    sizes = [math.prod(shape) for name, shape in shapes.items() if "W_" in name]
    draw = standard_draw(distribution, key, sum(sizes))
    pieces = iter(jnp.split(draw, [sum(sizes[:i]) for i in range(1, len(sizes))]))

    def initial(name: str, shape: Shape) -> Array:
        if "W_" in name:
            scale = jnp.float32(cfg.initializer_range * deviation(*fans(shape)))
            return (next(pieces) * scale).reshape(shape).astype(cfg.dtype)
        return jnp.full(shape, 1.0 if name.endswith(".w") else 0.0, cfg.dtype)

    return {name: initial(name, shape) for name, shape in shapes.items()}


def standard_draw(distribution: str, key: PRNGKeyArray, n: int) -> Array:
    """`n` numbers of mean 0 and deviation 1, uniformly distributed or (by default) normally."""
    if distribution == "uniform":
        return jax.random.uniform(key, (n,), jnp.float32, -math.sqrt(3), math.sqrt(3))
    return jax.random.normal(key, (n,), jnp.float32)


def fans(shape: Shape) -> tuple[int, int]:
    """A weight's inputs and outputs, as TransformerLens counts them: all heads' for [n_heads, in, out]."""
    *heads, fan_in, fan_out = shape
    return fan_in, math.prod(heads) * fan_out

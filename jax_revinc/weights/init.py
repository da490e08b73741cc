"""Initial weights, drawn like TransformerLens 3.9's: random W_*, biases 0, norm gains 1."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import PRNGKeyArray

from jax_revinc.compilation.numerical_settings import PRNG
from revinc import HookedTransformerConfig, UserError
from revinc.weights import parameter_shapes

Shape = tuple[int, ...]


STANDARD_DEVIATIONS: dict[str, Callable[[int, int], float]] = {
    "gpt2": lambda fan_in, fan_out: 1.0,
    "xavier": lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out)),
    "kaiming": lambda fan_in, fan_out: math.sqrt(2 / fan_in),
}
"""By the first word of an ``init_mode``, a weight's standard deviation from its inputs and outputs.

The deviation is in units of ``initializer_range``.
Xavier: Glorot and Bengio 2010, eq. 16. Kaiming: He et al. 2015, eq. 14, whose factor for a ReLU
TransformerLens gives every weight.
"""


def make_key(seed: int) -> PRNGKeyArray:
    """The JAX random key of a seed from 0 to 2**64 - 1.

    It is ``jax.random.key(seed)``, which by itself drops the upper half of the seed in float32.

    Raises:
        UserError: for any other seed.
    """
    if not 0 <= seed < 2**64:
        raise UserError(f"a seed must be at least 0 and below 2**64, not {seed}")
    halves = np.array([seed >> 32, seed % 2**32], np.uint32)
    return jax.random.wrap_key_data(jnp.asarray(halves), impl=PRNG)


def init_params(cfg: HookedTransformerConfig, key: PRNGKeyArray) -> dict[str, Array]:
    """The initial parameters of a model, by TransformerLens names.

    Every ``W_*`` is drawn by ``cfg.init_mode``; by default it is N(0, initializer_range²).

    All weights are cut from one draw in float32. So there is one small program to compile, and a
    float64 model starts from the same numbers as its float32 twin.

    Args:
        cfg: the model config.
        key: from `make_key`.

    Raises:
        UserError: for a key of another generator, which ``JAX_DEFAULT_PRNG_IMPL`` can cause.
    """
    if str(jax.random.key_impl(key)) != PRNG:
        raise UserError(
            f"weights are drawn with random keys of type {PRNG}, not {jax.random.key_impl(key)}; "
            f'pass rngs=nnx.Rngs(jax.random.key(0, impl="{PRNG}"))'
        )
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
    """`n` random numbers of mean 0 and standard deviation 1, uniform or (by default) normal."""
    if distribution == "uniform":
        return jax.random.uniform(key, (n,), jnp.float32, -math.sqrt(3), math.sqrt(3))
    return jax.random.normal(key, (n,), jnp.float32)


def fans(shape: Shape) -> tuple[int, int]:
    """The fan-in and the fan-out of a weight; all heads count as outputs, as in TransformerLens."""
    *heads, fan_in, fan_out = shape
    return fan_in, math.prod(heads) * fan_out

"""Random weights by the rules of TransformerLens' ``init_*_`` functions, with a key.

An array can't be filled in place here, so each function returns a new one of the same shape.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

from jax import Array
from jaxtyping import Float, PRNGKeyArray

from jax_revinc.compilation.numerical_settings import keeps_precision
from jax_revinc.weights.init import fans, standard_draw
from revinc.errors import UserError
from revinc.validation import require_choice

NonlinearityType = Literal[
    "linear",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "sigmoid",
    "tanh",
    "relu",
    "leaky_relu",
    "selu",
]
"""What a weight's outputs go through, by torch's names."""


def calc_fan_in_and_fan_out(tensor: Any) -> tuple[int, int]:
    """The number of inputs and of outputs of a bias, a weight or the weights of all heads.

    Args:
        tensor: an array [outputs], [inputs, outputs] or [heads, inputs, outputs].

    Raises:
        UserError: for an array of another number of axes.
    """
    shape = tuple(tensor.shape)
    if not 1 <= len(shape) <= 3:
        raise UserError(f"an array of shape {list(shape)} has no fan-in and fan-out")
    return fans((1, *shape) if len(shape) == 1 else shape)


def init_xavier_uniform_(
    param: Float[Array, "*shape"], gain: float = 1.0, *, key: PRNGKeyArray
) -> Float[Array, "*shape"]:
    """Uniform weights of variance ``2 gain² / (fan_in + fan_out)``, of the shape of `param`."""
    return draw("uniform", param, gain * xavier_deviation(param), key)


def init_xavier_normal_(
    param: Float[Array, "*shape"], gain: float = 1.0, *, key: PRNGKeyArray
) -> Float[Array, "*shape"]:
    """Normal weights of variance ``2 gain² / (fan_in + fan_out)``, of the shape of `param`."""
    return draw("normal", param, gain * xavier_deviation(param), key)


def init_kaiming_uniform_(
    param: Float[Array, "*shape"],
    a: float = 0,
    nonlinearity: NonlinearityType = "relu",
    gain: float = 1.0,
    mode: str = "fan_in",
    *,
    key: PRNGKeyArray,
) -> Float[Array, "*shape"]:
    """Uniform weights of variance ``gain² / fan_in``, times the square of `calculate_gain`.

    Args:
        param: an array of the shape and type to draw.
        a: the slope of a leaky ReLU below 0.
        nonlinearity: what the outputs go through.
        gain: a factor of the standard deviation.
        mode: "fan_in"; anything else divides by the fan-out.
        key: a random key, such as ``jax.random.key(0)``.

    Raises:
        UserError: for an unknown nonlinearity, or an array without a fan-in.
    """
    return draw("uniform", param, gain * kaiming_deviation(param, a, nonlinearity, mode), key)


def init_kaiming_normal_(
    param: Float[Array, "*shape"],
    a: float = 0,
    nonlinearity: NonlinearityType = "relu",
    gain: float = 1.0,
    mode: str = "fan_in",
    *,
    key: PRNGKeyArray,
) -> Float[Array, "*shape"]:
    """Normal weights; the arguments are those of `init_kaiming_uniform_`."""
    return draw("normal", param, gain * kaiming_deviation(param, a, nonlinearity, mode), key)


def xavier_deviation(param: Any) -> float:
    """Xavier's standard deviation of a weight (Glorot and Bengio 2010, eq. 16)."""
    return math.sqrt(2 / sum(calc_fan_in_and_fan_out(param)))


def kaiming_deviation(param: Any, a: float, nonlinearity: NonlinearityType, mode: str) -> float:
    """Kaiming's standard deviation of a weight (He et al. 2015, eq. 14)."""
    fan_in, fan_out = calc_fan_in_and_fan_out(param)
    return calculate_gain(nonlinearity, a) / math.sqrt(fan_in if mode == "fan_in" else fan_out)


def calculate_gain(nonlinearity: NonlinearityType, a: float = 0) -> float:
    """The factor by which torch scales weights before a nonlinearity; `a` is a leaky ReLU's slope.

    Raises:
        UserError: for an unknown nonlinearity.
    """
    require_choice("nonlinearity", nonlinearity, get_args(NonlinearityType))
    gains = {"tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4}
    gains["leaky_relu"] = math.sqrt(2 / (1 + a**2))
    return gains.get(nonlinearity, 1.0)


@keeps_precision
def draw(
    distribution: str, param: Float[Array, "*shape"], deviation: float, key: PRNGKeyArray
) -> Float[Array, "*shape"]:
    """Random numbers of mean 0, of the shape and type of `param`."""
    numbers = standard_draw(distribution, key, math.prod(param.shape))
    return (numbers * deviation).reshape(param.shape).astype(param.dtype)

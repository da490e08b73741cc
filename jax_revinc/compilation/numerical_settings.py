"""Fix the JAX settings that can change the result of a computation, such as its precision."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np

from revinc import HookedTransformerConfig, UserError

P = ParamSpec("P")
R = TypeVar("R")

PRNG = "threefry2x32"
"""The name of the generator of all random numbers."""


@contextmanager
def numerics(cfg: HookedTransformerConfig) -> Iterator[None]:
    """A context in which JAX computes in the precision of `cfg`.

    All other settings that decide bits, or whether a program runs, are JAX's defaults, whatever
    ``jax.config`` or the environment say: random numbers, promotion, compilation. Checks for NaN
    and infinity are off, because masked scores are -inf. Products have full precision (a GPU would
    use TF32), unless ``jax_default_matmul_precision`` is set. The settings hold for this thread.

    Wrap your own ``jax.jit`` calls on a float64 model in it; the model's methods do so themselves.

    Args:
        cfg: the model config.
    """
    with computing_in(cfg.dtype):
        yield


@contextmanager
def computing_in(dtype: str) -> Iterator[None]:
    """A context in which JAX computes in the precision `dtype`, with fixed numerical settings.

    The settings are those that `numerics` describes.

    Args:
        dtype: "float32" or "float64".
    """
    asked = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    with ExitStack() as settings:
        for setting in (
            jax.enable_x64(dtype == "float64"),
            jax.default_matmul_precision(asked or "highest"),
            jax.default_prng_impl(PRNG),
            jax.threefry_partitionable(True),
            jax.numpy_dtype_promotion("standard"),
            jax.numpy_rank_promotion("allow"),
            jax.disable_jit(False),
            jax.debug_nans(False),
            jax.debug_infs(False),
            jax.transfer_guard("allow"),
        ):
            settings.enter_context(setting)
        yield


def with_numerics(method: Callable[P, R]) -> Callable[P, R]:
    """A decorator that runs a function of a model in the precision of that model.

    Args:
        method: a function whose first argument is a `HookedTransformer`.
    """
    first = next(iter(inspect.signature(method).parameters))

    @functools.wraps(method)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        model = args[0] if args else kwargs.get(first)
        cfg = getattr(model, "cfg", None)
        if not isinstance(cfg, HookedTransformerConfig):
            raise UserError(f"{first} must be a HookedTransformer, not {type(model).__name__}")
        with numerics(cfg):
            return method(*args, **kwargs)

    return wrapped


def keeps_precision(function: Callable[P, R]) -> Callable[P, R]:
    """A decorator that runs a function of arrays in float64 if one of them is float64.

    Outside `numerics` JAX would compute in float32. Where float64 is enabled it stays so. Numbers
    that are no arrays do not count.

    Args:
        function: a function whose arguments are arrays, trees of arrays, or anything else.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        enabled = jax.config.jax_enable_x64  # type: ignore[attr-defined]
        wide = enabled or any(map(is_wide, jax.tree.leaves((args, kwargs))))
        with computing_in("float64" if wide else "float32"):
            return function(*args, **kwargs)

    return wrapped


def is_wide(value: Any) -> bool:
    """Whether `value` is an array of 64-bit floats, or of complex numbers made of two of them."""
    name = "" if isinstance(value, np.generic) else str(getattr(value, "dtype", ""))
    return name in ("float64", "complex128")

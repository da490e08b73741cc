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

FIXED = {
    "default_prng_impl": PRNG,
    "threefry_partitionable": True,
    "numpy_dtype_promotion": "standard",
    "numpy_rank_promotion": "allow",
    "disable_jit": False,
    "debug_nans": False,
    "debug_infs": False,
}
"""JAX's settings that every computation has, by name."""

GUARDS = (
    "transfer_guard",
    *(
        f"transfer_guard_{way}"
        for way in (
            "host_to_device",
            "device_to_device",
            "device_to_host",
        )
    ),
)
"""JAX's settings that can forbid to copy arrays between devices."""


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
    config: Any = jax.config
    wanted = FIXED | {
        "enable_x64": dtype == "float64",
        "default_matmul_precision": config.jax_default_matmul_precision or "highest",
    }
    with ExitStack() as settings:
        # Every call of a model comes here, and entering a setting takes longer than reading it.
        for name, value in wanted.items():
            if getattr(config, f"jax_{name}") != value:
                settings.enter_context(getattr(jax, name)(value))
        if any(getattr(config, f"jax_{guard}") not in (None, "allow") for guard in GUARDS):
            settings.enter_context(jax.transfer_guard("allow"))
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

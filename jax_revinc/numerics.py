"""float64 and matmul precision as a property of the config, never of a global flag."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import ParamSpec, TypeVar

import jax

from revinc import HookedTransformerConfig

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def numerics(cfg: HookedTransformerConfig) -> Iterator[None]:
    """Within it JAX computes as `cfg` says: float64 if it asks for it, else float32.

    Products are of full precision (a GPU would take TF32), unless ``jax_default_matmul_precision`` is set.

    Wrap your own ``jax.jit`` calls on a float64 model in it; the model's methods do it themselves.
    """
    wide = jax.enable_x64(True) if cfg.dtype == "float64" else nullcontext()
    asked = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    with wide, jax.default_matmul_precision(asked or "highest"):
        yield


def with_numerics(method: Callable[P, R]) -> Callable[P, R]:
    """Runs a method of an object that has a ``cfg`` within `numerics`."""

    @functools.wraps(method)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with numerics(args[0].cfg):  # type: ignore[attr-defined]
            return method(*args, **kwargs)

    return wrapped

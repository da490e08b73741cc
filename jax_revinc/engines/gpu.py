"""How programs are compiled for a GPU: so that what is computed twice has the same bits.

By default XLA times several kernels for a matrix product when it compiles, and keeps the fastest, so
two processes may compute by different ones. Here the choice is fixed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Protocol

import jax

COMPILER_OPTIONS = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}
"""XLA's options for every program that trains or evaluates on a GPU.

Nothing is timed, and cuBLAS computes the matrix products: without timing, XLA's own kernels for them
find no tiles for some shapes, such as those of the preset ``grokking``, and do not compile.
"""

CUBLAS = ("nvidia-cublas-cu12", "nvidia-cublas")
"""The distributions that may hold cuBLAS."""


class Program(Protocol):
    """The type of compiled functions, which can also be lowered ahead of time."""

    def __call__(self, *args: Any) -> Any: ...

    def lower(self, *args: Any) -> jax.stages.Lowered:
        """Lower the function for arguments of some shapes, without computing anything."""


def jit(function: Callable[..., Any], **how: Any) -> Program:
    """``jax.jit`` with the compiler options of this module. Call the result at the top level only.

    Args:
        function: a function of pytrees of arrays.
        how: further arguments of ``jax.jit``.
    """
    return jax.jit(function, compiler_options=COMPILER_OPTIONS, **how)


@dataclass(frozen=True)
class OnItsDevice:
    """A function that is compiled in another way for GPUs.

    Attributes:
        elsewhere: the function for arguments on other devices.
        on_gpu: the function for arguments on a GPU.
    """

    elsewhere: Callable[..., Any]
    on_gpu: Program

    def __call__(self, *args: Any) -> Any:
        return (self.on_gpu if is_on_gpu(args) else self.elsewhere)(*args)


def is_on_gpu(arrays: Any) -> bool:
    """Whether the arrays of JAX's in a pytree are on a GPU; all of them are on one device."""
    placed = (leaf for leaf in jax.tree.leaves(arrays) if isinstance(leaf, jax.Array))
    return any(device.platform == "gpu" for device in next(placed).devices())


def identity_of(device: jax.Device) -> dict[str, str]:
    """What runs on a GPU must share for their bits to be equal, beside the device and JAX.

    Args:
        device: any device; for one that is no GPU there is nothing.
    """
    if device.platform != "gpu":
        return {}
    options = " ".join(f"{name}={value}" for name, value in COMPILER_OPTIONS.items())
    return {
        "compiler_options": options,
        "cuda": " ".join(device.client.platform_version.split()),
        "cublas": cublas_version(),
    }


def cublas_version() -> str:
    """The version of the installed cuBLAS; "of the system" if no distribution holds it."""
    for name in CUBLAS:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "of the system"

"""Compiling in a fraction of the time, for programs that run only once or a few times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import get_opaque_trace_state

OPTIONS: dict[str, bool | int] = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_parallel_codegen_split_count": 1,  # a module of LLVM costs more than most programs' code
    # An option that XLA does not know is an error.
    **({"xla_cpu_use_fusion_emitters": False} if jax.__version_info__ < (0, 11) else {}),
}
"""XLA's options for machine code that LLVM does not optimize. XLA optimizes the computation as ever."""

FLAGS = " ".join(f"--{name}={str(value).lower()}" for name, value in OPTIONS.items())
"""`OPTIONS` for a whole process: a value of the environment variable ``XLA_FLAGS``."""

MOST_QUICK_WORK = 1e10
"""The multiplications from which a program's running time matters more than its compiling time."""


MOST_QUICK_STEP = 1e7
"""The multiplications from which a call that a person repeats is worth LLVM's optimizations."""

with jax.ensure_compile_time_eval():
    _TOP_LEVEL = get_opaque_trace_state(convention="flax")


def is_top_level() -> bool:
    """Whether no ``jit``, ``vmap`` or ``grad`` is being traced."""
    return bool(get_opaque_trace_state(convention="flax") == _TOP_LEVEL)


def quick_jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """``jax.jit`` for a program that runs once: compiles several times as fast, to slower code.

    On a GPU it is ``jax.jit``. Call the result at the top level only: XLA compiles a jitted
    function within another with the options of the outer one, so JAX refuses options there.

    Args:
        function: a function of pytrees of arrays, as for ``jax.jit``.
    """
    on_cpu = jax.default_backend() == "cpu"
    return jax.jit(function, compiler_options=OPTIONS if on_cpu else None)


def may_be_quick(is_quick: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`quick_jit` if `is_quick`, else ``jax.jit``."""
    return quick_jit if is_quick else jax.jit


def options_for(work: float) -> dict[str, bool | int] | None:
    """XLA's options for a program that runs once: quick ones unless running would then take long.

    Without LLVM's optimizations a program compiles several times as fast and, where it multiplies
    large matrices, runs several times as long.

    Args:
        work: about how many multiplications the program does.
    """
    is_quick = jax.default_backend() == "cpu" and work < MOST_QUICK_WORK
    return OPTIONS if is_quick else None

"""Check that a compiled C++ program computes what XLA computes, once per program and machine.

The program and XLA both round, so they differ. The bound is measured: when the inputs are jittered
by an epsilon, XLA's results change by about as much as rounding leaves undecided in this
computation. A program that is off by more than a few times that change computes something else. All
results are compared together, by their root mean square, which hardly varies over many roundings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import metadata
from typing import Any

import jax
import numpy as np

from jax_revinc.compilation.compilation_cache import cache_folder
from jax_revinc.compilation.quick_jit import quick_jit
from jax_revinc.engines.fused.errors import NotFusible
from jax_revinc.engines.fused.toolchain import cpu_features
from revinc.atomic_files import write_bytes
from revinc.user_only_folder import PrivateFolder

DRAWS = 4
"""How often XLA's rounding is measured; the largest change counts."""

TIMES_XLAS_ROUNDING = 8.0
"""How many times XLA's rounding a program may be off: it adds in another order."""

EPSILONS = 16.0
"""Additional epsilons by which it may be off: the error of its own exp, tanh and the like."""


def require_agreement(
    what: str,
    fused: Callable[..., Any],
    expected: Callable[..., Any],
    args: Any,
    evidence: Sequence[str],
) -> None:
    """Check that a compiled program's results agree with XLA's, unless this was shown before.

    Args:
        what: the compared result, such as "gradient", for the error.
        fused: the compiled program: returns a pytree of arrays. Runs under `jax.jit`.
        expected: the same computation by XLA: returns arrays of the same shapes and type.
        args: the arguments of both.
        evidence: what the programs are made from. The outcome is remembered for this evidence,
            this CPU, and this version of the package and of JAX.

    Raises:
        NotFusible: if the results differ by more than rounding explains.
    """
    mark = mark_name(what, evidence)
    if has_mark(mark):
        return
    rng = np.random.default_rng(0)
    with jax.ensure_compile_time_eval():
        by_xla = quick_jit(expected)
        right = concatenate(by_xla(*args))
        off = rms(concatenate(quick_jit(fused)(*args)) - right)
        rounding = max(rms(concatenate(by_xla(*jitter(args, rng))) - right) for _ in range(DRAWS))
    size = rms(right)
    bound = TIMES_XLAS_ROUNDING * rounding + EPSILONS * epsilon(args) * size
    if not off <= bound:
        raise NotFusible(
            f"the fused engine's program is not used, because its {what} differs from XLA's by "
            f"{off:.1e}, where rounding explains at most {bound:.1e} (all as root mean squares; "
            f"XLA's is {size:.1e})"
        )
    leave_mark(mark)


def mark_name(what: str, evidence: Sequence[str]) -> str:
    """The name of the file that marks a compiled program as verified."""
    versions = [metadata.version(package) for package in ("jax-revinc", "jax", "jaxlib")]
    bound = [DRAWS, TIMES_XLAS_ROUNDING, EPSILONS]
    key = json.dumps([what, *evidence, versions, bound, sorted(cpu_features())])
    return f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.agrees"


def has_mark(name: str) -> bool:
    """Whether there is a file that marks a compiled program as verified by this user before."""
    with suppress(OSError), PrivateFolder(cache_folder() / "fused") as folder:
        folder.read(name)
        return True
    return False


def leave_mark(name: str) -> None:
    """Write the file that marks a compiled program as verified. If that fails, the program is
    verified again the next time.
    """
    with suppress(OSError), PrivateFolder(cache_folder() / "fused") as folder:
        write_bytes(folder.path_of(name), b"", mode=0o600)


def jitter(args: Any, rng: np.random.Generator) -> Any:
    """Change every real number of a pytree at random by at most one machine epsilon of its size."""

    def jitter_array(x: Any) -> Any:
        x = np.asarray(x)
        if x.dtype.kind != "f":
            return x
        return x * (1 + np.finfo(x.dtype).eps * rng.integers(-1, 2, x.shape)).astype(x.dtype)

    return jax.tree.map(jitter_array, args)


def concatenate(tree: Any) -> np.ndarray:
    """All elements of a pytree of arrays, as one flat array."""
    return np.concatenate([np.ravel(np.asarray(x, float)) for x in jax.tree.leaves(tree)])


def rms(x: np.ndarray) -> float:
    """The root mean square of an array."""
    return float(np.sqrt(np.mean(np.square(x))))


def epsilon(args: Any) -> float:
    """The machine epsilon of the data type of a pytree's real numbers, which all have one type."""
    (epsilon,) = {np.finfo(x.dtype).eps for x in jax.tree.leaves(args) if x.dtype.kind == "f"}
    return float(epsilon)

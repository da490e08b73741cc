"""Whether a compiled program computes what XLA does: asked once per program and machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jax_revinc.compilation_cache import cache_folder
from jax_revinc.engines.fused.cpu import cpu_features
from jax_revinc.engines.fused.errors import NotFusible
from revinc.atomic import write_atomically


def require_agreement(
    what: str, both: Callable[..., tuple[Any, Any]], args: Sequence[Any], evidence: Sequence[str]
) -> None:
    """Compare two trees of arrays, all their numbers together.

    Args:
        what: is compared, as the subject of a sentence.
        both: returns what was found and what was expected, of the same shapes and type; runs under `jax.jit`.
        args: its arguments.
        evidence: all that the outcome depends on, beside JAX and the CPU. If these agreed before, they do now.

    Raises:
        NotFusible: if they differ by more than rounding.
    """
    said = json.dumps([what, *evidence, jax.__version__, sorted(cpu_features())])
    passed = cache_folder() / "fused" / f"{hashlib.sha256(said.encode()).hexdigest()[:32]}.agrees"
    if passed.exists():
        return
    with jax.ensure_compile_time_eval():
        found, expected = map(jax.tree.leaves, jax.device_get(jax.jit(both)(*args)))
    error, size = (
        np.sqrt(sum(np.sum(np.square(x, dtype=float)) for x in leaves))
        for leaves in ([a - b for a, b in zip(found, expected, strict=True)], expected)
    )
    (epsilon,) = {np.finfo(x.dtype).eps for x in expected if x.dtype.kind == "f"}
    if not error <= 1e4 * epsilon * size:
        raise NotFusible(
            f"{what} is off by {error / size:.1e} of XLA's, which more than rounding explains"
        )
    with contextlib.suppress(OSError):  # then it is asked again
        passed.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(passed, lambda file: file.touch())

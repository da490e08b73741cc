"""From C++ source to a loaded library, compiled at most once per program, compiler and CPU."""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import jax

from jax_revinc.compilation_cache import cache_folder
from jax_revinc.engines.fused import object_cache
from jax_revinc.engines.fused.compiler import CannotBuild, find_compiler
from jax_revinc.engines.fused.cpu import cpu_features, native_flags

logger = logging.getLogger(__name__)


def shared_library(source: str, flags: Sequence[str] = ()) -> ctypes.CDLL:
    """The library that C++17 `source` compiles to on this CPU, with JAX's FFI headers at hand.

    It is kept in ``fused`` under `cache_folder`.

    Args:
        flags: the compiler's, which come last and so overrule those for this CPU; without ``-O3`` nothing is
            optimised. They are for compiling, and don't reach the linker.

    Raises:
        CannotBuild: if there is no compiler, if it refuses the source, or if nothing can be written.
    """
    compiler = find_compiler()
    all_flags = [*native_flags(), *flags]
    parts = (
        source,
        all_flags,
        compiler.command,
        compiler.version,
        platform.machine(),
        sorted(cpu_features()),
        metadata.version("jaxlib"),  # whose headers go into the object
    )
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
    headers = ["-isystem", jax.ffi.include_dir()]

    def compile_to(path: Path) -> None:
        logger.info("Compiling a program of %d lines by %s ...", source.count("\n"), compiler)
        compiler.compile(source, [*headers, *all_flags], path)

    try:
        return object_cache.load(cache_folder() / "fused", key, compile_to)
    except OSError as why:
        raise CannotBuild(
            f"The compiled program can be neither kept nor loaded ({why}): make room, "
            "or let JAX_REVINC_CACHE name a folder that can be written and run from."
        ) from why

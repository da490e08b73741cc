"""Compile C++ source into a library for XLA to call, at most once per program, compiler and CPU."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import json
import logging
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import jax

from jax_revinc.compilation.compilation_cache import cache_folder
from jax_revinc.engines.fused import library_cache
from jax_revinc.engines.fused.errors import CannotBuild
from jax_revinc.engines.fused.toolchain import (
    Compiler,
    cpu_features,
    find_compiler,
    native_flags,
)

logger = logging.getLogger(__name__)

FLAGS = (
    "-O3",
    "-ffp-contract=fast",  # a product and a sum become one instruction
    "-fno-math-errno",
    "-fno-trapping-math",
)
"""The compiler's flags. NaN and infinities stay as IEEE 754 defines them."""


@functools.cache
def ffi_target(source: str, handler: str) -> str:
    """Compile a C++ program, unless that is done already, and register its function `handler` with
    XLA. Return the name under which XLA can call the function.

    Args:
        source: the program's C++.
        handler: the name of a function in it.

    Raises:
        CannotBuild: see `shared_library`; or if the library has no such function.
    """
    name = f"jax_revinc_{handler}_{hashlib.sha256(source.encode()).hexdigest()[:16]}"
    try:
        function = getattr(shared_library(source, FLAGS), handler)
    except AttributeError as why:
        raise CannotBuild(
            f"the library that {find_compiler()} built lacks the function {handler}, which its "
            "source defines; set CXX to another compiler"
        ) from why
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(function), platform="cpu")
    return name


def has_library(source: str) -> bool:
    """Whether the library of a C++ program is there, so that `ffi_target` need not compile it."""
    key = library_key(source, [*native_flags(), *FLAGS], find_compiler())
    return library_cache.has(cache_folder() / "fused", key)


def library_key(source: str, flags: Sequence[str], compiler: Compiler) -> str:
    """A hash of all that a compiled library depends on, in hexadecimal."""
    parts = (
        source,
        flags,
        compiler.command,
        compiler.version,
        platform.machine(),
        sorted(cpu_features()),
        metadata.version("jaxlib"),  # its headers go into the object
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def shared_library(source: str, flags: Sequence[str] = ()) -> ctypes.CDLL:
    """Compile C++17 source for this CPU and load the library. The library is cached on disk, in the
    subfolder ``fused`` of this package's cache folder.

    Args:
        source: the program, which may include JAX's FFI headers.
        flags: for compiling, not for linking; they overrule the flags for this CPU. Nothing is
            optimised without ``-O3``.

    Raises:
        CannotBuild: if there is no compiler, it refuses the source, or nothing can be written.
    """
    compiler = find_compiler()
    all_flags = [*native_flags(), *flags]
    headers = ["-isystem", jax.ffi.include_dir()]

    def compile_to(path: Path) -> None:
        logger.info("Compiling a program of %d lines by %s ...", source.count("\n"), compiler)
        compiler.compile(source, [*headers, *all_flags], path)

    try:
        key = library_key(source, all_flags, compiler)
        return library_cache.load(cache_folder() / "fused", key, compile_to)
    except OSError as why:
        raise CannotBuild(
            f"the library that {compiler} built can't be saved or loaded ({why}): set CXX to "
            "another compiler, or set TMPDIR and JAX_REVINC_CACHE to folders that have free space "
            "and from which programs may be run"
        ) from why

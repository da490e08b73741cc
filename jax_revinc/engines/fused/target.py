"""From a program's source to what XLA calls."""

from __future__ import annotations

import functools
import hashlib

import jax

from jax_revinc.engines.fused.build import shared_library
from jax_revinc.engines.fused.source import FLAGS


@functools.cache
def registered(source: str, handler: str) -> str:
    """The name by which XLA calls a handler of the program with this source, which is built if need be."""
    name = f"jax_revinc_{handler}_{hashlib.sha256(source.encode()).hexdigest()[:16]}"
    function = getattr(shared_library(source, FLAGS), handler)
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(function), platform="cpu")
    return name

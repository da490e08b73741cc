"""Compiled programs on disk, so that only the first run on a machine waits for a compiler."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import jax


def cache_folder() -> Path:
    """Where compiled programs are kept: ``JAX_REVINC_CACHE``, or ``jax-revinc`` in the user's cache folder."""
    if chosen := os.environ.get("JAX_REVINC_CACHE"):
        return Path(chosen)
    usual = "Library/Caches" if sys.platform == "darwin" else ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / usual) / "jax-revinc"


def enable_compilation_cache() -> None:
    """Keep XLA's programs in `cache_folder`, unless JAX_COMPILATION_CACHE_DIR is set."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

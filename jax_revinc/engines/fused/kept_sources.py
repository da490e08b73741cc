"""Generated C++ that is kept on disk, so that later processes need not trace the model again.

A source is kept once it has been compiled and verified. Its file is found by a hash of everything
that the source and its verification depend on, and sealed: see `revinc.sealed_files`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from typing import Any

from jax_revinc.compilation.compilation_cache import cache_folder
from jax_revinc.engines.fused.toolchain import cpu_features, find_compiler
from revinc import sealed_files
from revinc.provenance import source_digest
from revinc.user_only_folder import PrivateFolder

ENDING = ".cpp"
KEPT = 64
"""The most sources that are kept, the last used ones."""

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
"""The packages that decide what is traced, beside our own source."""

Keep = Callable[[str, Callable[[], str]], str]
"""From a program's name and a function that makes its verified source, to the source."""


def make(_name: str, make_source: Callable[[], str]) -> str:
    """Make a source, and keep nothing."""
    return make_source()


def keep_for(key: Any, n_lanes: int) -> Keep:
    """Make the function that returns the sources of a key, kept or made anew.

    Args:
        key: what the programs are made for: named tuples, dataclasses and sets of plain values.
        n_lanes: elements of a SIMD vector.
    """

    def keep(name: str, make_source: Callable[[], str]) -> str:
        kept = read_kept(key, n_lanes, name)
        if kept is not None:
            return kept
        source = make_source()
        with suppress(OSError), PrivateFolder(cache_folder() / "fused") as folder:
            sealed_files.keep(folder, digest(key, n_lanes, name), source.encode(), ENDING)
            sealed_files.prune(folder, ENDING, KEPT)
        return source

    return keep


def read_kept(key: Any, n_lanes: int, name: str) -> str | None:
    """Read the source of a key's program called `name`; None if it is not kept."""
    with suppress(OSError), PrivateFolder(cache_folder() / "fused") as folder:
        if file := sealed_files.find(folder, digest(key, n_lanes, name), ENDING):
            return folder.read(file).decode()
    return None


def digest(key: Any, n_lanes: int, name: str) -> str:
    """A hash of all that a program's source and its verification depend on, in hexadecimal."""
    record = [
        name,
        n_lanes,
        key,
        source_digest("revinc", "jax_revinc"),
        {package: metadata.version(package) for package in PACKAGES},
        sorted(cpu_features()),
        find_compiler().version,
    ]
    return hashlib.sha256(json.dumps(record, default=plain).encode()).hexdigest()[:32]


def plain(value: Any) -> Any:
    """A dataclass or a set as values that JSON can hold."""
    return sorted(value) if isinstance(value, frozenset) else dataclasses.asdict(value)

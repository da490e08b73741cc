"""Programs that are traced once on a machine: what JAX lowered is kept on disk for later processes.

Tracing and lowering take most of the time of a program whose machine code is in JAX's compilation
cache. A program is kept as StableHLO in JAX's own portable format (`jax.export`), which holds no
Python objects. Its file is named by a hash of everything that the program depends on, sealed (see
`revinc.sealed_files`), and lies in a folder that only this user may enter. A file that is damaged
counts as absent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from typing import Any, TypeVar

import jax
import numpy as np
from jax import export

from jax_revinc.compilation.compilation_cache import cache_folder
from jax_revinc.compilation.numerical_settings import numerics
from jax_revinc.compilation.quick_jit import options_for
from revinc import HookedTransformerConfig, sealed_files
from revinc.one_time_warnings import notice
from revinc.provenance import source_digest
from revinc.user_only_folder import PrivateFolder

KEPT = 64
"""The most programs that are kept, the last used ones."""

ENDING = ".stablehlo"
DEPENDENCIES = ("jax", "jaxlib", "flax", "numpy")
"""The packages that decide how a program is traced, beside our own source."""

Result = TypeVar("Result", bound=tuple[Any, ...])
Program = Callable[..., Any]

_loaded: dict[str, Program] = {}
"""The programs that this process has used, by key."""


def keepable(kind: type[Result]) -> type[Result]:
    """A decorator of the `NamedTuple` classes that kept programs return."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    return export.register_namedtuple_serialization(kind, serialized_name=name)


def run_kept(
    function: Callable[..., Any],
    cfg: HookedTransformerConfig,
    settings: Mapping[str, Any],
    arguments: Mapping[str, Any],
    work: float,
) -> Any:
    """Compute ``function(cfg, **settings, **arguments)`` by a compiled program that is kept on disk.

    Args:
        function: a function of our own source, at the top level of its module, that can be traced.
            It depends on nothing but its arguments.
        cfg: the model config, in whose precision the program computes.
        settings: what is compiled in: values that JSON can hold.
        arguments: pytrees of dicts, lists and arrays.
        work: about how many multiplications a call takes; it decides how well the program is
            compiled.

    Returns:
        The result, a pytree of arrays in dicts, lists, tuples and `keepable` classes, as NumPy
        arrays.
    """
    with numerics(cfg):
        structs = jax.tree.map(as_struct, dict(arguments))
        key = key_of(function, cfg, settings, structs)
        if key not in _loaded:

            def with_settings(arguments: Mapping[str, Any]) -> Any:
                return function(cfg, **settings, **arguments)

            exported = load_or_trace(key, with_settings, structs)
            _loaded[key] = jax.jit(exported.call, compiler_options=options_for(work))
        return jax.tree.map(np.asarray, _loaded[key](dict(arguments)))


def as_struct(array: Any) -> jax.ShapeDtypeStruct:
    """The shape and type that an array has inside JAX."""
    return jax.ShapeDtypeStruct(np.shape(array), jax.dtypes.canonicalize_dtype(array.dtype))


def key_of(
    function: Callable[..., Any],
    cfg: HookedTransformerConfig,
    settings: Mapping[str, Any],
    structs: Mapping[str, Any],
) -> str:
    """A hash of everything that a program depends on, hexadecimal."""
    leaves, tree = jax.tree.flatten(structs)
    record = {
        "function": f"{function.__module__}.{function.__qualname__}",
        "source": source_digest("revinc", "jax_revinc"),
        "versions": {package: metadata.version(package) for package in DEPENDENCIES},
        "platform": export.default_export_platform(),
        "matmul_precision": jax.config.jax_default_matmul_precision,  # type: ignore[attr-defined]
        "model": asdict(cfg),
        "settings": dict(settings),
        "arguments": [str(tree), [(leaf.shape, str(leaf.dtype)) for leaf in leaves]],
    }
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:32]


def load_or_trace(
    key: str, function: Callable[..., Any], structs: Mapping[str, Any]
) -> export.Exported:
    """The kept program of that key or, if there is none, the one traced anew, which is then kept.

    Where the folder can't be used, the program is only traced, and a notice says why.
    """
    folder = cache_folder() / "traced"
    with suppress(OSError), PrivateFolder(folder) as kept:
        if name := sealed_files.find(kept, key, ENDING):
            content = kept.read(name)
            with suppress(Exception):  # the format has no error of its own
                return export.deserialize(bytearray(content))
    exported = export.export(jax.jit(function))(structs)
    try:
        with PrivateFolder(folder) as kept:
            sealed_files.keep(kept, key, bytes(exported.serialize()), ENDING)
            sealed_files.prune(kept, ENDING, KEPT)
    except OSError as why:
        notice(f"What JAX traced is not kept in {folder} for the next time: {why.strerror or why}.")
    return exported

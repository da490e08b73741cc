"""Arrays that torch takes long to compute, kept in the user's cache folder for the next check.

A file is named ``{key}-{seal}.safetensors``. The key is a hash of all that determines the arrays, the
seal one of the key and of the file's bytes. A file that was cut short, damaged or renamed doesn't
match its seal, and counts as absent. Anyone can make a seal; `PrivateFolder` ensures that nobody
else has put the file there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from jax_revinc.compilation.compilation_cache import cache_folder
from parity.inputs import Tensors
from revinc.atomic_files import write_bytes
from revinc.one_time_warnings import notice
from revinc.provenance import installed_versions, source_digest
from revinc.user_only_folder import PrivateFolder

KEPT = 16
"""The most files in the folder: those that were written last."""

MOST_BYTES = 2**27
"""The most bytes of arrays that are kept; more are computed for every check."""

ENDING = ".safetensors"


def kept(what: str, given: Mapping[str, Any], compute: Callable[[], Tensors]) -> Tensors:
    """The arrays that `compute` returns, read from the user's cache folder if they are kept there.

    If the folder can't be used, a notice says so, and nothing is kept.

    Args:
        what: the name of the computation.
        given: JSON values and arrays that the arrays depend on. They may also depend on the source
            code, the versions of packages, the processor and the number of torch's threads.
        compute: computes the arrays.
    """
    key = key_of(what, given)
    folder = cache_folder() / "torch"
    with suppress(OSError), PrivateFolder(folder) as files:
        if (found := find(files, key)) is not None:
            return found
    arrays = compute()
    if sum(array.nbytes for array in arrays.values()) <= MOST_BYTES:
        try:
            with PrivateFolder(folder) as files:
                content = save({name: np.ascontiguousarray(a) for name, a in arrays.items()})
                write_bytes(files.path_of(sealed_name(key, content)), content, mode=0o600)
                prune(files)
        except OSError as why:
            notice(f"What torch computed is not kept for the next check: {why}.")
    return arrays


def key_of(what: str, given: Mapping[str, Any]) -> str:
    """A hash of the name of a computation and of all that its result depends on."""
    surroundings = {
        "what": what,
        "versions": installed_versions(),
        "source": source_digest("revinc", "torch_reference", "parity"),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "given": dict(given),
    }
    text = json.dumps(surroundings, sort_keys=True, default=digest)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def digest(array: np.ndarray) -> str:
    """A hash of an array's type, shape and numbers."""
    head = f"{array.dtype.str} {array.shape} "
    return hashlib.sha256(head.encode() + array.tobytes()).hexdigest()


def find(files: PrivateFolder, key: str) -> Tensors | None:
    """The kept arrays with a key; None if there are none, or they are damaged."""
    for name in files.names():
        if name.startswith(f"{key}-") and name.endswith(ENDING):
            with suppress(OSError, SafetensorError):
                content = files.read(name)
                if name == sealed_name(key, content):
                    return dict(load(content))
    return None


def sealed_name(key: str, content: bytes) -> str:
    """The name of the file with this key and content."""
    return f"{key}-{hashlib.sha256(key.encode() + content).hexdigest()[:32]}{ENDING}"


def prune(files: PrivateFolder) -> None:
    """Delete all files but those that were written last."""
    with suppress(FileNotFoundError):  # another process prunes too
        paths = [files.path_of(name) for name in files.names() if ENDING in name]
        for path in sorted(paths, key=lambda path: path.lstat().st_mtime_ns)[:-KEPT]:
            path.unlink(missing_ok=True)

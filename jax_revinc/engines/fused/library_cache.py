"""A cache of compiled libraries on disk. All processes share it, and each library is built once and
checked for damage when it is loaded.

An object is a file ``{key}-{seal}.so``: see `revinc.sealed_files`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock

from revinc import sealed_files
from revinc.one_time_warnings import notice
from revinc.user_only_folder import PrivateFolder

ENDING = ".so"
KEPT = 64
"""The most files in the folder, the last used ones (and at most 256 empty locks)."""


def load(folder: Path, key: str, build: Callable[[Path], None]) -> ctypes.CDLL:
    """Load the compiled library for `key` from the cache, after building it there if it is missing.

    Processes that want the same object at once wait for the one that builds it. If the folder can't
    be used (it is another user's, read-only or full, or nothing in it may be executed), a notice
    says so, and the object is built in a temporary folder.

    Args:
        folder: the cache.
        key: of the object, hexadecimal.
        build: writes the object to a path.

    Raises:
        OSError: if the temporary folder can't be used either, or the object can't be loaded.
    """
    with suppress(OSError), PrivateFolder(folder) as kept:
        if name := sealed_files.find(kept, key, ENDING):
            return _load(kept, name)
    with TemporaryDirectory(prefix="jax-revinc-") as workshop:
        built = Path(workshop) / "program.so"
        try:
            with PrivateFolder(folder) as kept:
                return _load(kept, _find_or_keep(kept, key, build, built))
        except OSError as error:
            why = error.strerror or error
        if not built.exists():
            build(built)
        library = ctypes.CDLL(str(built))
        notice(f"Compiled programs are neither kept in {folder} nor taken from there: {why}.")
        return library


def _load(folder: PrivateFolder, name: str) -> ctypes.CDLL:
    path = folder.path_of(name)
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        path.unlink()  # or it would be found again
        raise


def _find_or_keep(
    folder: PrivateFolder, key: str, build: Callable[[Path], None], built: Path
) -> str:
    with FileLock(folder.path_of(f"{key[:2]}.lock")):
        if found := sealed_files.find(folder, key, ENDING):
            return found
        build(built)
        name = sealed_files.keep(folder, key, built.read_bytes(), ENDING)
        sealed_files.prune(folder, ENDING, KEPT)
        return name

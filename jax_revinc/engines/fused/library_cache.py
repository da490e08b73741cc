"""A cache of compiled libraries on disk. All processes share it, and each library is built once and
checked for damage when it is loaded.

An object is named ``{key}-{seal}.so``, where the seal is a hash of the key and of the object's own
bytes. A file that was cut short, damaged or renamed doesn't match its seal, and counts as absent.
Anyone can make a seal; `PrivateFolder` ensures that nobody else has put the file there.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock

from revinc.atomic_files import write_bytes
from revinc.one_time_warnings import notice
from revinc.user_only_folder import PrivateFolder

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
        if name := _find(kept, key):
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
        if found := _find(folder, key):
            return found
        build(built)
        content = built.read_bytes()
        name = _sealed_name(key, content)
        write_bytes(folder.path_of(name), content, mode=0o600)
        _mark_as_used(folder.path_of(name))
        _prune(folder)
        return name


def _find(folder: PrivateFolder, key: str) -> str | None:
    for name in folder.names():
        if name.startswith(f"{key}-") and name.endswith(".so"):
            with suppress(OSError):
                if name == _sealed_name(key, folder.read(name)):
                    _mark_as_used(folder.path_of(name))
                    return name
    return None


def _mark_as_used(path: Path) -> None:
    """Set a file's modification time to now, in nanoseconds: the file system by itself would round
    it to a few milliseconds.
    """
    with suppress(OSError):  # objects are loaded from a read-only folder too
        os.utime(path, ns=(time.time_ns(), time.time_ns()))


def _sealed_name(key: str, content: bytes) -> str:
    return f"{key}-{hashlib.sha256(key.encode() + content).hexdigest()[:32]}.so"


def _prune(folder: PrivateFolder) -> None:
    with suppress(FileNotFoundError):  # another process prunes too
        objects = [folder.path_of(name) for name in folder.names() if ".so" in name]
        for path in sorted(objects, key=lambda path: path.lstat().st_mtime_ns)[:-KEPT]:
            path.unlink(missing_ok=True)

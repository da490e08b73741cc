"""Shared objects on disk: built once for all processes, and loaded only when whole.

An object is named ``{key}-{seal}.so``, where the seal is a hash of the key and of the object's own bytes. A file that
was cut short, damaged, renamed or put there by something else doesn't bear its seal, and counts as absent. The seal
guards against accidents, not against someone who may write to the folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock

from revinc.atomic import write_atomically

KEPT = 64
"""How many files a folder keeps: those used last (and at most 256 empty locks)."""


def load(folder: Path, key: str, build: Callable[[Path], None]) -> ctypes.CDLL:
    """The object of `key` (hexadecimal) in `folder`; if there is none, `build(path)` makes it.

    Processes that want the same object at once wait for the one that builds it. Where the folder can't be used (it
    is read-only, full, or nothing in it may be run) a warning says so, and the object lives in a temporary folder.

    Raises:
        OSError: if the temporary folder can't be used either.
    """
    with contextlib.suppress(OSError):
        if found := _find(folder, key):
            return ctypes.CDLL(str(found))
    with TemporaryDirectory(prefix="jax-revinc-") as workshop:
        built = Path(workshop) / "program.so"
        try:
            return ctypes.CDLL(str(_find_or_store(folder, key, build, built)))
        except OSError as why:
            warnings.warn(
                f"A compiled program can't be kept for the next time: {why}", stacklevel=2
            )
        if not built.exists():
            build(built)
        return ctypes.CDLL(str(built))


def _find_or_store(folder: Path, key: str, build: Callable[[Path], None], built: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{key[:2]}.lock"):
        if found := _find(folder, key):
            return found
        build(built)
        content = built.read_bytes()
        stored = folder / _sealed_name(key, content)
        write_atomically(stored, lambda file: file.write_bytes(content))
        _prune(folder)
        return stored


def _find(folder: Path, key: str) -> Path | None:
    for path in folder.glob(f"{key}-*.so"):
        if path.name == _sealed_name(key, path.read_bytes()):
            with contextlib.suppress(OSError):  # a read-only folder serves objects too
                os.utime(path)
            return path
    return None


def _sealed_name(key: str, content: bytes) -> str:
    return f"{key}-{hashlib.sha256(key.encode() + content).hexdigest()[:32]}.so"


def _prune(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # another process prunes too
        oldest_first = sorted(folder.glob("*.so*"), key=lambda path: path.stat().st_mtime)
        for path in oldest_first[:-KEPT]:
            path.unlink(missing_ok=True)

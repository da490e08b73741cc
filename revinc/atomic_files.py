"""Atomic file writing: a file is never left half-written, whatever happens in between.

Every file of the program is written here. A temporary file is new and has a random name, so a link
at its path is never followed, and two writers never share a file.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PARTIAL = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{16}\.partial|(?P<earlier>.+)\.partial", re.DOTALL)
"""Names of temporary files, also those of earlier versions."""

NEW_FILE = (
    os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
)

GROWING_FILE = os.O_WRONLY | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def write_atomically(path: Path, write: Callable[[BinaryIO], object], mode: int = 0o666) -> None:
    """Write a temporary file beside `path`, flush it to disk, then rename it to `path`.

    A link at `path` is replaced, not followed.

    Args:
        path: the file.
        write: writes the content to the binary file that it is given.
        mode: the permissions, which the umask reduces; by default those of ``open(path, "w")``.

    Raises:
        OSError: naming `path`, if the disk is full or the folder not writable; then `path` is
            unchanged.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    with errors_that_name(path, temporary):
        descriptor = os.open(temporary, NEW_FILE, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Write bytes to a file, whole or not at all, by `write_atomically`."""
    write_atomically(path, lambda file: file.write(content), mode)


def append_bytes(path: Path, content: bytes) -> None:
    """Append bytes to an existing file, and flush it to disk.

    Only where the process is killed may the file end with a part of `content`: after an error it
    ends where it did before. A link at `path` is not followed.

    Raises:
        OSError: naming `path`, if the disk is full, the file is gone, or it is a link.
    """
    with errors_that_name(path, path):
        descriptor = os.open(path, GROWING_FILE)
        try:
            n_bytes = os.fstat(descriptor).st_size
            try:
                rest = memoryview(content)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
                os.fsync(descriptor)
            except BaseException:
                os.ftruncate(descriptor, n_bytes)
                raise
        finally:
            os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write text to a file, whole or not at all; what UTF-8 can't encode is written as escapes."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def target_of(name: str) -> str:
    """The final name of a temporary file; a name of another form is returned unchanged."""
    found = PARTIAL.fullmatch(name)
    return (found["name"] or found["earlier"]) if found else name


def remove_leftovers(folder: Path, is_ours: Callable[[str], bool]) -> None:
    """Delete temporary files that killed processes left in a folder. The caller holds its lock.

    Args:
        folder: the folder.
        is_ours: whether a file of this name is written only by holders of the lock.
    """
    for file in list(folder.iterdir()):
        target = target_of(file.name)
        if target != file.name and is_ours(target):
            file.unlink(missing_ok=True)


@contextmanager
def errors_that_name(path: Path, temporary: Path) -> Iterator[None]:
    """A context manager that puts the path of the final file into errors of writing it.

    An OSError that names the file `temporary`, or no file, is raised again with the name `path`.
    """
    try:
        yield
    except OSError as error:
        if error.filename not in (None, str(temporary)):
            raise
        if error.errno is None:
            raise OSError(f"{path} can't be written: {error}") from error
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error

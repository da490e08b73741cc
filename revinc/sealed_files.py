"""Files of a user's own folder, each sealed: its name holds a hash of its key and its content.

A file is named ``{key}-{seal}{ending}``. One that was cut short, damaged or renamed doesn't match its
seal, and counts as absent. Anyone can make a seal; `PrivateFolder` ensures that nobody else has put
the file there.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

from revinc.atomic_files import write_bytes
from revinc.user_only_folder import PrivateFolder


def find(folder: PrivateFolder, key: str, ending: str) -> str | None:
    """The name of the sound file for a key, which counts as used now; None if there is none."""
    for name in folder.names():
        if name.startswith(f"{key}-") and name.endswith(ending):
            with suppress(OSError):
                if name == sealed_name(key, folder.read(name), ending):
                    mark_as_used(folder.path_of(name))
                    return name
    return None


def keep(folder: PrivateFolder, key: str, content: bytes, ending: str) -> str:
    """Write the file for a key in the place of any other, which is damaged; return its name.

    Raises:
        OSError: if the folder can't be written.
    """
    name = sealed_name(key, content, ending)
    write_bytes(folder.path_of(name), content, mode=0o600)
    mark_as_used(folder.path_of(name))
    for other in folder.names():
        if other.startswith(f"{key}-") and other.endswith(ending) and other != name:
            folder.path_of(other).unlink(missing_ok=True)
    return name


def sealed_name(key: str, content: bytes, ending: str) -> str:
    """The name of the file for a key with a content."""
    return f"{key}-{hashlib.sha256(key.encode() + content).hexdigest()[:32]}{ending}"


def mark_as_used(path: Path) -> None:
    """Set a file's modification time to now, in nanoseconds: the file system by itself would round
    it to a few milliseconds.
    """
    with suppress(OSError):  # files are used in a read-only folder too
        os.utime(path, ns=(time.time_ns(), time.time_ns()))


def prune(folder: PrivateFolder, ending: str, most: int) -> None:
    """Delete all files of an ending, also half-written ones, but the `most` that were used last."""
    with suppress(FileNotFoundError):  # another process prunes too
        files = [folder.path_of(name) for name in folder.names() if ending in name]
        for path in sorted(files, key=lambda path: path.lstat().st_mtime_ns)[:-most]:
            path.unlink(missing_ok=True)

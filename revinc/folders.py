"""Run and population folders: creating and locking them, without touching other programs' files."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock, Timeout

from revinc.atomic_files import target_of
from revinc.errors import UserError, several

LOCK = ".lock"
"""The lock file: its holder alone writes the folder."""

ASIDE = re.compile(r"(?P<name>.+)\.damaged(\.[0-9]+)?", re.DOTALL)
"""Names of files and folders that were set aside."""


def make_folder(path: Path, kind: str, config: str, parts: set[str]) -> None:
    """Create the folder of a run or population, unless it exists.

    Takes the arguments of `check_folder`, and raises what it raises.
    """
    check_folder(path, kind, config, parts)
    path.mkdir(parents=True, exist_ok=True)


def check_folder(path: Path, kind: str, config: str, parts: set[str]) -> None:
    """Check that a path can be the folder of a run or population: that it holds nothing else.

    Args:
        path: the folder; it need not exist.
        kind: its kind, such as "run".
        config: the name of its config, which is written last.
        parts: other names that the folder may hold before the config is written; ``folder/name``
            if that folder may hold nothing else.

    Raises:
        UserError: if `path` is a file, or holds files that belong to no `kind`.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; choose a folder for the {kind}")
    if path.is_dir() and not (path / config).is_file():
        names = [file.name for file in path.iterdir()]
        others = strangers(path, {LOCK, config, *parts})
        if names and (others or LOCK not in names):
            raise UserError(
                f"{path} holds files that belong to no {kind} ({several(others or names)}); choose "
                "another --out"
            )


def make_own_folder(path: Path) -> Path:
    """Create a subfolder of a run or population folder, unless it exists, and return its path.

    Raises:
        UserError: as `check_own_folder`.
    """
    check_own_folder(path)
    path.mkdir(exist_ok=True)
    return path


def check_own_folder(path: Path) -> None:
    """Raise a UserError if `path` is a link or a file instead of a folder."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        what = "a link" if path.is_symlink() else "a file"
        raise UserError(f"{path} is {what}, where the program needs a folder; move it away")


def lock(path: Path) -> FileLock:
    """Acquire the lock of a folder, so that no other process writes there until it is released.

    Raises:
        UserError: if another process holds it, or its file is a link.
    """
    file = path / LOCK
    if file.is_symlink():
        raise UserError(f"the lock file {file} is a link, not a regular file; move it away")
    held = FileLock(file, timeout=0)
    try:
        held.acquire()
    except Timeout as error:
        raise UserError(f"{path} is being written by another process; wait for it") from error
    return held


def set_aside(path: Path) -> Path:
    """Rename a damaged file or folder to ``NAME.damaged``, or ``NAME.damaged.2`` if that exists.

    Damaged files are never deleted. Only the holder of the folder's lock may rename them.

    Returns:
        The new path.
    """
    numbers = itertools.chain([""], (f".{number}" for number in itertools.count(2)))
    candidates = (path.with_name(f"{path.name}.damaged{number}") for number in numbers)
    return path.rename(next(aside for aside in candidates if not os.path.lexists(aside)))


def is_aside(name: str) -> bool:
    """Whether a file has the name of a damaged file, such as ``NAME.damaged``; see `set_aside`."""
    return ASIDE.fullmatch(name) is not None


def name_before(name: str) -> str:
    """The name that a file had, or was to have, before it was marked as temporary or damaged."""
    found = ASIDE.fullmatch(name)
    return found["name"] if found else target_of(name)


def strangers(folder: Path, ours: Iterable[str]) -> list[str]:
    """The relative paths of a folder's files that the program did not write.

    Args:
        folder: the folder.
        ours: names that the program writes; ``folder/name`` if that folder may hold nothing else.
            Their temporary files and those set aside count as the program's too.
    """
    ours = set(ours)
    found: list[str] = []
    for file in sorted(folder.iterdir()):
        below = {name.partition("/")[2] for name in ours if name.startswith(f"{file.name}/")}
        if below and file.is_dir() and not file.is_symlink():
            found += [f"{file.name}/{name}" for name in strangers(file, below)]
        elif name_before(file.name) not in ours:
            found.append(file.name)
    return found

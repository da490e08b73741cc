"""Folders that this program alone may fill: it takes none that holds what is somebody else's."""

from __future__ import annotations

from pathlib import Path

from revinc.atomic import TEMPORARY_SUFFIX
from revinc.errors import UserError

LOCK = ".lock"
"""The file by which one process alone writes a folder."""


def make_folder(path: Path, kind: str, config: str, parts: set[str]) -> None:
    """Create a folder for a `kind` of thing such as "run", if need be.

    Args:
        path: the folder.
        kind: what it is for.
        config: the file that says that it holds one: it is the last to be written.
        parts: what else it may hold.

    Raises:
        UserError: if `path` is a file, or holds what belongs to no `kind`.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; choose a folder for the {kind}")
    if path.is_dir() and not (path / config).is_file() and not is_remnant(path, {config, *parts}):
        raise UserError(f"{path} holds files that belong to no {kind}; choose another --out")
    path.mkdir(parents=True, exist_ok=True)


def is_remnant(folder: Path, ours: set[str]) -> bool:
    """Whether a folder without a config is empty, or holds what was left there by a process killed early."""
    names = {file.name.removesuffix(TEMPORARY_SUFFIX) for file in folder.iterdir()}
    return not names or (LOCK in names and names <= {LOCK, *ours})

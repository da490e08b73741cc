"""Folders that only this user can write, so that their files may be trusted and run."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Self

OF_OTHERS = stat.S_IRWXG | stat.S_IRWXO
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class NotPrivate(OSError):
    """An error for a folder or file that other users could have written."""


class PrivateFolder:
    """A folder that this user owns and nobody else may enter, so its files are trusted.

    It is held open, so that it stays the folder that was checked even if its path changes. It is
    created if needed, with its parents. Permissions of other users are removed.

    Attributes:
        path: the path at which it was opened.
    """

    def __init__(self, path: Path, *, files_are_checked: bool = True) -> None:
        """Open a folder, which is created if needed, and check that only this user can write it.

        Args:
            path: the folder.
            files_are_checked: whether its files are opened only by `read`, which checks them. If
                not, a folder that others may write is refused.

        Raises:
            NotPrivate: if it belongs to another user, is a link, or may hold others' files.
            OSError: if it can't be created or opened, or its permissions can't be changed.
        """
        self.path = path
        make_folders(path)
        # The target of a link has another purpose, and its permissions must not change.
        if path.is_symlink():
            raise NotPrivate(f"{path} is a link, not a folder")
        self._folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            state = os.fstat(self._folder)
            if state.st_uid != os.geteuid():
                raise NotPrivate(f"{path} belongs to another user")
            if state.st_mode & WRITABLE_BY_OTHERS and not files_are_checked:
                raise NotPrivate(f"other users may write to {path}; delete that folder")
            if state.st_mode & OF_OTHERS:
                os.fchmod(self._folder, stat.S_IRWXU)
        except BaseException:
            os.close(self._folder)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the folder."""
        os.close(self._folder)

    def names(self) -> list[str]:
        """The names of the files and folders in this folder."""
        return os.listdir(self._folder)  # noqa: PTH208

    def read(self, name: str) -> bytes:
        """The content of a file that only this user can have written.

        Raises:
            NotPrivate: if others own the file or may write it, or it is not a regular file.
            OSError: if it does not exist or can't be read.
        """
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self._folder)
        with os.fdopen(file, "rb") as opened:
            state = os.fstat(file)
            if not (is_written_by_us_alone(state) and stat.S_ISREG(state.st_mode)):
                raise NotPrivate(f"{self.path / name} may have been written by another user")
            return opened.read()

    def path_of(self, name: str) -> Path:
        """A path to a file in the folder, valid while the folder is open.

        It leads through the open folder itself, if the system has such paths.
        """
        through = Path("/proc/self/fd") / str(self._folder)
        return (through if through.is_dir() else self.path) / name


def is_written_by_us_alone(state: os.stat_result) -> bool:
    """Whether a file or folder belongs to this user and nobody else may write it."""
    return state.st_uid == os.geteuid() and not state.st_mode & WRITABLE_BY_OTHERS


def make_folders(path: Path) -> None:
    """Create a folder and its missing parents, accessible to this user only."""
    if not path.is_dir():
        make_folders(path.parent)
        path.mkdir(mode=stat.S_IRWXU, exist_ok=True)

"""The user's settings file, which lists the modules whose tasks may be imported."""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path
from typing import Any

from revinc.errors import UserError, near_names, one_line
from revinc.user_only_folder import is_written_by_us_alone

TRUSTED_MODULES = "trusted_modules"
"""The setting that lists the modules whose tasks are imported if a run or store names them."""

SETTINGS = (TRUSTED_MODULES,)


def settings_file() -> Path | None:
    """The path of the settings file, which need not exist; None for a user without home directory.

    ``$XDG_CONFIG_HOME/jax-revinc/settings.toml``, by default in ``~/.config``.
    """
    folder = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    if not folder.is_absolute():  # the XDG specification ignores others
        try:
            folder = Path.home() / ".config"
        except RuntimeError:
            return None
    return folder / "jax-revinc" / "settings.toml"


def trusted_modules() -> tuple[str, ...]:
    """The modules that the user's settings file lists as trusted; none if there is no such file.

    Raises:
        UserError: if the file belongs to another user, others may write it, or it can't be read.
    """
    file = settings_file()
    settings = _read(file) if file is not None else {}
    modules = settings.get(TRUSTED_MODULES, [])
    if not isinstance(modules, list) or not all(map(_is_module_name, modules)):
        raise UserError(
            f'{file}: {TRUSTED_MODULES} must be a list of modules, such as ["my_tasks"]'
        )
    return tuple(modules)


def _read(file: Path) -> dict[str, Any]:
    try:
        settings = tomllib.loads(_text(file))
    except (FileNotFoundError, NotADirectoryError):  # HOME=/dev/null, as for services
        return {}
    except UserError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} can't be read: {one_line(error)}") from error
    for name in settings:
        if name not in SETTINGS:
            raise UserError(f"{file} has an unknown setting {name!r}{near_names(name, SETTINGS)}")
    return settings


def _text(file: Path) -> str:
    # The opened file itself is checked, not its path; and opening a pipe must not wait.
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as opened:
        status = os.fstat(opened.fileno())
        _require_own(file, status)
        _require_own(file.parent, file.parent.stat())
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"the settings file {file} is not a regular file")
        return opened.read().decode()


def _require_own(path: Path, status: os.stat_result) -> None:
    if not is_written_by_us_alone(status):
        raise UserError(
            f"{path} must belong to you and be writable only by you, because the tasks that it lists "
            "may run their code; use chown and chmod go-w"
        )


def _is_module_name(name: Any) -> bool:
    return isinstance(name, str) and all(part.isidentifier() for part in name.split("."))
